
-- For the scripts that try to take many locks. KEYS: all locks, then all queues, fences; what else they have follows.
-- ARGV: earliest not after us of all, highest fence seen of all.

-- Whether nobody holds any of so many locks, nobody waits, and the clock is in time and above every fence.
local function are_all_free(tries)
  if now > tonumber(ARGV[1]) or now <= tonumber(ARGV[2]) or redis.call('EXISTS', unpack(KEYS, 1, 2 * tries)) > 0 then
    return false
  end
  for _, fence in ipairs(redis.call('MGET', unpack(KEYS, 2 * tries + 1, 3 * tries))) do
    if fence and (tonumber(fence) or now) >= now then
      return false
    end
  end
  return true
end

-- Takes all at once, if they are free; else each by itself. Where a command fails, too: what was granted before that is
-- held already by its token. `take_all` answers those that it could not take, or nil, `try` the answer to one try.
local function take_all_or_each(tries, take_all, try)
  local done, taken = pcall(take_all)
  if not (done and taken) then
    return answer_each(tries, try)
  end
  if #taken == 0 then
    return now
  end
  local answers = answer_each(tries, function() return {1, now} end)
  for _, i in ipairs(taken) do
    answers[i] = answer_each(1, function() return try(i) end)[1]
  end
  return answers
end
