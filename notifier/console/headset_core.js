// What a headset is to show, and what its keys mean. Pure: facts, values and a clock (ms) in; lamps
// and happenings out. Nothing in here ends a call, and nothing makes a sound.

/** Lamps that no headset answers with a tone; the first that it has is used. */
const SILENT = ["message", "indicator"];
/** A sign is so many flashes and no more. */
const FLASHES = 3;
const FLASH_MS = 400;
const DARK_MS = 600;
/** A call for help: held for so long, or pressed again within so long. */
const HELD_MS = 1000;
const AGAIN_MS = 1500;
/** Some headsets send one press twice (WICG/webhid issue 61). */
const BOUNCE_MS = 150;
/** One call for help, not one for every press of an anxious hand. */
const QUIET_MS = 5000;
const SIGN_FROM = 2;

/** Keys that can call for help: pressed and let go. A hook switch that states where it is cannot:
 * its press asks for the call's end, and how long it is held is not said. */
export function helpKeys(layout) {
  return Object.entries(layout.keys)
    .filter(([name, { kind }]) => name !== "mute" && (name !== "hook" || kind === "toggle"))
    .map(([name]) => name);
}

/** Ways in which this headset can give a sign, the quiet one before the one that may be heard. */
export function signs(layout, callLamp) {
  const ways = ["off"];
  if (SILENT.some((name) => name in layout.lamps)) ways.push("lamp");
  if (callLamp && "ring" in layout.lamps && "off_hook" in layout.lamps) ways.push("ring");
  return ways;
}

export class HeadsetCore {
  #layout;
  #talking = null;
  #level = 0;
  #signFrom = null;
  #tried = false;
  #down = new Map();
  #pressed = -Infinity;
  #helped = -Infinity;
  #doubt = false;
  #frozen;
  /** "on", "off": the headset says so; "unknown": its key asks, and nobody here can say; "none". */
  mute = "none";

  /**
   * @param layout   of telephonyOf()
   * @param choices  {callLamp, sign: "off" | "lamp" | "ring", helpKey: name or ""}; may change
   * @param resumed  the page was loaded anew while the headset went on: it may be muted
   */
  constructor(layout, choices, resumed = false) {
    this.#layout = layout;
    this.choices = choices;
    this.#frozen = resumed;
    if ("mute" in layout.keys) this.mute = "unknown";
  }

  /** What the page shows: whether somebody is spoken with, and the level of danger. */
  follow(talking, level, now) {
    if (talking !== this.#talking) {
      if (this.#talking !== null || !talking) this.#frozen = false;
      this.#talking = talking;
      this.#doubt = false;
      this.#tried = false;
      this.#signFrom = null;
      this.#level = 0;
    }
    if (!talking) return;
    if (level > this.#level && level >= SIGN_FROM) this.#signFrom = now;
    if (level < SIGN_FROM) this.#signFrom = null;
    this.#level = level;
  }

  /** Show the sign once, outside of a call. */
  tryOut(now) {
    if (this.#talking) return false;
    this.#tried = true;
    this.#signFrom = now;
    return true;
  }

  /** An input report was read: what it means. */
  report(values, now) {
    const happened = [];
    for (const [name, value] of Object.entries(values)) {
      if (name === "mute") happened.push(...this.#muteKey(value));
      else if (name === this.choices.helpKey) happened.push(...this.#helpKey(value > 0, now));
    }
    return happened;
  }

  #muteKey(value) {
    const { kind } = this.#layout.keys.mute;
    if (kind === "switch") {
      const before = this.mute;
      this.mute = value > 0 ? "on" : "off";
      this.#frozen = false;
      return before === this.mute || before === "unknown" ? [] : ["mute"];
    }
    const was = this.#down.get("mute") ?? false;
    this.#down.set("mute", value !== 0);
    if (was || value === 0) return [];
    // The headset asks the host to mute. We have no such command, so nothing is confirmed.
    this.#doubt = true;
    return ["mute_asked"];
  }

  #helpKey(down, now) {
    const since = this.#down.get("help");
    if (!down) {
      this.#down.delete("help");
      return [];
    }
    if (since !== undefined) return [];
    this.#down.set("help", now);
    const gap = now - this.#pressed;
    if (gap < BOUNCE_MS) return [];
    this.#pressed = now;
    return gap <= AGAIN_MS ? this.#help(now) : [];
  }

  #help(now) {
    this.#down.set("help", Infinity);
    this.#pressed = -Infinity;
    if (!this.#talking || now - this.#helped < QUIET_MS) return [];
    this.#helped = now;
    return ["help"];
  }

  /** What time alone brings: a key that has been held long enough. */
  tick(now) {
    this.#over(now);
    const since = this.#down.get("help");
    return since !== undefined && now - since >= HELD_MS ? this.#help(now) : [];
  }

  #over(now) {
    if (this.#signFrom === null || now - this.#signFrom < FLASHES * (FLASH_MS + DARK_MS)) return;
    this.#signFrom = null;
    this.#tried = false;
  }

  /** Milliseconds until tick() or lamps() has something new to say; null: nothing will come. */
  next(now) {
    const due = [];
    if (this.#signFrom !== null) {
      const at = Math.max(0, now - this.#signFrom) % (FLASH_MS + DARK_MS);
      due.push((at < FLASH_MS ? FLASH_MS : FLASH_MS + DARK_MS) - at);
    }
    const since = this.#down.get("help");
    if (since !== undefined && since !== Infinity) due.push(Math.max(0, since + HELD_MS - now));
    return due.length ? Math.min(...due) : null;
  }

  /**
   * The lamps now.
   *
   * @returns {lit, only} of writeReports(): burning, and ours to drive
   */
  lamps(now) {
    this.#over(now);
    const { callLamp, sign } = this.choices;
    const lit = new Set();
    const only = new Set();
    const place = (name) => this.#layout.lamps[name];
    const use = (name, burns) => {
      only.add(name);
      if (burns) lit.add(name);
    };
    const silent = SILENT.find(place);
    const inCall = callLamp && (this.#talking === true || (this.#tried && sign === "ring"));
    if (callLamp && place("off_hook")) use("off_hook", inCall);
    // A mute lamp burns for what the headset itself says, and for nothing else.
    if (this.mute === "on" || this.mute === "off") {
      if (place("mute")) use("mute", this.mute === "on");
    }
    const flash = this.#signFrom !== null && (now - this.#signFrom) % (FLASH_MS + DARK_MS) < FLASH_MS;
    if (sign === "lamp" && silent) use(silent, flash && !(this.#doubt && this.#withMute(silent)));
    // Ring without off-hook is a telephone that rings aloud.
    if (sign === "ring" && place("ring") && place("off_hook") && callLamp) {
      use("ring", flash && inCall && !(this.#doubt && this.#withMute("ring")));
    }
    if (this.#frozen) for (const name of only) if (this.#withMute(name)) only.delete(name);
    return { lit, only };
  }

  /** The lamp is in the mute lamp's report: writing it may undo a mute that the headset keeps. */
  #withMute(name) {
    const { mute, [name]: lamp } = this.#layout.lamps;
    return mute !== undefined && mute.reportId === lamp.reportId;
  }
}
