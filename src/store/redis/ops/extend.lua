-- Moves the ends of what tokens hold (R3): never earlier, never anew, not after its time (R5).
-- Each: KEYS lock. ARGV token, ttl ms, not after us
-- Answers for each {1, now us, ttl left ms} extended, {2, now us} lost, {3, now us} too late, {4, now us} it is shared
-- (`shared`), or an error.

return answer_each(#KEYS, function(i)
  local lock, a = KEYS[i], 3 * (i - 1)
  if now > tonumber(ARGV[a + 3]) then
    return {3, now}
  end
  local value = redis.pcall('GET', lock)
  if value ~= ARGV[a + 1] then
    return {is_marker(value) and 4 or 2, now}
  end
  -- Not PEXPIRE GT, which servers before 7.0 do not know. A key without an end keeps none.
  local left = redis.call('PTTL', lock)
  local ttl = tonumber(ARGV[a + 2])
  if left >= 0 and left < ttl then
    redis.call('PEXPIRE', lock, ARGV[a + 2])
    left = ttl
  end
  return {1, now, left}
end)
