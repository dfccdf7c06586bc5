"""Whose choice the protection of the agent's ear is: the agent's first, the risk level's after."""

from __future__ import annotations

from collections.abc import Callable

from callshield.messages import Action, EarChanged
from callshield.messages_media import EarUpdate
from sipbridge.call_steps import Emit, Outcome, StartTimer, Step, StopTimer, ToMedia

#: Softening goes on for this long after the level fell: a storm has pauses, and each change is
#: heard.
SOFTEN_AFTER_S = 10.0


class EarChoice:
    """What protects the agent's ear in one call; pure, steps out.

    Args:
        call_id: the call.
        now: wall clock for events.
        levelling: whether levelling is on when the call begins.
        soften_level: the risk level from which shouting is softened by itself.
    """

    def __init__(
        self, call_id: str, now: Callable[[], float], *, levelling: bool, soften_level: int
    ) -> None:
        self._call_id = call_id
        self._now = now
        self._levelling_first = levelling
        self._soften_level = soften_level
        self.levelling = levelling
        self._asked: bool | None = None
        self._automatic = False
        self._falling = False

    @property
    def softening(self) -> bool:
        """Whether shouting is softened now: the agent's own choice holds for the whole call."""
        return self._automatic if self._asked is None else self._asked

    def update(self) -> ToMedia:
        """What the media worker must know at the start."""
        return ToMedia(
            EarUpdate(call_id=self._call_id, soften=self.softening, levelling=self.levelling)
        )

    def _changed(self) -> list[Step]:
        changed = EarChanged(
            ts=self._now(),
            call_id=self._call_id,
            softening=self.softening,
            levelling=self.levelling,
        )
        return [self.update(), Emit(changed)]

    def toggle(self, action: Action, by: str) -> tuple[Outcome, str, list[Step]]:
        """*soften* or *levelling*, pressed by the agent, whose ear it is."""
        if not by.startswith("agent:"):
            return "not_now", "The ear is the agent's own: only the agent sets this.", []
        if action is Action.SOFTEN:
            on = self._asked = not self.softening
            name = "Softening"
        else:
            on = self.levelling = not self.levelling
            name = "Levelling"
        return "done", f"{name} is {'on' if on else 'off'}.", self._changed()

    def on_level(self, level: int) -> list[Step]:
        """The caller's risk level, 0-3, changed or was said again."""
        before = self.softening
        steps: list[Step] = []
        if level >= self._soften_level:
            self._automatic = True
            if self._falling:
                self._falling = False
                steps.append(StopTimer("soften"))
        elif self._automatic and not self._falling:
            self._falling = True
            steps.append(StartTimer("soften", SOFTEN_AFTER_S))
        return steps + (self._changed() if self.softening != before else [])

    def on_waited(self) -> list[Step]:
        """The level stayed low for :data:`SOFTEN_AFTER_S`."""
        if not self._falling:
            return []
        before = self.softening
        self._automatic = self._falling = False
        return self._changed() if self.softening != before else []

    def on_new_agent(self) -> list[Step]:
        """Somebody else's ear now: the choices of the one who left go with that agent."""
        self._asked, self.levelling = None, self._levelling_first
        return self._changed()
