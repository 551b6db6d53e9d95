-- Looks at a lock that was shared a moment ago. Tokens are compared, and never answered (R25).
-- KEYS: lock, fence, ends, holds. ARGV: token, or ''
-- Answers as look.lua does: {0, now us} free, {1, now us, who, ttl left ms, fence or 0} held. who: 0 another, for itself,
-- 1 the token, 2 another kind, 4 others share it.
local lock, fence_key, ends, holds = unpack(KEYS)
local group, value = read_group(lock, ends, holds, ARGV[1])
local ends_at, fence = share_of(group, ARGV[1])
if ends_at then
  return {1, now, 1, left_ms(ends_at), fence}
end
if not group and not value then
  return {0, now}
end
local who = group and 4 or type(value) == 'table' and 2 or 0
return {1, now, who, redis.call('PTTL', lock), tonumber(redis.call('GET', fence_key) or 0) or 0}
