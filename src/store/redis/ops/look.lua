-- Looks who holds a lock. The value is compared, and never answered (R25).
-- KEYS: lock, and fence if it is asked for. ARGV: token, or ''
-- Answers {0, now us} free, {1, now us, who, ttl left ms, fence or 0} held. who: 0 another, 1 the token, 2 another kind,
-- 4 it is shared (`shared`), from 16 on the claim of a process, with the digit of its token that says whether it may be
-- kept idle.
local value = redis.pcall('GET', KEYS[1])
if not value then
  return {0, now}
end
local who = 0
if type(value) == 'table' then
  who = 2
elseif value == ARGV[1] and value ~= '' then
  who = 1
elseif is_marker(value) then
  who = 4
elseif #value == 36 and string.byte(value, 15) == 56 then
  who = 16 + (tonumber(string.sub(value, 16, 16), 16) or 15)
end
local fence = KEYS[2] and tonumber(redis.call('GET', KEYS[2]) or 0) or 0
return {1, now, who, redis.call('PTTL', KEYS[1]), fence}
