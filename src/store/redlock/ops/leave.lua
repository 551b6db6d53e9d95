-- Gives up a process's place on one node, and tells who is next if the lock is free.
-- KEYS: lock, queue. ARGV: process
-- Answers {1, now us}.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if redis.call('HDEL', KEYS[2], ARGV[1]) == 1 and redis.call('EXISTS', KEYS[1]) == 0 then
  local places = redis.call('HGETALL', KEYS[2])
  local first, order
  for j = 1, #places, 2 do
    local its, until_us = string.match(places[j + 1], '^(%d+) (%d+)$')
    its, until_us = tonumber(its), tonumber(until_us)
    if until_us and until_us > now and (not order or its < order or (its == order and places[j] < first)) then
      first, order = places[j], its
    end
  end
  if first then
    redis.pcall('PUBLISH', string.match(KEYS[2], '^(.-)queue:') .. 'turn:' .. first, '0 ' .. KEYS[1])
  end
end
return {1, now}
