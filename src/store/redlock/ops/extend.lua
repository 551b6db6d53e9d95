-- Moves the ends of what tokens hold on one node (R3, L3): never earlier, never anew, not after its time (R5).
-- Each: KEYS lock, fence. ARGV token, ttl ms, not after us
-- Answers for each {1, now us, ttl that was left ms, ttl left ms, fence or 0} extended, {2, now us} lost,
-- {3, now us} too late, or an error.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function extend(k, a)
  local lock = KEYS[k + 1]
  if now > tonumber(ARGV[a + 3]) then
    return {3, now}
  end
  if redis.pcall('GET', lock) ~= ARGV[a + 1] then
    return {2, now}
  end
  local was = redis.call('PTTL', lock)
  local left, ttl = was, tonumber(ARGV[a + 2])
  if was >= 0 and was < ttl then
    redis.call('PEXPIRE', lock, ARGV[a + 2])
    left = ttl
  end
  return {1, now, was, left, tonumber(redis.call('GET', KEYS[k + 2]) or 0) or 0}
end

local answers = {}
for i = 0, #KEYS / 2 - 1 do
  local done, answer = pcall(extend, 2 * i, 3 * i)
  answers[i + 1] = (done or type(answer) == 'table') and answer or redis.error_reply(answer)
end
return answers
