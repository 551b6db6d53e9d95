-- Moves the end of what a token holds on one node (R3, L3): never earlier, never anew, not after its time (R5).
-- KEYS: lock, fence. ARGV: token, ttl ms, not after us
-- Answers {1, now us, ttl that was left ms, ttl left ms, fence or 0} extended, {2, now us} lost, {3, now us} too late.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[3]) then
  return {3, now}
end
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
  return {2, now}
end
local was = redis.call('PTTL', KEYS[1])
local left = was
local ttl = tonumber(ARGV[2])
if was >= 0 and was < ttl then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  left = ttl
end
return {1, now, was, left, tonumber(redis.call('GET', KEYS[2]) or 0) or 0}
