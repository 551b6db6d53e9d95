-- Puts a process's post on the board, or takes it down, and answers what is up there (S18). The number is above all those
-- that were given before, and not below the clock: so it rises also where the board was lost.
-- KEYS: board. ARGV: process, text or '' to take it down, life ms, not after us, most bytes of an answer
-- Answers {1, number, how many posts are left out, process, text, process, text ...}, {3, now us} too late.
local board, room = KEYS[1], tonumber(ARGV[5])
if now > tonumber(ARGV[4]) then
  return {3, now}
end
local at = math.max((tonumber(redis.call('HGET', board, 'number') or 0) or 0) + 1, now)
redis.call('HSET', board, 'number', number(at))
if ARGV[2] == '' then
  redis.call('HDEL', board, ARGV[1])
else
  redis.call('HSET', board, ARGV[1], number(now + tonumber(ARGV[3]) * 1000) .. ' ' .. ARGV[2])
end
-- Longer than any life.
redis.call('PEXPIRE', board, 60000)
local answer = {1, at, 0}
local up = redis.call('HGETALL', board)
for i = 1, #up, 2 do
  if up[i] ~= 'number' then
    local ends, text = string.match(up[i + 1], '^(%d+) (.*)$')
    if not ends or tonumber(ends) <= now then
      redis.call('HDEL', board, up[i])
    elseif #text + 64 > room then
      answer[3] = answer[3] + 1
    else
      room = room - #text - 64
      answer[#answer + 1] = up[i]
      answer[#answer + 1] = text
    end
  end
end
return answer
