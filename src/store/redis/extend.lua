-- Moves the end of what a token holds (R3): never earlier, never anew, not after its time (R5).
-- KEYS: lock. ARGV: token, ttl ms, not after us
-- Answers {1, now us, ttl left ms} extended, {2, now us} lost, {3, now us} too late.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[3]) then
  return {3, now}
end
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
  return {2, now}
end
-- Not PEXPIRE GT, which servers before 7.0 do not know. A key without an end keeps none.
local left = redis.call('PTTL', KEYS[1])
local ttl = tonumber(ARGV[2])
if left >= 0 and left < ttl then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  left = ttl
end
return {1, now, left}
