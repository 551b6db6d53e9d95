
-- For the scripts that release many locks. KEYS: all locks, then all tickets; what else they have follows. ARGV: earliest
-- not after us of all, 0, prefix of the keys beside locks; then of each token, not after us.

-- Whether all are held as `is_held` says of a value and a token, and nobody waits or watches.
local function are_all_plain(locks, is_held)
  if now > tonumber(ARGV[1]) then
    return false
  end
  for i, value in ipairs(redis.call('MGET', unpack(KEYS, 1, locks))) do
    if not is_held(value, ARGV[2 * i + 2]) then
      return false
    end
  end
  return redis.call('EXISTS', unpack(KEYS, locks + 1, 2 * locks)) == 0
end

-- Ends all with few commands, if that can be done; else each by itself.
local function end_all_or_each(locks, is_held, release)
  local done, ended = pcall(function()
    return are_all_plain(locks, is_held) and redis.call('DEL', unpack(KEYS, 1, locks))
  end)
  if not (done and ended) then
    return answer_each(locks, release)
  end
  if ended == locks then
    return now
  end
  -- A key stood twice: who asks twice finds it gone the second time.
  local seen = {}
  return answer_each(locks, function(i)
    local code = seen[KEYS[i]] and 2 or 1
    seen[KEYS[i]] = true
    return {code, now}
  end)
end
