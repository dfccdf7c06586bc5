// The agent's own ear and voice, and who came into the own calls: for this agent alone.
import { $, element, say } from "./dom.js";
import { timeOfDay } from "./page.js";
import { known, language, t } from "./strings.js";

const SEEN = "callshield.ear";

/** What an event changes of what GET /me/hearing said; null while that is not known. */
export function heardNow(hearing, event) {
  if (hearing === null) return null;
  if (event.type === "voice.talk") return { ...hearing, voice: event.talked_s > 0 ? event : null };
  const before = hearing.dose?.warned_pct ?? 0;
  if (event.type === "ear.warning") return { ...hearing, dose: { ...hearing.dose, ...event, warned_pct: event.threshold_pct } };
  if (event.type !== "ear.dose") return hearing;
  // A smaller dose than the one warned of is a new shift's.
  const warned_pct = event.dose_pct < before ? 0 : before;
  return { ...hearing, dose: { ...event, warned_pct } };
}

const percent = (dose) => Math.floor(dose.dose_pct);

/** In a call and between calls: a warning about the ear until it is seen, a hint about the voice
 * until the voice has rested. */
export function drawHearing(hearing) {
  const dose = hearing?.dose ?? null;
  const warned = dose?.warned_pct ?? 0;
  if (hearing !== null && warned === 0) sessionStorage.removeItem(SEEN);
  const ear = warned > Number(sessionStorage.getItem(SEEN) ?? 0);
  const voice = hearing?.voice?.rest === true;
  $("own").hidden = !(ear || voice);
  $("own-ear").hidden = !ear;
  $("own-voice").hidden = !voice;
  if (ear) {
    say($("own-ear-says"), t(warned >= 100 ? "own.ear.full" : "own.ear", { n: warned }));
    say($("own-ear-note"), t(dose.estimate ? "own.ear.estimate" : "own.ear.measured"));
  }
  if (voice) {
    const n = Math.floor(hearing.voice.talked_s / 60);
    say($("own-voice-says"), t("own.voice", { n }));
    say($("own-voice-note"), t("own.voice.note", { n: Math.max(1, Math.round(hearing.voice.pause_s / 60)) }));
  }
}

/** The warning was read: it comes again with the next threshold, or in the next shift. */
export function earSeen(hearing) {
  sessionStorage.setItem(SEEN, String(hearing?.dose?.warned_pct ?? 0));
}

/** The rows of the own record: dose of the shift, time talked, who came into calls. */
export function drawOwnRecord(hearing, joined) {
  const { dose = null, voice = null } = hearing ?? {};
  const of = dose === null ? "mine.dose.none" : dose.estimate ? "mine.dose.estimate" : "mine.dose.of";
  say($("dose"), t(of, { n: dose === null ? 0 : percent(dose) }));
  say($("voice"), t(voice === null ? "mine.voice.none" : "mine.voice.of", { n: Math.floor((voice?.talked_s ?? 0) / 60) }));
  const list = joined?.joins ?? [];
  $("joined-box").hidden = joined === null;
  $("joined-none").hidden = list.length > 0;
  say($("joined-count"), list.length ? t("calls.count", { n: list.length }) : "");
  const key = JSON.stringify([language(), list]);
  if ($("joined").dataset.key === key) return;
  $("joined").dataset.key = key;
  $("joined").replaceChildren(...list.map((one) => element("li", "", joinedText(one))));
}

function joinedText(one) {
  const when = new Date(one.ts * 1000).toLocaleString(language(), { dateStyle: "short", timeStyle: "short" });
  const until = one.left_ts === null ? "" : t("joined.until", { time: timeOfDay(one.left_ts) });
  const asked = one.asked_ts ? t(`joined.asked.${one.how}`, { time: timeOfDay(one.asked_ts) }) : "";
  const who = [known("joined.role.", one.role), one.by_name || one.helper_id].filter(Boolean).join(" ");
  return [when, t(`joined.${one.how}`), who, asked, until].filter(Boolean).join(" · ");
}
