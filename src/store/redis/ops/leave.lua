-- Gives up a process's place in a queue (R16), and what was handed over to it, and calls the next ticket if the lock is
-- free.
-- KEYS: lock, queue, tickets. ARGV: ticket, token of its offer or ''
-- Answers {1, now us}.
local lock, queue, tickets = KEYS[1], KEYS[2], KEYS[3]
redis.call('HDEL', tickets, ARGV[1])
local has_left = redis.call('ZREM', queue, ARGV[1]) == 1
if ARGV[2] ~= '' and redis.pcall('GET', lock) == ARGV[2] then
  has_left = redis.call('DEL', lock) == 1
end
if has_left and redis.call('EXISTS', lock) == 0 then
  call_first(lock, queue, tickets)
end
return {1, now}
