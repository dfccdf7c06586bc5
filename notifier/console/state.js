// What is true now, on this screen: events in, state out. No page, no network, no clock.

export function emptyState() {
  return { node: null, calls: new Map(), ended: null, alerts: new Map(), degraded: new Map() };
}

/** Start from what the API said. */
export function loaded(node, calls, alerts) {
  const state = emptyState();
  state.node = node;
  for (const call of calls) {
    state.calls.set(call.call_id, {
      ...call,
      peak: call.level,
      warnings: call.warnings ?? 0,
      held: call.held ?? false,
      help: "none",
    });
  }
  const oldestFirst = [...alerts].sort((a, b) => a.raised_ts - b.raised_ts);
  for (const alert of oldestFirst) addAlert(state, alert);
  for (const part of node.degraded) state.degraded.set(part.component, part.reason);
  return state;
}

function addAlert(state, alert) {
  state.alerts.set(alert.alert_id, { ...alert });
  const call = state.calls.get(alert.call_id);
  if (call && alert.kind === "help") call.help = alert.acknowledged_ts === null ? "open" : "taken";
}

/** Change state by one event. Applying an event a second time changes nothing. */
export function apply(state, event) {
  const call = state.calls.get(event.call_id);
  switch (event.type) {
    case "call.started":
      if (!call) {
        state.calls.set(event.call_id, {
          call_id: event.call_id,
          agent_id: event.agent_id,
          direction: event.direction ?? "inbound",
          held: false,
          started_ts: event.ts,
          answered_ts: null,
          notice: "",
          tapped: false,
          level: 0,
          peak: 0,
          categories: [],
          warnings: 0,
          ending: false,
          help: "none",
        });
      }
      return;
    case "alert.raised":
      if (!state.alerts.has(event.alert_id)) {
        addAlert(state, { ...event, raised_ts: event.ts, acknowledged_ts: null, acknowledged_by: "" });
      }
      return;
    case "alert.acknowledged": {
      const alert = state.alerts.get(event.alert_id);
      if (!alert) return;
      alert.acknowledged_ts = event.ts;
      alert.acknowledged_by = event.by;
      for (const one of [call, state.ended]) {
        if (one && one.call_id === alert.call_id && alert.kind === "help") one.help = "taken";
      }
      return;
    }
    case "node.degraded":
      if (event.call_id) return;
      if (event.degraded) state.degraded.set(event.component, event.reason);
      else state.degraded.delete(event.component);
      return;
  }
  if (!call) return;
  switch (event.type) {
    case "hold.changed":
      call.held = event.held;
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
      break;
    case "tap.started":
      call.tapped = true;
      break;
    case "risk.changed":
      call.level = event.level;
      call.peak = Math.max(call.peak, event.level);
      call.categories = event.categories;
      break;
    case "warning.played":
      call.warnings = Math.max(call.warnings, event.grade);
      break;
    case "call.ending":
      call.ending = true;
      break;
    case "call.ended":
      state.calls.delete(event.call_id);
      // Protection as it was in the call, whatever breaks afterwards.
      state.ended = {
        ...call,
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
  if (!call.tapped || !state.node.analysis) return "off";
  return state.degraded.has("detector") || state.degraded.has("media") ? "down" : "on";
}

/** Open alerts, a call for help before anything else, then the higher level, then the older. */
export function openAlerts(state) {
  const open = [...state.alerts.values()].filter((alert) => alert.acknowledged_ts === null);
  const rank = (alert) => (alert.kind === "help" ? 10 : alert.level);
  return open.sort((a, b) => rank(b) - rank(a) || a.raised_ts - b.raised_ts);
}

/** Taken alerts, newest first. */
export function takenAlerts(state, limit) {
  const taken = [...state.alerts.values()].filter((alert) => alert.acknowledged_ts !== null);
  return taken.sort((a, b) => b.acknowledged_ts - a.acknowledged_ts).slice(0, limit);
}

/** Live calls, the worst first. */
export function orderedCalls(state) {
  return [...state.calls.values()].sort((a, b) => b.level - a.level || a.started_ts - b.started_ts);
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
