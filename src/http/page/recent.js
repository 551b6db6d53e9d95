// The last events, as the stream tells them: the newest first, a bounded number, and still while somebody reads them.

import { keyButton } from "./panels.js";
import { byId, clock, count, make, ownerOf, readable, span, write } from "./text.js";

const KEPT = 15;
/** Those that an operator did not order by asking for a lock. */
const TROUBLE = new Set(["expired", "lost", "forced", "deadlock"]);

export class Recent {
  /** `open`: a row wants the queue of its key. */
  constructor(open) {
    this.open = open;
    this.events = [];
    this.fresh = 0;
    this.missed = 0;
    this.paused = false;
    byId("pause").addEventListener("click", () => this.pause(!this.paused));
  }

  /** Takes in one event; `flush` shows it. */
  hear(kind, data) {
    this.changed = true;
    // Of more than ten a second the stream tells only how many they were.
    if (kind === "missed") { this.missed += data.missed; return; }
    this.events.unshift({ ...data, kind, at: new Date() });
    this.events.length = Math.min(this.events.length, KEPT);
    this.fresh += 1;
  }

  pause(paused) {
    this.paused = paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
    write(byId("pause"), paused ? "Go on" : "Pause");
    this.changed = true;
    this.flush();
  }

  /** Shows what came since the last time. */
  flush() {
    if (!this.changed) return;
    this.changed = false;
    const [note, list] = [byId("events-note"), byId("events")];
    // Nothing goes away under the focus either.
    if (this.paused || list.contains(document.activeElement)) {
      this.changed = !this.paused;
      return write(note, this.fresh ? `Paused; ${count(this.fresh)} new` : "Paused");
    }
    this.fresh = 0;
    const more = this.missed ? `; ${count(this.missed)} more came than are told` : "";
    write(note, this.events.length ? `The newest first${more}` : "None since this page was opened.");
    for (const event of this.events) event.row ??= this.row(event);
    list.replaceChildren(...this.events.map(({ row }) => row));
  }

  row(event) {
    return make("li", { class: TROUBLE.has(event.kind) ? "trouble" : "" },
      make("span", { class: "sub" }, clock(event.at)), make("span", { class: "kind" }, event.kind),
      make("span", { class: "name" }, keyButton(event.key, this.open)), make("span", { class: "sub wide" }, about(event)));
  }

  forget() {
    Object.assign(this, { events: [], fresh: 0, missed: 0 });
    this.pause(false);
  }
}

function about(event) {
  const who = ownerOf(event);
  switch (event.kind) {
    case "granted": return `to ${who}, ${event.mode === "permit" ? `${event.permits} of ${event.limit} permits` : event.mode}, for ${span(event.ttl_ms)}`;
    case "refreshed": return `by ${who}, ${span(event.remaining_ms)} left`;
    case "lost": return `by ${who} after ${span(event.held_ms)}: ${readable(event.why)}`;
    case "deadlock": return event.cycle.map(({ owner, key }) => `${readable(owner)} waits for ${readable(key)}`).join(", ");
    default: return `${event.kind === "forced" ? "taken from" : "by"} ${who} after ${span(event.held_ms)}`;
  }
}
