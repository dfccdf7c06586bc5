// SPDX-License-Identifier: GPL-3.0-or-later
// An agent's phone in a page: JsSIP as it comes from its makers, and what it hears, kept.

"use strict";

/** JsSIP's modules are CommonJS; this is all of it that they need. */
function commonJs(files) {
  const loaded = new Map();
  const join = (folder, name) => {
    const parts = folder.split("/");
    for (const part of name.split("/")) {
      if (part === "..") parts.pop();
      else if (part !== "." && part !== "") parts.push(part);
    }
    return parts.join("/");
  };
  const locate = (path) => {
    const found = [path, `${path}.js`, `${path}/index.js`].find((each) => each in files);
    if (found !== undefined) return found;
    const about = JSON.parse(files[`${path}/package.json`] ?? "null");
    if (about === null) throw new Error(`${path} is not among the files`);
    const main = typeof about.browser === "string" ? about.browser : about.main;
    return locate(join(path, main ?? "index.js"));
  };
  const load = (path) => {
    if (!loaded.has(path)) {
      const module = { exports: {} };
      loaded.set(path, module);
      if (path.endsWith(".json")) {
        module.exports = JSON.parse(files[path]);
      } else {
        const folder = path.slice(0, path.lastIndexOf("/"));
        const require = (name) => load(locate(name.startsWith(".") ? join(folder, name) : name));
        new Function("module", "exports", "require", `${files[path]}\n//# sourceURL=${path}`)(
          module, module.exports, require);
      }
    }
    return loaded.get(path).exports;
  };
  return (name) => load(locate(name));
}

class BrowserPhone {
  events = [];
  heardRate = 0;
  #heard = [];
  #tracks = new Set();
  #session = null;

  constructor(files, { uri, password, socket }) {
    this.JsSIP = commonJs(files)("jssip");
    this.ua = new this.JsSIP.UA({
      sockets: [new this.JsSIP.WebSocketInterface(socket)],
      uri,
      password,
      register_expires: 600,
    });
    for (const name of ["registered", "registrationFailed", "disconnected"]) {
      this.ua.on(name, (event) => this.#note(name, event?.cause));
    }
    this.ua.on("sipEvent", ({ event, request }) =>
      this.#note("notify", `${event.event} ${request.getHeader("Content-Type") ?? ""}`));
    this.ua.on("newRTCSession", ({ session }) => this.#take(session));
    this.ua.start();
  }

  #note(name, detail) {
    this.events.push({ name, detail: detail ?? "" });
  }

  #take(session) {
    this.#session = session;
    this.#note("ringing");
    session.on("peerconnection", ({ peerconnection }) => {
      peerconnection.addEventListener("track", ({ track }) => this.#listen(track));
      for (const state of ["iceConnectionState", "connectionState"]) {
        peerconnection.addEventListener(state.toLowerCase() + "change", () =>
          this.#note(state, peerconnection[state]));
      }
    });
    for (const name of ["accepted", "confirmed", "failed", "ended", "hold", "unhold"]) {
      session.on(name, (event) => this.#note(name, event?.cause ?? event?.originator));
    }
  }

  #listen(track) {
    // A re-INVITE brings the same track again: it is heard already.
    if (this.#tracks.has(track.id)) return;
    this.#tracks.add(track.id);
    // A stream of our own: from the call's own one, hold takes the track away.
    const stream = new MediaStream([track]);
    // Chromium gives Web Audio nothing of a call that no element plays.
    const player = new Audio();
    player.srcObject = stream;
    player.muted = true;
    player.play();
    const context = new AudioContext();
    this.heardRate = context.sampleRate;
    const tap = context.createScriptProcessor(4096, 1, 1);
    tap.onaudioprocess = ({ inputBuffer }) =>
      this.#heard.push(Float32Array.from(inputBuffer.getChannelData(0)));
    context.createMediaStreamSource(stream).connect(tap);
    tap.connect(context.destination);
  }

  /** Everything heard so far: 16 bit, little-endian, base 64. */
  heard() {
    const bytes = new Uint8Array(this.#heard.reduce((sum, part) => sum + 2 * part.length, 0));
    const view = new DataView(bytes.buffer);
    let at = 0;
    for (const part of this.#heard) {
      for (const sample of part) {
        view.setInt16(at, Math.max(-1, Math.min(1, sample)) * 32767, true);
        at += 2;
      }
    }
    let text = "";
    for (let start = 0; start < bytes.length; start += 32768) {
      text += String.fromCharCode(...bytes.subarray(start, start + 32768));
    }
    return btoa(text);
  }

  /** Pick up. The microphone is taken as it is: a steady tone is noise to a browser. */
  answer() {
    this.#session.answer({
      mediaConstraints: {
        audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
        video: false,
      },
      pcConfig: { iceServers: [] },
    });
  }

  press(digits, transportType) {
    this.#session.sendDTMF(digits, { duration: 100, interToneGap: 100, transportType });
  }

  hold() { return this.#session.hold(); }

  unhold() { return this.#session.unhold(); }

  hangUp() { this.#session.terminate(); }

  /** How the audio travels: what WebRTC itself says. */
  async travels() {
    const stats = await this.#session.connection.getStats();
    const found = {};
    for (const each of stats.values()) {
      if (each.type === "transport") {
        Object.assign(found, { dtls: each.dtlsState, srtp: each.srtpCipher, ice: each.iceState });
      }
      if (each.type === "inbound-rtp") {
        found.codec = stats.get(each.codecId)?.mimeType;
        found.lost = each.packetsLost;
        found.received = each.packetsReceived;
      }
    }
    return found;
  }
}
