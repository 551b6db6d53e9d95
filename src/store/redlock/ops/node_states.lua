-- Says what one node has of a key. The value is not answered (R25), but a mark of it: nodes that have the same value and
-- were asked with the same salt answer the same mark.
-- KEYS: lock, marker. ARGV: salt, token or ''
-- Answers {code, now us, whether it is in quarantine, whether the token has it, mark}: 0 free, 1 held, 2 of another kind.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local marker = redis.pcall('GET', KEYS[2])
local ends = type(marker) == 'string' and string.match(marker, '^(%d+) ')
-- Without a marker the node was flushed, and will be in quarantine from the first acquire on.
local silent = (not ends or tonumber(ends) > now) and 1 or 0
local value = redis.pcall('GET', KEYS[1])
if not value then
  return {0, now, silent, 0, 0}
elseif type(value) == 'table' then
  return {2, now, silent, 0, 0}
end
-- 48 bits: Lua's numbers are exact up to 53.
local mark = tonumber(string.sub(redis.sha1hex(ARGV[1] .. value), 1, 12), 16)
return {1, now, silent, value == ARGV[2] and 1 or 0, mark}
