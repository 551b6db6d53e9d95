-- Gives up a process's place in a queue (R16), and wakes the next if the lock is free.
-- KEYS: lock, queue, alive. ARGV: process, channel
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZREM', KEYS[3], ARGV[1])
if redis.call('ZREM', KEYS[2], ARGV[1]) == 1 and redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('PUBLISH', ARGV[2], 'released')
end
return {1, now}
