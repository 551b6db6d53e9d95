-- Moves the ends of what tokens hold (R3): never earlier, never anew, not after its time (R5).
-- Each: KEYS lock. ARGV token, ttl ms, not after us
-- Answers for each {1, now us, ttl left ms} extended, {2, now us} lost, {3, now us} too late, or an error.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function extend(k, a)
  if now > tonumber(ARGV[a + 3]) then
    return {3, now}
  end
  if redis.pcall('GET', KEYS[k]) ~= ARGV[a + 1] then
    return {2, now}
  end
  -- Not PEXPIRE GT, which servers before 7.0 do not know. A key without an end keeps none.
  local left = redis.call('PTTL', KEYS[k])
  local ttl = tonumber(ARGV[a + 2])
  if left >= 0 and left < ttl then
    redis.call('PEXPIRE', KEYS[k], ARGV[a + 2])
    left = ttl
  end
  return {1, now, left}
end

local answers = {}
for i = 1, #KEYS do
  local done, answer = pcall(extend, i, 3 * (i - 1))
  answers[i] = (done or type(answer) == 'table') and answer or redis.error_reply(answer)
end
return answers
