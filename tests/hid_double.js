// navigator.hid, doubled for a page under test: see hid_kit.py.
(() => {
  const GRANTS = "double.granted";
  const granted = () => JSON.parse(localStorage.getItem(GRANTS) ?? "[]");
  const grant = (id) => localStorage.setItem(GRANTS, JSON.stringify([...new Set([...granted(), id])]));
  const fault = (name, text) => Promise.reject(new DOMException(text, name));
  const plugged = new Map();

  const bitsOf = (items) => items.reduce((sum, item) => sum + item.reportSize * item.reportCount, 0);
  function* reports(collections, direction) {
    for (const one of collections) {
      for (const report of one[direction]) yield report;
      yield* reports(one.children, direction);
    }
  }
  const longest = (collections, direction) => {
    const found = new Map();
    for (const { reportId, items } of reports(collections, direction)) {
      if ((found.get(reportId)?.length ?? -1) < items.length) found.set(reportId, items);
    }
    return found;
  };
  /** usage -> [reportId, bit] */
  const placesOf = (collections, direction) => {
    const found = new Map();
    for (const [reportId, items] of longest(collections, direction)) {
      let bit = 0;
      for (const item of items) {
        if (!item.isArray) {
          (item.usages ?? []).slice(0, item.reportCount).forEach((usage, n) => {
            if (!found.has(usage)) found.set(usage, [reportId, bit + n * item.reportSize]);
          });
        }
        bit += item.reportSize * item.reportCount;
      }
    }
    return found;
  };

  class FakeDevice extends EventTarget {
    constructor(id, spec) {
      super();
      Object.assign(this, {
        id, spec, opened: false, written: [], lit: {}, muted: false, heard: [], reading: new Map(),
      });
      for (const key of ["vendorId", "productId", "productName", "collections"]) this[key] = spec[key];
      this.inputs = placesOf(spec.collections, "inputReports");
      this.outputs = placesOf(spec.collections, "outputReports");
    }
    open() {
      if (this.opened) return fault("InvalidStateError", "The device is already open.");
      if (this.spec.busy) return fault("NotAllowedError", "Failed to open the device.");
      this.opened = true;
      return Promise.resolve();
    }
    close() {
      this.opened = false;
      return Promise.resolve();
    }
    forget() {
      localStorage.setItem(GRANTS, JSON.stringify(granted().filter((one) => one !== this.id)));
      this.opened = false;
      return Promise.resolve();
    }
    sendReport(reportId, data) {
      if (!this.opened) return fault("InvalidStateError", "The device must be opened first.");
      if (!plugged.has(this.id)) return fault("NotAllowedError", "Failed to write the report.");
      const items = longest(this.spec.collections, "outputReports").get(reportId);
      if (items === undefined) {
        this.heard.push("wrong report id");
        return fault("NotAllowedError", "Failed to write the report.");
      }
      if (data.byteLength !== Math.ceil(bitsOf(items) / 8)) {
        this.heard.push("wrong length");
        return fault("NotAllowedError", "Failed to write the report.");
      }
      if (this.spec.refuses) return fault("NotAllowedError", "Failed to write the report.");
      const bytes = [...new Uint8Array(data.buffer ?? data)];
      this.written.push([reportId, ...bytes]);
      const before = { ...this.lit };
      for (const [usage, [report, bit]] of this.outputs) {
        if (report === reportId) this.lit[usage] = (bytes[bit >> 3] >> (bit & 7)) & 1;
      }
      const [off, ring, mute, ringer] = [0x080017, 0x080018, 0x080009, 0x0b009e].map((one) => this.lit[one] ?? 0);
      // A telephone that is told to ring while it is on the hook rings.
      if ((ring && !off) || ringer) this.heard.push("rings");
      if ((before[0x080009] ?? 0) !== mute && !this.spec.mutesItself) this.muted = Boolean(mute);
      if (this.spec.echoesHook && (before[0x080017] ?? 0) !== off) this.set({ [0x0b0020]: off });
      return Promise.resolve();
    }
    /** Values by usage, as one input report of each id that they are in. */
    set(values) {
      const touched = new Set();
      for (const [usage, value] of Object.entries(values)) {
        const [reportId, bit] = this.inputs.get(Number(usage));
        const size = Math.ceil(bitsOf(longest(this.spec.collections, "inputReports").get(reportId)) / 8);
        const data = this.reading.get(reportId) ?? new Uint8Array(size);
        data[bit >> 3] = value ? data[bit >> 3] | (1 << (bit & 7)) : data[bit >> 3] & ~(1 << (bit & 7));
        this.reading.set(reportId, data);
        touched.add(reportId);
      }
      for (const reportId of touched) this.report(reportId, [...this.reading.get(reportId)]);
    }
    report(reportId, bytes) {
      if (!this.opened) return;
      const event = new Event("inputreport");
      Object.assign(event, { device: this, reportId, data: new DataView(Uint8Array.from(bytes).buffer) });
      this.dispatchEvent(event);
    }
    /** The mute key, as this maker does it. */
    pressMute() {
      if (this.spec.mutesItself) this.muted = !this.muted;
      this.set({ [0x0b002f]: 1 });
      this.set({ [0x0b002f]: 0 });
    }
  }

  const hid = new EventTarget();
  const tell = (type, device) => hid.dispatchEvent(Object.assign(new Event(type), { device }));
  const matches = (device, filter) => {
    if (filter.vendorId !== undefined && filter.vendorId !== device.vendorId) return false;
    if (filter.productId !== undefined && filter.productId !== device.productId) return false;
    if (filter.usagePage === undefined) return true;
    return device.collections.some((one) => one.usagePage === filter.usagePage);
  };
  hid.getDevices = () => Promise.resolve([...plugged.values()].filter(({ id }) => granted().includes(id)));
  hid.requestDevice = ({ filters }) => {
    if (!navigator.userActivation.isActive) return fault("SecurityError", "Must be handling a user gesture.");
    if (window.hidBox.policy === "refused") return fault("SecurityError", "disallowed by permissions policy");
    window.hidBox.asked.push(structuredClone(filters));
    const offered = [...plugged.values()].filter((one) => filters.some((filter) => matches(one, filter)));
    const found = offered.filter(({ id }) => window.hidBox.choice.includes(id));
    for (const { id } of found) grant(id);
    return Promise.resolve(found);
  };
  Object.defineProperty(Navigator.prototype, "hid", { configurable: true, get: () => hid });
  window.hidBox = {
    asked: [],
    choice: [],
    policy: "",
    device: (id) => plugged.get(id),
    plug(id, spec) {
      const device = new FakeDevice(id, spec);
      plugged.set(id, device);
      if (granted().includes(id)) tell("connect", device);
    },
    unplug(id) {
      const device = plugged.get(id);
      plugged.delete(id);
      device.opened = false;
      tell("disconnect", device);
    },
  };
})();
