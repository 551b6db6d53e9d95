-- Ends what tokens hold, and calls the first ticket (R4, R16), not after its time (R5).
-- Each: KEYS lock, queue, alive. ARGV token, channel of the lock, not after us
-- Answers for each {1, now us} released, {2, now us} gone already, {3, now us} too late, or an error.

return answer_each(#KEYS / 3, function(i)
  local k, a = 3 * (i - 1), 3 * (i - 1)
  local lock, queue, alive = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  if now > tonumber(ARGV[a + 3]) then
    return {3, now}
  end
  if redis.pcall('GET', lock) ~= ARGV[a + 1] then
    return {2, now}
  end
  redis.call('DEL', lock)
  -- Mostly nobody waits or watches.
  if redis.call('EXISTS', alive) == 1 then
    -- A hint, which may fail: where the slot is moving, the queue may be gone from this node, and the lock is free all the same.
    pcall(call_first, lock, queue, alive)
    if tonumber(redis.call('ZSCORE', alive, WATCHED) or 0) > now then
      redis.pcall('PUBLISH', ARGV[a + 2], 'released')
    end
  end
  return {1, now}
end)
