-- Ends a node's quarantine for as long as its server runs, for those who know that nothing is held (L4).
-- KEYS: marker. ARGV: max ttl ms, run id. Answers {1, now us}.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('SET', KEYS[1], string.format('%.0f %s %s', now, ARGV[1], ARGV[2]))
return {1, now}
