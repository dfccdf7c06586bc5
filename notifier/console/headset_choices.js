// What this person chose for the headset. It stays in this browser: no server is told of a headset.
const KEPT = "callshield.headset";
const NOTHING = { device: "", callLamp: true, sign: "", helpKey: "" };

/** {device: "vendor:product" or "", callLamp, sign: "" (not chosen) | "off" | "lamp" | "ring", helpKey} */
export function choices() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    return Object.fromEntries(
      Object.entries(NOTHING).map(([key, value]) => [key, typeof kept?.[key] === typeof value ? kept[key] : value]),
    );
  } catch {
    return { ...NOTHING };
  }
}

export function choose(more) {
  localStorage.setItem(KEPT, JSON.stringify({ ...choices(), ...more }));
}

/** Nothing of the headset is kept. */
export function forgetChoices() {
  localStorage.removeItem(KEPT);
}
