-- Lists those who share a lock, whoever ends first, up to so many. Tokens are compared, and never answered (R25).
-- KEYS: lock, ends, holds. ARGV: token, or '', how many at most
-- Answers the limit (0: shared), and of each share: 1 the token's (0 another's), ttl left ms, permits, fence. Nothing if
-- nobody shares it.
local group = read_group(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
if not group then
  return {}
end
local answer = {group.limit}
for _, share in ipairs(list_shares(group, tonumber(ARGV[2]))) do
  local token, ends_at, hold = unpack(share)
  local permits, fence = read_hold(hold)
  if fence then
    answer[#answer + 1] = token == ARGV[1] and 1 or 0
    answer[#answer + 1] = left_ms(ends_at)
    answer[#answer + 1] = tonumber(permits)
    answer[#answer + 1] = fence
  end
end
return answer
