// The supervisor's page: who needs somebody, who took it, what is live. No words, no audio.
import { $, badge, categoriesOf, clock, notify, say, startPage } from "./page.js";
import { problemOf, request } from "./link.js";
import {
  apply, emptyState, forgetOldAlerts, loaded, openAlerts, orderedCalls, protection, takenAlerts,
} from "./state.js";
import { has, known, language, preferLanguage, t } from "./strings.js";

const SHOWN_HISTORY = 10;

let state = emptyState();
let page = null;
let told = { key: "", tone: "good" };
const sending = new Set();

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Keep one child per key, in order; untouched children keep their focus. */
function keyed(parent, items, keyOf, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const key = `${keyOf(item)} ${language()}`;
    let child = old.get(key);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = key;
    }
    old.delete(key);
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
    update?.(child, item);
  });
  for (const child of old.values()) child.remove();
}

const nameOf = (alert) => (alert.kind === "node" && has(`alert.${alert.reason}`) ? alert.reason : alert.kind);
const titleOf = (alert) => [t(`alert.${nameOf(alert)}`), categoriesOf(alert)].filter(Boolean).join(" · ");

function makeAlert(alert) {
  const row = element("li");
  row.dataset.level = alert.level;
  row.dataset.kind = alert.kind;
  const accept = element("button", "accept", t("accept"));
  accept.type = "button";
  accept.setAttribute("aria-label", t("accept.of", { id: alert.agent_id, kind: titleOf(alert) }));
  accept.addEventListener("click", () => take(alert.alert_id));
  row.append(
    // Help asked at level 0 needs somebody all the same: no "calm" beside it.
    alert.level > 0 ? badge(alert.level) : element("span", "dot"),
    element("div", "", element("strong", "", titleOf(alert)), element("span", "of")),
    accept,
  );
  return row;
}

function updateAlert(row, alert) {
  const time = clock(page.link.now() - alert.raised_ts);
  say(row.querySelector(".of"), `${t("agent", { id: alert.agent_id })} · ${t("ago", { time })}`);
  row.querySelector(".accept").disabled = sending.has(alert.alert_id);
}

function whoTook(alert) {
  return alert.acknowledged_by === state.node.token_id
    ? t("taken.me")
    : t("taken.other", { by: alert.acknowledged_by });
}

function makeTaken(alert) {
  return element(
    "li", "",
    `${titleOf(alert)} · ${t("agent", { id: alert.agent_id })} `,
    element("span", "of", `— ${whoTook(alert)}`),
  );
}

function stateOf(call) {
  if (call.ending) return t("state.ending");
  if (call.answered_ts === null) return t("state.ringing");
  if (call.notice === "" || call.notice === "playing") return t("state.notice");
  return t(call.tapped ? "state.talking" : "state.untapped");
}

function makeCall() {
  return element("tr", "", ...[0, 1, 2, 3, 4].map(() => element("td", "")));
}

function updateCall(row, call) {
  const [level, agent, category, time, what] = row.children;
  // A call that nobody analyses is not "calm".
  const shown = protection(state, call) === "on" ? call.level : "none";
  if (level.dataset.shown !== String(shown)) {
    level.dataset.shown = shown;
    level.replaceChildren(badge(shown));
  }
  say(agent, t("agent", { id: call.agent_id }));
  say(category, shown > 0 ? categoriesOf(call) : "");
  say(time, clock(page.link.now() - (call.answered_ts ?? call.started_ts)));
  const direction = call.direction === "inbound" ? "" : `${t(`direction.${call.direction}`)} · `;
  say(what, `${direction}${stateOf(call)}`);
}

function drawHealth() {
  const down = [...state.degraded.keys()];
  const items = down.length ? down : [null];
  keyed($("health"), items, (part) => part ?? "ok", (part) => {
    const text = part === null ? t("health.ok") : t("down", { part: known("component.", part) });
    return element("li", part === null ? "" : "bad", text);
  });
}

function draw() {
  if (page === null || state.node === null) return;
  const open = openAlerts(state);
  const taken = takenAlerts(state, SHOWN_HISTORY);
  const calls = orderedCalls(state);
  keyed($("alerts"), open, (alert) => alert.alert_id, makeAlert, updateAlert);
  keyed($("history"), taken, (alert) => alert.alert_id, makeTaken);
  keyed($("calls").tBodies[0], calls, (call) => call.call_id, makeCall, updateCall);
  drawHealth();
  drawFeedback();
  $("alerts-none").hidden = open.length > 0;
  $("history-none").hidden = taken.length > 0;
  $("calls-none").hidden = calls.length > 0;
  $("calls").hidden = calls.length === 0;
  say($("alert-count"), open.length ? t("calls.count", { n: open.length }) : "");
  say($("call-count"), calls.length ? t("calls.count", { n: calls.length }) : "");
  const title = `${open.length ? `(${open.length}) ` : ""}${t("title.supervisor")} · Callshield`;
  if (document.title !== title) document.title = title;
}

/** Say what came of it; kept as a key, so that it follows the language. */
function feedback(key, tone) {
  told = { key, tone };
  drawFeedback();
}

function drawFeedback() {
  $("feedback").dataset.tone = told.tone;
  say($("feedback"), told.key ? t(told.key) : "");
}

async function take(alertId) {
  if (sending.has(alertId)) return;
  sending.add(alertId);
  draw();
  const answer = await request(`/alerts/${alertId}/acknowledge`, "POST");
  sending.delete(alertId);
  if (answer.status === 200) feedback("taken.done", "good");
  else if (answer.status === 409) feedback("taken.late", "wait");
  else {
    const problem = `problem.${problemOf(answer)}`;
    feedback(has(problem) ? problem : "problem.other", "bad");
  }
  if (answer.status === 200 || answer.status === 409) {
    const { acknowledged_by: by, acknowledged_ts: ts } = answer.body;
    apply(state, { type: "alert.acknowledged", alert_id: alertId, by, ts });
  }
  draw();
  $("alerts").querySelector(".accept")?.focus();
}

page = startPage("title.supervisor", (node) => node.role !== "agent", {
  load(node, calls, alerts) {
    preferLanguage(node.language);
    $("language").value = language();
    state = loaded(node, calls, alerts);
    page?.translate();
  },
  event(event) {
    apply(state, event);
    forgetOldAlerts(state, 50);
    if (event.type === "alert.raised") {
      notify(titleOf(event), t("agent", { id: event.agent_id }), event.alert_id);
    }
  },
  draw,
});
