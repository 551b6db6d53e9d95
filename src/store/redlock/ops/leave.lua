-- Gives up a process's place in the queue of one node, and calls the next process if the lock is free.
-- KEYS: lock, queue. ARGV: process
-- Answers {1, now us}.
if redis.call('HDEL', KEYS[2], ARGV[1]) == 1 and redis.call('EXISTS', KEYS[1]) == 0 then
  call_first(KEYS[1], KEYS[2])
end
return {1, now}
