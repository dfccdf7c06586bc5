"""What the detector process does about words: listens for transcribers, tells the node how it is.

A thin shell round :class:`detectors.transcription.Transcription`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import structlog

from callshield.messages import NodeDegraded, NodeMessage
from callshield.settings import Settings
from detectors.schedule import SharesHeard
from detectors.transcription import HeardWords, Transcription

log = structlog.get_logger()

#: Component in ``node.degraded``.
COMPONENT = "transcriber"


def _asked(language: str) -> str:
    """As transcribers are told: empty where the language is to be detected."""
    return "" if language == "detect" else language


class WordsDesk:
    """Words of all calls, for one detector process.

    Args:
        settings: the node's configuration.
        send: to the notifier.
        on_words: told what callers said.
    """

    def __init__(
        self,
        settings: Settings,
        send: Callable[[NodeMessage], None],
        on_words: Callable[[HeardWords], None] | None = None,
    ) -> None:
        self._send = send
        self._on_words = on_words
        self.transcription = Transcription(
            settings.words_path,
            _asked(settings.caller_language),
            self._heard,
            self._works,
            usual=settings.notice.language,
        )
        self._trouble = ""
        self._told = False

    async def start(self) -> None:
        """Listen for transcribers.

        Raises:
            BusError: the socket cannot be made.
        """
        await self.transcription.start()

    async def close(self) -> None:
        """Let the transcribers go."""
        await self.transcription.close()

    def speaks(self, call_id: str, language: str) -> None:
        """What one caller speaks; ``detect``: find it out.

        Args:
            call_id: 32 hexadecimal digits; anything else is none of ours.
        """
        with contextlib.suppress(ValueError):
            self.transcription.speaks(bytes.fromhex(call_id), _asked(language))

    def _heard(self, heard: HeardWords) -> None:
        words = heard.words
        if words.abusive or words.crisis:
            # Cause to hear the next sentence sooner, too.
            self.transcription.rouse(heard.call_id)
        log.info(
            "words_heard",
            call_id=heard.call_id.hex(),
            at_s=round(heard.end_s, 2),
            score=round(words.score, 3),
            abusive=words.abusive,
            crisis=words.crisis,
            categories=words.categories,
            delay_s=round(heard.delay_s, 2),
        )
        if self._on_words is not None:
            self._on_words(heard)

    def step(self) -> None:
        """Ten times a second: give out speech, and say when words cease, suffer or come back."""
        self.transcription.step()
        trouble = self.transcription.trouble
        recovered = self._told and not trouble and self.transcription.ready
        if (trouble and trouble != self._trouble) or recovered:
            self._trouble, self._told = trouble, bool(trouble)
            log.log(40 if trouble else 20, "transcription_state", trouble=trouble)
            self._send(self._degradation())

    def _works(self, name: str) -> None:
        # The supervisor told of its death, if it had died; that it works again we say.
        self._send(NodeDegraded(ts=time.time(), component=name, degraded=False))

    def news(self) -> list[NodeMessage]:
        """For a notifier that has just come: what it may not have stored."""
        told: list[NodeMessage] = [self._degradation()] if self._told else []
        for state in self.transcription.states():
            if state.ready:
                told.append(NodeDegraded(ts=time.time(), component=state.name, degraded=False))
        return told

    def _degradation(self) -> NodeDegraded:
        return NodeDegraded(
            ts=time.time(), component=COMPONENT, degraded=self._told, reason=self._trouble
        )

    def report(self) -> None:
        """One line in the log: what was heard since the last one, and what it cost."""
        transcription, scheduler = self.transcription, self.transcription.scheduler
        shares, scheduler.shares = scheduler.shares, SharesHeard()
        counters = transcription.counters
        log.info(
            "transcription_load",
            transcribers=transcription.ready,
            heard_pct={
                "aroused": round(shares.aroused.percent, 1),
                "all": round(shares.all.percent, 1),
            },
            speech_s={
                name: {
                    "offered": round(share.offered_s, 2),
                    "heard": round(share.heard_s, 2),
                    "waiting": round(scheduler.waiting_speech_s(aroused=name == "aroused"), 2),
                }
                for name, share in (("aroused", shares.aroused), ("all", shares.all))
            },
            waiting_s=round(scheduler.waiting_s, 1),
            utterances=counters.utterances,
            dropped=scheduler.dropped,
            turns=counters.turns,
            rejected=counters.rejected,
            failed=counters.failed,
            cpu_s=round(counters.cpu_s, 1),
        )
