"""The one tree of errors that Callshield raises on purpose.

::

    CallshieldError
    ├── ConfigurationError      the operator's file: names file, key, found, expected
    ├── SetupError              something to install, free or give: port, model, prompt, pjsua2
    ├── ProtocolError           bytes from outside that break their protocol
    │   ├── SdpError            a session description that cannot be used (RFC 8866, RFC 3264)
    │   ├── RtpError            a datagram that is not RTP (RFC 3550)
    │   ├── TapError            a batch on the tap that is not ours
    │   ├── CodecError          a payload that its codec cannot decode
    │   └── AmiProtocolError    what a PBX's manager interface said, or should be told
    ├── BusError                a local socket between our processes failed
    ├── AmiError                the PBX's manager interface is away, late or refuses
    ├── RecordingError          a recording cannot be written, read or exported
    │   ├── RecordingKeyError   a node key is missing, wrong or badly kept
    │   └── RecordingDamaged    a file is not as the recorder wrote it
    ├── EvidenceError           an evidence package cannot be made or opened
    │   └── EvidenceBroken      a package is not as the node that signed it made it
    └── DetectorModelError      a model file is missing or is not the one its card names

``str(error)`` is a sentence that tells a person what to do.
"""

from __future__ import annotations


class CallshieldError(Exception):
    """Root of every error that Callshield raises on purpose."""


class ConfigurationError(CallshieldError):
    """The configuration cannot be used; one line a fault.

    Args:
        faults: each fault as ``(source, key, found, expected)``; ``source`` is a file name or
            ``environment``.
    """

    def __init__(self, faults: list[tuple[str, str, str, str]]) -> None:
        self.faults = faults
        super().__init__(
            "\n".join(
                f"{source}: {key}: found {found}, expected {expected}"
                for source, key, found, expected in faults
            )
        )


class SetupError(CallshieldError):
    """Something outside the program is missing or taken; the message says what to do."""


class ProtocolError(CallshieldError):
    """Bytes from outside break the protocol that they claim to follow."""


class SdpError(ProtocolError):
    """A session description that cannot be parsed or answered (RFC 8866, RFC 3264)."""


class RtpError(ProtocolError):
    """A datagram that is not RTP (RFC 3550 section 5.1)."""


class TapError(ProtocolError):
    """A datagram on the tap socket that is not a batch of ours."""


class CodecError(ProtocolError):
    """A payload that its codec cannot decode, or audio that it cannot encode."""


class AmiProtocolError(ProtocolError):
    """Bytes that are not the Asterisk Manager Interface, or a value that it could not carry."""


class AmiError(CallshieldError):
    """The PBX's manager interface is away, does not answer in time, or refuses."""


class BusError(CallshieldError):
    """A local socket between two of our processes failed."""


class RecordingError(CallshieldError):
    """A recording cannot be written, read or exported."""


class RecordingKeyError(RecordingError):
    """A node key is missing, is not the one that a file needs, or lies open to others."""


class RecordingDamaged(RecordingError):
    """A recording is not as the recorder wrote it: changed, cut up or put together anew."""


class EvidenceError(CallshieldError):
    """An evidence package, its key or its encryption cannot be made, read or opened."""


class EvidenceBroken(EvidenceError):
    """An evidence package is not as it was signed: changed, put together anew, or another key's."""


class DetectorModelError(CallshieldError):
    """A model file is missing, corrupt or not the one that its card names."""
