-- Keeps a process's ticket alive (R16). A ticket that is gone is not made anew: the next try does that.
-- KEYS: queue, alive. ARGV: process, ticket ms
-- Answers {1, now us} renewed, {2, now us} there was none.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {2, now}
end
redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[2] * 1000), ARGV[1])
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[2])
redis.call('PEXPIRE', KEYS[2], 2 * ARGV[2])
return {1, now}
