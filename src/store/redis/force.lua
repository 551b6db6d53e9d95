-- Ends any holder, raises the fence and tells everybody (R26), not after its time (R5).
-- KEYS: lock, fence. ARGV: channel, channel of forced locks, not after us, fence retention ms, highest fence seen
-- Answers {1, now us, fence} released, {2, now us, fence} it was free, {3, now us} too late.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[3]) then
  return {3, now}
end
local stored = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
local fence = math.max(stored + 1, tonumber(ARGV[5]) + 1, now)
local life = tonumber(ARGV[4]) + math.ceil(math.max(0, fence - now) / 1000)
redis.call('SET', KEYS[2], string.format('%.0f', fence), 'PX', string.format('%.0f', life))
if redis.call('DEL', KEYS[1]) == 0 then
  return {2, now, fence}
end
redis.call('PUBLISH', ARGV[1], 'forced')
redis.call('PUBLISH', ARGV[2], KEYS[1])
return {1, now, fence}
