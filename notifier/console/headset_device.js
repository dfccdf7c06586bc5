// The headset itself (WebHID): ask for it, find it again, read its keys, write its lamps.
// One tab drives it (Web Locks); the others wait until that one is closed.
import makers from "./headset_makers.js";
import { choices, choose, forgetChoices } from "./headset_choices.js";
import { HeadsetCore, signs } from "./headset_core.js";
import { readReport, telephonyOf, writeReports } from "./hid_reports.js";

const LOCK = "callshield.headset";
/** What is asked for: headsets of the makers we have profiles of, and whatever calls itself a telephone. */
const FILTERS = [...makers.map(({ vendorId }) => ({ vendorId })), { usagePage: 0x0b }];
/** A headset that refuses so many reports in a row is only read from then on. */
const REFUSALS = 3;

const nameOf = (device) => `${device.vendorId}:${device.productId}`;

export class HeadsetDevice {
  #on;
  #device = null;
  #layout = null;
  #core = null;
  #talking = false;
  #level = 0;
  #release = null;
  #waiting = false;
  #timer = null;
  #sent = new Map();
  #driven = new Set();
  #writing = null;
  #taking = Promise.resolve();
  #refused = 0;
  #read = (event) => this.#report(event);
  /** "absent", "insecure", "none", "asking", "unchosen", "refused", "no_control", "elsewhere",
   * "closed", "ready", "lost". */
  state = "none";

  /** @param on  {changed(), happened(what)}: something to draw; "help", "mute" or "mute_asked" */
  constructor(on) {
    this.#on = on;
    if (!globalThis.isSecureContext) this.state = "insecure";
    else if (!navigator.hid) this.state = "absent";
  }

  get able() {
    return this.state !== "absent" && this.state !== "insecure";
  }

  get talking() {
    return this.#talking;
  }

  get name() {
    return this.#device?.productName ?? "";
  }

  get layout() {
    return this.#layout;
  }

  get mute() {
    return this.#core?.mute ?? "none";
  }

  /** Lamps could not be written; its keys are read all the same. */
  get dark() {
    return this.#refused >= REFUSALS;
  }

  /** Find the headset that was allowed before, and be told of plugs. */
  async start() {
    if (!this.able) return;
    navigator.hid.addEventListener("connect", () => this.#device ?? this.#find(false));
    navigator.hid.addEventListener("disconnect", ({ device }) => this.#unplugged(device));
    await this.#find(true);
  }

  /** Ask the person for a headset; needs a press. */
  async ask() {
    this.#become("asking");
    let found;
    try {
      found = await navigator.hid.requestDevice({ filters: FILTERS });
    } catch {
      this.#become(this.#device ? "ready" : "refused");
      return;
    }
    if (found.length === 0) {
      this.#become(this.#device ? "ready" : "unchosen");
      return;
    }
    // A headset with several interfaces comes as several devices.
    const device = found.find((one) => telephonyOf(one.collections) !== null);
    if (device === undefined) {
      this.#become(this.#device ? "ready" : "no_control");
      return;
    }
    const same = choices().device === nameOf(device);
    choose({ device: nameOf(device), ...(same ? {} : { sign: "", helpKey: "" }) });
    await this.#take(device, false);
  }

  /** Give it back: lamps out, the browser's permission too, and nothing kept of it. */
  async forget() {
    const device = this.#device;
    await this.#close();
    this.#unlock();
    forgetChoices();
    this.#become("none");
    await device?.forget?.().catch(() => {});
  }

  /** What the page shows of calls. */
  follow(talking, level) {
    this.#talking = talking;
    this.#level = level;
    this.#core?.follow(talking, level, performance.now());
    this.#step();
  }

  tryOut() {
    this.#core?.tryOut(performance.now());
    this.#step();
  }

  /** Choices were changed. */
  chosen() {
    if (this.#core === null) return;
    this.#core.choices = this.#choices();
    this.#step();
  }

  #choices() {
    const { callLamp, sign, helpKey } = choices();
    const offered = signs(this.#layout, callLamp);
    // Not chosen: a sign that cannot be heard, or none.
    const quiet = offered.includes("lamp") ? "lamp" : "off";
    return { callLamp, sign: offered.includes(sign) ? sign : quiet, helpKey };
  }

  /** What is in force, for the page. */
  get choices() {
    return this.#core?.choices ?? { callLamp: true, sign: "off", helpKey: "" };
  }

  #become(state) {
    this.state = state;
    this.#on.changed();
  }

  /** Take what was allowed before, if this person has connected one here and not given it back. */
  async #find(resumed) {
    const wanted = choices().device;
    if (wanted === "") return;
    let granted;
    try {
      granted = await navigator.hid.getDevices();
    } catch {
      this.#become("refused");
      return;
    }
    const able = granted.filter((one) => telephonyOf(one.collections) !== null);
    const device = able.find((one) => nameOf(one) === wanted) ?? able[0];
    if (device !== undefined && this.#device === null) await this.#take(device, resumed);
  }

  /** Drive this headset instead of the one before, one after the other. */
  #take(device, resumed) {
    this.#taking = this.#taking.then(() => this.#open(device, resumed));
    return this.#taking;
  }

  async #open(device, resumed) {
    if (device === this.#device) {
      this.#become("ready");
      return;
    }
    await this.#close();
    if (!(await this.#lock())) return;
    try {
      if (!device.opened) await device.open();
    } catch {
      this.#unlock();
      this.#become("closed");
      return;
    }
    this.#device = device;
    this.#layout = telephonyOf(device.collections);
    this.#core = new HeadsetCore(this.#layout, this.#choices(), resumed);
    this.#sent.clear();
    this.#driven.clear();
    this.#refused = 0;
    device.addEventListener("inputreport", this.#read);
    this.#core.follow(this.#talking, this.#level, performance.now());
    this.#become("ready");
    this.#step();
  }

  /** True once the lock is ours; false: another tab has it, and we come back when it is free. */
  #lock() {
    if (this.#release !== null || !navigator.locks) return Promise.resolve(true);
    return new Promise((granted) => {
      const hold = () => new Promise((release) => {
        this.#release = release;
        granted(true);
      });
      navigator.locks.request(LOCK, { ifAvailable: true }, (lock) => {
        if (lock !== null) return hold();
        granted(false);
        this.#become("elsewhere");
        this.#wait();
        return undefined;
      });
    });
  }

  #wait() {
    if (this.#waiting) return;
    this.#waiting = true;
    navigator.locks.request(LOCK, () => {
      this.#waiting = false;
      if (this.#release !== null) return undefined;
      return new Promise((release) => {
        this.#release = release;
        this.#become("none");
        this.#find(true).then(() => this.#device ?? this.#unlock());
      });
    });
  }

  #unlock() {
    this.#release?.();
    this.#release = null;
  }

  #unplugged(device) {
    if (device !== this.#device) return;
    this.#drop();
    this.#unlock();
    this.#become("lost");
    // Another headset that is allowed and plugged in goes on.
    this.#find(false);
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#device?.removeEventListener("inputreport", this.#read);
    this.#device = null;
    this.#layout = null;
    this.#core = null;
  }

  /** Put out what we lit, and close it. */
  async #close() {
    const device = this.#device;
    if (device === null) return;
    const layout = this.#layout;
    const driven = new Set(this.#driven);
    this.#drop();
    try {
      for (const { reportId, data } of writeReports(layout, new Set(), driven)) {
        await device.sendReport(reportId, data);
      }
      await device.close();
    } catch {
      // It is gone, or refuses: there is nothing more to give back.
    }
  }

  #report({ reportId, data }) {
    if (this.#core === null) return;
    const before = this.#core.mute;
    const happened = this.#core.report(readReport(this.#layout, reportId, data), performance.now());
    this.#tell(happened, before !== this.#core.mute);
    this.#step();
  }

  #tell(happened, changed) {
    for (const what of happened) this.#on.happened(what);
    if (changed || happened.length) this.#on.changed();
  }

  /** Let time do what it does, write what has changed, and come back when more will. */
  #step() {
    clearTimeout(this.#timer);
    if (this.#core === null) return;
    const now = performance.now();
    this.#tell(this.#core.tick(now), false);
    const next = this.#core.next(now);
    if (next !== null) this.#timer = setTimeout(() => this.#step(), next + 1);
    this.#write();
  }

  /** One report at a time; what changed meanwhile is written afterwards, as it is then. */
  async #write() {
    const device = this.#device;
    if (this.#writing === device) return;
    this.#writing = device;
    for (let report = this.#due(); report !== undefined; report = this.#due()) {
      const { reportId, data } = report;
      this.#sent.set(reportId, data.join());
      let refused = 0;
      await device.sendReport(reportId, data).catch(() => (refused = 1));
      // Unplugged meanwhile: another one is written by another turn of this.
      if (device !== this.#device) break;
      this.#refused = refused && this.#refused + refused;
      if (refused && this.dark) this.#on.changed();
    }
    if (this.#writing === device) this.#writing = null;
  }

  /** The first report that says something else than the headset was told last. */
  #due() {
    if (this.#core === null || this.dark) return undefined;
    const { lit, only } = this.#core.lamps(performance.now());
    // A lamp that is not ours any more is put out once.
    const all = new Set([...only, ...this.#driven]);
    const due = writeReports(this.#layout, lit, all).find(({ reportId, data }) => this.#sent.get(reportId) !== data.join());
    if (due === undefined) this.#driven = new Set(only);
    return due;
  }
}
