// What a headset's report descriptor says: where its keys and lamps are. Pure: numbers in, numbers out.
// USB HID 1.11 (6.2.2.5 main items, 8 report protocol) and HID Usage Tables 1.12 (3.4.1 usage types,
// 11 LED page, 14 telephony page). The browser gives the descriptor as WebHID's `collections`. No
// layout is known beforehand: two models of one maker differ in report ids and bits.

const TELEPHONY_PAGE = 0x0b;
// Usages as the browser writes them: page in the upper 16 bits, id in the lower.
const KEYS = {
  hook: 0x0b0020,
  mute: 0x0b002f,
  flash: 0x0b0021,
  hold: 0x0b0023,
  redial: 0x0b0024,
  speed_dial: 0x0b0050,
  voice_mail: 0x0b0070,
  programmable: 0x0b0007,
};
const LAMPS = {
  mute: 0x080009,
  off_hook: 0x080017,
  ring: 0x080018,
  message: 0x080019,
  indicator: 0x08004b,
};
// A report may have 2^16 - 1 bytes; one with more bits than that is not believed.
const MOST_BITS = 65535 * 8;

/** The items of every report of one direction, by report id: the longest list wins.
 *
 * A parent's report has the items of its children, too, in their order (WICG/webhid issue 46), so
 * that bits can be counted there; a descriptor in which only a child has them is taken as it is.
 */
function reportsOf(collections, direction, found = new Map()) {
  for (const collection of collections ?? []) {
    for (const { reportId, items } of collection[direction] ?? []) {
      const known = found.get(reportId);
      if (known === undefined || (items ?? []).length > known.length) found.set(reportId, items ?? []);
    }
    reportsOf(collection.children, direction, found);
  }
  return found;
}

/** On/off controls (Usage Tables 3.4.1.2): how a value is meant. */
function kindOf(item) {
  if (item.isAbsolute) return "switch"; // the value is the state
  return (item.logicalMinimum ?? 0) < 0 ? "buttons" : "toggle"; // -1 off, 1 on; or 1: pressed
}

/** Usages of an item, field by field; a range counts up, the last of a list goes on. */
function usageAt(item, field) {
  if (item.isRange) {
    const usage = (item.usageMinimum ?? 0) + field;
    return usage <= (item.usageMaximum ?? -1) ? usage : undefined;
  }
  const usages = item.usages ?? [];
  return usages[Math.min(field, usages.length - 1)];
}

/** Where each wanted usage is in the reports of one direction. */
function places(reports, wanted) {
  const names = new Map(Object.entries(wanted).map(([name, usage]) => [usage, name]));
  const found = {};
  const sizes = new Map();
  for (const [reportId, items] of reports) {
    let bit = 0;
    for (const item of items) {
      const size = item.reportSize ?? 0;
      const count = item.reportCount ?? 0;
      if (bit + size * count > MOST_BITS) break;
      // Headsets are sold whose keys are marked as constants: a usage counts, not the mark.
      const fields = item.isArray || size > 32 ? 0 : Math.min(count, (item.usages?.length || 0) + 256);
      for (let field = 0; field < fields; field += 1) {
        const name = names.get(usageAt(item, field));
        if (name !== undefined && !(name in found)) {
          found[name] = { reportId, bit: bit + field * size, size, kind: kindOf(item) };
        }
      }
      if (item.isArray) arrayPlaces(item, reportId, bit, names, found);
      bit += size * count;
    }
    sizes.set(reportId, Math.ceil(bit / 8));
  }
  return { found, sizes };
}

/** In an array the value of a field is the number of the usage that is pressed. */
function arrayPlaces(item, reportId, bit, names, found) {
  const last = (item.logicalMaximum ?? 0) - (item.logicalMinimum ?? 0);
  for (let index = 0; index <= Math.min(last, 255); index += 1) {
    if (!item.isRange && index >= (item.usages ?? []).length) break;
    const name = names.get(usageAt(item, index));
    if (name === undefined || name in found) continue;
    const value = (item.logicalMinimum ?? 0) + index;
    found[name] = { reportId, bit, size: item.reportSize, count: item.reportCount, value, kind: "toggle" };
  }
}

/**
 * Keys and lamps of a device.
 *
 * @param collections  of a HIDDevice
 * @returns {keys, lamps, sizes} - keys and lamps by name with report id, first bit, size and kind;
 *          sizes: bytes of each output report - or null without a telephony collection
 */
export function telephonyOf(collections) {
  const own = (collections ?? []).filter((one) => one.usagePage === TELEPHONY_PAGE);
  const keys = places(reportsOf(own, "inputReports"), KEYS).found;
  const { found: lamps, sizes } = places(reportsOf(own, "outputReports"), LAMPS);
  if (Object.keys(keys).length === 0 && Object.keys(lamps).length === 0) return null;
  return { keys, lamps, sizes };
}

/** An unsigned number of up to 32 bits, least significant bit first; null outside the report. */
function bitsAt(data, bit, size) {
  if (bit + size > data.byteLength * 8) return null;
  let value = 0;
  for (let n = 0; n < size; n += 1) {
    if (data.getUint8((bit + n) >> 3) & (1 << ((bit + n) & 7))) value += 2 ** n;
  }
  return value;
}

function valueOf(data, place) {
  if (place.value !== undefined) {
    for (let field = 0; field < place.count; field += 1) {
      const pressed = bitsAt(data, place.bit + field * place.size, place.size);
      if (pressed === null) return null;
      if (pressed === place.value) return 1;
    }
    return 0;
  }
  const value = bitsAt(data, place.bit, place.size);
  // Off of two buttons is -1.
  if (value !== null && place.kind === "buttons" && value === 2 ** place.size - 1) return -1;
  return value;
}

/**
 * What an input report says.
 *
 * @param data  DataView of the report without its id
 * @returns values by key: only of keys that this report has, and that fit into it
 */
export function readReport(layout, reportId, data) {
  const values = {};
  for (const [name, place] of Object.entries(layout.keys)) {
    if (place.reportId !== reportId) continue;
    const value = valueOf(data, place);
    if (value !== null) values[name] = Math.sign(value);
  }
  return values;
}

/**
 * The output reports that say these lamps.
 *
 * @param lit  names of lamps that burn; the others of the same report do not
 * @param only names of lamps that may be driven: a report without one of them is not written
 * @returns [{reportId, data}], whole reports, in order of their ids
 */
export function writeReports(layout, lit, only) {
  const reports = new Map();
  for (const name of only) {
    const place = layout.lamps[name];
    if (place) reports.set(place.reportId, new Uint8Array(layout.sizes.get(place.reportId)));
  }
  for (const [name, { reportId, bit }] of Object.entries(layout.lamps)) {
    if (lit.has(name) && reports.has(reportId)) reports.get(reportId)[bit >> 3] |= 1 << (bit & 7);
  }
  return [...reports].sort(([one], [other]) => one - other).map(([reportId, data]) => ({ reportId, data }));
}
