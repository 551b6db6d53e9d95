// Requests to the routes beside the page, with the reader's token; the token lives in this tab at most.

const NAME = `leasehold token ${document.baseURI}`;
/** However slow the server is: a request without an answer by then is broken off. */
const PATIENCE_MS = 10_000;

export const token = {
  get: () => sessionStorage.getItem(NAME),
  set: (secret) => sessionStorage.setItem(NAME, secret),
  drop: () => sessionStorage.removeItem(NAME),
};

/** What a route refused with. */
export class Refused extends Error {
  constructor(status, problem, retryAfter) {
    super(problem?.detail ?? `the server answered ${status}`);
    this.status = status;
    this.code = problem?.code;
    this.retryAfterMs = retryAfter ? retryAfter * 1000 : 0;
  }
}

export async function request(path, { method = "GET", signal } = {}) {
  const headers = {};
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  const answer = await fetch(new URL(path, document.baseURI), {
    method, headers, signal, cache: "no-store", credentials: "same-origin", redirect: "error",
  });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => null);
  throw new Refused(answer.status, problem, Number(answer.headers.get("retry-after")));
}

export async function ask(path, options = {}) {
  const answer = await request(path, { ...options, signal: AbortSignal.timeout(PATIENCE_MS) });
  return answer.json();
}
