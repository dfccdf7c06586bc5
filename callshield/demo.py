"""``callshield demo``: one real protected call on this machine, from INVITE to BYE.

A node like any other (:mod:`callshield.serve`), a scripted caller and an agent's phone of its own
(:mod:`callshield.softphone`), SIP and RTP over loopback. Every step is checked against what really
happened: what the caller's telephone recorded, what a console's WebSocket received, when the
agent's telephone was released. Nothing is taken from the script's own wishes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from callshield.demo_peers import Softphone, Watcher
from callshield.errors import CallshieldError, SetupError
from callshield.free_ports import free_port
from callshield.heard import find, read_growing_wav, read_wav
from callshield.logs import configure_logs
from callshield.serve import Supervisor
from callshield.settings import Settings, load_settings

AUDIO = Path(__file__).parent / "demo_audio"
LEVEL_WORDS = {0: "정상", 1: "주의", 2: "위험", 3: "심각"}
LEVEL_STYLES = {0: "green", 1: "yellow", 2: "bold red", 3: "bold white on red"}
#: How long a person may look for the button before the script presses it on the phone.
PRESS_PATIENCE_S = 60.0
ACCEPT_PATIENCE_S = 30.0
STEP_TIMEOUT_S = 45.0
#: The first frame follows the notice at once; shouting is recognised within seconds.
TAP_TIMEOUT_S, ALERT_TIMEOUT_S = 5.0, 25.0


@dataclass(slots=True)
class StepResult:
    """One thing that had to happen."""

    step: str
    ok: bool
    at_s: float
    detail: str


@dataclass(slots=True)
class Report:
    """What the demo saw."""

    steps: list[StepResult] = field(default_factory=list)
    timeline: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    @property
    def ok(self) -> bool:
        """Every step happened, and none is missing."""
        return not self.error and len(self.steps) == len(STEPS) and all(s.ok for s in self.steps)


#: What a telephone heard must be in its recording by then, seconds.
RECORDED_WITHIN_S = 5.0
#: Every step of the script, in order.
STEPS = (
    "node_ready",
    "call_answered",
    "notice_heard",
    "nothing_tapped_before_notice",
    "calm_stays_calm",
    "shouting_raises_alert",
    "alert_acknowledged",
    "agent_released",
    "closing_heard",
    "caller_gets_bye",
)


def write_config(
    folder: Path, *, caller: str, phone: str, phone_port: int, web_port: int, language: str
) -> Path:
    """A whole configuration on loopback addresses; every port was free a moment ago."""
    pbx_side, phone_side = "127.0.0.2", "127.0.0.3"
    text = f"""\
[node]
name = "demo"
language = "{language}"
state_dir = "{folder / "state"}"
runtime_dir = "{folder / "run"}"
log_level = "warning"
stop_timeout_s = 2

[sip.pbx]
bind = "{pbx_side}"
port = {free_port(pbx_side)}

[sip.phone]
bind = "{phone_side}"
port = {free_port(phone_side)}

[[peers]]
name = "demo-pbx"
networks = ["{caller}"]

[agents.1001]
uri = "sip:1001@{phone}:{phone_port}"

[notice]
language = "{language}"

[phones]
enabled = false

[web]
port = {web_port}
"""
    path = folder / "callshield.toml"
    path.write_text(text, encoding="utf-8")
    return path


class Demo:
    """One run of the script.

    Args:
        folder: where the node keeps its files and the telephones their recordings.
        console: where the timeline is drawn; None for silence.
        interactive: wait for a person's press before pressing on the phone.
        language: of notice and consoles.
    """

    def __init__(
        self, folder: Path, console: Console | None, *, interactive: bool, language: str
    ) -> None:
        self._folder = folder
        self._console = console
        self._interactive = interactive
        self._language = language
        self._begun = time.time()
        self.report = Report()
        self._caller = Softphone("caller's phone")
        self._agent = Softphone("agent's phone")
        self._watcher: Watcher | None = None
        self._supervisor: Watcher | None = None
        self._settings: Settings | None = None

    # ------------------------------------------------------------------------------ drawing

    def _line(self, who: str, text: str, style: str = "", at: float | None = None) -> None:
        at_s = round((at or time.time()) - self._begun, 3)
        self.report.timeline.append({"at_s": at_s, "who": who, "text": text})
        if self._console is not None:
            line = Text(f"{at_s:7.2f} s  ", style="dim")
            line.append(f"{who:<11}", style="cyan")
            line.append(text, style=style)
            self._console.print(line, soft_wrap=True)

    def _step(self, step: str, ok: bool, detail: str, at: float | None = None) -> None:
        at_s = round((at or time.time()) - self._begun, 3)
        self.report.steps.append(StepResult(step, ok, at_s, detail))
        self._line("✔ checked" if ok else "✘ FAILED", detail, "green" if ok else "bold red")

    def _show(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "risk.changed":
            level = int(event["level"])
            bar = "█" * (level * 4) + "░" * (12 - level * 4)
            words = f"{bar} {LEVEL_WORDS[level]} (level {level}, score {event['score']:.2f})"
            self._line("detector", words, LEVEL_STYLES[level], event["ts"])
        elif kind == "call.ending":
            who = "in the console" if event["by"] == "agent:console" else "on the phone"
            self._line("agent", f"ends the call {who} (안내 후 종료)", "bold", event["ts"])
        elif kind.startswith(("call.", "notice.", "tap.")):
            self._line("bridge", kind.replace(".", " "), "", event["ts"])
        elif kind == "node.degraded":
            self._line("node", f"{event['component']}: {event['reason']}", "yellow", event["ts"])

    def _show_alert(self, event: dict[str, Any]) -> None:
        if event["type"].startswith("alert."):
            words = event["type"].replace(".", " ")
            self._line("supervisor", words, "bold magenta", event["ts"])

    # ------------------------------------------------------------------------------- script

    async def run(self) -> Report:
        """Run the whole script; a failing step does not hide the later ones' absence."""
        try:
            async with self._node() as (base, tokens):
                await self._play(base, tokens)
                if self._interactive:
                    self._line("demo", "consoles stay open; press Ctrl-C to end", "bold")
                    await asyncio.Event().wait()
        except CallshieldError as error:
            self.report.error = str(error)
        except OSError as error:
            self.report.error = f"the demo could not run: {error}"
        return self.report

    @contextlib.asynccontextmanager
    async def _node(self) -> AsyncIterator[tuple[str, dict[str, str]]]:
        from notifier.tokens import create_token

        caller_address, phone_address = "127.0.0.4", "127.0.0.5"
        phone_port = free_port(phone_address)
        config = write_config(
            self._folder,
            caller=caller_address,
            phone=phone_address,
            phone_port=phone_port,
            web_port=free_port("127.0.0.1"),
            language=self._language,
        )
        settings = self._settings = load_settings(config)
        settings.node.state_dir.mkdir(mode=0o700)
        tokens = {
            "agent": create_token(settings, "agent", "demo agent", "1001"),
            "supervisor": create_token(settings, "supervisor", "demo supervisor"),
        }
        supervisor = Supervisor(settings, config)
        node = asyncio.create_task(supervisor.run())
        base = f"http://{settings.web.bind}:{settings.web.port}"
        events = f"ws://{settings.web.bind}:{settings.web.port}/api/v1/events"
        self._watcher = Watcher(events, tokens["agent"], self._show)
        self._supervisor = Watcher(events, tokens["supervisor"], self._show_alert)
        try:
            await _first_of(supervisor.ready.wait(), node, STEP_TIMEOUT_S)
            self._step("node_ready", True, f"node ready, consoles at {base}")
            if self._console is not None:
                self._console.print("  open both in a browser and watch:")
                for role, token in tokens.items():
                    address = f"{base}/{role}#token={token}"
                    self._console.print(f"  {role:<11} {address}", soft_wrap=True)
            await self._watcher.start()
            await self._supervisor.start()
            await self._agent.start(
                *("--bind", phone_address, "--port", str(phone_port), "--user", "1001"),
                *("--auto-answer", "--record", str(self._folder / "agent-heard.wav")),
            )
            await self._caller.start(
                *("--bind", caller_address, "--port", str(free_port(caller_address))),
                *("--user", "caller", "--record", str(self._folder / "caller-heard.wav")),
            )
            yield base, tokens
        finally:
            await self._caller.close()
            await self._agent.close()
            await self._watcher.close()
            await self._supervisor.close()
            supervisor.request_stop()
            await asyncio.gather(node, return_exceptions=True)

    async def _play(self, base: str, tokens: dict[str, str]) -> None:
        assert self._settings is not None
        assert self._watcher is not None
        assert self._supervisor is not None
        watcher, sip = self._watcher, self._settings.sip
        self._line("caller", "calls the company; the PBX hands the call to callshield")
        self._caller.do("call", uri=f"sip:1001@{sip.pbx.bind}:{sip.pbx.port}")
        await self._caller.wait("answered", STEP_TIMEOUT_S)
        await self._agent.wait("answered", STEP_TIMEOUT_S)
        started = await watcher.wait("call.started", STEP_TIMEOUT_S)
        self._step("call_answered", started is not None, "both telephones are connected by SIP")
        if started is None:
            return

        finished = await watcher.wait("notice.finished", STEP_TIMEOUT_S)
        tapped = await watcher.wait("tap.started", TAP_TIMEOUT_S)
        await self._listen("notice_heard", finished)
        before = finished is not None and tapped is not None
        margin_ms = (
            (tapped["ts"] - finished["prompts"][-1]["finished_ts"]) * 1000
            if (finished and tapped and finished["prompts"])
            else -1.0
        )
        self._step(
            "nothing_tapped_before_notice",
            before and margin_ms >= 0,
            f"first frame analysed {margin_ms:.0f} ms after the notice's last packet",
        )

        await self._speak("calm_1", "calm_2")
        calm = max(
            (int(e["level"]) for e in watcher.events if e["type"] == "risk.changed"), default=0
        )
        self._step("calm_stays_calm", calm == 0, f"calm customer: highest level {calm}")

        shouting = asyncio.create_task(self._shout_until_stopped())
        try:
            await self._alarm_and_end(base, tokens, watcher)
        finally:  # also when somebody presses Ctrl-C
            shouting.cancel()
            await asyncio.gather(shouting, return_exceptions=True)
        await self._closing(watcher)

    async def _alarm_and_end(self, base: str, tokens: dict[str, str], watcher: Watcher) -> None:
        assert self._supervisor is not None
        alert = await self._supervisor.wait("alert.raised", ALERT_TIMEOUT_S)
        risk = await watcher.wait("risk.changed", 1, where=lambda e: int(e["level"]) >= 2)
        self._step(
            "shouting_raises_alert",
            alert is not None and risk is not None,
            "shouting caller: level 2, alert at the supervisor's console"
            if alert
            else "no alert came",
        )
        await self._acknowledge(base, tokens["supervisor"], alert)
        await self._end(watcher)

    async def _speak(self, *lines: str) -> None:
        for line in lines:
            done = sum(e["event"] == "played" for e in self._caller.events)
            self._line("caller", f"speaks: {line}.wav")
            self._caller.do("play", file=str(AUDIO / f"{line}.wav"))
            await self._caller.wait("played", STEP_TIMEOUT_S, count=done + 1)

    async def _shout_until_stopped(self) -> None:
        while True:
            await self._speak("shout_1", "shout_2")

    async def _acknowledge(self, base: str, token: str, alert: dict[str, Any] | None) -> None:
        status = 0
        assert self._supervisor is not None
        if alert is not None and self._interactive:
            self._line(
                "demo",
                f"press 수락 in the supervisor's console (or wait {ACCEPT_PATIENCE_S:.0f} s)",
                "bold",
            )
            taken = await self._supervisor.wait("alert.acknowledged", ACCEPT_PATIENCE_S)
            if taken is not None:
                self._step("alert_acknowledged", True, "you took the alert")
                return
        if alert is not None:
            async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
                response = await client.post(
                    f"{base}/api/v1/alerts/{alert['alert_id']}/acknowledge",
                    headers={"Authorization": f"Bearer {token}"},
                )
                status = response.status_code
        self._step(
            "alert_acknowledged", status == 200, f"a supervisor takes the alert (HTTP {status})"
        )

    async def _end(self, watcher: Watcher) -> None:
        """A person's button in the console, or the code on the agent's phone."""
        pressed_ts = 0.0
        if self._interactive:
            self._line(
                "demo",
                f"press 안내 후 종료 in the agent's console (or wait {PRESS_PATIENCE_S:.0f} s)",
                "bold",
            )
            ending = await watcher.wait("call.ending", PRESS_PATIENCE_S)
            pressed_ts = float(ending["ts"]) if ending else 0.0
        if not pressed_ts:
            assert self._settings is not None
            self._line("agent", f"presses {self._settings.sip.end_code} on the phone")
            self._agent.do("digits", digits=self._settings.sip.end_code)
            ending = await watcher.wait("call.ending", STEP_TIMEOUT_S)
            pressed_ts = float(ending["ts"]) if ending else 0.0
        gone = await self._agent.wait("gone", STEP_TIMEOUT_S)
        released_ms = (float(gone["ts"]) - pressed_ts) * 1000
        self._step(
            "agent_released",
            bool(pressed_ts) and released_ms < 200,
            f"agent's phone released {released_ms:.0f} ms after the press was understood",
            float(gone["ts"]),
        )

    async def _closing(self, watcher: Watcher) -> None:
        await self._caller.wait("gone", STEP_TIMEOUT_S)
        ended = await watcher.wait("call.ended", STEP_TIMEOUT_S)
        self._caller.do("quit")  # closes its recording
        await self._caller.wait("exited", 10)
        closing = self._heard("closing")
        self._step(
            "closing_heard",
            closing.whole,
            "the caller's recording holds the whole closing announcement"
            if closing.whole
            else "the closing announcement is not whole in the caller's recording: "
            f"{100 * closing.share:.0f} %",
        )
        reason = str(ended["reason"]) if ended else "no call.ended event"
        self._step(
            "caller_gets_bye",
            reason == "ended_with_announcement",
            f"then BYE; the record says {reason}",
        )

    async def _listen(self, step: str, finished: dict[str, Any] | None) -> None:
        """The notice is judged by the caller's own recording (its file grows while it runs)."""
        if finished is None or finished["source"] != "played":
            self._step(step, False, "the notice did not finish")
            return
        assert self._settings is not None
        found = await self._heard_within(list(self._settings.notice.prompts), RECORDED_WITHIN_S)
        whole = all(one.whole for one in found.values())
        self._step(
            step,
            whole,
            f"the caller's recording holds the whole notice "
            f"({sum(one.seconds for one in found.values()):.1f} s)"
            if whole
            else f"the notice is not whole in the caller's recording: {_shares(found)}",
        )

    async def _heard_within(self, prompts: list[str], seconds: float) -> dict[str, _Share]:
        """What the caller's recording holds of these prompts; the recorder writes in blocks, and on
        a busy machine late, so it is looked at again until all is there or the time is up."""
        deadline = time.monotonic() + seconds
        while True:
            found = {prompt: self._heard(prompt) for prompt in prompts}
            if all(one.whole for one in found.values()) or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.25)

    def _heard(self, prompt_id: str) -> _Share:
        """How much of a prompt is in the caller's recording."""
        from sipbridge.prompt_catalogue import SHIPPED

        prompt = read_wav(SHIPPED / self._language / f"{prompt_id}.wav")
        recording = read_growing_wav(self._folder / "caller-heard.wav")
        found = find(prompt, recording)
        return _Share(len(prompt) / 8000, 0.0 if found is None else found.share)


@dataclass(frozen=True, slots=True)
class _Share:
    seconds: float
    """The prompt's length."""
    share: float
    """Share of its audible half-seconds that the recording holds, 0..1."""

    @property
    def whole(self) -> bool:
        return self.share >= 1.0


def _shares(found: dict[str, _Share]) -> str:
    return ", ".join(f"{prompt} {100 * one.share:.0f} %" for prompt, one in found.items())


async def _first_of(wanted: Any, other: asyncio.Task[None], timeout_s: float) -> None:
    """Wait for ``wanted``; if ``other`` ends first, raise what it raised."""
    task = asyncio.ensure_future(wanted)
    done, _ = await asyncio.wait(
        {task, other}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
    )
    if other in done:
        task.cancel()
        other.result()
        raise SetupError("the node stopped before it was ready")
    if task not in done:
        task.cancel()
        raise SetupError(f"the node was not ready within {timeout_s:.0f} s; see its log above")


def run_demo(*, headless: bool, as_json: bool, language: str = "ko") -> int:
    """Run the demo and print what happened.

    Returns:
        exit status: 0 only if every step really happened.
    """
    configure_logs("demo", level="warning", json=False)
    console = None if as_json else Console(highlight=False)
    if console is not None:
        console.print("[bold]Callshield demo[/bold]: one protected call, real SIP and RTP\n")
    with tempfile.TemporaryDirectory(prefix="callshield-demo-") as folder:
        demo = Demo(Path(folder), console, interactive=not headless, language=language)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(demo.run())
    report = demo.report
    if as_json:
        body = {"ok": report.ok, "steps": [asdict(s) for s in report.steps]}
        print(json.dumps({**body, "timeline": report.timeline, "error": report.error}))
    elif console is not None:
        if report.error:
            console.print(f"[bold red]{report.error}[/bold red]")
        passed = sum(step.ok for step in report.steps)
        style = "bold green" if report.ok else "bold red"
        console.print(f"\n[{style}]{passed} of {len(STEPS)} steps really happened[/{style}]")
    return 0 if report.ok else 1
