// The supervisor's queue: who waits, accept (join or take over) or refuse with a reason; history.
import { $, button, element, keyed, say } from "./dom.js";
import { badge, categoriesOf, clock } from "./page.js";
import { openAlerts, takenAlerts } from "./state.js";
import { markVerdict, VERDICTS } from "./verdict.js";
import { has, known, t } from "./strings.js";

const SHOWN_HISTORY = 10;
// Kept with the request and shown to the agent; "other" takes a few words.
const REASONS = ["in_call", "away", "language", "other"];
// Only a call for help is an invitation into the call; what the machine raised is looked at.
const WAYS = { help: ["join", "take_over"] };

/** Alerts whose refusal is being written, and those whose answer is on its way. */
const refusing = new Set();
export const sending = new Set();

/** Of a fault its own name, and which other node it is about: "node_away:NODE". */
function nameOf(alert) {
  const [reason, node] = alert.reason?.split(":") ?? [];
  const name = alert.kind === "node" && has(`alert.${reason}`) ? reason : alert.kind;
  return t(`alert.${name}`, { node });
}

export const titleOf = (alert) => [nameOf(alert), categoriesOf(alert)].filter(Boolean).join(" · ");

/** Whose call it is about, and which other node has it; a fault of a node is about none. */
export const ofWhom = (alert) =>
  [alert.agent_id ? t("agent", { id: alert.agent_id }) : "", alert.node ?? ""].filter(Boolean).join(" · ");

const whose = (alert) => ({ id: alert.agent_id, kind: titleOf(alert) });

function acceptButtons(alert, on) {
  return (WAYS[alert.kind] ?? ["seen"]).map((how, index) => {
    const made = button(index ? "quiet accept-how" : "accept", t(`accept.${how}`), () => on.accept(alert.alert_id, how));
    made.dataset.how = how;
    made.setAttribute("aria-label", t("accept.of", { ...whose(alert), how: t(`accept.${how}`) }));
    return made;
  });
}

function makeAlert(on) {
  return (alert) => {
    const row = element("li");
    row.dataset.level = alert.level;
    row.dataset.kind = alert.kind;
    const refuse = button("quiet refuse", t("refuse"), () => {
      refusing.add(alert.alert_id);
      on.draw();
      row.querySelector("select").focus();
    });
    refuse.setAttribute("aria-label", t("refuse.of", whose(alert)));
    row.append(
      // Help asked at level 0 needs somebody all the same: no "calm" beside it.
      alert.level > 0 ? badge(alert.level) : element("span", "dot"),
      element("div", "", element("strong", "", titleOf(alert)), element("span", "of"), element("span", "stage")),
      element("div", "answers", ...acceptButtons(alert, on), refuse),
      makeRefusal(alert, on),
    );
    return row;
  };
}

/** Refusing passes the call for help on at once and never closes it. */
function makeRefusal(alert, on) {
  const form = element("form", "refusal");
  const why = element("select", "");
  why.setAttribute("aria-label", t("refuse.why"));
  for (const reason of REASONS) why.append(new Option(t(`refuse.as.${reason}`), reason));
  const words = element("input", "");
  words.maxLength = 120;
  words.setAttribute("aria-label", t("refuse.words"));
  words.placeholder = t("refuse.words");
  const shown = () => {
    words.hidden = why.value !== "other";
    words.required = !words.hidden;
  };
  why.addEventListener("change", shown);
  shown();
  const close = () => {
    refusing.delete(alert.alert_id);
    on.draw();
  };
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    const reason = why.value === "other" ? words.value.trim() : why.value;
    if (!reason) return;
    close();
    on.refuse(alert.alert_id, reason);
  });
  form.addEventListener("keydown", (pressed) => {
    if (pressed.key === "Escape") close();
  });
  const send = element("button", "plain", t("refuse.send"));
  form.append(element("p", "of", t("refuse.note")), why, words, send, button("quiet", t("refuse.cancel"), close));
  return form;
}

/** Where it stands: whose turn, who said no. */
function stageOf(alert, node) {
  const said = alert.refusals.map((one) => t("refused.by", { by: one.by, reason: known("refuse.", one.reason) }));
  if (alert.unanswered || alert.stage === "nobody") said.push(t("stage.nobody"));
  else if (alert.to.includes(node.supervisor_id) && alert.stage === "person") said.push(t("stage.you"));
  else if (alert.stage) said.push(t(`stage.${alert.stage}`, { to: alert.to.join(", ") }));
  return said.join(" · ");
}

function updateAlert(now, node) {
  return (row, alert) => {
    const time = clock(now - alert.raised_ts);
    say(row.querySelector(".of"), [ofWhom(alert), t("ago", { time })].filter(Boolean).join(" · "));
    say(row.querySelector(".stage"), stageOf(alert, node));
    row.dataset.unanswered = String(alert.unanswered);
    row.querySelector(".refusal").hidden = !refusing.has(alert.alert_id);
    row.querySelector(".answers").hidden = refusing.has(alert.alert_id);
    // Not the disabled attribute while sending: the focus would be lost.
    const busy = String(sending.has(alert.alert_id));
    for (const one of row.querySelectorAll(".answers button")) one.setAttribute("aria-busy", busy);
  };
}

function whoTook(alert, node) {
  const me = alert.acknowledged_by === node.token_id;
  const who = me ? t("taken.me") : t("taken.other", { by: alert.supervisor_id || alert.acknowledged_by });
  return [who, alert.how ? t(`how.${alert.how}`) : ""].filter(Boolean).join(" · ");
}

function makeTaken(on, node) {
  return (alert) => {
    const row = element(
      "li", "",
      `${[titleOf(alert), ofWhom(alert)].filter(Boolean).join(" · ")} `,
      element("span", "of", `— ${whoTook(alert, node)}`),
    );
    for (const one of alert.refusals) {
      const reason = known("refuse.", one.reason);
      row.append(element("span", "of", ` · ${t("refused.by", { by: one.by, reason })}`));
    }
    if (alert.kind === "risk") row.append(makeJudge(alert, on));
    return row;
  };
}

function makeJudge(alert, on) {
  const group = element("span", "judge");
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", t("judge.of", whose(alert)));
  for (const verdict of VERDICTS.filter((one) => one !== "missed")) {
    const made = button("quiet", t(`judge.${verdict}`), () => on.judge(alert.alert_id, verdict));
    made.dataset.verdict = verdict;
    group.append(made);
  }
  return group;
}

function updateTaken(row, alert) {
  for (const one of row.querySelectorAll("[data-verdict]")) {
    markVerdict(one, alert.verdict === one.dataset.verdict);
  }
}

/**
 * Draw the queue and its history.
 *
 * @param on  {accept(id, how), refuse(id, reason), judge(id, verdict), draw()}
 */
export function drawQueue(state, now, on) {
  const open = openAlerts(state);
  const taken = takenAlerts(state, SHOWN_HISTORY);
  const within = $("alerts").contains(document.activeElement);
  keyed($("alerts"), open, (alert) => alert.alert_id, makeAlert(on), updateAlert(now, state.node));
  // The row that had the focus was taken, here or elsewhere: the next one has it.
  if (within && !$("alerts").contains(document.activeElement)) {
    ($("alerts").querySelector(".accept") ?? $("alerts-title")).focus();
  }
  keyed($("history"), taken, (alert) => alert.alert_id, makeTaken(on, state.node), updateTaken);
  $("alerts-none").hidden = open.length > 0;
  $("history-none").hidden = taken.length > 0;
  say($("alert-count"), open.length ? t("calls.count", { n: open.length }) : "");
  const title = `${open.length ? `(${open.length}) ` : ""}${t("title.supervisor")} · Callshield`;
  if (document.title !== title) document.title = title;
}
