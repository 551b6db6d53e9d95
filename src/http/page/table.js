// The table of locks: rows are kept by key and changed in place, so that neither focus nor place on screen is lost.

import { byId, count, holderOf, make, modeOf, ownerOf, readable, span, times, whoOf, write } from "./text.js";

export class Table {
  /** `changed`: another filter, sort or limit. `opened`: a row wants its queue. `force`: release this key. */
  constructor({ changed, opened, force }) {
    Object.assign(this, { changed, opened, force });
    this.rows = new Map();
    this.sort = "key";
    this.open = null;
    this.mayForce = false;
    this.body = byId("rows");
    for (const button of document.querySelectorAll("[data-sort]")) {
      button.addEventListener("click", () => this.sortBy(button.dataset.sort));
    }
    let typing;
    byId("filter").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(changed, 200); });
    byId("limit").addEventListener("change", changed);
    this.body.addEventListener("click", (event) => this.click(event));
    this.body.addEventListener("keydown", (event) => this.key(event));
  }

  /** What to ask the server for. */
  query() {
    const query = new URLSearchParams({ limit: byId("limit").value, sort: this.sort });
    if (byId("filter").value) query.set("prefix", byId("filter").value);
    return `locks?${query}`;
  }

  sortBy(name) {
    this.sort = this.sort === name ? `-${name}` : name;
    // `age` and `waiting` begin with the greatest.
    const greatestFirst = ["age", "waiting"].includes(name) !== this.sort.startsWith("-");
    for (const button of document.querySelectorAll("[data-sort]")) {
      const th = button.closest("th");
      if (button.dataset.sort === name) th.setAttribute("aria-sort", greatestFirst ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
    this.changed();
  }

  show({ locks, truncated, scope }) {
    const now = performance.now();
    const keys = new Set(locks.map((lock) => lock.key));
    const active = document.activeElement;
    const at = [...this.body.querySelectorAll(".open")].indexOf(active);
    for (const [key, row] of this.rows) {
      if (keys.has(key)) continue;
      row.element.remove();
      if (key !== this.open) row.detail?.remove();
      this.rows.delete(key);
    }
    let place = null;
    for (const lock of locks) {
      let row = this.rows.get(lock.key);
      if (!row) this.rows.set(lock.key, row = this.make(lock.key));
      const { remaining_ms: left, age_ms: age } = lock.holder;
      row.until = left === null ? null : now + left;
      row.since = age === null ? null : now - age;
      row.ttl = lock.holder.ttl_ms;
      this.fill(row, lock);
      this.put(row.element, place);
      place = row.element;
      if (this.open === lock.key && this.detail) { this.put(this.detail, place); place = this.detail; }
    }
    // The row under the cursor of the keyboard is gone: the one that took its place has it now.
    if (at >= 0 && !active.isConnected) this.focus(at);
    if (this.open !== null && !keys.has(this.open) && this.detail && !this.detail.isConnected) this.body.prepend(this.detail);
    this.tick();
    const filter = byId("filter").value;
    const through = scope === "server" ? " held through this server" : "";
    write(byId("shown"), truncated ? `the first ${count(locks.length)}${through}; there are more` : locks.length ? `all ${count(locks.length)}${through}` : "");
    write(byId("empty"), filter ? `No lock${through || " that is held"} has a key that begins so.`
      : through ? "No lock is held through this server. Others may hold some in the store." : "No lock is held. The next one appears here by itself.");
    byId("empty").hidden = locks.length > 0;
    byId("locks").hidden = locks.length === 0 && !this.detail;
  }

  put(element, after) {
    const next = after ? after.nextSibling : this.body.firstChild;
    if (next !== element) this.body.insertBefore(element, next);
  }

  make(key) {
    const button = make("button", { type: "button", class: "open", "aria-expanded": String(this.open === key) }, readable(key));
    const fill = make("div", { class: "fill" });
    const left = make("span");
    const track = make("div", { class: "track", "aria-hidden": "true" }, fill);
    const cells = [make("td", {}, button), make("td"), make("td"), make("td", { class: "num", "data-label": "held" }),
      make("td", {}, make("div", { class: "ttl" }, track, left)), make("td", { class: "num", "data-label": "waiting" })];
    for (const cell of cells) cell.setAttribute("role", "cell");
    const element = make("tr", { class: this.open === key ? "lock open" : "lock", role: "row" }, ...cells);
    element.dataset.key = key;
    return { element, cells, button, fill, left };
  }

  fill({ cells }, lock) {
    write(cells[1], modeOf(lock.holder));
    write(cells[2], lock.held_by > 1 ? `${ownerOf(lock.holder)} and ${count(lock.held_by - 1)} more` : ownerOf(lock.holder));
    cells[2].classList.toggle("none", lock.holder.owner === null);
    write(cells[5], count(lock.waiting));
    cells[5].className = lock.waiting ? "num waits" : "num none";
  }

  /** Moves time on, between one reading and the next. */
  tick() {
    const now = performance.now();
    for (const { cells, fill, left, until, since, ttl } of this.rows.values()) {
      const remaining = until === null ? null : Math.max(0, until - now);
      const part = remaining === null || ttl === null ? 1 : Math.min(1, remaining / ttl);
      fill.style.transform = `scaleX(${part.toFixed(3)})`;
      fill.classList.toggle("low", part < 0.2);
      write(left, remaining === null ? "no end" : remaining ? span(remaining) : "over");
      write(cells[3], since === null ? "unknown" : span(now - since));
    }
  }

  click(event) {
    if (event.target.closest(".detail")) return;
    const row = event.target.closest("tr.lock");
    if (row && !getSelection().toString()) this.toggle(row.dataset.key);
  }

  key(event) {
    const buttons = [...this.body.querySelectorAll(".open:is(button)")];
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (event.key === "Escape" && this.open !== null) {
      const key = this.open;
      this.close();
      this.rows.get(key)?.button.focus();
    } else if (to !== undefined && at >= 0) {
      event.preventDefault();
      this.focus(to);
    }
  }

  focus(at) {
    const buttons = [...this.body.querySelectorAll("button.open")];
    buttons[Math.max(0, Math.min(at, buttons.length - 1))]?.focus();
  }

  toggle(key) {
    const again = this.open === key;
    this.close();
    if (!again) this.expand(key);
  }

  /** Opens the queue of a key, be it in the table or not. */
  expand(key) {
    this.close();
    this.open = key;
    const cell = make("td", { colspan: "6", role: "cell" }, make("p", { class: "note" }, "Asking for the queue…"));
    this.detail = make("tr", { class: "detail", role: "row" }, cell);
    const row = this.rows.get(key);
    row?.button.setAttribute("aria-expanded", "true");
    row?.element.classList.add("open");
    this.put(this.detail, row?.element ?? null);
    byId("locks").hidden = false;
    this.opened(key);
  }

  close() {
    const row = this.rows.get(this.open);
    row?.button.setAttribute("aria-expanded", "false");
    row?.element.classList.remove("open");
    this.detail?.remove();
    this.detail = null;
    this.open = null;
  }

  /** Fills the opened row; `null`: the key is free. */
  showQueue(key, lock) {
    if (key !== this.open) return;
    const cell = this.detail.firstChild;
    const text = JSON.stringify([lock?.holders.map((holder) => [holder.fencing_token, holder.refresh_count]), lock?.waiting,
      lock?.queue.map((waiter) => [waiter.owner, Math.floor(waiter.waited_ms / 1000)]), this.mayForce]);
    if (cell.dataset.shown === text) return;
    cell.dataset.shown = text;
    const focused = cell.contains(document.activeElement);
    cell.replaceChildren(...(lock ? this.queue(key, lock) : [make("p", { class: "note" }, `${readable(key)} is free now.`)]));
    if (focused) (cell.querySelector("button") ?? this.rows.get(key)?.button)?.focus();
  }

  queue(key, lock) {
    const parts = [];
    const fact = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
    const since = new Date(lock.holder.since_unix_ms);
    // Since when and for how long another process holds it is not known here.
    const known = lock.holder.ttl_ms === null ? [fact("Held by", holderOf(lock))] : [
      fact("Held since", since.toLocaleString("en-GB")), fact("TTL", span(lock.holder.ttl_ms)),
      fact("Refreshed", times(lock.holder.refresh_count))];
    parts.push(make("dl", { class: "facts" }, fact("Key", readable(key)),
      fact("Fencing token", String(lock.holder.fencing_token ?? "none")), ...known));
    const list = (title, rows) => [make("h3", {}, title), make("ol", {}, ...rows)];
    const row = (...cells) => make("li", {}, ...cells.map((cell) => make("span", {}, cell)));
    if (lock.held_by > 1) {
      parts.push(...list(`Held by ${count(lock.held_by)}`, lock.holders.map((holder, at) =>
        row(`${at + 1}.`, whoOf(holder), modeOf(holder), String(holder.fencing_token ?? "none"),
          holder.remaining_ms === null ? "no end" : span(holder.remaining_ms)))));
    }
    if (lock.queue.length) {
      const title = lock.waiting > lock.queue.length ? `The first ${lock.queue.length} of ${count(lock.waiting)} in the queue` : "Queue";
      parts.push(...list(title, lock.queue.map((waiter) => row(`${waiter.position}.`, ownerOf(waiter), modeOf(waiter), span(waiter.waited_ms)))));
    } else {
      parts.push(make("h3", {}, "Nobody waits"));
    }
    if (this.mayForce) {
      const button = make("button", { type: "button", class: "danger" }, "Release by force…");
      button.addEventListener("click", () => this.force(key, lock));
      parts.push(button);
    }
    return parts;
  }

  forget() {
    this.close();
    for (const { element } of this.rows.values()) element.remove();
    this.rows.clear();
  }
}
