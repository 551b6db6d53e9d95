-- Ends what tokens hold and tells the waiting ones (R4), not after its time (R5).
-- Each: KEYS lock. ARGV token, channel, not after us
-- Answers for each {1, now us} released, {2, now us} gone already, {3, now us} too late, or an error.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function release(k, a)
  if now > tonumber(ARGV[a + 3]) then
    return {3, now}
  end
  if redis.pcall('GET', KEYS[k]) ~= ARGV[a + 1] then
    return {2, now}
  end
  redis.call('DEL', KEYS[k])
  redis.call('PUBLISH', ARGV[a + 2], 'released')
  return {1, now}
end

local answers = {}
for i = 1, #KEYS do
  local done, answer = pcall(release, i, 3 * (i - 1))
  answers[i] = (done or type(answer) == 'table') and answer or redis.error_reply(answer)
end
return answers
