// What an operator should look at first: a store that does not answer, who waits the longest, locks held for long.

import { byId, make, ownerOf, percent, readable, span, times } from "./text.js";

const LONG_WAIT_MS = 5_000;
/** A lock that was refreshed again and again may be stuck; one within its first TTLs is not. */
const LONG_HOLD_MS = 60_000;
const LONG_HOLD_TTLS = 3;
const SHOWN = 3;

/** The things to look at, the worst first: `{ level, about, key, text }`. */
export function findings({ ready, store, waits, holds, point }) {
  const found = [];
  if (ready && !ready.ok) found.push({ level: "bad", text: `Not ready: ${ready.why}.` });
  found.push(...ofStore(store));
  for (const lock of waits.filter((lock) => (lock.longest_wait_ms ?? 0) >= LONG_WAIT_MS).slice(0, SHOWN)) {
    const more = lock.waiting > 1 ? `, the first of ${lock.waiting}` : "";
    found.push({ level: "warn", key: lock.key, text: `has kept its oldest waiter for ${span(lock.longest_wait_ms)}${more}` });
  }
  const long = ({ holder }) => holder.age_ms >= Math.max(LONG_HOLD_MS, LONG_HOLD_TTLS * holder.ttl_ms);
  for (const { key, holder } of holds.filter(long).slice(0, SHOWN)) {
    const refreshed = holder.refresh_count ? `, refreshed ${times(holder.refresh_count)}` : "";
    found.push({ level: "warn", about: "hold", key, text: `has been held by ${ownerOf(holder)} for ${span(holder.age_ms)}${refreshed}` });
  }
  if (point && point.contended >= 0.8 && point.granted >= 1) {
    found.push({ level: "warn", text: `${percent(point.contended)} of the requests now wait or are refused.` });
  }
  return found;
}

/** A majority may do without one of its servers, and nobody notices until the next goes. */
function ofStore(store) {
  const out = (store?.nodes ?? []).filter(({ state }) => state !== "answers");
  const state = (node) => (node.state === "away" ? "is away" : "is not trusted yet");
  const since = (node) => (node.unchanged_ms === null ? "" : `, for ${span(node.unchanged_ms)} so far`);
  const words = out.slice(0, SHOWN).map((node) => `${readable(node.name)}, a server of the store, ${state(node)}${since(node)}.`);
  return [...words, ...(store?.warnings ?? []).slice(0, SHOWN)].map((text) => ({ level: "warn", text }));
}

let shown = "";

export function show(found, open) {
  const text = JSON.stringify(found);
  if (text === shown) return;
  shown = text;
  const list = byId("attention");
  const focused = list.contains(document.activeElement) ? document.activeElement.textContent : null;
  const rows = found.map(({ level, key, text }) => {
    if (key === undefined) return make("li", { class: level }, text);
    const button = make("button", { type: "button" }, readable(key));
    button.addEventListener("click", () => open(key));
    return make("li", { class: level }, button, ` ${text}`);
  });
  list.replaceChildren(...(rows.length ? rows : [make("li", { class: "calm" }, "Nothing does: no long waits, no long holds, and the store answers.")]));
  if (focused) [...list.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
}
