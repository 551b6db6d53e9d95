-- Gives a reserved lock to the token that asked for it, for its full TTL, not after its time (R5).
-- KEYS: lock. ARGV: token that asks, reserved token, ttl ms, not after us, fence
-- Answers as acquire.lua: {1, now us, fence, ttl left ms, 0} granted, {2, now us, 0, 0} the reservation is over,
-- {3, now us} too late.
if now > tonumber(ARGV[4]) then
  return {3, now}
end
if redis.pcall('GET', KEYS[1]) ~= ARGV[2] then
  return {2, now, 0, 0}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return {1, now, tonumber(ARGV[5]), tonumber(ARGV[3]), 0}
