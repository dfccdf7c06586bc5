// What the pages share: sign-in, language, connection state, shapes, times, notifications.
import { $, say } from "./dom.js";
import { keepToken, Link, redeemSignIn, request, takeToken } from "./link.js";
import { chooseLanguage, known, language, LANGUAGES, servePublic, t, translatePage } from "./strings.js";

// One shape a level (circle, triangle, diamond, octagon; no level: square) and a mark inside.
export const SHAPES = {
  none: "M20 10H80a10 10 0 0 1 10 10V80a10 10 0 0 1-10 10H20a10 10 0 0 1-10-10V20a10 10 0 0 1 10-10z",
  0: "M50 8a42 42 0 1 1 0 84a42 42 0 1 1 0-84z",
  1: "M50 8 96 90 4 90z",
  2: "M50 3 97 50 50 97 3 50z",
  3: "M31 5H69L95 31V69L69 95H31L5 69V31z",
};
export const MARKS = {
  none: "M34 50H66",
  0: "M32 52 45 65 69 38",
  1: "M50 40V62M50 77V77.100",
  2: "M50 30V54M50 70V70.100",
  3: "M36 30V54M36 70V70.100M64 30V54M64 70V70.100",
};

const SVG = "http://www.w3.org/2000/svg";

/** Level ("none" or 0-3) as colour, shape and word, small. */
export function badge(level) {
  const element = document.createElement("span");
  element.className = "badge";
  element.dataset.level = level;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", SHAPES[level]);
  svg.append(path);
  element.append(svg, t(level === "none" ? "level.unknown" : `level.${level}`));
  return element;
}

/** Categories as chips, one list item each. */
export function drawChips(list, categories) {
  const key = `${language()} ${categories.join(" ")}`;
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(
    ...categories.map((id) => {
      const chip = document.createElement("li");
      chip.textContent = known("category.", id);
      return chip;
    }),
  );
}

/** The redacted words that a level rests on, quoted, each once. */
export function quotesOf(call) {
  const words = (call.reasons ?? []).flatMap((reason) => reason.words ?? []);
  return [...new Set(words)].map((quote) => `“${quote}”`).join(" ");
}

export const categoriesOf = (item) => item.categories.map((id) => known("category.", id)).join(" · ");

/** Seconds as 2:05 or 1:02:05. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** Seconds as whole minutes. */
export function minutes(seconds) {
  const whole = Math.floor(Math.max(0, seconds) / 60);
  return whole === 0 ? t("minutes.0") : t("minutes", { n: whole });
}

/** 14:35, in the language's own way. */
export const timeOfDay = (ts) =>
  new Date(ts * 1000).toLocaleTimeString(language(), { hour: "numeric", minute: "2-digit" });

/** Tell a person whose browser is in the background, if the browser may. */
export function notify(title, body, tag) {
  if (!document.hidden || !("Notification" in window) || Notification.permission !== "granted") return;
  try {
    new Notification(title, { body, tag, lang: language() });
  } catch {
    // Some mobile browsers have the class but allow it to service workers only.
  }
}

/** A public body's page speaks of 민원인: where every team that this person sees is one. */
export async function learnSector(translate) {
  const answer = await request("/policies");
  if (answer.status !== 200) return;
  const { teams } = answer.body;
  servePublic(teams.length > 0 && teams.every((team) => team.preset === "public"));
  translate();
}

/**
 * Start a page.
 *
 * @param titleKey   string key of the title
 * @param opens      (node) => whether this token's role may use the page
 * @param on         {load, event, draw}
 * @param Line       how news comes: over the WebSocket unless told otherwise
 */
export function startPage(titleKey, opens, on, Line = Link) {
  let state = "none";
  const link = new Line({
    load(node, calls, alerts) {
      if (!opens(node)) return false;
      on.load(node, calls, alerts);
      $("login").hidden = true;
      $("main").hidden = false;
      on.draw();
      return true;
    },
    event(event) {
      on.event(event);
      on.draw();
    },
    state(next, why) {
      state = next;
      showLink();
      if (next === "refused") showLogin(why === "role" ? "login.role" : "login.bad");
    },
  });

  function showLink() {
    $("link").dataset.state = state;
    $("link").hidden = state === "none";
    say($("link"), t(`link.${state}`));
    const stale = state === "lost" && link.heardAt !== null;
    $("stale").hidden = !stale;
    if (stale) say($("stale"), t("stale", { time: link.heardAt.toLocaleTimeString(language()) }));
  }

  function showLogin(errorKey) {
    $("main").hidden = true;
    $("login").hidden = false;
    say($("login-error"), errorKey ? t(errorKey) : "");
    $("token").focus();
    if ($("oidc") !== null) request("/sign-in").then(({ body }) => ($("oidc").hidden = body?.oidc !== true));
  }

  /** Offered while the browser has not been asked; gone where it cannot or may not. */
  function showNotify() {
    if ($("notify") === null) return;
    $("notify").hidden = !("Notification" in window) || Notification.permission !== "default";
  }

  function translate() {
    translatePage(titleKey);
    showLink();
    on.draw();
  }

  for (const [code, words] of Object.entries(LANGUAGES)) {
    $("language").append(new Option(words.name, code, false, code === language()));
  }
  $("language").addEventListener("change", () => {
    chooseLanguage($("language").value);
    translate();
  });
  $("notify")?.addEventListener("click", () => Notification.requestPermission().then(showNotify));
  $("login").addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    keepToken($("token").value.trim());
    $("token").value = "";
    say($("login-error"), "");
    link.open();
  });
  showNotify();
  translate();
  redeemSignIn().then(() => {
    if (takeToken()) link.open();
    else showLogin("");
  });
  setInterval(() => on.draw(), 1000);
  return { link, translate };
}
