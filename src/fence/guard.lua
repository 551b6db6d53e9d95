-- Writes a value unless a higher fence has written there before, and remembers the fence (R14).
-- KEYS: the resource, its fence. ARGV: fence (decimal), value, life of the value in ms (0: no end), life of the fence
-- in ms (0: no end)
-- Answers {1, fence} written, {0, highest seen} stale. A fence that is no number is an error, and nothing is written.
-- Fences are compared as text, since numbers here are exact to 2^53 only.
local shown = string.match(ARGV[1], '^0*(%d+)$')
if not shown then
  return redis.error_reply('ERR the fence is not a whole number')
end
local seen = redis.call('GET', KEYS[2]) or '0'
if not string.match(seen, '^%d+$') then
  return redis.error_reply('ERR what is stored as the fence is not a whole number')
end
if #seen > #shown or (#seen == #shown and seen > shown) then
  return {0, seen}
end
-- The fence first: a script that fails half-way has refused too much, never too little.
if tonumber(ARGV[4]) > 0 then
  redis.call('SET', KEYS[2], shown, 'PX', ARGV[4])
else
  redis.call('SET', KEYS[2], shown)
end
if tonumber(ARGV[3]) > 0 then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return {1, shown}
