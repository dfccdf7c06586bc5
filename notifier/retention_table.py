"""What is kept for how long on this node, as one table. Pure: settings in, rows out."""

from __future__ import annotations

from dataclasses import dataclass

from callshield.settings import Settings
from notifier.retention import KINDS, due

_WHAT = {
    "words": "quotations of callers, in events and calls",
    "events": "what happened, event by event",
    "alerts": "alerts, and who took them",
    "calls": "calls, with pseudonym, analysis, marks, call-backs and what their agents said",
    "draws": "quality draws, scores and pools, a whole month at a time",
    "reports": "weekly reports by group",
    "tokens": "tokens that expired or were revoked",
    "held_events": "of calls held as evidence: events that were due before",
    "dead_letters": "what could not be delivered to a webhook or by mail",
}
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Kept:
    """One kind of data."""

    kind: str
    what: str
    days: int | None
    """``None``: no number of days; :attr:`rule` says until when."""
    rule: str
    """Which key, or which preset, says so."""
    where: str

    def as_json(self) -> dict[str, object]:
        """As the API and ``--json`` tell it."""
        return {
            "kind": self.kind,
            "what": self.what,
            "days": self.days,
            "rule": self.rule,
            "where": self.where,
        }


def table(settings: Settings) -> list[Kept]:
    """Every kind of personal data that has an end, in force now."""
    retention = settings.retention
    rows = []
    for item in due(retention, 0.0):
        if item.kind == "held_events":
            until = "until the request for evidence is settled, or the hold after a refusal is over"
            rows.append(Kept(item.kind, _WHAT[item.kind], None, until, "store"))
            continue
        key, _, _ = item.rule.partition("=")
        own = getattr(retention, key) is not None
        rule = f"retention.{key}" if own else f'retention.preset = "{retention.preset}"'
        days = round(-item.before_ts / _DAY_S)
        if days > retention.days(key.removesuffix("_days")):
            rule += ", and never less than this"
        rows.append(Kept(item.kind, _WHAT[item.kind], days, rule, "store"))
    assert [row.kind for row in rows] == list(KINDS)
    recording = settings.recording
    if recording.enabled:
        rows.append(
            Kept(
                "recordings",
                "both sides of calls, encrypted; longer while the evidence is asked for",
                recording.retention_days,
                "recording.retention_days",
                str(recording.directory),
            )
        )
    if settings.ringback.enabled:
        rows.append(
            Kept(
                "ringback",
                "numbers, as keyed hashes, whose call a person ended",
                settings.ringback.days,
                "ringback.days",
                "store",
            )
        )
    if settings.callbacks.keep_number and settings.callbacks.within_s:
        rows.append(
            Kept(
                "callback_numbers",
                "numbers to call back, encrypted",
                None,
                "callbacks.keep_number: until somebody called back",
                "store",
            )
        )
    rows.append(
        Kept(
            "hearing",
            "what each agent's headset gave in this shift; at the end of a call an event",
            None,
            "until eight hours of silence end the shift",
            str(settings.node.state_dir / "hearing_dose.json"),
        )
    )
    return rows
