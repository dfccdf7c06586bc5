// The live call on the agent's page: level, reason, way of the call for help, buttons.
import { $, element, say } from "./dom.js";
import { clock, drawChips, MARKS, minutes, SHAPES, timeOfDay } from "./page.js";
import { protection, requestOf } from "./state.js";
import { has, known, language, t } from "./strings.js";

/** The word for the n-th warning; the last configured one is the final one. */
export function grade(node, n) {
  if (n === 0) return t("warnings.none");
  return n >= node.warnings ? t("warnings.last") : t("warnings.nth", { n });
}

export const directionOf = (call) => t(`direction.${call.direction}`);

/** Big card: colour, shape, word, filled bar. "none": nobody listens, so nothing is claimed. */
export function showLevel(level, word, categories, why) {
  const card = $("level");
  if (card.dataset.level !== String(level)) {
    card.dataset.level = level;
    $("shape").setAttribute("d", SHAPES[level]);
    $("mark").setAttribute("d", MARKS[level]);
  }
  say($("word"), word);
  drawChips($("categories"), categories);
  say($("why"), why);
  const filled = level === "none" ? 0 : level;
  $("bar").setAttribute("aria-valuenow", filled);
  $("bar").setAttribute("aria-valuetext", word);
  [...$("bar").children].forEach((step, index) => step.classList.toggle("on", index < filled));
  const title = `${word} · Callshield`;
  if (document.title !== title) document.title = title;
}

/** Quotes stay folded until the agent opens them, and fold again with another call. */
function fold(box, call, words) {
  const unique = [...new Set(words)];
  box.hidden = unique.length === 0;
  if (box.dataset.call !== call.call_id) box.open = false;
  box.dataset.call = call.call_id;
  say(box.querySelector("p"), unique.map((quote) => `“${quote}”`).join(" "));
}

function why(call) {
  if (call.level === 0) return t("why.calm");
  if (call.reasons.some((reason) => reason.rule === "agent_press")) return t("why.agent");
  if (call.acoustic_only) return t("why.shouting");
  if (call.level === 1 && !call.words_confirmed) return t("why.unsure");
  const first = call.categories[0];
  return first === undefined ? t("why.other") : known("why.", first);
}

/** A caller in danger: no level, no colour of abuse, the number to hand over to. */
export function drawCrisis(node, call) {
  const shown = call !== null && call.crisis && !call.ending;
  $("crisis").hidden = !shown;
  if (!shown) return;
  say($("crisis-line"), [node.crisis_number, node.crisis_name].filter(Boolean).join(" · "));
  fold($("crisis-heard"), call, call.crisis_words);
}

function drawLevel(state, call) {
  const guard = protection(state, call);
  const { level } = call;
  let quotes = [];
  if (call.ending) showLevel("none", t("released"), [], t("released.why"));
  else if (call.answered_ts === null) showLevel("none", t("ringing"), [], t(`ringing.${call.direction}`));
  else if (guard === "on") {
    showLevel(level, t(`level.${level}`), level ? call.categories : [], why(call));
    if (level) quotes = call.reasons.flatMap((reason) => reason.words ?? []);
  } else if (guard === "wait") {
    const says = t(call.notice === "playing" ? "notice.playing" : call.waits ? "protection.choice" : "gate");
    showLevel("none", says, [], t(call.waits ? "why.choice" : "why.waiting"));
  } else showLevel("none", t("level.unknown"), [], t(`why.${guard}`));
  fold($("heard"), call, quotes);
}

/** What was marked on this number after an earlier end, for whoever is about to answer. */
function drawRingback(call) {
  const mark = call.ringback;
  $("ringback").hidden = mark === null || call.ending;
  if (mark === null) return;
  const when = mark.days > 0 ? t("ringback.days", { n: mark.days }) : t("ringback.today");
  say($("ringback-what"), [mark.category ? known("category.", mark.category) : "", when].filter(Boolean).join(" · "));
}

/** The key of the sentence that says where a call for help stands. */
function standing(call, alert) {
  const helper = call.helper?.state;
  if (helper === "joined") return "request.joined";
  if (helper === "calling") return `request.calling.${call.helper.role}`;
  if (helper === "unreachable") return "request.unreachable";
  if (alert === null) return "";
  if (alert.acknowledged_ts !== null) return `request.taken.${alert.how || "join"}`;
  if (alert.unanswered || alert.stage === "nobody") return "request.nobody";
  if (alert.stage === "manager" || alert.stage === "all") return `request.${alert.stage}`;
  if (alert.refusals.length) return "request.refused";
  if (alert.step > 1) return "request.next";
  return `request.${alert.kind}`;
}

const STEPS = ["told", "all", "manager"];

/** The steps of its way, and the place of the one that it is at. Taken: only those that it went. */
function wayOf(alert) {
  let at = { all: 1, manager: 2, nobody: 2 }[alert.stage] ?? 0;
  if (alert.unanswered) at = 2;
  const taken = alert.acknowledged_ts !== null;
  const steps = [...(taken ? STEPS.slice(0, at + 1) : STEPS), "coming"];
  return { steps, at: taken ? steps.length - 1 : at };
}

function drawRequest(state, call) {
  const alert = requestOf(state, call.call_id);
  const key = standing(call, alert);
  $("request").hidden = key === "" || call.ending;
  if ($("request").hidden) return;
  const taken = alert !== null && alert.acknowledged_ts !== null;
  const nobody = key === "request.nobody";
  $("request").dataset.state = nobody ? "nobody" : taken || call.helper?.state === "joined" ? "taken" : "open";
  say($("request-says"), t(has(key) ? key : "request.help"));
  drawSteps(alert);
  const refused = alert === null || taken ? [] : alert.refusals;
  const said = JSON.stringify([language(), refused]);
  if ($("request-refused").dataset.key !== said) {
    $("request-refused").dataset.key = said;
    $("request-refused").replaceChildren(
      ...refused.map((one) => element("li", "", t("request.said_no", { reason: known("refuse.", one.reason) }))),
    );
  }
  $("offers").hidden = !nobody;
  const offers = alert?.offers ?? [];
  $("promise_call_back").hidden = !offers.includes("promise_call_back");
}

function drawSteps(alert) {
  $("request-steps").hidden = alert === null;
  if (alert === null) return;
  const { steps, at } = wayOf(alert);
  const key = JSON.stringify([language(), steps, at]);
  if ($("request-steps").dataset.key === key) return;
  $("request-steps").dataset.key = key;
  $("request-steps").replaceChildren(
    ...steps.map((name, index) => {
      const item = element("li", index < at ? "past" : index === at ? "now" : "", t(`way.${name}`));
      if (index === at) item.setAttribute("aria-current", "step");
      return item;
    }),
  );
}

/** Prompts about the call's length: a notice, later the offer to end; one press goes on. */
function drawLength(call, now) {
  const { length } = call;
  const over = length?.step === "extended" && length.until_ts > 0 && length.until_ts <= now;
  $("length").hidden = length === null || call.ending || over;
  if ($("length").hidden) return;
  const values = { n: length.minutes, time: timeOfDay(length.until_ts) };
  say($("length-says"), t(`length.${length.step}`, values));
  $("extend").hidden = length.step === "extended";
}

function drawFacts(state, call, now) {
  const guard = protection(state, call);
  const spoken = call.answered_ts === null ? 0 : now - call.answered_ts;
  // At level 0 nothing moves: no seconds are counted.
  const time = call.level === 0 ? minutes(spoken) : clock(spoken);
  say($("time"), `${directionOf(call)} · ${time}`);
  say($("notice"), t(`notice.${call.notice}`));
  tone("notice", call.notice === "failed" ? "bad" : "");
  say($("protection"), protectionIn(guard, call));
  tone("protection", { on: "good", wait: "", off: "bad", down: "bad", internal: "" }[guard]);
  say($("warnings"), grade(state.node, call.warnings));
}

/** Whether this call is protected, and whose choice it was that it is not. */
function protectionIn(guard, call) {
  const chosen = guard === "off" && ["objection", "no_consent", "caller_changed"].includes(call.choice);
  const waits = guard === "wait" && call.waits ? "choice" : guard;
  const says = t(`protection.${chosen ? call.choice : waits}`);
  return call.spared === "" ? says : `${says} · ${t(`spared.${call.spared}`)}`;
}

function tone(fact, value) {
  document.querySelector(`[data-fact="${fact}"]`).dataset.tone = value;
}

/** One mark a warning, filled when it was given: 1차 · 2차 · 최종. */
function drawGrades(node, given) {
  const key = `${language()} ${node.warnings} ${given}`;
  if ($("grades").dataset.key === key) return;
  $("grades").dataset.key = key;
  $("grades").replaceChildren(
    ...Array.from({ length: node.warnings }, (_, index) => {
      const done = index < given;
      return element("span", done ? "given" : "", `${done ? "✓ " : ""}${grade(node, index + 1)}`);
    }),
  );
}

/** Recording waits for its agent's wish, and has not begun. */
function startable(state, call) {
  const refused =
    ["objection", "no_consent", "caller_changed"].includes(call.choice) ||
    ["skipped", "failed", "objected"].includes(call.notice);
  return state.node.record_on_request === true && !call.recording && !refused;
}

/** Which buttons can be pressed now, by action. */
export function ableIn(state, call) {
  const talking = call.answered_ts !== null && !call.ending;
  const gated = call.notice === "" || call.notice === "playing";
  const internal = call.direction === "internal";
  const alert = requestOf(state, call.call_id);
  return {
    skip_notice: talking && gated && !internal,
    warn: talking && !gated && !internal && state.node.warnings > 0,
    help: !call.ending,
    end: talking,
    hand_over: talking && !gated && !internal,
    soften: talking,
    abusive: talking && !gated && !internal,
    pause: talking && !gated && !internal,
    start_recording:
      talking && !gated && !internal && !call.waits && !call.paused && startable(state, call),
    promise_call_back: !call.ending && (alert?.offers ?? []).includes("promise_call_back"),
    extend: talking && call.length !== null && call.length.step !== "extended",
  };
}

function hint(action, text) {
  say($(action).querySelector(".hint"), text);
}

function drawButtons(state, call, sending) {
  const able = ableIn(state, call);
  for (const [action, can] of Object.entries(able)) {
    // Not the disabled attribute while sending: the focus would be lost.
    $(action).disabled = !can;
    $(action).setAttribute("aria-busy", String(sending.has(action)));
  }
  const internal = call.direction === "internal";
  $("skip_notice").hidden = !able.skip_notice;
  $("warn").hidden = state.node.warnings === 0 || internal;
  $("hand_over").hidden = internal || state.node.hand_over === false;
  $("pause").hidden = internal;
  $("start_recording").hidden = internal || !startable(state, call);
  $("abusive").hidden = internal;
  $("help").dataset.state = call.help;
  hint("help", t(call.help === "none" ? "hint.help" : `hint.help.${call.help}`));
  drawGrades(state.node, call.warnings);
  const next = call.warnings + 1;
  const last = next > state.node.warnings;
  hint("warn", last ? t("hint.warn.last") : t("hint.warn", { grade: grade(state.node, next) }));
  const advised = call.advice?.end === true && able.end;
  $("end").classList.toggle("advised", advised);
  $("advised").hidden = !advised;
  hint("end", t(internal ? "hint.end.internal" : "hint.end"));
  hint("skip_notice", t("hint.skip_notice"));
  hint("hand_over", t("hint.hand_over"));
  hint("abusive", t("hint.abusive"));
  toggle("soften", call.softening);
  toggle("pause", call.paused);
  hint("start_recording", t("hint.start_recording"));
}

/** A button that switches something on and off says which it is. */
function toggle(action, on) {
  $(action).setAttribute("aria-pressed", String(on));
  hint(action, t(on ? `hint.${action}.on` : `hint.${action}`));
}

/** Everything about the one call that the page shows. */
export function drawCall(state, call, now, sending) {
  drawCrisis(state.node, call);
  drawLevel(state, call);
  drawRingback(call);
  drawRequest(state, call);
  drawLength(call, now);
  drawFacts(state, call, now);
  drawButtons(state, call, sending);
}

/** No call: nothing of one stays on the screen. */
export function clearCall(state) {
  drawCrisis(state.node, null);
  for (const id of ["heard", "ringback", "request", "length"]) $(id).hidden = true;
  say($("time"), "");
}
