"""``callshield doctor``: what would fail, before it fails; one line a check."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from callshield.cluster_command import examine_cluster
from callshield.doctor_evidence import examine_evidence
from callshield.doctor_fairness import (
    check_pseudonyms,
    check_ringback,
    check_shadow,
    kept_beyond_calls,
)
from callshield.doctor_law import examine_law
from callshield.doctor_media import check_media_plane
from callshield.doctor_phone_listener import examine_listener
from callshield.doctor_phones import examine_phones
from callshield.doctor_prompts import check_prompts, check_recording_is_said
from callshield.doctor_store import examine_sign_in, examine_store
from callshield.errors import CallshieldError
from callshield.findings import Finding, Verdict
from callshield.purpose_check import check_uses
from callshield.settings import Settings
from callshield.settings_sip import SideSettings

#: Under this much free space the store is about to fail.
MIN_FREE_MIB = 500


def examine(settings: Settings) -> Iterator[Finding]:
    """Run every check, in the order in which an operator would mend things."""
    checks: list[tuple[str, Callable[[Settings], str]]] = [
        ("pjsua2", _pjsua2),
        ("media relay", _relay),
        ("media plane", check_media_plane),
        ("codecs", _codecs),
        ("prompts", check_prompts),
        ("purposes", check_uses),
        ("acoustic model", _model),
        ("speech model", _speech_model),
        ("words", _words),
        ("word models", _word_models),
        ("folders", _folders),
        ("store", examine_store),
        ("sign-in", examine_sign_in),
        ("cluster", examine_cluster),
        ("recording", _recording),
        ("descriptors", _descriptors),
        ("peers", _peers),
        ("agents", _agents),
        ("sip.pbx port", lambda s: _sip_port(s.sip.pbx, "sip.pbx")),
        ("sip.phone port", lambda s: _sip_port(s.sip.phone, "sip.phone")),
        ("sip tls", _tls),
        ("media ports", _media_ports),
        ("web port", _web_port),
        ("manager interface", _ami),
        ("ring-back", check_ringback),
        ("pseudonyms", check_pseudonyms),
        ("shadow mode", check_shadow),
        ("webhooks", _webhooks),
        ("mail", _mail),
        ("edge", _edge),
    ]
    for name, check in checks:
        try:
            yield Finding(Verdict.OK, name, check(settings))
        except CallshieldError as error:
            yield Finding(Verdict.PROBLEM, name, str(error))
        except _Failed as error:
            yield Finding(Verdict.PROBLEM, name, str(error))
    if longer := kept_beyond_calls(settings):
        yield Finding(Verdict.NOTE, "found by number", longer)
    yield from examine_law(settings)
    yield examine_evidence(settings)
    yield from examine_phones(settings)
    yield from examine_listener(settings)


class _Failed(Exception):
    """A check's own sentence."""


def _pjsua2(settings: Settings) -> str:
    try:
        import pjsip_guard
    except ImportError as error:
        raise _Failed(f"pjsua2 is not installed ({error}): run ./run setup") from None
    from sipbridge.pjsip_stack import SPARE_LEGS

    info = pjsip_guard.info()
    limit = int(info["max_calls"])
    needed = 2 * settings.sip.admission_limit + SPARE_LEGS
    if limit < needed:
        raise _Failed(
            f"{limit} call legs, {needed} needed for sip.admission_limit = "
            f"{settings.sip.admission_limit}: run ./run setup again, or lower the limit"
        )
    return (
        f"{info['pjsip_version']}, {limit} call legs ({limit // 2} calls), {info['tls']}, "
        f"{info['srtp']}, {info['ioqueue']}"
    )


def _relay(settings: Settings) -> str:
    try:
        from sipbridge.relay_core import SRTP_VERSION
    except ImportError as error:
        raise _Failed(f"the relay cannot be loaded ({error}): run ./run setup") from None
    return SRTP_VERSION


def _codecs(settings: Settings) -> str:
    from callshield.audio_codecs import decoder
    from callshield.tap import TapCodec

    wanted = {codec for side in (settings.sip.pbx, settings.sip.phone) for codec in side.codecs}
    found = []
    for codec in TapCodec:
        if codec.name in wanted:
            decoder(codec)
            found.append(codec.name)
    return "can be decoded for analysis: " + ", ".join(found)


def _model(settings: Settings) -> str:
    if not settings.detector.enabled:
        return "switched off by detector.enabled"
    if not settings.detector.acoustic:
        return "switched off by detector.acoustic: words alone raise a level"
    from detectors.acoustic import AcousticModel
    from detectors.thresholds import strangers

    card = AcousticModel(settings.detector.model_dir).card
    unused = strangers(card, settings)
    if unused:
        raise _Failed(
            f"the thresholds of {', '.join(unused)} were found for another model than this one "
            f"({card.sha256[:12]}) and are not used: run callshield calibrate anew, or remove them"
        )
    return f"vocal effort, version {card.version}, sha256 {card.sha256[:12]}…"


def _speech_model(settings: Settings) -> str:
    if not settings.detector.enabled:
        return "switched off by detector.enabled"
    from detectors.silero import SHA256, Silero, find_model

    Silero(find_model(settings.detector.model_dir))
    return f"Silero VAD at 8 kHz, sha256 {SHA256[:12]}…"


def _words(settings: Settings) -> str:
    if not settings.detector.enabled or not settings.transcriber.workers:
        return "switched off by transcriber.workers = 0: no words are heard"
    import numpy as np

    from detectors.asr.load import load_recogniser
    from detectors.asr.protocol import RATE
    from detectors.transcriber import load_pipeline

    pipeline = load_pipeline(settings)
    languages = settings.caller_languages
    hotwords = {language: pipeline.judge.hotwords(language) for language in languages}
    recogniser = load_recogniser(settings.transcriber, languages, hotwords)
    recogniser.transcribe(np.zeros(RATE, dtype=np.int16), settings.caller_languages[0])
    processes = settings.transcriber.workers
    return f"{recogniser.name} works; {processes} process{'es' if processes > 1 else ''}"


def _word_models(settings: Settings) -> str:
    if not settings.detector.enabled or not settings.transcriber.workers:
        return "switched off by transcriber.workers = 0: no words are judged"
    from detectors.transcriber import load_pipeline

    lacking = load_pipeline(settings).lacking
    if lacking:
        raise _Failed("; ".join(lacking))
    return f"lexicons and models of {', '.join(settings.caller_languages)}"


def _folders(settings: Settings) -> str:
    for key, folder in (
        ("node.state_dir", settings.node.state_dir),
        ("node.runtime_dir", settings.node.runtime_dir),
    ):
        existing = _existing(folder)
        if not os.access(existing, os.W_OK | os.X_OK):
            raise _Failed(
                f"{key}: this user cannot write to {existing}: chown it, or choose another"
            )
    free_mib = shutil.disk_usage(_existing(settings.node.state_dir)).free >> 20
    if free_mib < MIN_FREE_MIB:
        raise _Failed(f"{settings.node.state_dir}: {free_mib} MiB free, {MIN_FREE_MIB} needed")
    if len(str(settings.bus_path)) > 100:
        raise _Failed(f"{settings.bus_path} is too long for a Unix socket: shorten runtime_dir")
    return f"{settings.node.state_dir} ({free_mib} MiB free), {settings.node.runtime_dir}"


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _recording(settings: Settings) -> str:
    from sipbridge.recording_keys import load_keys

    recording = settings.recording
    if not recording.enabled:
        return "off"
    check_recording_is_said(settings)
    keys = load_keys(recording.key_file)
    existing = _existing(recording.directory)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise _Failed(
            f"recording.directory: this user cannot write to {existing}: chown it, or choose "
            "another"
        )
    free_mib = shutil.disk_usage(existing).free >> 20
    if free_mib < recording.min_free_mib:
        raise _Failed(
            f"{recording.directory}: {free_mib} MiB free, {recording.min_free_mib} needed "
            "(recording.min_free_mib)"
        )
    return f"{recording.directory} ({free_mib} MiB free), node key {keys.ids()[0]}"


def _ami(settings: Settings) -> str:
    from notifier.ami_secret import load_secret

    if not settings.ami.enabled:
        return "off"
    load_secret(settings.ami)
    if settings.ami.ca_file is not None and not os.access(settings.ami.ca_file, os.R_OK):
        raise _Failed(f"ami.ca_file: {settings.ami.ca_file} cannot be read")
    carried = "TLS" if settings.ami.tls else "not encrypted"
    return f"{settings.ami.host}:{settings.ami.port}, {carried}; `callshield pbx check` tries it"


def _webhooks(settings: Settings) -> str:
    from callshield.doctor_delivery import webhooks

    return webhooks(settings)


def _mail(settings: Settings) -> str:
    from callshield.doctor_delivery import mail

    return mail(settings)


def _edge(settings: Settings) -> str:
    from callshield.doctor_edge import edge

    return edge(settings)


def _descriptors(settings: Settings) -> str:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The media worker: four sockets a call. The bridge: the connections of others, and its own.
    needed = max(4 * settings.sip.admission_limit + 256, 3072)
    if hard < needed:
        raise _Failed(f"{hard} open files allowed, {needed} needed: raise LimitNOFILE (ulimit -n)")
    return f"{soft} (up to {hard}), {needed} needed"


def _peers(settings: Settings) -> str:
    if not settings.peers:
        raise _Failed("no [[peers]]: nobody may send calls; add the PBX's address")
    seen: dict[str, str] = {}
    for peer in settings.peers:
        for what in (f"name {peer.name}", *(f"network {network}" for network in peer.networks)):
            if what in seen:
                raise _Failed(
                    f"the {what} stands in two [[peers]], and only the first counts: put their "
                    "keys into one"
                )
            seen[what] = peer.name
    return ", ".join(f"{peer.name} ({', '.join(peer.networks)})" for peer in settings.peers)


def _agents(settings: Settings) -> str:
    if not settings.agents:
        raise _Failed("no [agents.ID]: no call has a destination; add each agent's phone")
    return f"{len(settings.agents)} phones"


def _bind(address: str, port: int, kind: socket.SocketKind) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))


def _sip_port(side: SideSettings, key: str) -> str:
    try:
        _bind(side.bind, side.port, socket.SOCK_DGRAM)
        _bind(side.bind, side.port, socket.SOCK_STREAM)
    except OSError as error:
        raise _Failed(
            f"{key}: {side.bind} port {side.port} cannot be opened ({error.strerror}): stop what "
            "uses it (ss -lnp; a running node does too), or choose another"
        ) from None
    return f"{side.bind}:{side.port} free (UDP and TCP)"


def _tls(settings: Settings) -> str:
    from sipbridge.tls_files import check_tls_files

    on = []
    for key, side in (("sip.pbx", settings.sip.pbx), ("sip.phone", settings.sip.phone)):
        if not side.tls.enabled:
            continue
        check_tls_files(side.tls, f"{key}.tls")
        try:
            _bind(side.bind, side.tls.port, socket.SOCK_STREAM)
        except OSError as error:
            raise _Failed(
                f"{key}.tls: {side.bind} port {side.tls.port} cannot be opened "
                f"({error.strerror}): stop what uses it, or choose another"
            ) from None
        on.append(f"{side.bind}:{side.tls.port}")
    return f"{' and '.join(on)} free, certificates readable" if on else "off"


def _media_ports(settings: Settings) -> str:
    if settings.media.plane == "rtpengine":
        return "rtpengine's own (its port-min and port-max)"
    for key, side in (("sip.pbx", settings.sip.pbx), ("sip.phone", settings.sip.phone)):
        first, last = side.rtp_ports
        pairs = (last - first + 1) // 2
        if pairs < settings.sip.admission_limit:
            raise _Failed(
                f"{key}.rtp_ports holds {pairs} calls, sip.admission_limit is "
                f"{settings.sip.admission_limit}: widen the range"
            )
        try:
            _bind(side.media_bind, 0, socket.SOCK_DGRAM)
        except OSError as error:
            raise _Failed(
                f"{key}: {side.media_bind} is not an address here ({error.strerror})"
            ) from None
    return f"room for {settings.sip.admission_limit} calls on each side"


def _web_port(settings: Settings) -> str:
    try:
        _bind(settings.web.bind, settings.web.port, socket.SOCK_STREAM)
    except OSError as error:
        raise _Failed(
            f"web: {settings.web.bind} port {settings.web.port} cannot be opened "
            f"({error.strerror}): stop what uses it, or choose another"
        ) from None
    return f"{settings.web.bind}:{settings.web.port} free"
