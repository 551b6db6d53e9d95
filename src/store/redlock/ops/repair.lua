-- Gives a lock back to a node that has lost it, while a majority holds it (L3), not after its time (R5).
-- KEYS: lock, fence. ARGV: token, ttl left ms, not after us, fence, fence retention ms
-- Answers {1, now us} given back, {2, now us} another holds it, {3, now us} too late.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[3]) then
  return {3, now}
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {2, now}
end
local fence = tonumber(ARGV[4])
if fence > (tonumber(redis.call('GET', KEYS[2]) or 0) or 0) then
  local life = tonumber(ARGV[5]) + math.ceil(math.max(0, fence - now) / 1000)
  redis.call('SET', KEYS[2], ARGV[4], 'PX', string.format('%.0f', life))
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, now}
