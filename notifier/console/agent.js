// The agent's page: one glance, one press. Keys, presses, and what is said of them.
import { $, button, say } from "./dom.js";
import { ableIn, clearCall, directionOf, drawCall, grade } from "./agent_call.js";
import {
  drawEnded, drawMine, drawRest, learnMine, makeNotes, mine, STALE, wish,
} from "./agent_after.js";
import { drawHearing, earSeen, heardNow } from "./agent_hearing.js";
import { categoriesOf, learnSector, notify, startPage } from "./page.js";
import { problemOf, request } from "./link.js";
import { makeHeadset } from "./headset.js";
import { sayOfCall, sayVerdict, VERDICTS } from "./verdict.js";
import {
  activeCall, apply, emptyState, loaded, machineAlerts, orderedCalls, pastCall, spoken,
} from "./state.js";
import { has, language, preferLanguage, t } from "./strings.js";

// Where the phone has a code, its digit: *4# hand over, *5# soften, *7# pause, *8# help, *9# end,
// *0# skip. Function keys are no characters (WCAG 2.2, 2.1.4).
const KEYS = {
  F1: "extend",
  F2: "warn",
  F3: "promise_call_back",
  F4: "hand_over",
  F5: "soften",
  F6: "abusive",
  F7: "pause",
  F8: "help",
  F9: "end",
  F10: "skip_notice",
};

let state = emptyState();
let chosen = null;
let page = null;
const headset = makeHeadset(() => press("help"), feedback);
let told = { key: "", tone: "good", values: {} };
const sending = new Set();

/** The call that the page is about: the chosen one, else the one that is not on hold. */
function current() {
  if (chosen !== null && state.calls.has(chosen)) return state.calls.get(chosen);
  chosen = null;
  return activeCall(state);
}

/** Say what came of it; kept as a key, so that it follows the language. */
function feedback(key, tone = "good", values = {}) {
  told = { key, tone, values };
  drawFeedback();
}

function drawFeedback() {
  $("feedback").dataset.tone = told.tone;
  say($("feedback"), told.key ? t(told.key, told.values) : "");
}

function drawOthers(call) {
  const calls = orderedCalls(state);
  $("others").hidden = calls.length < 2;
  const key = JSON.stringify([language(), calls.map((one) => [one.call_id, one.level, one.held]), call?.call_id]);
  if ($("others").dataset.key === key) return;
  $("others").dataset.key = key;
  $("others").replaceChildren(
    ...calls.map((one, index) => {
      const what = one.held ? t("held") : t(`level.${one.level}`);
      const made = button("quiet", `${index + 1} · ${directionOf(one)} · ${what}`, () => {
        chosen = one.call_id;
        draw();
      });
      made.setAttribute("aria-pressed", String(one === call));
      return made;
    }),
  );
}

function draw() {
  if (page === null || state.node === null) return;
  say($("who"), t("agent", { id: state.node.agent_id }));
  const call = current();
  const now = page.link.now();
  drawFeedback();
  drawOthers(call);
  headset.follow(...spoken(state));
  for (const id of ["actions", "facts"]) $(id).hidden = call === null;
  $("main").dataset.phase = call === null ? "idle" : "call";
  drawRest(now);
  drawHearing(mine.hearing);
  if (call === null) {
    clearCall(state);
    drawEnded(state, state.ended, now);
    drawMine(now, contest);
  } else {
    // In a call the page is about that call and nothing else.
    for (const id of ["after", "mine", "rest", "past"]) $(id).hidden = true;
    drawCall(state, call, now, sending);
  }
}

/** A button that is one of two actions, by what is on now. */
function actionOf(name, call) {
  if (name !== "pause") return name;
  return call.paused ? "resume_recording" : "pause_recording";
}

async function press(name) {
  const call = current();
  if (call === null || !ableIn(state, call)[name] || sending.has(name)) return;
  const action = actionOf(name, call);
  sending.add(name);
  feedback("sending", "wait");
  draw();
  // That a call is abusive is the same word in it and after it.
  const where = name === "abusive" ? "after" : "actions";
  const answer = await request(`/calls/${call.call_id}/${where}`, "POST", { action });
  sending.delete(name);
  if (answer.status === 200) feedback(`${answer.body.status}.${action}`);
  else failed(answer);
  draw();
}

function failed(answer) {
  const problem = `problem.${problemOf(answer)}`;
  feedback(has(problem) ? problem : "problem.other", "bad");
}

/** A wish about the call that is over: pressed once the server says that it was kept. */
async function want(action, more) {
  const done = state.ended;
  if (done === null) return;
  const [said, tone] = await wish(done.call_id, action, more);
  feedback(said, tone);
  await refresh(["rest", "requests"]);
}

/** Something about the agent's own rest or breaks. */
async function own(path, said, parts) {
  const answer = await request(path, "POST");
  if (answer.status === 200) feedback(said);
  else failed(answer);
  await refresh(parts);
}

async function refresh(parts) {
  await learnMine(parts);
  // After a reload: the newest call of the day.
  const newest = mine.calls?.calls[0];
  if (state.ended === null && newest) state.ended = { ...pastCall(state, newest), past: true };
  draw();
}

async function judge(verdict) {
  const done = state.ended;
  if (done === null) return;
  const found = verdict === "missed" ? [] : machineAlerts(state, done.call_id);
  const problem = await (found.length ? sayVerdict(found, verdict) : sayOfCall(done.call_id, verdict));
  if (problem === null) done.verdict = verdict;
  feedback(problem ?? `judge.done.${verdict}`, problem ? "bad" : "good");
  draw();
}

/** The agent does not agree with a score: another person scores the call. */
const contest = (drawId) => own(`/quality/scores/${drawId}/contest`, "quality.asked", ["quality"]);

function choosePast(callId) {
  const told = mine.calls.calls.find((one) => one.call_id === callId);
  if (told) state.ended = { ...pastCall(state, told), past: true };
  draw();
}

/** Say what happened, also when the phone's keys did it. */
function tell(event) {
  if (event.type === "call.started" || event.type === "call.ended") feedback("");
  if (event.type === "warning.played") {
    const key = event.complete ? "event.warning" : "event.warning.cut";
    feedback(key, "good", { grade: grade(state.node, event.grade) });
  }
  if (event.type === "alert.raised" && event.kind === "help") feedback("event.help");
  if (event.type === "callback.changed" && has(`event.callback.${event.state}`)) {
    feedback(`event.callback.${event.state}`);
  }
  if (event.type === "node.degraded" && event.component === "pbx_recording") {
    feedback(event.degraded ? "event.pbx_records" : "", "bad");
  }
  if (event.type === "crisis.hint") notify(t("crisis.title"), t("crisis.what"), event.call_id);
  if (event.type === "risk.changed" && event.level > event.previous && event.level >= 2 && !event.late) {
    notify(t(`level.${event.level}`), categoriesOf(event), event.call_id);
  }
  if (event.type === "evidence.changed" && has(`event.evidence.${event.state}`)) {
    feedback(`event.evidence.${event.state}`, event.state === "refused" ? "bad" : "good");
  }
  // Rest: what the event says is shown at once, the rest of it is asked for.
  if (event.type === "rest.changed") {
    mine.rest = { ...mine.rest, resting: event.state === "resting", until_ts: event.until_ts };
  }
  if (STALE[event.type]) refresh(STALE[event.type]);
}

page = startPage("title.agent", (node) => node.role === "agent", {
  load(node, calls, alerts) {
    preferLanguage(node.language);
    $("language").value = language();
    const { ended } = state;
    state = loaded(node, calls, alerts);
    state.ended = ended;
    refresh();
    page?.translate();
    headset.start();
    learnSector(() => page?.translate());
  },
  event(event) {
    apply(state, event);
    mine.hearing = heardNow(mine.hearing, event);
    tell(event);
  },
  draw,
});
makeNotes((note) => want("note", { note }));
for (const name of new Set(Object.values(KEYS))) $(name).addEventListener("click", () => press(name));
$("offer-end").addEventListener("click", () => press("end"));
for (const action of ["rest", "evidence", "abusive"]) {
  $(`after-${action}`).addEventListener("click", () => want(action));
}
$("rest-longer").addEventListener("click", () => own("/me/rest/extend", "wished.rest", ["rest"]));
$("rest-ready").addEventListener("click", () => own(`/agents/${state.node.agent_id}/ready`, "rest.over", ["rest"]));
$("own-ear-seen").addEventListener("click", () => {
  earSeen(mine.hearing);
  draw();
});
$("break-take").addEventListener("click", () => own("/me/breaks/take", "breaks.taken", ["rest", "breaks"]));
$("past-calls").addEventListener("change", () => choosePast($("past-calls").value));
for (const verdict of VERDICTS) $(verdict).addEventListener("click", () => judge(verdict));
addEventListener("keydown", (pressed) => {
  const name = KEYS[pressed.key];
  if (!name || pressed.repeat || pressed.ctrlKey || pressed.altKey || pressed.metaKey) return;
  if ($("main").hidden || current() === null) return;
  pressed.preventDefault();
  press(name);
});
