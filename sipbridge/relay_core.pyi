"""The media relay in C (sipbridge/relay_core/): one thread owns every call's sockets.

The thread never takes Python's lock: audio goes on while Python stands still. What happens to a
packet is in relay.c; the socket-less form (``manual=True``) runs the same code for tests.

Legs are numbered: 0 caller, 1 agent, 2 helper. Codecs go by :class:`callshield.tap.TapCodec`:
0 PCMU, 8 PCMA, 9 G.722, 111 Opus. A ``KeyError`` means that there is no such session or leg.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, final

SRTP_VERSION: Final[str]
"""Of libsrtp2."""

@final
class Clip:
    """An encoded prompt, shared by all calls that play it.

    Args:
        mulaw: one byte a sample at 8 kHz.
        alaw: the same audio, as many bytes.
        codec: 9 or 111 for packets of another codec; G.711 otherwise.
        packets: the payloads of such a codec.
        packet_ms: length of each, 5-60.
    """

    def __new__(
        cls,
        mulaw: bytes = ...,
        alaw: bytes = ...,
        *,
        codec: int = 0,
        packets: list[bytes] = ...,
        packet_ms: int = 20,
    ) -> Clip: ...

@final
class Ear:
    """What protects one agent's ear, by itself: see ear.h and docs/hearing.md."""

    profile_fields: ClassVar[dict[str, tuple[float, float, float]]]
    """Name of each profile key: default, lowest, highest."""

    def __new__(cls, *, soften: bool = ..., levelling: bool = ..., **profile: float) -> Ear: ...
    def process(self, samples: bytes, /) -> bytes:
        """Little-endian int16 at 8 kHz as the agent hears them, of the same length."""
    def set(self, soften: bool, levelling: bool) -> None:
        """Switch softening and levelling; both fade in and out."""
    def reset(self) -> None:
        """Forget the signal; switches, dose and counters stay."""
    def take_dose(self) -> tuple[float, int]:
        """A-weighted sum of squares (full scale 1) and number of samples since the last take."""
    def counters(self) -> dict[str, int]:
        """packets, packets_changed, packets_limited, packets_softened, shock_tones, shock_bursts"""

@final
class Core:
    """The relay of one media worker.

    Args:
        tap_path: the detector's datagram socket; it may appear, vanish and come back.
        codes: feature codes, 1-8 digits each.
        latch_window_s: how long after the SDP a far end behind NAT may show its source.
        ear: fields of the ear's profile by name; None: the defaults.
        manual: no thread, no socket: :meth:`inject` and :meth:`tick` drive it.
    """

    event_fd: int
    """Readable when :meth:`events` has something."""

    def __new__(
        cls,
        tap_path: str,
        codes: list[str],
        latch_window_s: float,
        *,
        ear: Mapping[str, float] | None = None,
        manual: bool = False,
    ) -> Core: ...
    def start(self, priority: int, /) -> str:
        """Start the thread, with this SCHED_RR priority if the machine allows (0: none).

        Returns:
            ``realtime`` or ``ordinary``.
        """
    def stop(self) -> None:
        """End the thread; sockets stay open."""
    def open(
        self,
        call_id: bytes,
        caller_networks: list[tuple[str, int]],
        agent_networks: list[tuple[str, int]],
        /,
    ) -> int:
        """A session; its handle. ``call_id`` has 16 bytes."""
    def add_leg(self, handle: int, leg: int, rtp_fd: int, rtcp_fd: int, /) -> None:
        """Serve two bound, non-blocking sockets; they stay the caller's to close."""
    def remove_leg(self, handle: int, leg: int, /) -> None:
        """Serve them no more; afterwards they may be closed."""
    def promote(self, handle: int, /) -> None:
        """The helper's leg becomes the agent's, which must be removed."""
    def close_call(self, handle: int, /) -> None: ...
    def negotiate(
        self,
        handle: int,
        leg: int,
        sdp: tuple[str, int],
        rtcp_port: int,
        signalling: str,
        codec: int,
        voice_type: int,
        event_type: int,
        noise_type: int,
        ptime_ms: int,
        protect: bool,
        srtp: tuple[int, bytes | None, bytes | None] | None,
    ) -> None:
        """A leg's new SDP.

        Args:
            handle: of the session.
            leg: 0-2.
            sdp: address and port; ``("", 0)`` when the far end takes no media.
            rtcp_port: 0: the one above.
            signalling: address of the leg's SIP; may be empty.
            codec: of the voice.
            voice_type: its payload type.
            event_type: telephone-event; -1 for none.
            noise_type: comfort noise; -1 for none.
            ptime_ms: 10-60; prompts are sent so.
            protect: limit what this leg hears (G.711 only).
            srtp: suite (0 AES_CM_128_HMAC_SHA1_80, 1 _32, 2 AEAD_AES_128_GCM, 3 AEAD_AES_256_GCM),
                key and salt of what we send, and of what we receive (None: that direction's
                are those of before); None: plain RTP.
        """
    def allow(
        self,
        handle: int,
        caller_to_agent: bool,
        agent_to_caller: bool,
        tap: bool,
        record: bool,
        paused: bool,
        conference: bool,
        keys: bool = False,
    ) -> None:
        """What may pass; all false at first. ``keys``: report what the caller presses."""
    def ear(self, handle: int, soften: bool, levelling: bool, /) -> None: ...
    def take_dose(self, handle: int, leg: int, /) -> tuple[float, int]:
        """See :meth:`Ear.take_dose`; of what was sent to this leg."""
    def take_voice(self, handle: int, /) -> int:
        """Milliseconds in which somebody spoke on the agent's leg since the last take, of the time
        in which the caller was tapped; 0 where that leg is not G.711."""
    def play(
        self, handle: int, leg: int, play_id: int, clips: list[Clip], loop: bool, mix: bool, /
    ) -> bool:
        """Begin at the next tick; False when something plays there or nobody would hear."""
    def stop_play(self, handle: int, leg: int, /) -> bool: ...
    def digit(self, handle: int, leg: int, digit: str, /) -> None:
        """A digit that came on this leg by INFO."""
    def stats(self, handle: int, /) -> tuple[list[dict[str, Any] | None], dict[str, int]]:
        """Figures of each leg (None: not open), and of the call."""
    def activity(self) -> dict[int, tuple[float, float, float]]:
        """Monotonic seconds of each leg's newest accepted packet (0: none), by handle."""
    def totals(self) -> dict[str, int]: ...
    def events(self) -> list[tuple[Any, ...]]:
        """What happened: ``("played", handle, leg, play_id, end, frames, failed, spans)`` with
        ``end`` 0 done, 1 stopped, 2 unheard, 3 no address, 4 wrong codec; ``("code", handle, leg,
        index)``; ``("undelivered", handle, leg, digit)``; ``("key", handle, leg, digit)``;
        ``("tap_started", handle, leg)``."""
    def recorded(self) -> bytes:
        """The recorder's frames since the last call."""

    # A manual core only.
    def inject(
        self,
        handle: int,
        leg: int,
        datagram: bytes,
        source: tuple[str, int],
        now_s: float,
        rtcp: bool,
        /,
    ) -> None: ...
    def tick(self, now_s: float, /) -> None: ...
    def sent(self) -> list[tuple[int, int, bool, tuple[str, int], bytes]]:
        """``(handle, leg, is_rtcp, destination, datagram)`` since the last call."""
    def tapped(self) -> list[bytes]:
        """Tap datagrams since the last call."""
    def refuse(self, errno: int, /) -> None:
        """Let every send fail so; 0: none. EAGAIN: the tap is full."""
