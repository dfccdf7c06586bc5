// The supervisor's list of requests for evidence: approve, refuse with a reason, hand out.
import { $, button, element, keyed, say } from "./dom.js";
import { openRequests } from "./state.js";
import { language, t } from "./strings.js";

// A sentence that a grievance can be decided on; the server asks for as much.
const SHORTEST = 10;
const LONGEST = 500;
/** Requests whose refusal is being written, and those whose answer is on its way. */
const refusing = new Set();
export const deciding = new Set();

export const moment = (ts) =>
  new Date(ts * 1000).toLocaleString(language(), { dateStyle: "short", timeStyle: "short" });
export const day = (ts) => new Date(ts * 1000).toLocaleDateString(language(), { dateStyle: "medium" });

function makeRequest(on) {
  return (one) => {
    const row = element("li", "request-row");
    const press = (name, pressed) => {
      const made = button(name === "approve" ? "accept" : "quiet", t(`evidence.${name}`), pressed);
      made.dataset.answer = name;
      made.setAttribute("aria-label", t("evidence.of", { id: one.agent_id, what: t(`evidence.${name}`) }));
      return made;
    };
    const refuse = press("refuse", () => {
      refusing.add(one.request_id);
      on.draw();
      row.querySelector("textarea").focus();
    });
    row.append(
      element("div", "", element("strong", ""), " ", element("span", "of", "")),
      element("p", "why", ""),
      element(
        "div", "answers",
        press("approve", () => on.decide(one.request_id, "approve")),
        refuse,
        press("done", () => on.decide(one.request_id, "done")),
      ),
      makeRefusal(one, on),
      element("p", "ids", ""),
    );
    return row;
  };
}

function makeRefusal(one, on) {
  const form = element("form", "refusal");
  const words = element("textarea", "");
  words.maxLength = LONGEST;
  words.minLength = SHORTEST;
  words.required = true;
  words.rows = 2;
  words.setAttribute("aria-label", t("evidence.refuse.why"));
  words.placeholder = t("evidence.refuse.words");
  const close = () => {
    refusing.delete(one.request_id);
    on.draw();
  };
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    const reason = words.value.trim();
    if (reason.length < SHORTEST) return;
    close();
    on.decide(one.request_id, "refuse", { reason });
  });
  form.addEventListener("keydown", (pressed) => {
    if (pressed.key === "Escape") close();
  });
  const send = element("button", "plain", t("refuse.send"));
  form.append(element("p", "of", t("evidence.refuse.note")), words, send, button("quiet", t("refuse.cancel"), close));
  return form;
}

function whyOf(one) {
  if (one.state === "approved") return t("evidence.make", { call: one.call_id });
  if (one.state !== "refused") return "";
  const said = [t("evidence.reason", { reason: one.reason })];
  if (one.held_until_ts) said.push(t("evidence.held", { date: day(one.held_until_ts) }));
  return said.join(" · ");
}

function updateRequest(row, one) {
  say(row.querySelector("strong"), `${t("agent", { id: one.agent_id })} · ${moment(one.ts)}`);
  say(row.querySelector("span.of"), t(`evidence.state.${one.state}`));
  row.dataset.state = one.state;
  say(row.querySelector(".why"), whyOf(one));
  row.querySelector(".why").hidden = whyOf(one) === "";
  const open = refusing.has(one.request_id) && one.state === "requested";
  const may = one.may_decide === true;
  const shown = {
    approve: may && (one.state === "requested" || one.state === "refused"),
    refuse: may && one.state === "requested",
    done: one.state === "approved",
  };
  row.querySelector(".refusal").hidden = !open;
  row.querySelector(".answers").hidden = open || !Object.values(shown).some(Boolean);
  for (const [name, wanted] of Object.entries(shown)) {
    const made = row.querySelector(`[data-answer="${name}"]`);
    made.hidden = !wanted;
    made.setAttribute("aria-busy", String(deciding.has(one.request_id)));
  }
  say(row.querySelector(".ids"), t("evidence.ids", { call: one.call_id, request: one.request_id }));
}

/**
 * Draw the list.
 *
 * @param on  {decide(id, "approve" | "refuse" | "done", more), draw()}
 */
export function drawRequests(state, on) {
  const wanted = openRequests(state);
  keyed($("evidence"), wanted, (one) => one.request_id, makeRequest(on), updateRequest);
  $("evidence-none").hidden = wanted.length > 0;
  say($("evidence-count"), wanted.length ? t("calls.count", { n: wanted.length }) : "");
}
