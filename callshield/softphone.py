"""A telephone for the demo and for tests: real SIP and RTP by pjsua2, told what to do on stdin.

``python -m callshield.softphone --bind 127.0.0.1 --port 5090 --record heard.wav`` speaks JSON
lines. Commands: ``{"do": "call", "uri": …, "headers": {…}}``, ``play`` (``file``), ``digits``
(``digits``, by RFC 4733), ``hangup``, ``quit``. Events: ``{"event": "ready" | "incoming" |
"ringing" | "answered" | "playing" | "played" | "gone", "ts": seconds}``.

Unlike the bridge, this one lets PJSIP do its media: it is the far end, and shares nothing with
what it tests but the SIP stack.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import sys
import time
from typing import Any

import pjsua2 as pj

#: What a telephone waits for late packets before it plays on, milliseconds.
_JITTER_BUFFER_MS = 120


def _say(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, "ts": time.time(), **fields}) + "\n")
    sys.stdout.flush()


class _Player(pj.AudioMediaPlayer):
    """One file, once; says when it is over."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def onEof2(self) -> None:
        _say("played", file=self.name)


class _Call(pj.Call):
    def __init__(self, phone: _Phone, call_id: int = pj.PJSUA_INVALID_ID) -> None:
        super().__init__(phone.account, call_id)
        self.phone = phone
        self.media: Any = None

    def onCallState(self, prm: Any) -> None:
        info = self.getInfo()
        if info.state == pj.PJSIP_INV_STATE_EARLY:
            _say("ringing", status=int(info.lastStatusCode))
        elif info.state == pj.PJSIP_INV_STATE_CONFIRMED:
            _say("answered")
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            _say("gone", status=int(info.lastStatusCode))
            self.phone.ended.append(self)

    def onCallMediaState(self, prm: Any) -> None:
        info = self.getInfo()
        for index in range(info.media.size()):
            media = info.media[index]
            if media.type == pj.PJMEDIA_TYPE_AUDIO and media.status == pj.PJSUA_CALL_MEDIA_ACTIVE:
                self.media = self.getAudioMedia(index)
                if self.phone.recorder is not None:
                    self.media.startTransmit(self.phone.recorder)


class _Account(pj.Account):
    def __init__(self, phone: _Phone) -> None:
        super().__init__()
        self.phone = phone

    def onIncomingCall(self, prm: Any) -> None:
        _say("incoming", message=str(prm.rdata.wholeMsg))
        call = _Call(self.phone, prm.callId)
        self.phone.call = call
        option = pj.CallOpParam()
        option.statusCode = 180
        call.answer(option)
        if self.phone.auto_answer:
            option = pj.CallOpParam()
            option.statusCode = 200
            call.answer(option)


class _Phone:
    """One line with one call."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.auto_answer: bool = options.auto_answer
        self.call: _Call | None = None
        self.ended: list[_Call] = []
        self.player: _Player | None = None
        self.recorder: Any = None
        saved, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)  # banners of libCreate
        self.endpoint = pj.Endpoint()
        self.endpoint.libCreate()
        config = pj.EpConfig()
        config.uaConfig.threadCnt = 0
        config.uaConfig.mainThreadOnly = True
        config.uaConfig.userAgent = options.user_agent
        config.medConfig.clockRate = config.medConfig.sndClockRate = 8000
        config.medConfig.noVad = True
        config.medConfig.ecTailLen = 0
        # A desk telephone's jitter buffer. PJSIP's default begins with none, so that on a busy
        # machine a packet that comes some milliseconds late is a hole in the recording.
        config.medConfig.jbInit = config.medConfig.jbMinPre = _JITTER_BUFFER_MS
        config.medConfig.jbMaxPre = 2 * _JITTER_BUFFER_MS
        config.medConfig.jbMax = 500
        config.medConfig.jbDiscardAlgo = pj.PJMEDIA_JB_DISCARD_NONE
        config.logConfig.level = config.logConfig.consoleLevel = 0
        self.endpoint.libInit(config)
        ctypes.CDLL(None).fflush(None)
        os.dup2(saved, 1)
        transport = pj.TransportConfig()
        transport.port = options.port
        transport.boundAddress = options.bind
        transport_id = self.endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
        self.endpoint.libStart()
        self.endpoint.audDevManager().setNullDev()
        for codec in self.endpoint.codecEnum2():
            wanted = {"PCMA/8000/1": 255, "PCMU/8000/1": 254}.get(codec.codecId, 0)
            self.endpoint.codecSetPriority(codec.codecId, wanted)
        account = pj.AccountConfig()
        account.idUri = f"sip:{options.user}@{options.bind}:{options.port}"
        account.sipConfig.transportId = transport_id
        account.mediaConfig.transportConfig.boundAddress = options.bind
        account.mediaConfig.transportConfig.port = options.rtp_port
        account.mediaConfig.srtpUse = pj.PJMEDIA_SRTP_DISABLED
        self.account = _Account(self)
        self.account.create(account, True)
        if options.record:
            self.recorder = pj.AudioMediaRecorder()
            self.recorder.createRecorder(options.record)

    def do(self, command: dict[str, Any]) -> bool:
        """Carry out one command; False to quit."""
        match command.get("do"):
            case "call":
                self.call = _Call(self)
                option = pj.CallOpParam(True)
                for name, value in command.get("headers", {}).items():
                    header = pj.SipHeader()
                    header.hName, header.hValue = name, value
                    option.txOption.headers.push_back(header)
                self.call.makeCall(command["uri"], option)
            case "play":
                if self.call is not None and self.call.media is not None:
                    self.player = _Player(command["file"])
                    self.player.createPlayer(command["file"], pj.PJMEDIA_FILE_NO_LOOP)
                    self.player.startTransmit(self.call.media)
                    _say("playing", file=command["file"])
            case "digits":
                if self.call is not None:
                    self.call.dialDtmf(command["digits"])
                    _say("pressed")
            case "hangup":
                if self.call is not None:
                    self.call.hangup(pj.CallOpParam())
            case "quit":
                return False
        return True

    def run(self) -> None:
        """Serve commands until ``quit`` or the end of stdin."""
        _say("ready")
        os.set_blocking(0, False)
        pending = b""
        while True:
            self.endpoint.libHandleEvents(10)
            if self.call is not None and self.call in self.ended:
                # Media objects of a finished call must go while the endpoint still stands.
                self.call, self.player = None, None
                self.ended.clear()
            try:
                chunk = os.read(0, 65536)
            except BlockingIOError:
                continue
            if not chunk:
                break
            pending += chunk
            *lines, pending = pending.split(b"\n")
            if not all(self.do(json.loads(line)) for line in lines if line.strip()):
                break
        self.call = self.player = self.recorder = None
        self.account.shutdown()
        self.endpoint.libDestroy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rtp-port", type=int, default=0)
    parser.add_argument("--user", default="phone")
    parser.add_argument("--user-agent", default="Callshield demo phone")
    parser.add_argument("--record", default="")
    parser.add_argument("--auto-answer", action="store_true")
    options = parser.parse_args()
    # It stands for a machine of its own: a busy machine here must not be heard as a bad line. On
    # two cores with five and more busy processes recordings had holes with nice alone (1 run of
    # 3) and with this (2 of 11), before there was a jitter buffer of a telephone's size as well.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    _Phone(options).run()
    # PJSIP's destructors must not run after the endpoint is gone.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
