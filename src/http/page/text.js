// Numbers and spans of time as people read them, and elements without markup in strings.

/** 950 ms, 12.3 s, 4 m 05 s, 2 h 10 m */
export function span(ms) {
  if (ms < 1000) return `${ms < 10 && ms > 0 ? ms.toFixed(1) : Math.round(ms)} ms`;
  if (ms < 60_000) return `${(Math.floor(ms / 100) / 10).toFixed(1)} s`;
  const seconds = Math.floor(ms / 1000);
  const two = (number) => String(number).padStart(2, "0");
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${two(Math.floor(seconds / 60) % 60)} m`;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (number) => (number < 100_000 ? whole.format(number) : short.format(number));
export const rate = (number) => (number >= 10 || Number.isInteger(number) ? count(number) : number.toFixed(1));
export const percent = (part) => `${(part * 100).toFixed(part > 0 && part < 0.9995 ? 1 : 0)} %`;
/** never, once, 2 times */
export const times = (number) => ["never", "once"][number] ?? `${count(number)} times`;
export const clock = (date) => date.toLocaleTimeString("en-GB");

/** An element with attributes and children; strings become text, never markup. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Writes only what differs, so that neither selections nor screen readers are disturbed. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** What would be invisible, look like something else, or turn the direction of writing; as the program's own `readable`. */
const HIDDEN = /[\p{C}\p{Z}\p{Grapheme_Extend}\p{Default_Ignorable_Code_Point}\u2800]/u;

/** A key or a name as people should see it: what is hidden is written as \u{200b}. */
export function readable(text) {
  const characters = [...text];
  const outer = (at) => at < 0 || at >= characters.length;
  let backslashes = 0;
  return characters.map((c, at) => {
    const hidden = c === " " ? outer(at - 1) || outer(at + 1) || characters[at - 1] === " " : HIDDEN.test(c);
    // So that no two texts look the same.
    const doubled = hidden || (c === "u" && characters[at + 1] === "{") ? "\\".repeat(backslashes) : "";
    backslashes = c === "\\" ? backslashes + 1 : 0;
    return doubled + (hidden ? `\\u{${c.codePointAt(0).toString(16)}}` : c);
  }).join("");
}

export const ownerOf = (who) => (who.owner === null ? "anonymous" : readable(who.owner));
/** One of those who hold a lock: of one that holds it through another server nobody here knows the owner. */
export const whoOf = (holder) => (holder.ttl_ms === null ? "another process" : ownerOf(holder));
/** The first of those who hold a lock. */
export function holderOf(lock) {
  if (lock.claimed) return "another process, or kept by it";
  return lock.elsewhere ? "another process" : whoOf(lock.holder);
}

export function modeOf(held) {
  return held.mode === "permit" && held.limit ? `permit ${held.permits}/${held.limit}` : held.mode;
}
