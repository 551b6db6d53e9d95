-- Ends what tokens hold on one node and tells the waiting ones (R4), not after its time (R5).
-- KEYS of each lock. ARGV of each token, channel; last not after us
-- Answers a text, now us and a word for each: 1 released, 2 gone already, 3 too late.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stamp = string.format('%.0f', now)
if now > tonumber(ARGV[#ARGV]) then
  return stamp .. string.rep(' 3', #KEYS)
end
-- Values of another kind read as nothing here.
local values = redis.call('MGET', unpack(KEYS))
local words, held, ended = {stamp}, {}, {}
for i = 1, #KEYS do
  local lock, word = KEYS[i], '2'
  if values[i] == ARGV[2 * i - 1] and not ended[lock] then
    word, held[#held + 1], ended[lock] = '1', lock, true
  end
  words[i + 1] = word
end
if #held > 0 then
  redis.call('DEL', unpack(held))
  for i = 1, #KEYS do
    if words[i + 1] == '1' then
      redis.call('PUBLISH', ARGV[2 * i], 'released')
    end
  end
end
return table.concat(words, ' ')
