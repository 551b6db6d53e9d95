-- Stores a fence above the stored one, the highest that this process knows, and the clock (R12), not after its time.
-- KEYS: fence. ARGV: not after us, fence retention ms, highest fence seen, 1 to mint (0: the stored one will do)
-- Answers {1, now us, fence}, {3, now us} too late.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[1]) then
  return {3, now}
end
local stored = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
if ARGV[4] == '0' and stored > 0 then
  return {1, now, stored}
end
local fence = math.max(stored + 1, ARGV[3] + 1, now)
-- One that is ahead of the clock must outlive that.
local life = ARGV[2] + math.ceil((fence - now) / 1000)
redis.call('SET', KEYS[1], string.format('%.0f', fence), 'PX', string.format('%.0f', life))
return {1, now, fence}
