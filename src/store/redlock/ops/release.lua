-- Ends what tokens hold on one node and calls the processes that are next (R4), not after its time (R5).
-- KEYS of each lock; then of each queue. ARGV the tokens of all in one text; of each channel; last not after us
-- Answers a text, now us and a reply for each: 1 released, 2 gone already, 3 too late.
-- The process that has waited for longest is called on its own channel, and those who watch the lock on the lock's.
local KEYS, ARGV = KEYS, ARGV
local stamp = string.format('%.0f', now)
local locks = #KEYS / 2
if now > tonumber(ARGV[#ARGV]) then
  return stamp .. string.rep(' 3', locks)
end

-- Values of another kind read as nothing here.
local values = redis.call('MGET', unpack(KEYS, 1, locks))
local tokens, sub, replies, held, ended = ARGV[1], string.sub, {stamp}, {}, {}
for i = 1, locks do
  local lock, reply = KEYS[i], '2'
  if values[i] and values[i] == sub(tokens, 36 * i - 35, 36 * i) and not ended[lock] then
    reply, held[#held + 1], ended[lock] = '1', lock, true
  end
  replies[i + 1] = reply
end
if #held > 0 then
  redis.call('DEL', unpack(held))
  -- Mostly nobody waits for any of them, and nobody watches. Whoever listens to patterns is not counted by channel; a
  -- user who may not ask publishes to all.
  local is_queued = redis.pcall('EXISTS', unpack(KEYS, locks + 1)) ~= 0
  local has_patterns = redis.pcall('PUBSUB', 'NUMPAT') ~= 0
  local watchers = has_patterns and {} or redis.pcall('PUBSUB', 'NUMSUB', unpack(ARGV, 2, locks + 1))
  for i = 1, locks do
    if replies[i + 1] == '1' then
      if is_queued then
        call_first(KEYS[i], KEYS[locks + i])
      end
      if watchers[2 * i] ~= 0 then
        redis.pcall('PUBLISH', ARGV[i + 1], 'released')
      end
    end
  end
end
return table.concat(replies, ' ')
