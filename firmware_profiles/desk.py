"""The desk phones of all agents: what is to be shown becomes documents that are sent.

Knows no socket: it is given two senders, and tells what came of each push. A phone has one request
under way at most, each in a task of its own, so that one that hangs delays nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

import structlog

from callshield.messages_phones import PhoneSeen, ScreenPushed, ScreensLeft, ShowTest
from callshield.settings import Settings
from firmware_profiles.catalogue import Catalogue
from firmware_profiles.choosing import NoPlan, Plan, Source, choose
from firmware_profiles.documents import (
    Key,
    answer_document,
    cisco_page,
    clear_document,
    execute_document,
    text_document,
)
from firmware_profiles.push_result import Result
from firmware_profiles.screen_keys import LIVES_S as KEYS_LIVE_S
from firmware_profiles.screen_text import Screen, Words, key_labels, over_words, trial_words, words
from firmware_profiles.screens import Push, ScreenEvent, Screens

log = structlog.get_logger()

#: How long the words of a test stay, seconds.
TEST_S = 5
#: How long what came of a key stays before what it covered is back, or nothing, seconds.
ANSWER_S = 5.0
_PAGE_TYPE = "text/xml; charset=utf-8"


class Sender(Protocol):
    """Sends one document; see :class:`firmware_profiles.http_push.HttpPush`."""

    async def send(self, plan: Plan, body: bytes) -> Result: ...


class Pages(Protocol):
    """What a listener offers (:mod:`firmware_profiles.listener`)."""

    def put_screen(self, body: bytes, content_type: str, lives_s: float = ...) -> str: ...


class Desk:
    """The phones of all agents.

    Args:
        settings: the node's configuration.
        catalogue: all profiles.
        passwords: by profile.
        http: for plans by HTTP.
        notify: for the others.
        tell: told what came of each push.
        keys: agent's id to the addresses of *end* and *help* at our listener; ``None`` without one.
        pages: the listener, from which a Cisco phone fetches its screens; ``None`` without one.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        passwords: Mapping[str, str],
        http: Sender,
        notify: Sender,
        tell: Callable[[ScreenPushed], None],
        *,
        keys: Callable[[str], tuple[str, str]] | None = None,
        pages: Pages | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._passwords = passwords
        self._http = http
        self._notify = notify
        self._tell = tell
        self._keys = keys
        self._pages = pages
        self._clock = clock
        self._screens = Screens(settings.phones.from_level)
        self._seen: dict[str, dict[Source, str]] = {}
        self._begun: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._testing: set[str] = set()
        self._due: asyncio.TimerHandle | None = None
        self._answers: dict[str, asyncio.TimerHandle] = {}
        """By agent: when the answer to a key has been read."""
        self.plans: dict[str, Plan | NoPlan] = {}
        self._families: Counter[str] = Counter()
        for agent_id in settings.agents:
            self._choose(agent_id)
        self._known()

    # ----------------------------------------------------------------------------- what comes

    def seen(self, message: PhoneSeen) -> None:
        """What a phone calls itself; it may now be one that can be pushed to."""
        if message.agent_id not in self._settings.agents:
            return
        told = self._seen.setdefault(message.agent_id, {})
        if told.get(message.source) == message.user_agent:
            return
        told[message.source] = message.user_agent
        self._choose(message.agent_id)
        self._known()
        self._start(self._screens.tick(self._clock()))

    def feed(self, event: ScreenEvent) -> None:
        """Something happened in a call."""
        self._start(self._screens.feed(event, self._clock()))

    def left_on(self, message: ScreensLeft) -> None:
        """What a process before this one left on phones goes, unless it is still true."""
        self._start(self._screens.left_on(message.agent_ids, self._clock()))

    def test(self, message: ShowTest) -> None:
        """Show a few words for a few seconds; what came of it is told."""
        plan = self.plans.get(message.agent_id)
        refusal = ""
        if plan is None:
            refusal = "there is no such agent"
        elif isinstance(plan, NoPlan):
            refusal = plan.reason
        elif self._screens.showing(message.agent_id) is not None:
            refusal = "a warning is on the screen"
        elif message.agent_id in self._testing:
            refusal = "a test is on the screen"
        if refusal or not isinstance(plan, Plan):
            profile = plan.profile_id if isinstance(plan, NoPlan) else ""
            self._tell(
                ScreenPushed(
                    agent_id=message.agent_id,
                    call_id="",
                    profile=profile,
                    method="",
                    kind="test",
                    ok=False,
                    reason=refusal,
                    request_id=message.request_id,
                )
            )
            return
        self._testing.add(message.agent_id)
        self._spawn(self._try_out(plan, message))

    def answer(self, agent_id: str, text: str) -> tuple[bytes, str] | None:
        """A sentence as the document that an agent's phone shows when it fetched an address."""
        plan = self.plans.get(agent_id)
        if isinstance(plan, Plan):
            document = answer_document(plan.method, text)
            if document is not None:
                self._read_later(plan)
            return document
        # What nothing is pushed to still shows what it fetched, in its family's own form.
        profile = self._catalogue.phones.get(plan.profile_id) if plan else None
        for method in profile.push if profile else ():
            document = answer_document(method, text)
            if document is not None:
                return document
        return None

    def _read_later(self, plan: Plan) -> None:
        """The phone shows an answer over its screen; it may stay there for good."""
        if (before := self._answers.pop(plan.agent_id, None)) is not None:
            before.cancel()

        def read() -> None:
            del self._answers[plan.agent_id]
            if plan.hold_s is None or self._screens.showing(plan.agent_id) is not None:
                self._start(self._screens.covered(plan.agent_id, self._clock()))

        self._answers[plan.agent_id] = asyncio.get_running_loop().call_later(ANSWER_S, read)

    async def close(self) -> None:
        """Stop; what is under way is dropped."""
        for answer in self._answers.values():
            answer.cancel()
        if self._due is not None:
            self._due.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------ inside

    def _choose(self, agent_id: str) -> None:
        plan = choose(
            self._catalogue,
            self._settings,
            agent_id,
            self._seen.get(agent_id, {}),
            self._passwords,
        )
        if self.plans.get(agent_id) == plan:
            return
        self.plans[agent_id] = plan
        if isinstance(plan, Plan):
            log.info(
                "phone_planned",
                agent_id=agent_id,
                profile=plan.profile.id,
                method=plan.method.id,
                via=plan.via,
            )
        else:
            log.info(
                "phone_not_pushed_to",
                agent_id=agent_id,
                profile=plan.profile_id,
                reason=plan.reason,
            )

    def _known(self) -> None:
        pushed = {id_: plan for id_, plan in self.plans.items() if isinstance(plan, Plan)}
        self._families = Counter(plan.profile.id for plan in pushed.values())
        self._screens.set_phones({id_: self._lasts_s(plan) for id_, plan in pushed.items()})

    def _lasts_s(self, plan: Plan) -> float | None:
        """After how long a screen has to be sent anew: it goes, or its soft keys do."""
        if plan.hold_s is None and self._keys is not None:
            return KEYS_LIVE_S
        return plan.hold_s

    def _start(self, pushes: list[Push]) -> None:
        for push in pushes:
            self._spawn(self._carry(push))
        self._plan_tick()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _plan_tick(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        now = self._clock()
        due = self._screens.next_due(now)
        if due is not None:
            # Never at once again: whatever is due is looked at in steps.
            delay = max(due - now, 0.01)
            self._due = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._due = None
        self._start(self._screens.tick(self._clock()))

    async def _carry(self, push: Push) -> None:
        plan = self.plans[push.agent_id]
        if push.tries == 1:
            self._begun[push.agent_id] = self._clock()
        begun = self._begun.get(push.agent_id, self._clock())
        if isinstance(plan, Plan):
            result = await self._send(plan, lambda: self._document(plan, push.screen))
        else:
            result = Result("refused", plan.reason)
        more = self._screens.done(push, result.outcome, self._clock())
        if not any(again.tries > push.tries for again in more):
            self._report(plan, push, result, begun)
        self._start(more)

    async def _send(self, plan: Plan, make: Callable[[], bytes]) -> Result:
        sender = self._http if plan.via == "http" else self._notify
        try:
            return await sender.send(plan, make())
        except Exception as error:  # the phone must not stay marked as busy
            # The kind alone: its words may hold an address.
            log.error(
                "push_failed",
                agent_id=plan.agent_id,
                method=plan.method.id,
                error=type(error).__name__,
            )
            return Result("refused", "it failed here: see the log")

    def _report(self, plan: Plan | NoPlan, push: Push, result: Result, begun: float) -> None:
        ok = result.outcome == "taken"
        took_ms = round((self._clock() - begun) * 1000, 1)
        profile = plan.profile.id if isinstance(plan, Plan) else plan.profile_id
        method = plan.method.id if isinstance(plan, Plan) else ""
        if ok:
            # Without the agent: a log is no list of whose calls were bad.
            log.info("screen_pushed", method=method, kind=push.kind, took_ms=took_ms)
        else:
            log.warning(
                "screen_not_pushed",
                agent_id=push.agent_id,
                profile=profile,
                method=method,
                reason=result.reason,
                tries=push.tries,
                took_ms=took_ms,
            )
        self._tell(
            ScreenPushed(
                agent_id=push.agent_id,
                call_id=push.call_id,
                profile=profile,
                method=method,
                kind=push.kind,
                ok=ok,
                reason=result.reason,
                took_ms=took_ms,
                tries=push.tries,
                family_agents=self._families[profile],
            )
        )

    def _document(self, plan: Plan, screen: Screen | None) -> bytes:
        if screen is None:
            return clear_document(plan.method, over_words(plan.language))
        sip = self._settings.sip
        said = words(screen, plan.language, sip.end_code, sip.help_code)
        return self._shown(plan, said, self._soft_keys(plan))

    def _shown(self, plan: Plan, said: Words, keys: list[Key], hold_s: int | None = None) -> bytes:
        if plan.method.document == "cisco_execute":
            assert self._pages is not None  # choosing saw to it
            url = self._pages.put_screen(cisco_page(plan.method, said, keys), _PAGE_TYPE)
            return execute_document(plan.method, url)
        if hold_s is None:
            return text_document(plan.method, said, keys)
        return text_document(plan.method, said, keys, hold_s=hold_s)

    def _soft_keys(self, plan: Plan) -> list[Key]:
        if self._keys is None:
            return []
        end_url, help_url = self._keys(plan.agent_id)
        end, help_, close = key_labels(plan.language)
        return [Key(end, end_url), Key(help_, help_url), Key(close)]

    async def _try_out(self, plan: Plan, message: ShowTest) -> None:
        begun = self._clock()
        try:
            said = trial_words(plan.language, message.text)
            result = await self._send(plan, lambda: self._shown(plan, said, [], TEST_S))
            self._tell(
                ScreenPushed(
                    agent_id=plan.agent_id,
                    call_id="",
                    profile=plan.profile.id,
                    method=plan.method.id,
                    kind="test",
                    ok=result.outcome == "taken",
                    reason=result.reason,
                    took_ms=round((self._clock() - begun) * 1000, 1),
                    family_agents=self._families[plan.profile.id],
                    request_id=message.request_id,
                )
            )
            if result.outcome == "taken" and plan.hold_s is None:
                await asyncio.sleep(TEST_S)
                if self._screens.showing(plan.agent_id) is None:
                    await self._send(plan, lambda: self._document(plan, None))
        finally:
            self._testing.discard(plan.agent_id)
