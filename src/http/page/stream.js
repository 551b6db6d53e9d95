// The event stream, read by fetch, since EventSource can carry no bearer token.

import { request, Refused } from "./api.js";

/** The server says something every 15 s: after this long it, or the way to it, is gone. */
const SILENCE_MS = 40_000;
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15_000;

/** Listens until `signal` says stop, and again after each break. `heard` gets each event's kind and data text. */
export async function listen({ signal, opened, heard, broken }) {
  let pause = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    signal.addEventListener("abort", stop);
    let why = "the server ended it";
    try {
      await follow(attempt, opened, (kind, data) => {
        pause = FIRST_PAUSE_MS;
        heard(kind, data);
      });
    } catch (error) {
      why = attempt.signal.reason === "silent" ? "nothing was heard for 40 s" : reason(error);
      if (error instanceof Refused) pause = Math.max(pause, error.retryAfterMs);
    } finally {
      signal.removeEventListener("abort", stop);
      attempt.abort();
    }
    if (signal.aborted) return;
    broken(why, pause);
    await rest(pause, signal);
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

async function follow(attempt, opened, heard) {
  let silence;
  const alive = () => {
    clearTimeout(silence);
    silence = setTimeout(() => attempt.abort("silent"), SILENCE_MS);
  };
  alive();
  try {
    const answer = await request("events?max_rate=10", { signal: attempt.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    opened();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) {
        const kind = /^event: (.*)$/m.exec(frame)?.[1];
        if (kind) heard(kind, /^data: (.*)$/m.exec(frame)?.[1] ?? "{}");
      }
    }
  } finally {
    clearTimeout(silence);
  }
}

const reason = (error) => (error instanceof Refused ? error.message : "the server cannot be reached");

function rest(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
  });
}
