// Several of these, in any language, count in one file: `count.mjs FILE TIMES`. Without the lock they would overwrite each other.
// `count.mjs hold KEY TTL` holds a lock until it is lost, and says so.

import { readFile, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { Lost, withLock } from './leasehold.mjs'

const [what, ...rest] = process.argv.slice(2)

if (what === 'hold') {
  const held = withLock(rest[0], { ttl: Number(rest[1]) * 1000 }, async (lock) => {
    console.log('held')
    await new Promise((done) => lock.lost.addEventListener('abort', done))
  })
  await held.catch((why) => {
    if (!(why instanceof Lost)) throw why
    console.log('lost')
  })
} else {
  for (let times = Number(rest[0]); times > 0; times--) {
    await withLock(`count:${what}`, { ttl: 10_000, wait: 60_000 }, async (lock) => {
      const [count, seen] = (await readFile(what, 'utf8')).split(' ').map(Number)
      if (lock.fencingToken <= seen) throw new Error('another had the lock after us')
      await sleep(1)
      await writeFile(what, `${count + 1} ${lock.fencingToken}\n`)
    })
  }
}
