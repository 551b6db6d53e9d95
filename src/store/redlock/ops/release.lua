-- Ends what tokens hold on one node and tells who is next (R4), not after its time (R5).
-- KEYS of each lock; then of each queue. ARGV of each token, channel; last not after us
-- Answers a text, now us and a word for each: 1 released, 2 gone already, 3 too late.
-- The process that has waited for longest is told on its own channel, and whoever watches the lock on the lock's.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stamp = string.format('%.0f', now)
local locks = #KEYS / 2
if now > tonumber(ARGV[#ARGV]) then
  return stamp .. string.rep(' 3', locks)
end

-- Hints: whoever may not publish releases all the same.
local function tell_next(lock, queue)
  local places = redis.pcall('HGETALL', queue)
  local first, order
  for j = 1, #places, 2 do
    local its, until_us = string.match(places[j + 1], '^(%d+) (%d+)$')
    its, until_us = tonumber(its), tonumber(until_us)
    if until_us and until_us > now and (not order or its < order or (its == order and places[j] < first)) then
      first, order = places[j], its
    end
  end
  if first then
    redis.pcall('PUBLISH', string.match(queue, '^(.-)queue:') .. 'turn:' .. first, '0 ' .. lock)
  end
end

-- Values of another kind read as nothing here.
local values = redis.call('MGET', unpack(KEYS, 1, locks))
local words, held, ended = {stamp}, {}, {}
for i = 1, locks do
  local lock, word = KEYS[i], '2'
  if values[i] == ARGV[2 * i - 1] and not ended[lock] then
    word, held[#held + 1], ended[lock] = '1', lock, true
  end
  words[i + 1] = word
end
if #held > 0 then
  redis.call('DEL', unpack(held))
  for i = 1, locks do
    if words[i + 1] == '1' then
      tell_next(KEYS[i], KEYS[locks + i])
      redis.pcall('PUBLISH', ARGV[2 * i], 'released')
    end
  end
end
return table.concat(words, ' ')
