// After the call on the agent's page: rest, wishes about the call, and what is the agent's own.
import { $, button, element, keyed, say } from "./dom.js";
import { grade, showLevel } from "./agent_call.js";
import { drawOwnRecord } from "./agent_hearing.js";
import { day } from "./evidence_list.js";
import { clock, timeOfDay } from "./page.js";
import { newest, problemOf, request } from "./link.js";
import { machineAlerts } from "./state.js";
import { markVerdict, VERDICTS } from "./verdict.js";
import { has, known, language, t } from "./strings.js";

// One tap, no typing: what a call was like, in words that name nobody.
export const NOTES = [
  "profanity", "insult", "threat", "sexual_harassment", "hate", "shouting", "repeated_calls",
  "unreasonable_demand", "other",
];
// Requests named on the page; the newest.
const SHOWN = 5;
// The server takes a wish for a day after the call.
const WISHES_S = 24 * 3600;

/** What the server says that only this agent may read; a part it does not know stays hidden. */
export const mine = {
  rest: null, breaks: null, opened: null, requests: null, calls: null, quality: null, hearing: null, joined: null,
};

const PARTS = {
  rest: "/me/rest",
  breaks: "/me/breaks",
  opened: "/me/opened",
  requests: "/me/requests",
  calls: "/me/calls",
  quality: "/me/quality",
  hearing: "/me/hearing",
  joined: "/me/joined",
};

/** Ask for the parts again; those that changed, or all. */
export async function learnMine(parts = Object.keys(PARTS)) {
  await Promise.all(
    parts.map(async (part) => {
      const answer = await newest(PARTS[part]);
      if (answer.status === 200) mine[part] = answer.body;
    }),
  );
}

/** Which parts an event makes stale. */
export const STALE = {
  "rest.changed": ["rest"],
  "break.changed": ["breaks"],
  "agent.said": ["requests"],
  "evidence.changed": ["requests"],
  "evidence.exported": ["requests", "opened"],
  "call.ended": ["rest", "breaks", "calls"],
  "helper.changed": ["joined"],
  "recording.opened": ["opened"],
  "record.read": ["opened"],
  "quality.drawn": ["quality"],
  "score.given": ["quality"],
  "score.contested": ["quality"],
  "score.void": ["quality"],
};

export function reasonOf(call) {
  const keys = [`reason.${call.direction}.${call.reason}`, `reason.${call.reason}`];
  return t(keys.find(has) ?? "reason.other");
}

/** Say a wish about a call that is over. Gives the key of what came of it and its tone. */
export async function wish(callId, action, more = {}) {
  const answer = await request(`/calls/${callId}/after`, "POST", { action, ...more });
  if (answer.status === 200) return [`wished.${action}`, "good"];
  const problem = `problem.${problemOf(answer)}`;
  return [has(problem) ? problem : "problem.other", "bad"];
}

/** Rest until when, and how long that is; minutes only, until the last one. */
export function drawRest(now) {
  const rest = mine.rest;
  const left = rest?.resting ? rest.until_ts - now : 0;
  $("rest").hidden = left <= 0;
  if (left <= 0) return;
  const spoken = left > 60 ? t("minutes", { n: Math.ceil(left / 60) }) : clock(left);
  say($("rest-left"), t("rest.left", { left: spoken, time: timeOfDay(rest.until_ts) }));
  const contact = [rest.counselling, rest.counselling_number].filter(Boolean).join(" · ");
  say($("rest-contact"), contact ? t("rest.contact", { contact }) : t("rest.note"));
  $("rest-longer").hidden = !(rest.extend_s > 0);
  say($("rest-longer"), t("rest.longer", { n: Math.max(1, Math.round(rest.extend_s / 60)) }));
}

/** What was said of a call before, on this screen or another one. */
function wasSaid(callId, action, note = "") {
  const said = mine.requests?.requests ?? [];
  return said.some((one) => one.call_id === callId && one.action === action && one.note === note);
}

/** The call that is over: how, and what its agent can still say about it. */
export function drawEnded(state, done, now) {
  const resting = !$("rest").hidden;
  if (done === null || done.past) showLevel("none", t(resting ? "resting" : "idle"), [], t(resting ? "resting.why" : "idle.why"));
  else showLevel("none", t("ended"), [], reasonOf(done));
  drawPast(done);
  const open = done !== null && done.direction !== "internal" && now - done.ended_ts < WISHES_S;
  $("after").hidden = !open;
  if (!open) return;
  say($("after-title"), t(done.past ? "after.title.past" : "after.title"));
  const ended = timeOfDay(done.ended_ts);
  say($("after-what"), t("after.what", { ended, time: clock(done.duration_s), reason: reasonOf(done) }));
  // Nothing to ask for where no rest is configured, or while one lasts.
  $("after-rest").hidden = resting || (mine.rest !== null && !(mine.rest.rest_s > 0));
  for (const action of ["rest", "evidence", "abusive"]) {
    $(`after-${action}`).setAttribute("aria-pressed", String(wasSaid(done.call_id, action)));
  }
  for (const chip of $("notes").querySelectorAll("[data-note]")) {
    say(chip, noteText(chip.dataset.note));
    chip.setAttribute("aria-pressed", String(wasSaid(done.call_id, "note", chip.dataset.note)));
  }
  drawJudge(state, done);
  drawRecord(state, done);
}

/** Asked after the call, not in it: was the machine right, or did it miss something? */
function drawJudge(state, done) {
  const said = done.verdict ?? machineAlerts(state, done.call_id)[0]?.verdict ?? "";
  for (const verdict of VERDICTS) markVerdict($(verdict), said === verdict);
}

/** Calls of the last day: what was not said at once can be said later. */
function drawPast(done) {
  const calls = mine.calls?.calls ?? [];
  $("past").hidden = calls.length === 0;
  const key = JSON.stringify([language(), calls.map((one) => one.call_id), done?.call_id]);
  if ($("past-calls").dataset.key === key) return;
  $("past-calls").dataset.key = key;
  $("past-calls").replaceChildren(
    new Option(t("past.choose"), ""),
    ...calls.map((one) => {
      const text = t("after.what", { ended: timeOfDay(one.ended_ts), time: clock(one.duration_s), reason: reasonOf(one) });
      return new Option(text, one.call_id, false, one.call_id === done?.call_id);
    }),
  );
}

function drawRecord(state, done) {
  // Of an earlier call the API tells only what the list needs.
  document.querySelector(".record").hidden = done.past === true;
  const { guard } = done;
  const rows = [
    ["summary.reason", reasonOf(done)],
    ["summary.time", clock(done.duration_s)],
    ["summary.level", guard === "off" || guard === "internal" ? t("level.unknown") : t(`level.${done.peak}`)],
    ["summary.warnings", grade(state.node, done.warnings)],
    ["summary.help", t(`help.${done.help}`)],
    ["summary.notice", t(`notice.${done.notice}`)],
    ["summary.protection", t(`was.${guard}`)],
  ];
  if (done.callback) rows.push(["summary.callback", t(`callback.${done.callback}`)]);
  const key = JSON.stringify([language(), rows]);
  if ($("done").dataset.key === key) return;
  $("done").dataset.key = key;
  $("done").replaceChildren(
    ...rows.flatMap(([name, value]) => [element("dt", "", t(name)), element("dd", "", value)]),
  );
}

const noteText = (note) => t(has(`note.${note}`) ? `note.${note}` : `category.${note}`);

/** The note's chips, made once. */
export function makeNotes(pressed) {
  for (const note of NOTES) {
    const chip = button("wish", noteText(note), () => pressed(note));
    chip.dataset.note = note;
    $("notes").append(chip);
  }
}

/** Breaks that are owed, requests, ear and voice, who came into calls and who opened recordings. */
export function drawMine(now, contest) {
  const { breaks, opened, requests } = mine;
  $("mine").hidden = Object.values(mine).every((part) => part === null);
  if ($("mine").hidden) return;
  say($("breaks"), breaks === null ? "–" : balance(breaks, now));
  $("break-take").hidden = breaks === null || !(breaks.owed_s >= 60) || mine.rest?.resting === true;
  const asked = requests?.requests ?? [];
  say($("requests"), asked.length ? asked.slice(0, SHOWN).map(requestText).join(" · ") : t("mine.requests.none"));
  drawRefusals(requests);
  const list = opened?.openings ?? [];
  drawQuality(now, contest);
  drawOwnRecord(mine.hearing, mine.joined);
  $("opened-box").hidden = opened === null;
  $("opened-none").hidden = list.length > 0;
  say($("opened-count"), list.length ? t("calls.count", { n: list.length }) : "");
  const key = JSON.stringify([language(), list]);
  if ($("opened").dataset.key === key) return;
  $("opened").dataset.key = key;
  $("opened").replaceChildren(...list.map((one) => element("li", "", openedText(one))));
}

/** Own calls that were drawn and scored, and a word against a score while that may be said. */
function drawQuality(now, contest) {
  const draws = mine.quality?.draws ?? [];
  $("quality-box").hidden = draws.length === 0;
  const open = (one) => one.reviews.length > 0 && one.contested_ts === null && one.void_ts === null && one.contest_until_ts > now;
  keyed($("quality"), draws, (one) => `${one.draw_id} ${scoreText(one)} ${open(one)}`, (one) => {
    const row = element("li", "", element("span", "", scoreText(one)));
    if (open(one)) row.append(button("quiet", t("quality.contest"), () => contest(one.draw_id)));
    return row;
  });
}

function scoreText(one) {
  const said = [one.month];
  if (one.void_ts !== null) said.push(t("quality.void"));
  else said.push(one.counts === null ? t("quality.waiting") : t("quality.counts", { n: one.counts }));
  if (one.contested_ts !== null) said.push(t("quality.contested"));
  return said.join(" · ");
}

function balance(breaks, now) {
  const owed = Math.round(breaks.owed_s / 60);
  const said = [owed > 0 ? t("breaks.owed", { n: owed }) : t("breaks.even")];
  const moved = breaks.breaks.map((one) => one.moved_to_ts ?? 0).filter((ts) => ts > now);
  if (moved.length) said.push(t("breaks.moved", { time: timeOfDay(Math.min(...moved)) }));
  return said.join(" · ");
}

const requestText = (one) => {
  const where = one.state ? ` · ${t(`evidence.state.${one.state}`)}` : "";
  return `${known("request.kind.", one.action)} (${timeOfDay(one.ts)}${where})`;
};

/** Requests that were refused: why, whom to turn to, and until when nothing of the call goes. */
function drawRefusals(told) {
  const refused = (told?.requests ?? []).filter((one) => one.state === "refused" || one.state === "lapsed");
  const contact = told?.grievance_contact;
  keyed($("request-refusals"), refused, (one) => `${one.request_id} ${one.state}`, (one) => {
    const said = [`${known("request.kind.", one.action)} (${timeOfDay(one.ts)})`, t("evidence.reason", { reason: one.reason })];
    if (contact) said.push(t("evidence.grievance", { contact }));
    if (one.state === "refused") said.push(t("evidence.held", { date: day(one.held_until_ts) }));
    return element("li", "", said.join(" · "));
  });
}

function openedText(one) {
  const when = new Date(one.ts * 1000).toLocaleString(language(), { dateStyle: "short", timeStyle: "short" });
  const why = [known("opened.why.", one.why), one.reason].filter(Boolean).join(": ");
  return [when, known("role.", one.by_role), one.by_name || one.by, why].filter(Boolean).join(" · ");
}
