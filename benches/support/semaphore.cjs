// Takes and releases permits of one semaphore by npm `redis-semaphore`, in so many loops, for so long.
// node semaphore.cjs URL LIMIT LOOPS MILLISECONDS; prints how many permits were taken.
const Redis = require('ioredis')
const { Semaphore } = require('redis-semaphore')

async function main([url, limit, loops, milliseconds]) {
  const redis = new Redis(url)
  await redis.ping()
  const end = Date.now() + Number(milliseconds)
  let taken = 0
  const loop = async () => {
    const options = { lockTimeout: 30_000, refreshInterval: 0, acquireTimeout: 60_000 }
    while (Date.now() < end) {
      const semaphore = new Semaphore(redis, 'pool', Number(limit), options)
      await semaphore.acquire()
      taken += 1
      await semaphore.release()
    }
  }
  await Promise.all(Array.from({ length: Number(loops) }, loop))
  console.log(taken)
  redis.disconnect()
}

main(process.argv.slice(2))
