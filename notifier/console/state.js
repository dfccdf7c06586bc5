// What is true now, on this screen: events in, state out. No page, no network, no clock.

export function emptyState() {
  return {
    node: null,
    calls: new Map(),
    ended: null,
    alerts: new Map(),
    degraded: new Map(),
    callbacks: new Map(),
    wanted: new Map(),
  };
}

/** Start from what the API said. */
export function loaded(node, calls, alerts) {
  const state = emptyState();
  state.node = node;
  for (const call of calls) state.calls.set(call.call_id, newCall(call));
  const oldestFirst = [...alerts].sort((a, b) => a.raised_ts - b.raised_ts);
  for (const alert of oldestFirst) addAlert(state, alert);
  for (const part of node.degraded) state.degraded.set(part.component, part.reason);
  return state;
}

/** A call with everything that a page asks of it; null in an answer means: not told. */
function newCall(told) {
  const known = Object.fromEntries(Object.entries(told).filter(([, value]) => value !== null));
  return {
    direction: "inbound",
    // The other node that has it.
    node: "",
    answered_ts: null,
    notice: "",
    tapped: false,
    level: 0,
    categories: [],
    reasons: [],
    acoustic_only: false,
    words_confirmed: false,
    crisis: false,
    crisis_words: [],
    ending: false,
    warnings: 0,
    held: false,
    paused: false,
    // The caller may still press a key that decides on analysis.
    waits: false,
    // What came of that: "objection", "no_consent", "consent", "no_objection".
    choice: "",
    recording: false,
    spared: "",
    softening: false,
    // Who was asked, and where that stands: "none", "open", "taken".
    help: "none",
    helper: null,
    advice: null,
    length: null,
    ringback: null,
    callback: null,
    ...known,
    peak: told.peak_level ?? told.level ?? 0,
  };
}

/** Where an open alert stands, as the API says it. */
function standing({ stage, step, asking, refusals, unanswered }) {
  const offers = unanswered ? ["end", "promise_call_back"] : [];
  return { stage, step, to: asking ? [asking] : [], refusals, unanswered, offers };
}

function addAlert(state, alert) {
  state.alerts.set(alert.alert_id, {
    acknowledged_ts: null,
    acknowledged_by: "",
    how: "",
    stage: "",
    step: 0,
    to: [],
    refusals: [],
    unanswered: false,
    offers: [],
    ...alert,
    ...(alert.escalation ? standing(alert.escalation) : {}),
  });
  const call = state.calls.get(alert.call_id);
  if (call && alert.kind === "help") call.help = alert.acknowledged_ts ? "taken" : "open";
}

/** A decision keeps a request on the list; that it is settled takes it away. */
function applyRequest(state, { request_id, state: now, reason, held_until_ts }) {
  const known = state.wanted.get(request_id);
  if (now === "done" || now === "lapsed") state.wanted.delete(request_id);
  else if (known) state.wanted.set(request_id, { ...known, state: now, reason, held_until_ts });
}

/** Change state by one event. Applying an event a second time changes nothing. */
export function apply(state, event) {
  const kind = event.type;
  if (kind.startsWith("alert.")) applyAlert(state, event);
  else if (kind === "node.degraded") applyHealth(state, event);
  else if (kind === "callback.changed") applyCallback(state, event);
  else if (kind === "evidence.requested") {
    if (event.state || !state.wanted.has(event.request_id)) state.wanted.set(event.request_id, { state: "requested", ...event });
  } else if (kind === "evidence.changed") applyRequest(state, event);
  else if (kind === "call.started") {
    if (!state.calls.has(event.call_id)) {
      const { call_id, agent_id, direction, node, ts: started_ts } = event;
      const begun = { call_id, agent_id, direction: direction ?? "inbound", node: node ?? "", started_ts };
      state.calls.set(call_id, newCall(begun));
    }
  } else {
    const call = state.calls.get(event.call_id);
    if (call) applyCall(state, call, event);
    else if (event.type === "risk.changed" && state.ended?.call_id === event.call_id) {
      // The last words of a call are understood after its end.
      state.ended.peak = Math.max(state.ended.peak, event.level);
    }
  }
}

function applyAlert(state, event) {
  if (event.type === "alert.raised") {
    if (!state.alerts.has(event.alert_id)) addAlert(state, { ...event, raised_ts: event.ts });
    return;
  }
  const alert = state.alerts.get(event.alert_id);
  if (!alert) return;
  switch (event.type) {
    case "alert.acknowledged":
      alert.acknowledged_ts = event.ts;
      alert.acknowledged_by = event.by;
      alert.how = event.how ?? "";
      alert.supervisor_id = event.supervisor_id ?? "";
      for (const one of [state.calls.get(alert.call_id), state.ended]) {
        if (one && one.call_id === alert.call_id && alert.kind === "help") one.help = "taken";
      }
      break;
    case "alert.escalated":
      if (event.step < alert.step) break;
      alert.step = event.step;
      alert.stage = event.stage ?? "";
      alert.to = event.to ?? [];
      break;
    case "alert.refused":
      if (alert.refusals.some((one) => one.by === event.by)) break;
      alert.refusals = [...alert.refusals, { by: event.by, reason: event.reason, ts: event.ts }];
      break;
    case "alert.unanswered":
      alert.unanswered = true;
      alert.offers = event.offers ?? [];
      break;
  }
}

function applyHealth(state, event) {
  if (event.call_id) return;
  if (event.degraded) state.degraded.set(event.component, event.reason);
  else state.degraded.delete(event.component);
}

function applyCallback(state, event) {
  for (const call of [state.calls.get(event.call_id), state.ended]) {
    if (call && call.call_id === event.call_id) call.callback = event.state;
  }
  if (event.state === "done") state.callbacks.delete(event.callback_id);
  else state.callbacks.set(event.callback_id, { ...state.callbacks.get(event.callback_id), ...event });
}

function applyCall(state, call, event) {
  switch (event.type) {
    case "hold.changed":
      call.held = event.held;
      break;
    case "pause.changed":
      call.paused = event.paused;
      break;
    case "ear.changed":
      call.softening = event.softening;
      break;
    case "call.answered":
      call.answered_ts ??= event.ts;
      break;
    case "notice.started":
      call.notice = "playing";
      break;
    case "notice.finished":
      call.notice = event.source;
      call.tapped = event.tapped;
      call.waits = event.waits === true;
      break;
    case "protection.changed":
      call.tapped = event.protected;
      call.waits = false;
      call.choice = event.reason;
      break;
    case "recording.changed":
      call.recording = event.state === "recording";
      break;
    case "tap.started":
      call.tapped = true;
      break;
    case "risk.changed":
      call.level = event.level;
      call.peak = Math.max(call.peak, event.level);
      call.categories = event.categories;
      // A supervisor's copy has none until the agent asked for help.
      call.reasons = event.reasons ?? [];
      call.acoustic_only = event.acoustic_only;
      call.words_confirmed = event.words_confirmed;
      break;
    case "crisis.hint":
      call.crisis = true;
      call.crisis_words = event.words ?? [];
      break;
    case "warning.played":
      call.warnings = Math.max(call.warnings, event.grade);
      break;
    case "helper.changed":
      call.helper = { state: event.state, role: event.role };
      break;
    case "policy.advice":
      call.advice = { end: event.end_highlighted, grade: event.warn_grade, category: event.category ?? "" };
      break;
    case "call.length":
      call.length = { step: event.step, minutes: event.minutes, until_ts: event.until_ts ?? 0 };
      break;
    case "ringback.seen":
      call.ringback = { category: event.category, days: event.ended_days_ago };
      break;
    case "call.ending":
      call.ending = true;
      break;
    case "call.ended":
      state.calls.delete(event.call_id);
      // Protection as it was in the call, whatever breaks afterwards.
      state.ended = {
        ...call,
        ended_ts: event.ts,
        reason: event.reason,
        duration_s: event.duration_s,
        guard: protection(state, call),
      };
      break;
  }
}

/**
 * "on", "wait" (notice not over), "off" (this call is never analysed), "down" (a part failed) or
 * "internal" (colleagues among themselves).
 */
export function protection(state, call) {
  if (call.direction === "internal") return "internal";
  if (call.notice === "" || call.notice === "playing") return call.tapped ? "on" : "wait";
  if (call.waits) return "wait";
  if (!call.tapped || !state.node.analysis) return "off";
  if (call.node && (isAway(state, call.node) || state.degraded.has("cluster"))) return "down";
  const at = call.node ? `${call.node}/` : "";
  const down = ["detector", "media", "tap"].some((part) => state.degraded.has(`${at}${part}`));
  return down ? "down" : "on";
}

/** Whether another node is not heard: how its calls stand nobody knows here. */
export const isAway = (state, node) => state.degraded.has(`node:${node}`);

/** Whether somebody is spoken with, and the highest level that is shown of these calls. */
export function spoken(state) {
  const calls = [...state.calls.values()].filter((call) => call.answered_ts !== null && !call.ending);
  const levels = calls.map((call) => (protection(state, call) === "on" ? call.level : 0));
  return [calls.length > 0, Math.max(0, ...levels)];
}

/** What the API says of one call now, of which this screen knows: the reasons came free. */
export function learnt(state, call) {
  const known = state.calls.get(call.call_id);
  if (known) known.reasons = call.reasons ?? [];
}

const isOpen = (alert) => alert.acknowledged_ts === null;
const urgent = (alert) => (["help", "crisis"].includes(alert.kind) ? 10 : alert.level);

/** Open alerts, a call for help before anything else, then the higher level, then the older. */
export function openAlerts(state) {
  // Nobody can take an alert of a node that is not heard; that it is not is an alert of its own.
  const open = [...state.alerts.values()].filter((alert) => isOpen(alert) && !isAway(state, alert.node));
  return open.sort((a, b) => urgent(b) - urgent(a) || a.raised_ts - b.raised_ts);
}

/** Taken alerts, newest first. */
export function takenAlerts(state, limit) {
  const taken = [...state.alerts.values()].filter((alert) => !isOpen(alert));
  return taken.sort((a, b) => b.acknowledged_ts - a.acknowledged_ts).slice(0, limit);
}

/** The alert of a call that its agent waits on: the own call for help before what the machine
 * raised, and the newest of them. Null when nobody was told. */
export function requestOf(state, callId) {
  const rank = { help: 3, crisis: 2, risk: 1 };
  const found = [...state.alerts.values()].filter((one) => one.call_id === callId && rank[one.kind]);
  return found.sort((a, b) => rank[b.kind] - rank[a.kind] || b.raised_ts - a.raised_ts)[0] ?? null;
}

/** A call of the last day, told by the API, as the page's ended call. */
export function pastCall(state, told) {
  return { ...newCall({ ...told, started_ts: told.ended_ts }), ...told, guard: told.tapped ? "on" : "off" };
}

/** What the machine raised in a call; a call for help is a person's own and is not among them. */
export function machineAlerts(state, callId) {
  return [...state.alerts.values()].filter(
    (alert) =>
      alert.kind === "risk" && alert.reason !== "agent_press" && alert.call_id === callId,
  );
}

/** Live calls, the worst first. */
export function orderedCalls(state) {
  return [...state.calls.values()].sort((a, b) => b.level - a.level || a.started_ts - b.started_ts);
}

/** Call-backs that somebody owes, the first due first. */
export function openCallbacks(state) {
  return [...state.callbacks.values()].sort((a, b) => a.due_ts - b.due_ts);
}

/** Evidence that agents asked for and nobody handed out yet, the oldest first. */
export function openRequests(state) {
  return [...state.wanted.values()].sort((a, b) => a.ts - b.ts);
}

/** The call that somebody speaks in: of those not on hold the newest, else the newest. */
export function activeCall(state) {
  const newer = (one, other) => one.held - other.held || other.started_ts - one.started_ts;
  return [...state.calls.values()].sort(newer)[0] ?? null;
}

/** Drop all but the newest taken alerts: a screen stays open for a whole shift. */
export function forgetOldAlerts(state, keep) {
  for (const alert of takenAlerts(state, Infinity).slice(keep)) state.alerts.delete(alert.alert_id);
}
