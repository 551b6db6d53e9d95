-- Repeats a release (`release_replay`), not after its time (R5), unless the token holds the lock anew: then the fence has
-- risen.
-- KEYS: lock, fence, queue, tickets. ARGV: token, channel of the lock, not after us, highest fence at the release
-- Answers as release.lua: {1, now us} released, {2, now us} gone already, or held anew, {3, now us} too late.
if now > tonumber(ARGV[3]) then
  return {3, now}
end
local lock, queue, tickets = KEYS[1], KEYS[3], KEYS[4]
local fence = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
if redis.pcall('GET', lock) ~= ARGV[1] or fence > tonumber(ARGV[4]) then
  return {2, now}
end
redis.call('DEL', lock)
call_first(lock, queue, tickets)
redis.pcall('PUBLISH', ARGV[2], 'released')
return {1, now}
