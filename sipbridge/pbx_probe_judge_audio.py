"""What the audio of a test call means: codec, packets, echo, loss, digits. Pure functions."""

from __future__ import annotations

import re

from callshield.findings import Finding, note, ok, problem
from sipbridge import sdp
from sipbridge.pbx_probe_audio import StreamFigures
from sipbridge.pbx_probe_judge import is_private
from sipbridge.pbx_probe_seen import CallSeen
from sipbridge.sip_message import source_host


def judge_codec(call: CallSeen, audio: sdp.AudioMedia) -> Finding:
    """What was offered and chosen, in which order, in which packets."""
    name = "codec"
    chosen = [codec.name for codec in audio.voice]
    offered = ", ".join(call.offered)
    if not chosen:
        what = ", ".join(str(codec) for codec in audio.codecs) or "none"
        return problem(
            name,
            f"offered {offered}; the PBX answered {what}",
            "allow G.711 for the trunk (Asterisk: disallow=all, allow=alaw,ulaw)",
        )
    detail = f"{chosen[0]} of {offered}"
    if len(chosen) > 1:
        detail += f"; the PBX may also send {', '.join(chosen[1:])}"
    came = {packet.payload_type for packet in call.packets}
    sent_by_pbx = [codec.name for codec in audio.voice if codec.payload_type in came]
    if sent_by_pbx and call.codec not in sent_by_pbx:
        return note(
            name,
            f"{detail}; we send {call.codec}, the PBX sends {', '.join(sent_by_pbx)}",
            "different codecs each way cost the PBX a transcoding: allow one codec on the trunk",
        )
    if chosen[0] not in sdp.G711:
        return note(
            name,
            f"{detail}: not G.711",
            "hearing protection and warnings over the agent's ear need G.711: put alaw or ulaw "
            "first on the trunk",
        )
    if call.offered and chosen[0] != call.offered[0]:
        detail += " (its own order counts, not ours)"
    return ok(name, detail)


def judge_ptime(audio: sdp.AudioMedia, answer: str, figures: StreamFigures) -> Finding:
    """Packet length, as described and as measured."""
    name = "packet length"
    said = re.search(r"^a=ptime:(\d+)", answer, re.MULTILINE)
    described = f"ptime {said[1]} ms" if said else "no ptime in the answer (20 ms is usual)"
    if not figures.ptime_ms:
        return ok(name, described)
    detail = f"{described}, packets of {figures.ptime_ms:.0f} ms came"
    if abs(figures.ptime_ms - 20) > 1:
        return note(
            name,
            detail,
            "20 ms is what most phones and our figures are made for: set it on the trunk "
            "(Asterisk: allow=alaw:20)",
        )
    return ok(name, detail)


def judge_audio(call: CallSeen, audio: sdp.AudioMedia, *, found: bool) -> Finding:
    """Whether our signal came back, and if not, on which way it was probably lost.

    Args:
        call: the observations.
        audio: of the answer.
        found: the echo fits our signal.
    """
    name = "audio both ways"
    if found and call.echo is not None:
        detail = (
            f"our signal came back after {call.echo.delay_ms:.0f} ms, "
            f"{call.echo.gain_db:+.1f} dB (fit {abs(call.echo.correlation):.2f})"
        )
        if abs(call.echo.gain_db) > 6:
            return note(
                name, detail, "the PBX changes the level by more than 6 dB: look at its gains"
            )
        if call.echo.delay_ms > 400:
            return note(name, detail, "that is long: look for transcoding and jitter buffers")
        return ok(name, detail)
    if not call.sent_packets:
        return problem(
            name,
            "the test signal was not sent: the answer takes none of the audio that we offered",
            "see codec and media address above",
        )
    ours = f"{call.local_address} port {call.local_port}"
    theirs = f"{audio.address or 'no address'} port {audio.port}"
    reported = max((report.highest_sequence for report in call.reports), default=0)
    count = f"{call.sent_packets} packets sent to {theirs}, {len(call.packets)} came"
    to_pbx = (
        f"our audio probably does not reach the PBX: open UDP from here to {theirs} (its rtp.conf "
        "range), and check the address in its SDP"
    )
    to_us = (
        f"the PBX's audio probably does not reach us: open UDP from the PBX to {ours} "
        "(sip.pbx.rtp_ports); is that the address by which the PBX reaches us "
        "(sip.pbx.advertised)?"
    )
    if call.icmp_errors:
        return problem(
            name,
            f"no echo: {count}; the machine there answers that nothing listens on that port",
            "the media address or port in the PBX's SDP is wrong (NAT, media_address), or its "
            "firewall rejects RTP",
        )
    if call.send_error:
        return problem(
            name,
            f"our own machine cannot send to {theirs} ({call.send_error})",
            "the PBX's SDP names an address that cannot be reached from here: see above",
        )
    if not call.packets:
        if reported:
            return problem(
                name,
                f"no echo: {count}; the PBX reports by RTCP that it gets our packets",
                to_us,
            )
        if call.rtcp_packets:
            return problem(
                name,
                f"no echo: {count}; RTCP comes from the PBX, but says nothing of our packets",
                to_pbx,
            )
        if is_private(audio.address) and not is_private(source_host(call.response_source)):
            return problem(name, f"no echo: {count}", to_pbx)
        return problem(
            name,
            f"no echo: {count}",
            f"an echo sends only what it gets, so either direction may be closed. First: {to_pbx}. "
            f"Then: {to_us}",
        )
    level = (
        "silence"
        if call.heard_dbfs is None or call.heard_dbfs < -60
        else (f"something else at {call.heard_dbfs:.0f} dBFS")
    )
    return problem(
        name,
        f"no echo: {count}, {level}" + ("; the PBX reports that it gets ours" if reported else ""),
        "is echo_uri really an echo extension (Asterisk: Echo())? If it is: "
        + (to_us if reported else to_pbx),
    )


def judge_stream(call: CallSeen, figures: StreamFigures) -> Finding:
    """Loss and jitter of the echo, and of what the PBX got."""
    name = "loss and jitter"
    if not figures.received:
        return note(name, "nothing came that could be measured", "")
    detail = (
        f"{figures.lost_pct:.1f} % of the echo's packets lost, jitter up to "
        f"{figures.jitter_ms:.1f} ms"
    )
    lost_there = 0.0
    if call.reports:
        last = call.reports[-1]
        lost_there = 100 * max(last.lost, 0) / max(call.sent_packets, 1)
        detail += f"; the PBX reports {lost_there:.1f} % lost, {last.jitter_ms:.1f} ms"
    worst = max(figures.lost_pct, lost_there)
    if worst >= 1:
        return problem(
            name,
            detail,
            "more than 1 % is heard: look for a full line, a duplex mismatch, Wi-Fi, or a PBX "
            "without CPU to spare",
        )
    if figures.jitter_ms > 30:
        return note(name, detail, "give voice priority on the network (DSCP EF)")
    return ok(name, detail)


def judge_digits(call: CallSeen, audio: sdp.AudioMedia) -> Finding:
    """How digits travel."""
    name = "digits (DTMF)"
    event = next((codec for codec in audio.codecs if codec.name == "telephone-event"), None)
    if event is None:
        takes = "takes INFO" if (call.info_status or 999) < 300 else "does not take INFO"
        if not call.info_sent:
            takes = "was not asked for INFO"
        elif call.info_status is None:
            takes = "does not answer INFO"
        return note(
            name,
            f"no telephone-event in the answer: digits go as tones in the audio; the PBX {takes}",
            "set RFC 4733 on the trunk (Asterisk: dtmf_mode=rfc4733): tones are lost in "
            "transcoding and limiting",
        )
    detail = f"telephone-event, payload type {event.payload_type}"
    if not call.digit_sent:
        return ok(name, f"{detail}; no digit tried, as there was no echo")
    if call.digit_events_back:
        return ok(name, f"{detail}; our digit came back as an event")
    if call.digit_infos_back:
        return note(
            name,
            f"{detail}, but our digit came back as INFO",
            "set dtmf_mode=rfc4733 on the trunk (now info or auto_info)",
        )
    if call.digit_tones_back:
        return note(
            name,
            f"{detail}, but our digit came back as tones",
            "set dtmf_mode=rfc4733 on the trunk (now inband or auto)",
        )
    return note(
        name,
        f"{detail}; our digit did not come back",
        "some echo applications keep digits for themselves; otherwise compare dtmf_mode",
    )
