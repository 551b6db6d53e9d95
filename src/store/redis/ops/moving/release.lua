-- Ends what a token holds (R4), not after its time (R5). Processes that wait in turn are not called.
-- KEYS: lock. ARGV: token, channel of the lock, not after us
-- Answers {1, now us} released, {2, now us} gone already, {3, now us} too late, {4, now us} it is shared (`shared`).
if now > tonumber(ARGV[3]) then
  return {3, now}
end
local value = redis.pcall('GET', KEYS[1])
if value ~= ARGV[1] then
  return {is_marker(value) and 4 or 2, now}
end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', ARGV[2], 'released')
return {1, now}
