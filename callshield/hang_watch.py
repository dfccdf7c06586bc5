"""Which parts of the node hang: pure, told of beats and of the time.

A part that has been silent for longer than its patience hangs. The time in which the supervisor
itself stood still (a machine that was paused, a debugger) is nobody's silence, and a part is
forgiven the time in which the machine did not let it run.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A look that comes this much late tells that the watcher itself stood still.
LATE_S = 2.0


@dataclass(slots=True)
class _Watched:
    patience_s: float
    first_s: float
    vital: bool
    heard: float
    beaten: bool = False
    hung_at: float | None = None
    """Since when it, and whatever was started in its place, has not beaten."""


class HangWatch:
    """Parts by name.

    Args:
        now: monotonic seconds, as everywhere below.
    """

    def __init__(self, now: float) -> None:
        self._parts: dict[str, _Watched] = {}
        self._hung_at: dict[str, float] = {}
        self._looked = now

    def started(
        self, name: str, now: float, *, patience_s: float, first_s: float, vital: bool
    ) -> None:
        """A process of this part begins.

        Args:
            name: of the part.
            now: monotonic seconds.
            patience_s: silence after which it hangs.
            first_s: the same until its first beat.
            vital: there is no call without it.
        """
        self._parts[name] = _Watched(patience_s, first_s, vital, now)

    def beat(self, name: str, now: float) -> None:
        """It was heard."""
        if (part := self._parts.get(name)) is not None:
            part.heard, part.beaten = now, True
            if part.hung_at is None:
                self._hung_at.pop(name, None)

    def ended(self, name: str) -> None:
        """Its process is gone."""
        self._parts.pop(name, None)

    def forgive(self, name: str, now: float, seconds: float) -> None:
        """It was ready to speak for so long and had no processor: that is no silence of its own."""
        if (part := self._parts.get(name)) is not None:
            part.heard = min(now, part.heard + seconds)
        if name in self._hung_at:
            self._hung_at[name] = min(now, self._hung_at[name] + seconds)

    def look(self, now: float) -> list[tuple[str, float]]:
        """Parts that are found to hang now, each told once: name, and seconds of silence."""
        late_s = now - self._looked
        self._looked = now
        if late_s > LATE_S:
            for part in self._parts.values():
                part.heard += late_s
            self._hung_at = {name: at + late_s for name, at in self._hung_at.items()}
        found = []
        for name, part in self._parts.items():
            patience_s = part.patience_s if part.beaten else max(part.patience_s, part.first_s)
            if part.hung_at is None and now - part.heard > patience_s:
                part.hung_at = now
                if part.vital:
                    self._hung_at.setdefault(name, now)
                found.append((name, now - part.heard))
        return found

    def hopeless(self, now: float, within_s: float) -> list[str]:
        """Parts without which there is no call, that hung and have not beaten for ``within_s``
        since, whatever was done about it."""
        return [name for name, at in self._hung_at.items() if now - at > within_s]
