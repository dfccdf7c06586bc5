// The agent's page: one glance, one press.
import { $, categoriesOf, clock, MARKS, minutes, notify, say, SHAPES, startPage } from "./page.js";
import { problemOf, request } from "./link.js";
import { activeCall, apply, emptyState, loaded, orderedCalls, protection } from "./state.js";
import { has, known, language, preferLanguage, t } from "./strings.js";

// The digits are those of the phone's own codes: *8# help, *9# end, *0# skip.
const KEYS = { F2: "warn", F8: "help", F9: "end", F10: "skip_notice" };
const ACTIONS = ["warn", "help", "end", "skip_notice"];

let state = emptyState();
let chosen = null;
let page = null;
let told = { key: "", tone: "good", values: {} };
const sending = new Set();

/** The word for the n-th warning; the last configured one is the final one. */
function grade(n) {
  if (n === 0) return t("warnings.none");
  return n >= state.node.warnings ? t("warnings.last") : t("warnings.nth", { n });
}

/** The call that the page is about: the chosen one, else the one that is not on hold. */
function current() {
  if (chosen !== null && state.calls.has(chosen)) return state.calls.get(chosen);
  chosen = null;
  return activeCall(state);
}

const directionOf = (call) => t(`direction.${call.direction}`);

/** Say what came of it; kept as a key, so that it follows the language. */
function feedback(key, tone = "good", values = {}) {
  told = { key, tone, values };
  drawFeedback();
}

function drawFeedback() {
  $("feedback").dataset.tone = told.tone;
  say($("feedback"), told.key ? t(told.key, told.values) : "");
}

function showLevel(level, word, categories, why) {
  const card = $("level");
  if (card.dataset.level !== String(level)) {
    card.dataset.level = level;
    $("shape").setAttribute("d", SHAPES[level]);
    $("mark").setAttribute("d", MARKS[level]);
  }
  say($("word"), word);
  say($("categories"), categories);
  say($("why"), why);
  document.querySelectorAll(".steps li").forEach((step, index) => {
    step.classList.toggle("on", level !== "none" && index < level);
  });
  const title = `${word} · Callshield`;
  if (document.title !== title) document.title = title;
}

function why(call) {
  if (call.level === 0) return t("why.calm");
  const first = call.categories[0];
  return first === undefined ? t("why.other") : known("why.", first);
}

function drawCall(call) {
  const guard = protection(state, call);
  if (call.ending) showLevel("none", t("released"), "", t("released.why"));
  else if (call.answered_ts === null) showLevel("none", t("ringing"), "", t(`ringing.${call.direction}`));
  else if (guard === "on") {
    showLevel(call.level, t(`level.${call.level}`), call.level ? categoriesOf(call) : "", why(call));
  } else if (guard === "wait") {
    showLevel("none", t(call.notice === "playing" ? "notice.playing" : "gate"), "", t("why.waiting"));
  } else showLevel("none", t("level.unknown"), "", t(`why.${guard}`));

  const spoken = call.answered_ts === null ? 0 : page.link.now() - call.answered_ts;
  // At level 0 nothing moves: no seconds are counted.
  const time = call.level === 0 ? minutes(spoken) : clock(spoken);
  say($("time"), `${directionOf(call)} · ${time}`);
  say($("notice"), t(`notice.${call.notice}`));
  tone("notice", call.notice === "failed" ? "bad" : "");
  say($("protection"), t(`protection.${guard}`));
  tone("protection", { on: "good", wait: "", off: "bad", down: "bad", internal: "" }[guard]);
  say($("warnings"), grade(call.warnings));
  drawActions(call);
}

function tone(fact, value) {
  document.querySelector(`[data-fact="${fact}"]`).dataset.tone = value;
}

function drawActions(call) {
  const talking = call.answered_ts !== null && !call.ending;
  const gated = call.notice === "" || call.notice === "playing";
  const internal = call.direction === "internal";
  const able = {
    warn: talking && !gated && !internal,
    help: !call.ending,
    end: talking,
    skip_notice: talking && gated && !internal,
  };
  for (const action of ACTIONS) {
    // Not the disabled attribute while sending: the focus would be lost.
    $(action).disabled = !able[action];
    $(action).setAttribute("aria-busy", String(sending.has(action)));
  }
  $("skip_notice").hidden = !able.skip_notice;
  $("help").dataset.state = call.help;
  hint("help", t(call.help === "none" ? "hint.help" : `hint.help.${call.help}`));
  const next = call.warnings + 1;
  $("warn").hidden = state.node.warnings === 0 || internal;
  hint("warn", next > state.node.warnings ? t("hint.warn.last") : t("hint.warn", { grade: grade(next) }));
  hint("end", t(internal ? "hint.end.internal" : "hint.end"));
  hint("skip_notice", t("hint.skip_notice"));
}

function hint(action, text) {
  say($(action).querySelector(".hint"), text);
}

function drawIdle() {
  const done = state.ended;
  if (done === null) showLevel("none", t("idle"), "", t("idle.why"));
  else showLevel("none", t("ended"), "", reasonOf(done));
  $("summary").hidden = done === null;
  if (done === null) return;
  const { guard } = done;
  const rows = [
    ["summary.reason", reasonOf(done)],
    ["summary.time", clock(done.duration_s)],
    ["summary.level", guard === "off" || guard === "internal" ? t("level.unknown") : t(`level.${done.peak}`)],
    ["summary.warnings", grade(done.warnings)],
    ["summary.help", t(`help.${done.help}`)],
    ["summary.notice", t(`notice.${done.notice}`)],
    ["summary.protection", t(`was.${guard}`)],
  ];
  const key = JSON.stringify([language(), rows]);
  if ($("done").dataset.key === key) return;
  $("done").dataset.key = key;
  $("done").replaceChildren(
    ...rows.flatMap(([name, value]) => {
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = t(name);
      dd.textContent = value;
      return [dt, dd];
    }),
  );
}

function reasonOf(call) {
  const keys = [`reason.${call.direction}.${call.reason}`, `reason.${call.reason}`];
  return t(keys.find(has) ?? "reason.other");
}

function drawOthers(call) {
  const calls = orderedCalls(state);
  $("others").hidden = calls.length < 2;
  const key = JSON.stringify([language(), calls.map((one) => [one.call_id, one.level, one.held]), call?.call_id]);
  if ($("others").dataset.key === key) return;
  $("others").dataset.key = key;
  $("others").replaceChildren(
    ...calls.map((one, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet";
      const what = one.held ? t("held") : t(`level.${one.level}`);
      button.textContent = `${index + 1} · ${directionOf(one)} · ${what}`;
      button.setAttribute("aria-pressed", String(one === call));
      button.addEventListener("click", () => {
        chosen = one.call_id;
        draw();
      });
      return button;
    }),
  );
}

function draw() {
  if (page === null || state.node === null) return;
  say($("who"), t("agent", { id: state.node.agent_id }));
  const call = current();
  drawFeedback();
  drawOthers(call);
  $("actions").hidden = call === null;
  $("facts").hidden = call === null;
  if (call === null) drawIdle();
  else {
    $("summary").hidden = true;
    drawCall(call);
  }
}

async function press(action) {
  const call = current();
  const button = $(action);
  if (call === null || button.hidden || button.disabled || sending.has(action)) return;
  sending.add(action);
  feedback("sending", "wait");
  draw();
  const answer = await request(`/calls/${call.call_id}/actions`, "POST", { action });
  sending.delete(action);
  if (answer.status === 200) feedback(`${answer.body.status}.${action}`);
  else {
    const problem = `problem.${problemOf(answer)}`;
    feedback(has(problem) ? problem : "problem.other", "bad");
  }
  draw();
}

/** Say what happened, also when the phone's keys did it. */
function tell(event) {
  if (event.type === "call.started" || event.type === "call.ended") feedback("");
  if (event.type === "warning.played") {
    const key = event.complete ? "event.warning" : "event.warning.cut";
    feedback(key, "good", { grade: grade(event.grade) });
  }
  if (event.type === "alert.raised" && event.kind === "help") feedback("event.help");
  if (event.type === "alert.acknowledged" && state.alerts.get(event.alert_id)?.kind === "help") {
    feedback("event.taken");
  }
  if (event.type === "node.degraded" && event.component === "pbx_recording") {
    feedback(event.degraded ? "event.pbx_records" : "", "bad");
  }
  if (event.type === "risk.changed" && event.level > event.previous && event.level >= 2) {
    notify(t(`level.${event.level}`), categoriesOf(event), event.call_id);
  }
}

page = startPage("title.agent", (node) => node.role === "agent", {
  load(node, calls, alerts) {
    preferLanguage(node.language);
    $("language").value = language();
    state = loaded(node, calls, alerts);
    page?.translate();
  },
  event(event) {
    apply(state, event);
    tell(event);
  },
  draw,
});
for (const action of ACTIONS) $(action).addEventListener("click", () => press(action));
addEventListener("keydown", (pressed) => {
  const action = KEYS[pressed.key];
  if (!action || pressed.repeat || pressed.ctrlKey || pressed.altKey || pressed.metaKey) return;
  if ($("main").hidden) return;
  pressed.preventDefault();
  press(action);
});
