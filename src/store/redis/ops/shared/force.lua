-- Ends the share with a fence, raises the fence and publishes it to every process (R26), not after its time (R5).
-- KEYS: lock, fence, queue, tickets, ends, holds
-- ARGV: channel of forced locks, not after us, fence retention ms, highest fence seen, fence of the share, prefix of the
-- keys beside locks
-- Answers {1, now us, fence} released, {2, now us} nobody shares it with that fence, {3, now us} too late.
local lock, fence_key, queue, tickets, ends, holds = unpack(KEYS)
if now > tonumber(ARGV[2]) then
  return {3, now}
end
local group = read_group(lock, ends, holds, '')
if not group then
  return {2, now}
end
for _, share in ipairs(list_shares(group, 0)) do
  local token, ends_at, hold = unpack(share)
  local _, fence = read_hold(hold)
  if fence == tonumber(ARGV[5]) then
    local stored = tonumber(redis.call('GET', fence_key) or 0) or 0
    local raised = mint_fence(fence_key, math.max(stored, now + CLAIM_LEAD), ARGV[4], ARGV[3])
    end_share(group, token, ends_at)
    if redis.call('EXISTS', tickets) == 1 then
      call_others(lock, queue, tickets, ARGV[6])
    end
    redis.pcall('PUBLISH', ARGV[1], lock)
    return {1, now, raised}
  end
end
return {2, now}
