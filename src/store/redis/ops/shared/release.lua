-- Ends shares (R4), and calls those who have room now (R16), not after its time (R5).
-- Each: KEYS lock, queue, tickets, ends, holds. ARGV token, prefix of the keys beside locks, not after us
-- Answers for each {1, now us} released, {2, now us} gone already, {3, now us} too late, {4, now us} it is no share: the
-- token has the lock for itself; or an error.
return answer_each(#KEYS / 5, function(i)
  local lock, queue, tickets, ends, holds = unpack(KEYS, 5 * i - 4, 5 * i)
  local token, prefix, not_after = unpack(ARGV, 3 * i - 2, 3 * i)
  if now > tonumber(not_after) then
    return {3, now}
  end
  local group, value = read_group(lock, ends, holds, token)
  if value == token then
    return {4, now}
  end
  local ends_at = share_of(group, token)
  if not ends_at then
    return {2, now}
  end
  local goes_on = end_share(group, token, ends_at)
  if (not goes_on or group.limit > 0) and redis.call('EXISTS', tickets) == 1 then
    call_others(lock, queue, tickets, prefix)
  end
  return {1, now}
end)
