// A short chime for new alerts, made here (no file, nothing from outside), and its switch.
import { $, say } from "./dom.js";
import { t } from "./strings.js";

const KEPT = "callshield.sound";
const NOTES = { urgent: [880, 1175, 880, 1175], other: [660, 880] };
const NOTE_S = 0.16;

let context = null;
let on = localStorage.getItem(KEPT) === "on";

/** A browser plays sound only after somebody touched the page. */
function wake() {
  if (!on || !("AudioContext" in window)) return;
  context ??= new AudioContext();
  if (context.state === "suspended") context.resume().then(drawSound, () => {});
}

/** Play the chime, if it is switched on. */
export function chime(kind) {
  if (!on || context === null || context.state !== "running") return;
  NOTES[kind].forEach((hertz, index) => {
    const from = context.currentTime + index * NOTE_S;
    const tone = context.createOscillator();
    const volume = context.createGain();
    tone.frequency.value = hertz;
    // No clicks: up and down within the note.
    volume.gain.setValueAtTime(0, from);
    volume.gain.linearRampToValueAtTime(0.2, from + 0.02);
    volume.gain.linearRampToValueAtTime(0, from + NOTE_S);
    tone.connect(volume).connect(context.destination);
    tone.start(from);
    tone.stop(from + NOTE_S);
  });
}

export function drawSound() {
  const waiting = on && context?.state !== "running";
  $("sound").hidden = !("AudioContext" in window);
  $("sound").setAttribute("aria-pressed", String(on));
  say($("sound"), t(!on ? "sound.off" : waiting ? "sound.waiting" : "sound.on"));
}

/** Wire the switch, which is off until somebody switched it on in this browser. */
export function startSound() {
  $("sound").addEventListener("click", () => {
    // A press while it waits for a touch is that touch, not a wish for silence.
    if (!on || context?.state === "running") on = !on;
    localStorage.setItem(KEPT, on ? "on" : "off");
    wake();
    drawSound();
    if (on) chime("other");
  });
  for (const touch of ["pointerdown", "keydown"]) addEventListener(touch, wake, { once: true });
  drawSound();
}
