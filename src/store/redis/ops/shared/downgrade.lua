-- Makes a lock that a token has for itself a shared one, which ends when it would have, and calls those who wait to share it
-- (R16), not after its time (R5).
-- KEYS: lock, fence, queue, tickets, ends, holds. ARGV: token, not after us, highest fence seen, fence retention ms, ttl ms
-- where the lock has no end, the last fence that its process gave out under the token or 0
-- Answers {1, now us, ttl left ms} shared now or already, {2, now us} lost, {3, now us} too late.
local lock, fence_key, queue, tickets, ends, holds = unpack(KEYS)
local token = ARGV[1]
if now > tonumber(ARGV[2]) then
  return {3, now}
end
local group, value = read_group(lock, ends, holds, token)
local ends_at = share_of(group, token)
if ends_at and group.limit == 0 then
  return {1, now, left_ms(ends_at)}
end
if value ~= token then
  return {2, now}
end
-- Its own fence is the last one that was given out under it, which those who share it from now on must be above; else the
-- last one that was minted; one that was forgotten is minted anew.
local minted, fence = tonumber(redis.call('GET', fence_key) or 0) or 0, tonumber(ARGV[6])
if fence > minted then
  store_fence(fence_key, fence, ARGV[4])
elseif fence == 0 then
  fence = minted
end
if fence == 0 then
  fence = mint_fence(fence_key, 0, ARGV[3], ARGV[4])
end
local life_ms = redis.call('PTTL', lock)
if life_ms < 0 then
  life_ms = tonumber(ARGV[5])
end
start_group(lock, '0', token, '1', fence, life_ms)
if redis.call('EXISTS', tickets) == 1 then
  call_first(lock, queue, tickets)
end
return {1, now, life_ms}
