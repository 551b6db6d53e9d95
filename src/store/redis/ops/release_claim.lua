-- Ends what a token holds, as release.lua does, and keeps a fence that its process has given out meanwhile (R12).
-- KEYS: lock, fence, queue, tickets
-- ARGV: token, not after us, fence retention ms, the last fence that was given out, prefix of the keys beside locks
-- Answers {1, now us} released, {2, now us} gone already, {3, now us} too late.
if now > tonumber(ARGV[2]) then
  return {3, now}
end
local lock, fence_key, queue, tickets = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local value = redis.pcall('GET', lock)
-- The fence of another holder stays what it is.
if not value or value == ARGV[1] then
  local stored = tonumber(redis.call('GET', fence_key) or 0) or 0
  if stored < tonumber(ARGV[4]) then
    store_fence(fence_key, tonumber(ARGV[4]), ARGV[3])
  end
end
if value ~= ARGV[1] then
  return {2, now}
end
redis.call('DEL', lock)
tell_others(lock, fence_key, queue, tickets, ARGV[5])
return {1, now}
