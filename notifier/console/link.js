// The line to the node: token, requests, and every event once, across any number of reconnects.

const TOKEN = "callshield.token";
// The server says something every 10 s; a line silent for longer than this is dead.
const SILENT_MS = 25_000;
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 8_000;

/** Take a token out of `#token=…` (a fragment never reaches a server) and out of the address. */
export function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem(TOKEN, found);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(TOKEN);
}

/** Back from the organisation's sign-in: change the cookie, good once, for a token of ours. */
export async function redeemSignIn() {
  if (location.hash !== "#signed-in") return;
  history.replaceState(null, "", location.pathname + location.search);
  const answer = await request("/oidc/token", "POST");
  if (answer.status === 200) keepToken(answer.body.token);
}

export const keepToken = (token) => sessionStorage.setItem(TOKEN, token);
export const forgetToken = () => sessionStorage.removeItem(TOKEN);

/** One request. Never throws: `{status: 0, body: null}` when the server cannot be reached. */
export async function request(path, method = "GET", body = undefined) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(TOKEN)}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    const answer = await fetch(`/api/v1${path}`, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(8_000),
    });
    return { status: answer.status, body: await answer.json() };
  } catch {
    return { status: 0, body: null };
  }
}

// The latest request of a path that was answered.
const answered = new Map();
let asked = 0;

/**
 * GET a list that events make stale. Two events close together ask twice, and the first answer can
 * come last: its status is then 0, as if it had not come.
 */
export async function newest(path) {
  const turn = ++asked;
  const answer = await request(path);
  if (turn < (answered.get(path) ?? 0)) return { status: 0, body: null };
  if (answer.status === 200) answered.set(path, turn);
  return answer;
}

/** The problem's identifier out of a problem+json body. */
export function problemOf({ status, body }) {
  if (status === 0) return "network";
  return body?.type?.split(":").pop() ?? "other";
}

/**
 * Keep a console up to date.
 *
 * on.load(node, calls, alerts): everything as it is now; on.event(event): what happened since,
 * in order; on.state("connecting" | "live" | "lost" | "refused", detail).
 */
export class Link {
  #on;
  #lastId = null;
  #retryMs = FIRST_RETRY_MS;
  #silence = 0;
  #socket = null;
  #stopped = false;
  /** Add to Date.now() to get the node's clock, in milliseconds. */
  clockOffsetMs = 0;
  heardAt = null;

  constructor(on) {
    this.#on = on;
  }

  now() {
    return (Date.now() + this.clockOffsetMs) / 1000;
  }

  async open() {
    this.#stopped = false;
    this.#on.state("connecting");
    if (this.#lastId === null && !(await this.#load())) return;
    this.#connect();
  }

  async #load() {
    const answers = await Promise.all([
      request("/node"),
      request("/calls"),
      request("/alerts?state=all&limit=50"),
      request("/alerts?state=open&limit=500"),
    ]);
    if (answers.some((answer) => answer.status === 401)) {
      this.#refuse("token");
      return false;
    }
    if (answers.some((answer) => answer.status === 403)) {
      this.#refuse("role");
      return false;
    }
    if (answers.some((answer) => answer.status !== 200)) {
      this.#later();
      return false;
    }
    const [node, calls, past, open] = answers.map((answer) => answer.body);
    this.#setClock(node.now);
    // Whatever came between these answers is replayed: twice rather than never.
    this.#lastId = Math.min(...[node, calls, past, open].map((body) => body.last_event_id));
    if (this.#on.load(node, calls.calls, [...past.alerts, ...open.alerts]) === false) {
      this.#refuse("role");
      return false;
    }
    return true;
  }

  #connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const url = `${scheme}://${location.host}/api/v1/events?last_event_id=${this.#lastId}`;
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.onopen = () => {
      socket.send(JSON.stringify({ token: sessionStorage.getItem(TOKEN) }));
      this.#heard();
    };
    socket.onmessage = (message) => {
      if (socket === this.#socket) this.#take(JSON.parse(message.data));
    };
    socket.onclose = (closed) => {
      if (socket !== this.#socket) return;
      if (closed.code === 4401) this.#refuse("token");
      else this.#later();
    };
    this.#heard();
  }

  #take(event) {
    this.#heard();
    if (event.type === "session.ready") {
      this.#setClock(event.ts);
      if (event.reset) {
        // Another database: what is on the screen belongs to the past.
        this.#lastId = null;
        this.#later();
        return;
      }
      this.#retryMs = FIRST_RETRY_MS;
      this.#on.state("live");
    } else if (event.type === "heartbeat") {
      this.#setClock(event.ts);
    } else {
      if (event.id !== undefined) {
        if (event.id <= this.#lastId) return;
        this.#lastId = event.id;
      }
      this.#on.event(event);
    }
  }

  #setClock(ts) {
    this.clockOffsetMs = ts * 1000 - Date.now();
  }

  #heard() {
    this.heardAt = new Date();
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#later(), SILENT_MS);
  }

  #later() {
    if (this.#stopped) return;
    this.#drop();
    this.#on.state("lost");
    // Spread out, so that a restarted node is not met by everybody at once.
    setTimeout(() => this.open(), this.#retryMs * (0.5 + Math.random() / 2));
    this.#retryMs = Math.min(this.#retryMs * 2, LAST_RETRY_MS);
  }

  #refuse(why) {
    this.#stopped = true;
    this.#drop();
    this.#lastId = null;
    forgetToken();
    this.#on.state("refused", why);
  }

  #drop() {
    clearTimeout(this.#silence);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }
}
