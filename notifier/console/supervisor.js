// The supervisor's page: who needs somebody, who took it, what is live. Words only of a call whose
// agent asked for help: before that the server sends none. Audio never.
import { drawQueue, ofWhom, sending, titleOf } from "./alert_queue.js";
import { $, button, element, keyed, say } from "./dom.js";
import { deciding, drawRequests } from "./evidence_list.js";
import { badge, categoriesOf, clock, learnSector, notify, quotesOf, startPage, timeOfDay } from "./page.js";
import { newest, problemOf, request } from "./link.js";
import { chime, drawSound, startSound } from "./sound.js";
import {
  apply, emptyState, forgetOldAlerts, learnt, loaded, openCallbacks, orderedCalls,
  protection,
} from "./state.js";
import { sayVerdict } from "./verdict.js";
import { downText, has, language, preferLanguage, t } from "./strings.js";

const KEPT_ALERTS = 50;

let state = emptyState();
let page = null;
let told = { key: "", tone: "good" };

function stateOf(call) {
  if (call.ending) return t("state.ending");
  if (call.answered_ts === null) return t("state.ringing");
  if (call.notice === "" || call.notice === "playing") return t("state.notice");
  return t(call.tapped ? "state.talking" : "state.untapped");
}

function makeCall() {
  const row = element("tr", "", ...[0, 1, 2, 3, 4].map(() => element("td", "")));
  const heard = element("details", "heard", element("summary", "", t("heard.short")), element("p", ""));
  row.children[2].append(element("span", ""), heard);
  return row;
}

function updateCall(row, call) {
  const [level, agent, category, time, what] = row.children;
  // A call that nobody analyses is not "calm".
  const shown = protection(state, call) === "on" ? call.level : "none";
  if (level.dataset.shown !== String(shown)) {
    level.dataset.shown = shown;
    level.replaceChildren(badge(shown));
  }
  say(agent, [t("agent", { id: call.agent_id }), call.node].filter(Boolean).join(" · "));
  const categories = [call.crisis ? t("category.crisis") : "", shown > 0 ? categoriesOf(call) : ""];
  say(category.querySelector("span"), categories.filter(Boolean).join(" · "));
  const quotes = shown > 0 ? quotesOf(call) : "";
  category.querySelector(".heard").hidden = quotes === "";
  say(category.querySelector(".heard p"), quotes);
  say(time, clock(page.link.now() - (call.answered_ts ?? call.started_ts)));
  const direction = call.direction === "inbound" ? "" : `${t(`direction.${call.direction}`)} · `;
  say(what, `${direction}${stateOf(call)}`);
}

function drawHealth() {
  const down = [...state.degraded.keys()];
  const items = down.length ? down : [null];
  keyed($("health"), items, (part) => part ?? "ok", (part) => {
    const text = part === null ? t("health.ok") : downText(part);
    return element("li", part === null ? "" : "bad", text);
  });
}

/** Call-backs that were promised: whose, until when; overdue ones first, by their time. */
function drawCallbacks(now) {
  const owed = openCallbacks(state);
  const make = (one) => {
    const done = button("quiet", t("callbacks.done"), () => calledBack(one.callback_id));
    return element("li", "", element("span", ""), " ", done);
  };
  keyed($("callbacks"), owed, (one) => one.callback_id, make, (row, one) => {
    const late = one.state === "overdue" || one.due_ts < now;
    row.classList.toggle("bad", late);
    const values = { owner: one.owner || t("callbacks.nobody"), time: timeOfDay(one.due_ts) };
    say(row.querySelector("span"), t(late ? "callbacks.late" : "callbacks.due", values));
  });
  $("callbacks-none").hidden = owed.length > 0;
  say($("callback-count"), owed.length ? t("calls.count", { n: owed.length }) : "");
}

function draw() {
  if (page === null || state.node === null) return;
  const now = page.link.now();
  const calls = orderedCalls(state);
  drawQueue(state, now, { accept, refuse, judge, draw });
  keyed($("calls").tBodies[0], calls, (call) => call.call_id, makeCall, updateCall);
  drawCallbacks(now);
  drawRequests(state, { decide, draw });
  drawHealth();
  drawSound();
  drawFeedback();
  $("calls-none").hidden = calls.length > 0;
  $("calls").hidden = calls.length === 0;
  say($("call-count"), calls.length ? t("calls.count", { n: calls.length }) : "");
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

function failed(answer) {
  const problem = `problem.${problemOf(answer)}`;
  feedback(has(problem) ? problem : "problem.other", "bad");
}

/** Accept: exactly one person wins, whoever came later reads who. */
async function accept(alertId, how) {
  if (sending.has(alertId)) return;
  sending.add(alertId);
  draw();
  const answer = await request(`/alerts/${alertId}/accept`, "POST", { how });
  sending.delete(alertId);
  if (answer.status === 200) feedback(`taken.done.${how}`, "good");
  else if (answer.body?.acknowledged_by) feedback("taken.late", "wait");
  else failed(answer);
  const { acknowledged_by: by, acknowledged_ts: ts } = answer.body ?? {};
  if (by) apply(state, { type: "alert.acknowledged", alert_id: alertId, by, ts, how: answer.status === 200 ? how : "" });
  draw();
}

async function refuse(alertId, reason) {
  if (sending.has(alertId)) return;
  sending.add(alertId);
  draw();
  const answer = await request(`/alerts/${alertId}/refuse`, "POST", { reason });
  sending.delete(alertId);
  if (answer.status === 200) feedback("refused.done", "good");
  else if (answer.body?.acknowledged_by) feedback("taken.late", "wait");
  else failed(answer);
  draw();
}

async function calledBack(callbackId) {
  const answer = await request(`/callbacks/${callbackId}/done`, "POST");
  if (answer.status !== 200) failed(answer);
  else state.callbacks.delete(callbackId);
  draw();
}

/** A request for evidence: approved, refused with a reason, or handed out. */
async function decide(requestId, how, more) {
  if (deciding.has(requestId)) return;
  deciding.add(requestId);
  draw();
  const answer = await request(`/requests/${requestId}/${how}`, "POST", more);
  deciding.delete(requestId);
  if (answer.status === 200) feedback(`evidence.told.${how}`, "good");
  else failed(answer);
  await learnRequests();
}

async function judge(alertId, verdict) {
  const alert = state.alerts.get(alertId);
  if (!alert) return;
  const problem = await sayVerdict([alert], verdict);
  feedback(problem ?? `judge.done.${verdict}`, problem ? "bad" : "good");
  draw();
}

/** The agent asked for help: from now on the server tells why. */
async function learnWhy(callId) {
  const answer = await newest("/calls");
  if (answer.status !== 200) return;
  for (const call of answer.body.calls) if (call.call_id === callId) learnt(state, call);
  draw();
}

async function learnCallbacks() {
  const answer = await newest("/callbacks");
  if (answer.status !== 200) return;
  for (const one of answer.body.callbacks) apply(state, { ...one, type: "callback.changed" });
  draw();
}

async function learnRequests() {
  const answer = await newest("/requests");
  if (answer.status !== 200) return;
  state.wanted.clear();
  for (const one of answer.body.requests) apply(state, { ...one, type: "evidence.requested" });
  draw();
}

/** Sound and notification when this person is told: with a turn of one's own not by every alert. */
function ring(event) {
  const alert = state.alerts.get(event.alert_id);
  if (event.type !== "alert.escalated" || !alert || alert.acknowledged_ts !== null) return;
  const me = state.node.supervisor_id;
  if (me && event.to?.length && !event.to.includes(me)) return;
  chime(["help", "crisis"].includes(alert.kind) ? "urgent" : "other");
  notify(titleOf(alert), ofWhom(alert), alert.alert_id);
}

page = startPage("title.supervisor", (node) => ["supervisor", "admin"].includes(node.role), {
  load(node, calls, alerts) {
    preferLanguage(node.language);
    $("language").value = language();
    state = loaded(node, calls, alerts);
    learnCallbacks();
    learnRequests();
    page?.translate();
    learnSector(() => page?.translate());
  },
  event(event) {
    apply(state, event);
    forgetOldAlerts(state, KEPT_ALERTS);
    if (event.type === "alert.raised" && event.kind === "help") learnWhy(event.call_id);
    // Whether this person may decide only the server knows.
    if (event.type.startsWith("evidence.")) learnRequests();
    // Words of another node's call do not come by themselves.
    const call = state.calls.get(event.call_id);
    if (call?.node && call.help !== "none" && event.type === "risk.changed") learnWhy(event.call_id);
    ring(event);
  },
  draw,
});
startSound();
