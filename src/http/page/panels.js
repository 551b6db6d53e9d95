// What stands beside the table: the keys that are contended, the sessions, and what server this is.

import { byId, count, make, readable, span, write } from "./text.js";

const HOT_SHOWN = 8;
export const SESSIONS_SHOWN = 20;

/** Replaces the rows of a list if they say something else than before, and keeps the focus where it was. */
function replace(list, what, rows) {
  const text = JSON.stringify(what);
  if (list.dataset.shown === text) return;
  list.dataset.shown = text;
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  list.replaceChildren(...rows());
  if (focused !== undefined) [...list.querySelectorAll("button")].find(({ dataset }) => dataset.key === focused)?.focus();
}

/** A key that leads to its queue. */
export function keyButton(key, open) {
  const button = make("button", { type: "button", class: "link" }, readable(key));
  button.dataset.key = key;
  button.addEventListener("click", () => open(key));
  return button;
}

const meter = (part) => {
  const fill = make("div", { class: "fill" });
  fill.style.transform = `scaleX(${Math.min(1, Math.max(0, part)).toFixed(3)})`;
  return make("div", { class: "track", "aria-hidden": "true" }, fill);
};

/** `null`: they are not for this reader. */
export function showHotKeys(hot, open) {
  const rows = (hot ?? []).slice(0, HOT_SHOWN);
  write(byId("hot-note"), hot === null ? "Not counted for this token." : rows.length ? "How often requests waited or were refused"
    : "Nobody has had to wait for a key, or was refused one.");
  replace(byId("hot"), rows, () => rows.map(({ key, contentions }) =>
    make("li", {}, make("span", { class: "name" }, keyButton(key, open)), make("span", { class: "num" }, count(contentions)),
      meter(contentions / rows[0].contentions))));
}

export function showSessions({ sessions, open }, me) {
  const more = open - sessions.length;
  write(byId("sessions-note"), open ? `${count(open)} open${more > 0 ? `, ${count(sessions.length)} of them here` : ""}`
    : me.namespaces === null ? "None is open." : "None is open that this token may see.");
  const long = ({ name, bearer, held, waiting, remaining_ms: left, ttl_ms: ttl }) => {
    const locks = [held === 1 ? "1 lock" : `${count(held)} locks`, ...(waiting ? [make("b", { class: "waits" }, `waits for ${count(waiting)}`)] : [])];
    const facts = locks.flatMap((part, at) => (at ? [", ", part] : [part]));
    return make("li", {}, make("span", { class: "name" }, readable(name)), make("span", { class: "num" }, `${span(left)} left`),
      make("span", { class: "sub" }, ...facts), make("span", { class: "sub num" }, bearer === null ? "" : `by ${readable(bearer)}`),
      meter(left / ttl));
  };
  replace(byId("sessions"), sessions, () => sessions.map(long));
}

/** What a reader who has signed out has no business with. */
export function forgetPanels() {
  for (const id of ["hot", "sessions", "server", "nodes"]) {
    byId(id).replaceChildren();
    delete byId(id).dataset.shown;
  }
  for (const id of ["hot-note", "sessions-note"]) write(byId(id), "");
}

const STATES = { ready: "ready", starting: "just started, grants nothing yet", shutting_down: "shutting down", store_unavailable: "cannot grant: no store" };
const NODE_STATES = { answers: "answers", quarantined: "not trusted yet", away: "away" };

export function showServer(server, me) {
  const fact = (name, ...value) => make("div", {}, make("dt", {}, name), make("dd", {}, ...value));
  const { store } = server;
  const since = (ms) => (ms === null ? "" : `, for ${span(ms)} so far`);
  const version = server.commit === null ? server.version : `${server.version} (${server.commit.slice(0, 12)})`;
  const kind = store === null ? "memory, within this process"
    : `${store.kind}, ${store.answer_ms === null ? "no answer" : `answers in ${span(store.answer_ms)}`}${since(store.unchanged_ms)}`;
  const facts = [["Version", version], ["Up", span(server.uptime_ms)], ["Status", STATES[server.status] ?? server.status], ["Store", kind],
    ["You", whoIs(me)], ["May", me.rights.join(", ") || "nothing"],
    ["Keys", me.namespaces === null ? "all" : me.namespaces.map((prefix) => `${readable(prefix)}…`).join(", ")]];
  replace(byId("server"), facts, () => facts.map(([name, value]) => fact(name, value)));
  const warnings = (store?.warnings ?? []).map((text) => make("li", { class: "warn" }, text));
  replace(byId("nodes"), store, () => [...warnings, ...(store?.nodes ?? []).map((node) => nodeRow(node, since))]);
  byId("nodes").hidden = !byId("nodes").childElementCount;
}

const whoIs = (me) => (me.name === null ? "no token is asked for" : readable(me.name));

function nodeRow({ name, state, answer_ms: ms, unchanged_ms: steady, why, votes }, since) {
  const how = `${NODE_STATES[state] ?? state}${ms === null ? "" : ` in ${span(ms)}`}${since(steady)}`;
  const parts = [make("span", { class: "name wide" }, readable(name)), make("span", { class: `sub wide state ${state}` }, how)];
  if (why !== null) parts.push(make("span", { class: "sub wide" }, why));
  if (votes !== null) {
    const words = [["gave", votes.granted], ["denied", votes.denied], ["refused", votes.refused], ["abstained", votes.abstained], ["no answer", votes.unknown]];
    const told = words.filter(([, number], at) => at < 2 || number > 0).map(([word, number]) => `${word} ${count(number)}`);
    parts.push(make("span", { class: "sub wide" }, `Votes: ${told.join(", ")}`));
  }
  return make("li", {}, ...parts);
}
