-- Whether other processes wait for a lock (R16), by the tickets alone. Tickets are not renewed while
-- the lock is free.
-- KEYS: alive. ARGV: process
-- Answers {1, now us} no other does, {2, now us, 2, retry ms} denied, until the last of their tickets has run out.
local found = redis.call('ZRANGEBYSCORE', KEYS[1], number(now), number(now + 2 * TICKET_US), 'WITHSCORES')
local ends = 0
for i = 1, #found, 2 do
  if found[i] ~= WATCHED and string.match(found[i], '^(.*):') ~= ARGV[1] then
    ends = math.max(ends, tonumber(found[i + 1]))
  end
end
if ends <= now then
  return {1, now}
end
return {2, now, 2, math.ceil((ends - now) / 1000)}
