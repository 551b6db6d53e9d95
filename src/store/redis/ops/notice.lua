-- Publishes to every process that the holder of a lock will be ended, and when. The lock stays as it is.
-- KEYS: lock, fence. ARGV: channel of notices, within ms
-- Answers {1, now us, fence, or 0 if it is not known or those of all who share it are meant} published, {2, now us} it is
-- free, {3, now us} the user has no rights to the channel.
local value = redis.pcall('GET', KEYS[1])
if not value then
  return {2, now}
end
local fence = is_marker(value) and 0 or tonumber(redis.call('GET', KEYS[2]) or 0) or 0
local sent = redis.pcall('PUBLISH', ARGV[1], string.format('%.0f %s %s', fence, ARGV[2], KEYS[1]))
if type(sent) == 'table' and sent.err then
  return {3, now}
end
return {1, now, fence}
