"""Every door of a node and what may come through it, one line each. A new door fails the tests
until somebody has written down here what it carries (docs/listening.md).

The tables claim; ``test_listening.py`` holds the names against the code, and
``test_peers_listening.py`` holds the claims against a running node with a real call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Carries(StrEnum):
    """What may come through a door, from nothing to live sound."""

    NOTHING = "nothing of a call"
    STATE = "what happened in calls: ids, times, levels, categories, sentences of ours"
    OWN = "what is the reading agent's alone: wishes, breaks, dose, scores"
    FIGURES = "totals of groups of five and more, or of the node"
    QUOTES = "masked quotations: to the call's own agent; to supervisors once that agent asked"
    PAST = "masked quotations of calls that are over, for the caller who asked; its agent is told"
    ACTS = "does something to a call; answers whether it was done"
    JOINS = "may call a person into a call: on its agent's request, announced"
    OPERATOR = "to the node's own user on the machine, who owns its files"
    RECORDING = "a recording of a call that is over, with a reason that its agent reads"
    CALLER_AUDIO = "the caller's sound, between processes of one user"
    CALLER_WORDS = "masked text of what the caller said, between processes of one user"
    CALL_AUDIO = "the call itself: to and from its own two far ends and an announced third"
    SIGNALLING = "SIP: begins and ends calls of configured peers and phones"


C = Carries

# --------------------------------------------------------------------------------------- HTTP

#: ``METHOD path`` as the application has it; who may ask is :mod:`notifier.permissions`.
HTTP: Mapping[str, Carries] = {
    "GET /": C.NOTHING,
    "GET /agent": C.NOTHING,
    "GET /supervisor": C.NOTHING,
    "GET /wallboard": C.NOTHING,
    "GET /docs": C.NOTHING,
    "GET /openapi.json": C.NOTHING,
    "GET /healthz": C.NOTHING,
    "GET /readyz": C.NOTHING,
    "GET /metrics": C.FIGURES,
    "MOUNT /console": C.NOTHING,
    "GET /api/v1/sign-in": C.NOTHING,
    "GET /api/v1/oidc/login": C.NOTHING,
    "GET /api/v1/oidc/callback": C.NOTHING,
    "POST /api/v1/oidc/token": C.NOTHING,
    "GET /api/v1/node": C.NOTHING,
    "GET /api/v1/policies": C.NOTHING,
    "GET /api/v1/calls": C.QUOTES,
    "POST /api/v1/calls/{call_id}/actions": C.JOINS,
    "POST /api/v1/calls/{call_id}/after": C.ACTS,
    "POST /api/v1/calls/{call_id}/verdict": C.ACTS,
    "GET /api/v1/alerts": C.STATE,
    "POST /api/v1/alerts/{alert_id}/acknowledge": C.STATE,
    "POST /api/v1/alerts/{alert_id}/accept": C.JOINS,
    "POST /api/v1/alerts/{alert_id}/refuse": C.STATE,
    "POST /api/v1/alerts/{alert_id}/verdict": C.ACTS,
    "WS /api/v1/events": C.QUOTES,
    "GET /api/v1/agents/{agent_id}/rest": C.OWN,
    "POST /api/v1/agents/{agent_id}/ready": C.OWN,
    "GET /api/v1/wallboard": C.STATE,
    "GET /api/v1/me/calls": C.OWN,
    "GET /api/v1/me/rest": C.OWN,
    "POST /api/v1/me/rest/extend": C.OWN,
    "GET /api/v1/me/breaks": C.OWN,
    "POST /api/v1/me/breaks/take": C.OWN,
    "GET /api/v1/me/requests": C.OWN,
    "GET /api/v1/me/quality": C.OWN,
    "GET /api/v1/me/opened": C.OWN,
    "GET /api/v1/me/joined": C.OWN,
    "GET /api/v1/me/hearing": C.OWN,
    "GET /api/v1/requests": C.STATE,
    "POST /api/v1/requests/{request_id}/done": C.STATE,
    "POST /api/v1/requests/{request_id}/approve": C.STATE,
    "POST /api/v1/requests/{request_id}/refuse": C.STATE,
    "GET /api/v1/callbacks": C.STATE,
    "POST /api/v1/callbacks/{callback_id}/done": C.STATE,
    # A number that its caller gave for this, decrypted.
    "POST /api/v1/callbacks/{callback_id}/number": C.STATE,
    "GET /api/v1/quality/months": C.FIGURES,
    "GET /api/v1/quality/draws": C.STATE,
    "POST /api/v1/quality/scores": C.STATE,
    "POST /api/v1/quality/scores/{draw_id}/contest": C.OWN,
    "GET /api/v1/quality/opened": C.STATE,
    "GET /api/v1/reports/weekly": C.FIGURES,
    "GET /api/v1/reports/hearing": C.FIGURES,
    "GET /api/v1/pbx": C.STATE,
    "GET /api/v1/deliveries": C.STATE,
    "POST /api/v1/deliveries/{letter_id}/retry": C.STATE,
    "POST /api/v1/deliveries/{letter_id}/drop": C.STATE,
    "GET /api/v1/oversight/policies": C.NOTHING,
    "GET /api/v1/oversight/reads": C.STATE,
    "GET /api/v1/oversight/joins": C.STATE,
    "GET /api/v1/oversight/figures": C.FIGURES,
    "GET /api/v1/oversight/chain": C.NOTHING,
    "GET /api/v1/privacy/retention": C.NOTHING,
    "GET /api/v1/privacy/erasures": C.STATE,
    "POST /api/v1/privacy/access": C.PAST,
    "POST /api/v1/privacy/erase": C.STATE,
}

# ---------------------------------------------------------------------------------- WebSocket

#: What a console's WebSocket may say: events by type, and what is said beside them.
WEBSOCKET: Mapping[str, Carries] = {
    "session.ready": C.NOTHING,
    "heartbeat": C.NOTHING,
    "voice.talk": C.OWN,
    "agent.said": C.OWN,
    "alert.acknowledged": C.STATE,
    "alert.escalated": C.STATE,
    "alert.judged": C.STATE,
    "alert.raised": C.STATE,
    "alert.refused": C.STATE,
    "alert.unanswered": C.STATE,
    "alert.withheld": C.STATE,
    "break.changed": C.OWN,
    "call.analysed": C.STATE,
    "call.answered": C.STATE,
    "call.ended": C.STATE,
    "call.ending": C.STATE,
    "call.erased": C.STATE,
    "call.judged": C.STATE,
    "call.length": C.STATE,
    "call.marked": C.STATE,
    "call.snapshot": C.STATE,
    "call.started": C.STATE,
    "callback.changed": C.STATE,
    "callback.spoken": C.STATE,
    "crisis.hint": C.QUOTES,
    "ear.changed": C.OWN,
    "ear.dose": C.OWN,
    "ear.warning": C.OWN,
    "erasure.asked": C.STATE,
    "evidence.changed": C.STATE,
    "evidence.exported": C.STATE,
    "evidence.requested": C.STATE,
    "hand_over.unanswered": C.STATE,
    "helper.changed": C.STATE,
    "hold.changed": C.STATE,
    "media.quality": C.STATE,
    "media.silent": C.STATE,
    "node.degraded": C.STATE,
    "notice.finished": C.STATE,
    "notice.started": C.STATE,
    "pause.changed": C.STATE,
    "policy.advice": C.STATE,
    "privacy.answered": C.STATE,
    "prompt.played": C.STATE,
    "protection.changed": C.STATE,
    "quality.closed": C.NOTHING,
    "quality.drawn": C.OWN,
    "quality.seeded": C.NOTHING,
    "record.read": C.STATE,
    "recording.changed": C.STATE,
    "recording.opened": C.STATE,
    "rest.changed": C.OWN,
    "retention.deleted": C.NOTHING,
    "ringback.marked": C.STATE,
    "ringback.removed": C.NOTHING,
    "ringback.seen": C.STATE,
    "risk.changed": C.QUOTES,
    "score.contested": C.OWN,
    "score.given": C.OWN,
    "score.void": C.OWN,
    "store.restored": C.NOTHING,
    "tap.started": C.STATE,
    "warning.played": C.STATE,
    "week.reported": C.NOTHING,
}

#: Messages between processes that are no events: the notifier's bus, media control, the
#: transcribers' socket.
PROCESSES: Mapping[str, Carries] = {
    # the notifier's bus
    "hello": C.NOTHING,
    "command": C.JOINS,
    "command.result": C.STATE,
    "ringback.ended": C.STATE,
    "ringback.marks": C.STATE,
    "ringback.remove": C.NOTHING,
    "recording.open": C.RECORDING,
    # from the command line: may it read, or make, what stands in its own output
    "evidence.open": C.RECORDING,
    "evidence.made": C.STATE,
    "evidence.answer": C.STATE,
    "privacy.request": C.STATE,
    "privacy.file": C.STATE,
    "privacy.answer": C.STATE,
    "caller.number": C.STATE,
    "recordings.erase": C.STATE,
    "recordings.erased": C.STATE,
    "recordings.held": C.STATE,
    "phone.seen": C.NOTHING,
    "phone.notify": C.STATE,
    "phone.notified": C.NOTHING,
    "phone.key": C.ACTS,
    "phone.key.done": C.STATE,
    "phone.test": C.NOTHING,
    "phone.screen": C.STATE,
    "phone.screens_left": C.STATE,
    "voice.talk": C.OWN,
    # media control: says what may pass, carries none of it
    "open": C.STATE,
    "opened": C.STATE,
    "open_leg": C.JOINS,
    "leg_opened": C.STATE,
    "close_leg": C.STATE,
    "promote": C.JOINS,
    "ear": C.STATE,
    "dose": C.OWN,
    "spoke": C.OWN,
    "leg": C.STATE,
    "flow": C.JOINS,
    "play": C.STATE,
    "stop_play": C.STATE,
    "played": C.STATE,
    "code": C.STATE,
    "caller_pressed": C.STATE,
    "digit": C.STATE,
    "digit_undelivered": C.STATE,
    "media_timeout": C.STATE,
    "close": C.STATE,
    "closed": C.STATE,
    "stats": C.FIGURES,
    "failed": C.STATE,
    # kept with the media worker, in memory, for a bridge that follows one that died
    "keep_dialog": C.SIGNALLING,
    "keep_call": C.SIGNALLING,
    "fetch_kept": C.NOTHING,
    "kept_call": C.SIGNALLING,
    "kept_end": C.NOTHING,
    # detector and transcribers
    "state": C.NOTHING,
    "transcribe": C.CALLER_AUDIO,
    "transcribed": C.CALLER_WORDS,
}

#: Fields whose value is an id or a hash wherever they stand.
IDS = frozenset(
    {
        *("call_id", "agent_id", "pbx_call_id", "alert_id", "request_id", "draw_id", "mark_id"),
        *("key_id", "callback_id", "command_id", "supervisor_id", "helper_id", "prompt_id"),
        *("call_ids", "agent_ids", "sha256", "backup_sha256", "pool_sha256"),
        *("from_hash", "to_hash", "commitment", "package_id", "package_sha256"),
        *("manifest_sha256", "pseudonym", "pseudonyms", "wide_sha256"),
    }
)
#: Fields of text that hold what a person said, as ``type.path``.
SPOKEN = frozenset(
    {
        "risk.changed.reasons.words",
        "crisis.hint.words",
        "transcribed.words.text",
        "transcribed.words.hits.quote",
    }
)
#: A call's own SIP messages, kept while it is set up.
INVITES = frozenset(
    {
        *("keep_call.invited.message", "keep_call.inviting.message"),
        *("kept_call.kept.invited.message", "kept_call.kept.inviting.message"),
    }
)
#: Fields of bytes: sound, keys, or SIP.
BYTES = frozenset({"transcribe.samples", "leg.srtp.send", "leg.srtp.receive"}) | INVITES
#: Of a leg's dialog: what was on the wire in headers and session descriptions of SIP.
_DIALOG = (
    *("account", "bye_headers", "contact", "local_sdp", "local_tag", "local_uri", "remote_sdp"),
    *("remote_tag", "remote_uri", "routes", "target"),
)
#: Of a call: the same of an INVITE that has no answer yet, and a configured announcement.
_KEPT = (
    *("callers_numbers", "closing.files", "closing.wide_files", "closing_stamp.language"),
    *("closing_stamp.names", "closing_stamp.purposes", "closing_stamp.version", "end_reason"),
    *("invited.account", "invited.address", "invited.tag", "inviting.account"),
    *("inviting.address", "inviting.tag", "started.pbx", "started.pbx_channel"),
)
#: Every other field of text: names from a fixed list, sentences that this program made, what an
#: administrator configured, or what a person typed on purpose (``alert.refused.reason``,
#: ``recording.opened.reason``, ``evidence.changed.reason``).
TEXTS = frozenset(
    {
        *("quality.seeded.month", "quality.seeded.time_zone"),
        *("agent.said.choice", "alert.acknowledged.by", "alert.escalated.to"),
        *("alert.raised.categories", "alert.raised.reason", "alert.refused.by"),
        *("alert.refused.reason", "alert.withheld.categories", "alert.withheld.kind"),
        *("alert.withheld.rules", "call.analysed.model", "call.answered.codec"),
        *("call.answered.phone_user_agent", "call.ended.reason", "call.ending.by"),
        *("call.snapshot.answered", "call.snapshot.calls.pbx", "call.snapshot.calls.pbx_channel"),
        *("call.snapshot.choices{}", "call.snapshot.held", "call.snapshot.paused"),
        *("call.snapshot.waits", "call.started.pbx", "call.started.pbx_channel"),
        *("callback.changed.owner", "caller_pressed.digit", "code.code", "command.by"),
        *("command.result.detail", "command.target", "crisis.hint.detail", "crisis.hint.name"),
        *("crisis.hint.number", "digit.digit", "digit_undelivered.digit", "failed.command"),
        *("failed.error", "hello.node", "hello.role", "helper.changed.by", "leg.address"),
        *(
            "leg.signalling_address",
            "leg.srtp.suite",
            "leg_opened.error",
            "node.degraded.component",
        ),
        *("node.degraded.reason", "notice.finished.attested_by", "notice.finished.key"),
        *("notice.finished.prompts.language", "notice.finished.prompts.version", "opened.error"),
        *("phone.notified.detail", "phone.notify.body", "phone.notify.content_type"),
        *("phone.notify.event", "phone.screen.method", "phone.screen.profile"),
        *("phone.screen.reason", "phone.seen.user_agent", "phone.test.text", "play.files"),
        *("played.error", "policy.advice.category", "prompt.played.stamp.language"),
        *("prompt.played.stamp.version", "protection.changed.key", "quality.closed.month"),
        *("quality.closed.secret", "quality.drawn.month", "record.read.by"),
        *("record.read.by_role", "record.read.why"),
        *("recording.changed.reason", "recording.open.reason", "recording.open.ref"),
        *("recording.open.token", "recording.opened.by", "recording.opened.by_role"),
        *("recording.opened.reason", "recording.opened.ref", "rest.changed.by"),
        *("retention.deleted.rule", "ringback.ended.mark", "ringback.marked.category"),
        *("ringback.marks.marks.category", "ringback.marks.marks.mark", "ringback.remove.marks"),
        *("ringback.seen.category", "risk.changed.categories", "risk.changed.reasons.categories"),
        *("risk.changed.reasons.detail", "risk.changed.reasons.rule", "spoke.spoken_s{}"),
        *("state.detail", "state.lacking", "state.name", "transcribe.expected{}"),
        *("transcribe.language", "transcribed.language", "transcribed.language_odds{}"),
        *("transcribed.rejected", "transcribed.words.categories"),
        *("transcribed.words.hits.category", "week.reported.week"),
        *("call.erased.by", "call.erased.by_role", "call.erased.ref"),
        *("caller.number.sealed", "erasure.asked.by", "erasure.asked.by_role"),
        *("erasure.asked.ref", "evidence.answer.asked_by", "evidence.answer.by"),
        *("evidence.answer.by_role", "evidence.answer.refusal", "evidence.changed.by"),
        *("evidence.changed.by_role", "evidence.changed.reason", "evidence.exported.by"),
        *("evidence.exported.by_role", "evidence.made.token", "evidence.open.token"),
        *("notice.finished.prompts.names", "notice.finished.prompts.purposes", "play.wide_files"),
        *("privacy.answer.calls.sentence", "privacy.answer.sentence", "privacy.answered.by"),
        *("privacy.answered.by_role", "privacy.answered.ref", "privacy.file.ref"),
        *("privacy.file.token", "privacy.request.ref", "privacy.request.ringback_marks"),
        *("privacy.request.token", "prompt.played.stamp.names", "prompt.played.stamp.purposes"),
        *("quality.closed.purpose", "recordings.erased.problem", "retention.deleted.held"),
        *(f"keep_dialog.dialog.{name}" for name in _DIALOG),
        *(f"kept_call.dialogs{{}}.{name}" for name in _DIALOG),
        *(f"{of}.{name}" for of in ("keep_call", "kept_call.kept") for name in _KEPT),
    }
)

# ------------------------------------------------------------------------------- other nodes

#: Messages between nodes, over the NATS server (docs/cluster.md); a stream keeps ``Batch`` alone.
NODES: Mapping[str, Carries] = {
    "Beat": C.STATE,
    "Batch": C.STATE,
    "Snapshot": C.STATE,
    # A person's wish, signed; what may be asked for is in NODE_REQUESTS.
    "Ask": C.JOINS,
    # To the asking node's own inbox, kept nowhere.
    "Answer": C.QUOTES,
}
#: What one node may ask another for. Quotations: to a person who may read them by the same route,
#: recorded where the call is before they leave.
NODE_REQUESTS: Mapping[str, Carries] = {
    "state": C.STATE,
    "words": C.QUOTES,
    "act": C.JOINS,
    "after": C.ACTS,
    "call_verdict": C.ACTS,
    "acknowledge": C.STATE,
    "accept": C.JOINS,
    "refuse": C.STATE,
    "verdict": C.ACTS,
    "callbacks": C.STATE,
    "callback_done": C.STATE,
    "requests": C.STATE,
    "request_approve": C.STATE,
    "request_refuse": C.STATE,
    "request_done": C.STATE,
}
#: Their fields of text that are no ids: names of nodes, fixed lists, what was configured.
NODE_TEXTS = frozenset(
    {
        *("Beat.node", "Beat.boot", "Beat.version", "Beat.config", "Beat.supervisors"),
        *("Beat.busy", "Batch.node", "Batch.boot", "Batch.calls.notice", "Batch.ended"),
        *("Batch.calls.categories", "Batch.alerts.categories", "Batch.alerts.reason"),
        *("Batch.alerts.acknowledged_by", "Batch.alerts.escalation.asking"),
        *("Batch.alerts.escalation.told", "Batch.alerts.escalation.refusals.by"),
        # Typed on purpose, by somebody who cannot come.
        "Batch.alerts.escalation.refusals.reason",
        *("Snapshot.node", "Snapshot.boot", "Snapshot.calls.notice", "Snapshot.degraded{}"),
        *("Snapshot.calls.categories", "Snapshot.alerts.categories", "Snapshot.alerts.reason"),
        *("Snapshot.alerts.acknowledged_by", "Snapshot.alerts.escalation.asking"),
        *("Snapshot.alerts.escalation.told", "Snapshot.alerts.escalation.refusals.by"),
        "Snapshot.alerts.escalation.refusals.reason",
    }
)
#: Events as :func:`notifier.cluster.views.without_words` leaves them.
NODE_EVENTS = frozenset({"Batch.events.event"})

# ------------------------------------------------------------------------------- command line


@dataclass(frozen=True, slots=True)
class Command:
    """One command of ``callshield``."""

    carries: Carries
    run: tuple[str, ...] | None = None
    """Arguments with which the test runs it beside a live call; ``{call_id}`` and ``{out}`` are
    filled in."""
    token: str = "supervisor"
    """Whose token it is given."""
    why_not: str = ""
    """Why it is not run there."""


_OTHER_NODE = "starts a node or a load of its own; of a running node it has nothing"
_EDGE = "writes and asks Kamailio, which has no sound; of a node it has its readiness"
_FILES = "works on files that it is given, not on a node"
_KEYS = "makes or changes keys and tokens"
_WRITES = "changes the node's store"
_SHIPPED = "shows what this program ships with"

COMMANDS: Mapping[str, Command] = {
    "analyze": Command(C.NOTHING, why_not=_FILES),
    "audit joins": Command(C.STATE, ("--json",)),
    "audit reads": Command(C.STATE, ("--json",)),
    "audit verify": Command(C.NOTHING, ("--json",)),
    "backup": Command(C.OPERATOR, ("{out}/backup", "--overwrite")),
    "bench consoles": Command(C.NOTHING, why_not=_OTHER_NODE),
    "bench faults": Command(C.NOTHING, why_not=_OTHER_NODE),
    "bench phones": Command(C.NOTHING, why_not=_OTHER_NODE),
    "bench pipeline": Command(C.NOTHING, why_not=_OTHER_NODE),
    "bench relay": Command(C.NOTHING, why_not=_OTHER_NODE),
    "bench stall": Command(C.NOTHING, why_not=_OTHER_NODE),
    "bench table": Command(C.NOTHING, why_not=_OTHER_NODE),
    "calibrate": Command(C.FIGURES, ()),
    "classify": Command(C.NOTHING, why_not=_FILES),
    "cluster status": Command(C.NOTHING, why_not="asks the other nodes, and this one has none"),
    "compliance works-council": Command(C.NOTHING, ()),
    "demo": Command(C.NOTHING, why_not=_OTHER_NODE),
    "doctor": Command(C.NOTHING, ("--json",)),
    "edge password": Command(C.NOTHING, why_not=_KEYS),
    "edge reload": Command(C.NOTHING, why_not=_EDGE),
    "edge render": Command(C.NOTHING, why_not=_EDGE),
    "edge status": Command(C.NOTHING, why_not=_EDGE),
    "eval acoustic": Command(C.NOTHING, why_not=_FILES),
    "eval asr": Command(C.NOTHING, why_not=_FILES),
    "eval calls": Command(C.NOTHING, why_not=_FILES),
    "eval text": Command(C.NOTHING, why_not=_FILES),
    "eval vad": Command(C.NOTHING, why_not=_FILES),
    "evidence decrypt": Command(C.NOTHING, why_not=_FILES),
    "evidence export": Command(C.RECORDING, ("{call_id}", "--out", "{out}/evidence.zip")),
    "evidence key": Command(C.NOTHING, why_not=_KEYS),
    "evidence verify": Command(C.NOTHING, why_not=_FILES),
    "law check": Command(C.NOTHING, ("--json",)),
    "law list": Command(C.NOTHING, why_not=_SHIPPED),
    "law show": Command(C.NOTHING, why_not=_SHIPPED),
    "pbx check": Command(C.STATE, ()),
    "pbx notify": Command(C.NOTHING, why_not="sends a NOTIFY to a phone"),
    "privacy access": Command(
        C.RECORDING,
        ("--call", "{call_id}", "--out", "{out}/access.zip", "--ref", "T-2"),
        token="admin",
    ),
    # Of a call that runs it takes note, and does it when the call is over.
    "privacy erase": Command(C.NOTHING, why_not=_WRITES),
    "privacy keys": Command(C.NOTHING, ("--json",)),
    "privacy retention": Command(C.NOTHING, ("--json",)),
    "privacy rotate-key": Command(C.NOTHING, why_not=_KEYS),
    "privacy waiting": Command(C.STATE, ()),
    "profiles check": Command(C.NOTHING, why_not=_FILES),
    "profiles list": Command(C.NOTHING, ()),
    "profiles match": Command(C.NOTHING, why_not=_FILES),
    "profiles push": Command(C.NOTHING, why_not="shows a few words of ours on a phone"),
    "profiles render": Command(C.NOTHING, why_not=_FILES),
    "prompts check": Command(C.NOTHING, ()),
    "quality verify": Command(C.FIGURES, ("2020-01",)),
    "recordings export": Command(
        C.RECORDING,
        (
            *("{call_id}", "--out", "{out}/export.wav", "--complaint", "T-1"),
            *("--reason", "the test tries to hear a live call"),
        ),
    ),
    "recordings list": Command(C.STATE, ("--json",)),
    "recordings new-key": Command(C.NOTHING, why_not=_KEYS),
    "recordings purge": Command(C.NOTHING, ("--dry-run",)),
    "recordings rotate-key": Command(C.NOTHING, why_not=_KEYS),
    "recordings verify": Command(C.STATE, ("--json",)),
    "report hearing": Command(C.FIGURES, ("--json",)),
    "report shadow": Command(C.FIGURES, ()),
    "report weekly": Command(C.FIGURES, ()),
    "restore": Command(C.NOTHING, why_not=_WRITES),
    "retention run": Command(C.NOTHING, ("--dry-run",)),
    "ringback list": Command(C.STATE, ("--json",)),
    "ringback new-key": Command(C.NOTHING, why_not=_KEYS),
    "ringback remove": Command(C.NOTHING, why_not=_WRITES),
    "serve": Command(C.NOTHING, why_not="is the node; its log is read"),
    "token create": Command(C.NOTHING, why_not=_KEYS),
    "token list": Command(C.NOTHING, ()),
    "token revoke": Command(C.NOTHING, why_not=_KEYS),
    "train acoustic": Command(C.NOTHING, why_not=_FILES),
    "train text": Command(C.NOTHING, why_not=_FILES),
    "webhooks drop": Command(C.NOTHING, why_not=_WRITES),
    "webhooks list": Command(C.STATE, ("--json",)),
    "webhooks retry": Command(C.NOTHING, why_not=_WRITES),
}

# ------------------------------------------------------------------------- processes, sockets

#: What a node's processes listen at: (part, kind, what) → what comes through. ``what`` is a file's
#: name, or which of the configured ports it is.
SOCKETS: Mapping[tuple[str, str, str], Carries] = {
    ("notifier", "unix stream", "bus.sock"): C.STATE,
    ("notifier", "tcp", "web"): C.QUOTES,
    ("media", "unix stream", "media.sock"): C.STATE,
    ("media", "udp", "rtp of a call"): C.CALL_AUDIO,
    ("detector", "unix datagram", "tap.sock"): C.CALLER_AUDIO,
    ("detector", "unix stream", "words.sock"): C.CALLER_AUDIO,
    ("bridge", "tcp", "sip towards the PBX"): C.SIGNALLING,
    ("bridge", "udp", "sip towards the PBX"): C.SIGNALLING,
    ("bridge", "tcp", "sip towards the phones"): C.SIGNALLING,
    ("bridge", "udp", "sip towards the phones"): C.SIGNALLING,
    # PJSIP's own, at a port of the machine's choice: it asks name servers and takes their answers.
    ("bridge", "udp", "name resolver"): C.NOTHING,
    ("phones", "tcp", "keys of phones"): C.ACTS,
}

#: Modules of the product that open a socket, speak to one, or start a process.
MAKES_SOCKETS: Mapping[str, str] = {
    "callshield/bench_consoles.py": "load of its own",
    "callshield/bench_consoles_clients.py": "load of its own",
    "callshield/bench_consoles_echo.py": "load of its own",
    "callshield/bench_phones.py": "load of its own",
    "callshield/bench_phones_peer.py": "load of its own",
    "callshield/bench_processes.py": "load of its own",
    "callshield/bus.py": "Unix sockets between a node's processes",
    "callshield/demo.py": "the demo's own node",
    "callshield/demo_peers.py": "the demo's telephones",
    "callshield/doctor.py": "tries whether ports are free",
    "callshield/doctor_pbx.py": "tries whether ports are free",
    "callshield/doctor_phone_listener.py": "tries whether ports are free",
    "callshield/edge_command.py": "lets Kamailio read its files (`kamailio -c`)",
    "callshield/edge_rpc.py": "Kamailio's control socket: which nodes are ready, how many phones",
    "callshield/evidence_export.py": "sound of a call that is over, in memory without a name",
    "callshield/free_ports.py": "tries whether ports are free",
    "callshield/listening.py": "a TCP port: consoles, keys of phones",
    "callshield/notifier_request.py": "asks the notifier from the command line",
    "callshield/sd_notify.py": "tells the service manager: ready, stopping, how many calls",
    "callshield/serve.py": "starts the node's processes, asks its /readyz",
    "callshield/cluster_command.py": "asks the bus between nodes from the command line",
    "detectors/analyze.py": "processes that work on files",
    "detectors/process.py": "takes the tap",
    "firmware_profiles/http_push.py": "levels onto phones' screens",
    "firmware_profiles/online.py": "asks the notifier from the command line",
    "notifier/ami_client.py": "asks the PBX's manager interface",
    "notifier/cluster/floor.py": "the bus between nodes: its session",
    "notifier/cluster/incoming.py": "the bus between nodes: what others say, without words",
    "notifier/cluster/link.py": "the bus between nodes: the connection",
    "notifier/cluster/outgoing.py": "the bus between nodes: what this one says, without words",
    "notifier/cluster/service.py": "the bus between nodes: requests of persons",
    "notifier/cut.py": "frames of the consoles' WebSocket",
    "notifier/mail.py": "alerts by mail, without words",
    "notifier/oidc_provider.py": "asks the company's sign-in",
    "notifier/process.py": "serves consoles",
    "notifier/shield.py": "in front of the consoles' routes",
    "notifier/stream.py": "the consoles' WebSocket",
    "notifier/webhooks.py": "events outside, without words",
    "sipbridge/bench_load.py": "load of its own",
    "sipbridge/bench_show.py": "load of its own",
    "sipbridge/bench_worker.py": "load of its own",
    "sipbridge/ear_report.py": "measures on files",
    "sipbridge/listener_shield.py": "narrows PJSIP's listeners",
    "sipbridge/ng_client.py": "commands for rtpengine, no sound",
    "sipbridge/pbx_probe_options.py": "asks a PBX (doctor --pbx)",
    "sipbridge/pjsua2_build/apt_source.py": "builds pjsua2",
    "sipbridge/pjsua2_build/build.py": "builds pjsua2",
    "sipbridge/pjsua2_build/recipe.py": "builds pjsua2",
    "sipbridge/pjsua2_build/source.py": "builds pjsua2",
    "sipbridge/ports.py": "RTP and RTCP ports of calls",
    "sipbridge/rtpengine_dtmf.py": "keys that rtpengine heard",
    "sipbridge/rtpengine_probe.py": "a call of nobody, with silence",
    "sipbridge/rtpengine_process.py": "the benchmark's reference",
    "sipbridge/rtpengine_tap.py": "the caller's sound, copied by rtpengine, for the tap",
}
