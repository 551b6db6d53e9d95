-- Ends what tokens hold on one node and calls the processes that are next (R4), not after its time (R5).
-- KEYS of each lock; then of each queue. ARGV of each token, channel; last not after us
-- Answers a text, now us and a reply for each: 1 released, 2 gone already, 3 too late.
-- The process that has waited for longest is called on its own channel, and those who watch the lock on the lock's.
local stamp = string.format('%.0f', now)
local locks = #KEYS / 2
if now > tonumber(ARGV[#ARGV]) then
  return stamp .. string.rep(' 3', locks)
end

-- Values of another kind read as nothing here.
local values = redis.call('MGET', unpack(KEYS, 1, locks))
local replies, held, ended = {stamp}, {}, {}
for i = 1, locks do
  local lock, reply = KEYS[i], '2'
  if values[i] == ARGV[2 * i - 1] and not ended[lock] then
    reply, held[#held + 1], ended[lock] = '1', lock, true
  end
  replies[i + 1] = reply
end
if #held > 0 then
  redis.call('DEL', unpack(held))
  for i = 1, locks do
    if replies[i + 1] == '1' then
      call_first(KEYS[i], KEYS[locks + i])
      redis.pcall('PUBLISH', ARGV[2 * i], 'released')
    end
  end
end
return table.concat(replies, ' ')
