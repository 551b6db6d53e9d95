// A lock of a leasehold server, held and kept while a function runs. Nothing but Node's own library (18 and later).
//
//     import { withLock } from './leasehold.mjs'
//
//     await withLock('order:42', { ttl: 10_000, wait: 30_000 }, async (lock) => {
//       await pay({ fencingToken: lock.fencingToken })      // the resource refuses a smaller one than it has seen
//       await fetch(url, { signal: lock.lost })             // aborted once the lock may be somebody else's
//     })
//
// What a client must get right, and where it is done here:
//
// * The deadline is counted by this process's clock from before the request was sent (`granted`), so that it is never later
//   than the server's. Once it is over the lock counts as lost, whatever the server may say later.
// * The token is chosen here, so that a request whose answer was lost can be sent again and brings the same lock.
// * A heartbeat every third of the TTL; one that is not answered is sent again until the deadline.
// * The lock is given back even if it is not known whether it was granted.

import { randomUUID } from 'node:crypto'

const ROUND = 20_000 // ms: one request waits no longer, since proxies cut those that do
const PAUSE = 250 // ms between a failure and the next try
const TRY_LATER = ['held', 'timeout', 'queue_full', 'rate_limited']

/** Somebody else has the lock, or the server could not be asked, until the wait was over. */
export class NotAcquired extends Error {}

/** The lock has ended before it was released, or nobody can tell. */
export class Lost extends Error {}

/** The server's answer to a request that it will never grant; `code` is stable. */
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail)
    this.code = problem.code
    this.status = problem.status
  }
}

// Nobody sets this clock. It stands while the machine sleeps: the first heartbeat after that tells what has become of the lock.
const now = () => performance.now()
const sleep = (ms, signal) =>
  new Promise((done) => {
    const timer = setTimeout(done, Math.max(0, ms))
    signal?.addEventListener('abort', () => (clearTimeout(timer), done()), { once: true })
  })

/** Calls `work` while the lock is held, and answers what it answers. Rejects with Lost if the lock was lost before it was done. */
export async function withLock(key, { ttl = 30_000, wait = 5_000, owner = `node:${process.pid}`, server, bearer }, work) {
  const post = caller(server ?? process.env.LEASEHOLD_SERVER ?? 'http://127.0.0.1:7420', bearer ?? process.env.LEASEHOLD_TOKEN)
  const lock = await acquire(post, { key, ttl, owner }, now() + wait)
  const released = new AbortController()
  const kept = keep(post, lock, released.signal)
  try {
    const result = await work(lock)
    lock.ensureHeld()
    return result
  } finally {
    released.abort()
    await kept
    await release(post, lock)
  }
}

class Lock {
  #lost = new AbortController()
  constructor(terms) {
    Object.assign(this, terms, { token: randomUUID(), fencingToken: undefined, deadline: 0 })
  }
  /** A signal that is aborted once the lock has ended before it was released. */
  get lost() {
    return this.#lost.signal
  }
  lose() {
    this.#lost.abort(new Lost(this.key))
  }
  /** Milliseconds until the lock is lost if no heartbeat comes through; 0 once it is. */
  get remaining() {
    return this.lost.aborted ? 0 : Math.max(0, this.deadline - now())
  }
  ensureHeld() {
    if (!this.remaining) throw new Lost(this.key)
  }
  granted(sent, answer) {
    this.fencingToken = answer.fencing_token
    this.extended(sent, answer.waited_ms + answer.remaining_ms)
  }
  extended(sent, left) {
    // Less what two clocks may differ by: a hundredth of the TTL, and two milliseconds at least.
    this.deadline = sent + left - Math.max(2, this.ttl / 100)
  }
}

async function acquire(post, terms, end) {
  let lock = new Lock(terms)
  let why
  try {
    while (!why || now() < end) {
      const [sent, wait] = [now(), Math.round(Math.max(0, Math.min(end - now(), ROUND)))]
      const asks = { key: lock.key, token: lock.token, owner: lock.owner, ttl_ms: lock.ttl, wait_ms: wait }
      try {
        lock.granted(sent, await post('/acquire', asks, wait + 5_000))
        if (lock.remaining) return lock
        why = new Error('its turn came while this process did not run')
        await release(post, lock)
        lock = new Lock(terms)
      } catch (failure) {
        why = failure
        if (why instanceof Refused && !TRY_LATER.includes(why.code) && why.status < 500) throw why
      }
      if (why.code !== 'timeout') await sleep(Math.min(PAUSE, end - now()))
    }
    throw new NotAcquired(`${lock.key}: ${why.message}`)
  } catch (failure) {
    await release(post, lock) // of an answer that was lost the server may have granted it
    throw failure
  }
}

async function keep(post, lock, released) {
  let pause = lock.ttl / 3
  for (;;) {
    await sleep(Math.min(pause, lock.deadline - now()), released)
    if (released.aborted) return
    if (now() >= lock.deadline) return lock.lose()
    const sent = now()
    try {
      // An answer after the deadline would be of no use.
      const beat = { key: lock.key, token: lock.token, ttl_ms: lock.ttl }
      lock.extended(sent, (await post('/heartbeat', beat, lock.deadline - sent)).remaining_ms)
      pause = lock.ttl / 3
    } catch (why) {
      if (why instanceof Refused && why.status < 500 && why.code !== 'rate_limited') return lock.lose()
      pause = PAUSE
    }
  }
}

async function release(post, lock) {
  await post('/release', { key: lock.key, token: lock.token }, 2_000).catch(() => {}) // it ends with its TTL
}

function caller(server, bearer) {
  const headers = { 'content-type': 'application/json', ...(bearer && { authorization: `Bearer ${bearer}` }) }
  return async (path, body, timeout) => {
    const signal = AbortSignal.timeout(Math.max(1, Math.round(timeout)))
    const answer = await fetch(server.replace(/\/$/, '') + path, { method: 'POST', headers, body: JSON.stringify(body), signal })
    if (answer.ok) return answer.json()
    const page = { status: answer.status, code: 'unknown', detail: answer.statusText } // a proxy's own
    throw new Refused(await answer.json().catch(() => page))
  }
}
