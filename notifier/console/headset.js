// The headset's part of the agent's page: connect, what it does, what was chosen.
import { $, say } from "./dom.js";
import { choose } from "./headset_choices.js";
import { helpKeys, signs } from "./headset_core.js";
import { HeadsetDevice } from "./headset_device.js";
import { known, language, t } from "./strings.js";

function fill(list, prefix, values, chosen) {
  const key = JSON.stringify([language(), values]);
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...values.map((value) => new Option(known(prefix, value || "none"), value)));
  }
  if (list.value !== chosen) list.value = chosen;
}

/**
 * Wire the panel.
 *
 * @param help  () => ask for a supervisor, as the page's button does
 * @param told  (key, tone) => say something to the agent
 * @returns {follow, start}
 */
export function makeHeadset(help, told) {
  const device = new HeadsetDevice({
    changed: () => draw(),
    happened(what) {
      if (what === "help") help();
      else if (what === "mute_asked") told("headset.mute_asked", "wait");
    },
  });

  function draw() {
    const ready = device.state === "ready";
    $("headset").dataset.state = device.state;
    say($("headset-state"), t(`headset.state.${device.state}`, { name: device.name }));
    say($("headset-short"), t(ready ? "headset.on" : "headset.off"));
    $("headset-connect").hidden = !device.able || device.state === "elsewhere";
    say($("headset-connect"), t(ready ? "headset.another" : "headset.connect"));
    $("headset-forget").hidden = !ready;
    $("headset-dark").hidden = !ready || !device.dark;
    $("headset-choices").hidden = !ready;
    if (!ready) return;
    const { callLamp, sign, helpKey } = device.choices;
    say($("headset-mute"), t(`headset.mute.${device.mute}`));
    $("headset-mute").dataset.mute = device.mute;
    $("headset-lamp").checked = callLamp;
    $("headset-lamp").disabled = !("off_hook" in device.layout.lamps);
    fill($("headset-sign"), "headset.sign.", signs(device.layout, callLamp), sign);
    $("headset-try").disabled = sign === "off" || device.talking;
    const keys = ["", ...helpKeys(device.layout)];
    fill($("headset-key"), "headset.key.", keys, keys.includes(helpKey) ? helpKey : "");
  }

  function change(more) {
    choose(more);
    device.chosen();
    draw();
  }

  $("headset-connect").addEventListener("click", () => device.ask());
  $("headset-forget").addEventListener("click", () => device.forget().then(() => $("headset-connect").focus()));
  $("headset-try").addEventListener("click", () => device.tryOut());
  $("headset-lamp").addEventListener("change", () => change({ callLamp: $("headset-lamp").checked }));
  $("headset-sign").addEventListener("change", () => change({ sign: $("headset-sign").value }));
  $("headset-key").addEventListener("change", () => change({ helpKey: $("headset-key").value }));
  let started = false;
  return {
    /** What the page shows: whether somebody is spoken with, and the level. */
    follow(talking, level) {
      device.follow(talking, level);
      draw();
    },
    /** Once somebody has signed in. */
    start() {
      if (started) return;
      started = true;
      device.start();
    },
  };
}
