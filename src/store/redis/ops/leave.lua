-- Gives up a process's place in a queue (R16), and calls the next ticket if the lock is free.
-- KEYS: lock, queue, alive. ARGV: ticket
-- Answers {1, now us}.
redis.call('ZREM', KEYS[3], ARGV[1])
if redis.call('ZREM', KEYS[2], ARGV[1]) == 1 and redis.call('EXISTS', KEYS[1]) == 0 then
  call_first(KEYS[1], KEYS[2], KEYS[3])
end
return {1, now}
