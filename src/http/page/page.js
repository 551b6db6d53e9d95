// The page as a whole: signs in, reads the totals at a steady pace and the locks when something happened, and rests
// while nobody looks.

import { ask, Refused, token } from "./api.js";
import * as attention from "./attention.js";
import { Charts } from "./charts.js";
import { forgetPanels, SESSIONS_SHOWN, showHotKeys, showServer, showSessions } from "./panels.js";
import { Recent } from "./recent.js";
import { listen } from "./stream.js";
import { Table } from "./table.js";
import { byId, clock, count, holderOf, make, percent, rate, readable, span, write } from "./text.js";

const TICK_MS = 2_000;
/** Events come by the thousand; lists are read at most so often. */
const LIST_PAUSE_MS = 1_000;
/** Queues grow without an event, so what nobody spoke of is read again at least so often. */
const LIST_AT_LEAST_MS = 8_000;
const FOUND = 5;

const charts = new Charts();
const recent = new Recent(openKey);
const table = new Table({ changed: () => read(true), opened: readQueue, force: confirmForce });
const state = { mayForce: false, listDue: true, listed: 0, readAt: 0, reading: null, again: false, mutedUntil: 0, running: null, point: null };

async function start() {
  stop();
  try {
    const me = await ask("whoami");
    state.me = me;
    state.mayForce = table.mayForce = me.rights.includes("force");
    const within = me.namespaces ? `, keys of ${me.namespaces.map(readable).join(", ")}` : "";
    write(byId("who"), me.name ? `${readable(me.name)}${within}${state.mayForce ? "" : ", read-only"}` : "");
    byId("sign-out").hidden = me.name === null;
    if (!me.rights.includes("read")) return signIn(me.name ? "This token does not have the right to read." : "");
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return signIn(token.get() ? "The server does not know this token." : "");
    live("broken", "Not connected");
    warn(`${error instanceof Refused ? error.message : "The server cannot be reached"}. Trying again every 5 s.`);
    state.retry = setTimeout(start, 5_000);
    return;
  }
  byId("sign-in").hidden = true;
  byId("board").hidden = false;
  warn("");
  if (document.hidden) live("resting", "Resting");
  else run();
}

/** Listens and reads until `stop`. */
function run() {
  stop();
  live("starting", "Connecting");
  const running = state.running = new AbortController();
  const { signal } = running;
  state.listDue = true;
  state.server = undefined;
  fillCharts(signal);
  listen({
    signal,
    opened() {
      live("live", "Live");
      warn("");
      say("Live");
      state.listDue = true;
      if (state.broken) fillCharts(signal);
      state.broken = false;
      read(true);
    },
    heard(kind, text) {
      const data = JSON.parse(text);
      recent.hear(kind, data);
      state.listDue = true;
      // What has just ended must not be named as held for long until its turn comes.
      state.holdsDue ||= kind === "missed" ? state.namesHolds : state.holds?.some(({ key }) => key === data.key);
      const pause = state.listed + LIST_PAUSE_MS - performance.now();
      state.soon ??= setTimeout(() => { state.soon = null; read(true); }, Math.max(50, pause));
    },
    broken(why, pause) {
      state.broken = true;
      // It may be another one that comes back.
      state.server = undefined;
      live("broken", "Not live");
      const seen = state.readAt ? ` What you see was read at ${clock(new Date(state.readAt))}.` : "";
      warn(`The event stream broke: ${why}. Trying again in ${Math.max(1, Math.round(pause / 1000))} s.${seen}`);
    },
  });
  state.ticking = setInterval(() => read(false), TICK_MS);
  state.moving = setInterval(() => { table.tick(); recent.flush(); }, 500);
}

function stop() {
  state.running?.abort();
  state.running = null;
  clearInterval(state.ticking);
  clearInterval(state.moving);
  clearTimeout(state.soon);
  clearTimeout(state.retry);
  state.soon = null;
}

/** One reading at a time; one that is wanted meanwhile comes after it. */
async function read(listToo) {
  if (listToo) state.listDue = true;
  if (!state.running || performance.now() < state.mutedUntil) return;
  if (state.reading) { state.again ||= listToo; return; }
  const { signal } = state.running;
  state.reading = true;
  try {
    await readAll(signal);
  } catch (error) {
    if (!signal.aborted) failed(error);
  } finally {
    state.reading = false;
    if (state.again) { state.again = false; read(true); }
  }
}

/** First what is looked at first: a server that refuses the rest as too much is none the less seen. */
async function readAll(signal) {
  const listToo = state.listDue || performance.now() - state.listed > LIST_AT_LEAST_MS;
  const [stats, ready] = await Promise.all([totals(), readiness()]);
  if (signal.aborted) return;
  // Who sees no totals is to see who waits none the less.
  const waiting = stats ? stats.waiting : 1;
  const waitingChanged = waiting !== state.waiting;
  state.waiting = waiting;
  // The charts want even steps; a reading in between is for the cards and the table.
  if (stats && (!charts.last || performance.now() - charts.last.now > TICK_MS * 0.8)) state.point = charts.read(stats) ?? state.point;
  showCards(stats, ready);
  showHotKeys(stats ? stats.hot_keys : null, openKey);
  showServer({ ...state.server, uptime_ms: performance.now() - state.upSince }, state.me);
  const listed = listToo || waitingChanged || waiting > 0;
  if (listed) {
    state.listDue = false;
    const [list, waits] = await Promise.all([ask(table.query()), waiting ? ask(`locks?sort=wait&limit=${FOUND}`) : { locks: [] }]);
    if (signal.aborted) return;
    state.listed = performance.now();
    table.show(list);
    write(byId("held-sub"), list.scope === "server" ? "through this server" : "now");
    state.waits = waits.locks;
  }
  state.readAt = Date.now();
  if (listed) await readInTurn(signal);
  if (signal.aborted) return;
  showFindings(ready);
}

/** What changes slowly takes turns, after the first time. */
async function readInTurn(signal) {
  state.turn = !state.turn;
  const isFirst = state.holds === undefined;
  const [holdsToo, sessionsToo] = [isFirst || state.turn || state.holdsDue, isFirst || !state.turn];
  state.holdsDue = false;
  const [holds, sessions] = await Promise.all([holdsToo ? ask(`locks?sort=age&limit=${FOUND}`) : { locks: state.holds },
    sessionsToo ? ask(`sessions?limit=${SESSIONS_SHOWN}`) : null]);
  if (signal.aborted) return;
  state.holds = holds.locks;
  if (sessions) showSessions(sessions, state.me);
  if (table.open !== null) await readQueue(table.open);
}

function showFindings(ready) {
  const found = attention.findings({ ready, store: state.server.store, waits: state.waits ?? [], holds: state.holds ?? [], point: state.point });
  // Read out when there is something where there was nothing, and not with every second that it lasts.
  if (found.length && !state.found) say(found.length === 1 ? "One thing needs attention" : `${found.length} things need attention`);
  state.found = found.length;
  state.namesHolds = found.some(({ about }) => about === "hold");
  attention.show(found, openKey);
}

/** Opens the queue of a key, be it in the table or not. */
function openKey(key) {
  table.expand(key);
  byId("locks").scrollIntoView({ block: "nearest" });
}

/** Has the charts show what happened before anybody looked, or while the way to the server was broken. */
async function fillCharts(signal) {
  try {
    const history = await ask("history");
    if (!signal.aborted) charts.fill(history);
  } catch {
    // They begin empty then; what else is asked tells why.
  }
}

/** The totals; null where they are of all keys and the token is bound to some. */
async function totals() {
  if (state.noTotals) return null;
  try {
    return await ask("stats");
  } catch (error) {
    if (!(error instanceof Refused && error.code === "forbidden")) throw error;
    state.noTotals = true;
    return null;
  }
}

const NOT_READY = {
  // It lets holders in, and nobody else.
  starting: "the server has just started and grants nothing yet",
  shutting_down: "the server is shutting down",
  store_unavailable: "the store cannot be reached, or refuses locks",
};

/** Whether locks are granted, and if not, why. Where there is no store, what server it is does not change. */
async function readiness() {
  if (state.server?.store !== null) {
    state.server = await ask("server");
    state.upSince = performance.now() - state.server.uptime_ms;
  } else {
    const { status, code } = await ask("readyz").catch((error) => {
      if (error instanceof Refused && error.status === 503) return error;
      throw error;
    });
    state.server.status = code ?? status;
  }
  const { status, why, store } = state.server;
  return { ok: status === "ready", ms: store?.answer_ms ?? null, why: why ?? NOT_READY[status] ?? status };
}

async function readQueue(key) {
  try {
    // A lock may have ended: that is no error, and none for the console.
    const found = await ask(`locks?key=${encodeURIComponent(key)}&missing=empty`);
    table.showQueue(key, found.locks ? null : found);
  } catch (error) {
    failed(error);
  }
}

function failed(error) {
  if (error instanceof Refused && error.status === 401) {
    stop();
    return signIn("The server no longer knows this token.");
  }
  if (error instanceof Refused && error.status === 429) {
    state.mutedUntil = performance.now() + Math.max(error.retryAfterMs, TICK_MS);
    return;
  }
  const known = error instanceof Refused;
  warn(`${known ? error.message : "The server does not answer"}. What you see was read at ${clock(new Date(state.readAt))}.`);
}

function showCards(stats, ready) {
  showStore(ready);
  if (!stats) {
    for (const id of ["held", "waiting", "granted", "success", "contention", "hold"]) write(byId(id), "–");
    return write(byId("granted-sub"), "not counted for this token");
  }
  write(byId("held"), count(stats.active));
  write(byId("waiting"), count(stats.waiting));
  write(byId("granted"), count(stats.total));
  write(byId("granted-sub"), state.point ? `${rate(state.point.granted)} per second now` : "since the start");
  write(byId("success"), percent(stats.success_rate));
  write(byId("contention"), percent(stats.contention_rate));
  write(byId("hold"), span(stats.average_hold_ms));
  write(byId("wait-sub"), `${span(stats.average_wait_ms)} in queues`);
}

function showStore(ready) {
  write(byId("store"), ready.ok ? (ready.ms === null ? "Memory" : span(ready.ms)) : "Not ready");
  write(byId("store-sub"), ready.ok ? (ready.ms === null ? "within this process" : "to answer") : "cannot grant");
  byId("store").parentElement.classList.toggle("bad", !ready.ok);
}

async function confirmForce(key, lock) {
  const others = lock.held_by > 1 ? ` and ${count(lock.held_by - 1)} more` : "";
  // Names that change the direction of writing do not change that of the sentence.
  byId("force-text").replaceChildren(make("bdi", {}, readable(key)), " is held by ", make("bdi", {}, holderOf(lock)),
    `${others}; ${["nobody waits", "one waits"][lock.waiting] ?? `${count(lock.waiting)} wait`} for it.`);
  const dialog = byId("force");
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((closed) => dialog.addEventListener("close", closed, { once: true }));
  if (dialog.returnValue !== "yes") return;
  try {
    await ask(`locks?key=${encodeURIComponent(key)}`, { method: "DELETE" });
    say(`${readable(key)} was released by force`);
  } catch (error) {
    say(`${readable(key)} was not released: ${error.message}`);
    if (error.code !== "not_locked") failed(error);
  }
  read(true);
}

function live(kind, text) {
  byId("live").dataset.state = kind;
  write(byId("live-text"), text);
}

/** Over the page, for as long as it is so. Read out once: what follows is how long it will last. */
function warn(text) {
  if (text && byId("banner").hidden) say(text);
  write(byId("banner"), text);
  byId("banner").hidden = !text;
}

const say = (text) => write(byId("said"), text);

function signIn(why) {
  stop();
  live("starting", "Signed out");
  warn("");
  write(byId("token-why"), why || "This server asks for a bearer token.");
  write(byId("who"), "");
  byId("sign-out").hidden = true;
  byId("board").hidden = true;
  byId("sign-in").hidden = false;
  token.drop();
  table.forget();
  charts.forget();
  recent.forget();
  forgetPanels();
  Object.assign(state, { holds: undefined, waits: undefined, found: 0, point: null, readAt: 0, noTotals: false });
  attention.show([], openKey);
  byId("token").focus();
}

// Where rows are as high as a finger, a hundred of them would keep everything below out of sight.
if (matchMedia("(max-width: 46rem)").matches) byId("limit").value = "10";

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(byId("token").value.trim());
  byId("token").value = "";
  start();
});
byId("sign-out").addEventListener("click", () => signIn("You have signed out."));
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select, dialog") && !byId("board").hidden) {
    event.preventDefault();
    byId("filter").focus();
  }
});
document.addEventListener("visibilitychange", () => {
  if (byId("board").hidden) return;
  if (!document.hidden) run();
  else {
    stop();
    live("resting", "Resting");
  }
});

start();
