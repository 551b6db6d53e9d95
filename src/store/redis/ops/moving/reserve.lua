-- Keeps a free lock for one try, until its fence is minted, not after its time (R5).
-- KEYS: lock. ARGV: token that asks, reserved token, its life ms, not after us
-- Answers {1, now us} reserved, {2, now us, why, retry ms} denied, as acquire.lua does, {3, now us} too late,
-- {4, now us, ttl left ms} the token that asks holds it.
if now > tonumber(ARGV[4]) then
  return {3, now}
end
if redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[3]) then
  return {1, now}
end
local value = redis.pcall('GET', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if value == ARGV[1] then
  return {4, now, left}
end
return {2, now, type(value) == 'table' and 1 or 0, left}
