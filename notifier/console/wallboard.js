// The wallboard: counts and calls for help. It is sent no id of an agent or a call, and no words.
import { $, element, keyed, say } from "./dom.js";
import { badge, minutes, startPage } from "./page.js";
import { forgetToken, request } from "./link.js";
import { downText, language, preferLanguage, t } from "./strings.js";

const ASK_MS = 2_000;
const LEVELS = ["3", "2", "1", "0", "none"];

let node = null;
let board = null;
let page = null;

/** The same to a page as the WebSocket's line, but it asks: what counts is what is true now. */
class Poll {
  #on;
  #lost = false;
  #loaded = false;
  #timer = 0;
  clockOffsetMs = 0;
  heardAt = null;

  constructor(on) {
    this.#on = on;
  }

  now() {
    return (Date.now() + this.clockOffsetMs) / 1000;
  }

  async open() {
    clearTimeout(this.#timer);
    if (this.heardAt === null) this.#on.state("connecting");
    const answer = await request(this.#loaded ? "/wallboard" : "/node");
    if (answer.status === 401) {
      forgetToken();
      this.#loaded = false;
      this.#on.state("refused", "token");
      return;
    }
    if (answer.status === 200) this.#heard(answer.body);
    else if (!this.#lost) {
      this.#lost = true;
      this.#on.state("lost");
    }
    this.#timer = setTimeout(() => this.open(), this.heardAt && !board ? 0 : ASK_MS);
  }

  #heard(body) {
    this.clockOffsetMs = body.now * 1000 - Date.now();
    if (!this.#loaded) {
      this.#loaded = true;
      this.#on.load(body, [], []);
    } else this.#on.event(body);
    if (this.#lost || this.heardAt === null) this.#on.state("live");
    this.#lost = false;
    this.heardAt = new Date();
  }
}

function drawRequests(now) {
  say($("help-count"), String(board.requests.length));
  $("waiting").dataset.any = String(board.requests.length > 0);
  $("requests-none").hidden = board.requests.length > 0;
  // The oldest first; no key says whose it is, so a row is its place in the list.
  const rows = board.requests.map((one, place) => ({ ...one, place }));
  const keyOf = (one) => `${one.place} ${one.kind} ${one.level}`;
  const make = (one) => {
    const row = element("li", "", one.level > 0 ? badge(one.level) : "", element("strong", "", t(`alert.${one.kind}`)), element("span", "ago"));
    row.dataset.kind = one.kind;
    return row;
  };
  keyed($("requests"), rows, keyOf, make, (row, one) => {
    say(row.querySelector(".ago"), t("board.waits", { time: minutes(now - one.raised_ts) }));
  });
}

function drawLevels() {
  const keyOf = (level) => level;
  keyed($("levels"), LEVELS, keyOf, (level) => {
    const tile = element("li", "", element("span", "count"), badge(level));
    tile.dataset.level = level;
    return tile;
  }, (tile, level) => {
    const count = level === "none" ? board.calls_without_level : board.calls_by_level[Number(level)];
    say(tile.querySelector(".count"), String(count));
    tile.classList.toggle("zero", count === 0);
  });
}

function draw() {
  if (page === null || node === null || board === null) return;
  drawRequests(page.link.now());
  drawLevels();
  say($("call-count"), t("calls.count", { n: board.calls }));
  const callbacks = board.callbacks_overdue ? "board.callbacks.late" : "board.callbacks";
  say($("board-callbacks"), t(callbacks, { n: board.callbacks_open, late: board.callbacks_overdue }));
  $("board-callbacks").classList.toggle("bad", board.callbacks_overdue > 0);
  const down = board.degraded.map((part) => downText(part));
  say($("board-health"), down.length ? down.join(" · ") : `${t("health")}: ${t("health.ok")}`);
  $("board-health").classList.toggle("bad", down.length > 0);
}

page = startPage("title.wallboard", () => true, {
  load(told) {
    node = told;
    preferLanguage(node.language);
    $("language").value = language();
    page?.translate();
  },
  event(told) {
    board = told;
  },
  draw,
}, Poll);
