-- Tells every process that whatever holds a lock now will be ended, and when. The lock stays as it is.
-- KEYS: lock, fence. ARGV: channel of notices, within ms
-- Answers {1, now us, fence or 0} told, {2, now us} it is free, {3, now us} the user has no rights to the channel.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {2, now}
end
local fence = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
local told = redis.pcall('PUBLISH', ARGV[1], string.format('%.0f %s %s', fence, ARGV[2], KEYS[1]))
if type(told) == 'table' and told.err then
  return {3, now}
end
return {1, now, fence}
