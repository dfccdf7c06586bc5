// Words of the consoles. A language is one file with the same keys and one line here.
import en from "./strings.en.js";
import ja from "./strings.ja.js";
import ko from "./strings.ko.js";
import zh from "./strings.zh.js";

export const LANGUAGES = { ko, en, zh, ja };
const KEPT = "callshield.language";
let current = localStorage.getItem(KEPT) ?? "ko";
if (!(current in LANGUAGES)) current = "ko";

/** The node's language, unless this person chose another. */
export function preferLanguage(code) {
  if (localStorage.getItem(KEPT) === null && code in LANGUAGES) current = code;
}

export function chooseLanguage(code) {
  localStorage.setItem(KEPT, code);
  current = code;
}

export const language = () => current;

// Public bodies have 민원인 where companies have 고객; both end alike, so particles fit.
let callers = "고객";

/** Whose words the page uses: a team with the preset `public` is a public body's. */
export function servePublic(yes) {
  callers = yes ? "민원인" : "고객";
}

export const has = (key) => key in LANGUAGES[current];

/** The text of a key; `{name}` is replaced by values.name. */
export function t(key, values = {}) {
  const text = (LANGUAGES[current][key] ?? LANGUAGES.en[key] ?? key).replaceAll("고객", callers);
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** t(prefix + id), or t(prefix + "other") for an id that has no word yet. */
export const known = (prefix, id) => t(has(prefix + id) ? prefix + id : `${prefix}other`, { name: id });

/** A part that is down: of this node, of another (`NODE/part`), or another node as a whole. */
function partName(component) {
  if (component.startsWith("node:")) return t("component.node", { node: component.slice(5) });
  const [node, part] = component.includes("/") ? component.split("/") : ["", component];
  const name = known("component.", part);
  return node ? t("component.at", { node, part: name }) : name;
}

/** That a part does not work; of what is no fault, what it is. */
export const downText = (component) =>
  has(`down.${component}`) ? t(`down.${component}`) : t("down", { part: partName(component) });

/** Fill every element with data-t (text) and data-t-label (aria-label). */
export function translatePage(titleKey) {
  document.documentElement.lang = current;
  document.title = `${t(titleKey)} · Callshield`;
  for (const element of document.querySelectorAll("[data-t]")) {
    element.textContent = t(element.dataset.t);
  }
  for (const element of document.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel));
  }
}
