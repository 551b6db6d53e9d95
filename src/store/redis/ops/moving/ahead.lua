-- Whether other processes wait for a lock (R16), by the tickets alone. Tickets are not renewed while
-- the lock is free.
-- KEYS: tickets. ARGV: process
-- Answers {1, now us} no other does, {2, now us, 2, retry ms} denied, until the last of their tickets has run out.
local found = redis.call('HGETALL', KEYS[1])
local last = 0
for i = 1, #found, 2 do
  local ticket, ends = found[i], tonumber(string.match(found[i + 1], '^%d+'))
  if ticket ~= WATCHED and string.match(ticket, '^(.*):') ~= ARGV[1] and ends <= now + 2 * TICKET_US then
    last = math.max(last, ends)
  end
end
if last <= now then
  return {1, now}
end
return {2, now, 2, math.ceil((last - now) / 1000)}
