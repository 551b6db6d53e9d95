-- Ends any holder, whose fence was outdone before, and tells everybody (R26), not after its time (R5).
-- KEYS: lock. ARGV: channel of those who watch, channel of forced locks, not after us
-- Answers {1, now us} released, {2, now us} it was free, {3, now us} too late.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[3]) then
  return {3, now}
end
if redis.call('DEL', KEYS[1]) == 0 then
  return {2, now}
end
redis.pcall('PUBLISH', ARGV[1], 'forced')
redis.pcall('PUBLISH', ARGV[2], KEYS[1])
return {1, now}
