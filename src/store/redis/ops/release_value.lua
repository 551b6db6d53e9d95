-- Ends what a token holds, as release.lua does, and leaves a value to the processes that wait for the lock (S19).
-- KEYS: lock, fence, queue, tickets, value
-- ARGV: token, not after us, prefix of the keys beside locks, life of the value ms, value
-- Answers {1, now us} released, {2, now us} gone already, {3, now us} too late.
local lock, fence_key, queue, tickets = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if now > tonumber(ARGV[2]) then
  return {3, now}
end
if redis.pcall('GET', lock) ~= ARGV[1] then
  return {2, now}
end
if redis.call('EXISTS', tickets) == 1 then
  -- A full server has no room for it. The release goes on all the same.
  redis.pcall('SET', KEYS[5], number(now) .. ' ' .. ARGV[5], 'PX', ARGV[4])
end
redis.call('DEL', lock)
tell_others(lock, fence_key, queue, tickets, ARGV[3])
return {1, now}
