-- Moves the ends of shares (R3): never earlier, never anew, not after its time (R5).
-- Each: KEYS lock, ends, holds. ARGV token, ttl ms, not after us
-- Answers for each {1, now us, ttl left ms} extended, {2, now us} lost, {3, now us} too late, {4, now us} it is no share:
-- the token has the lock for itself; or an error.
return answer_each(#KEYS / 3, function(i)
  local lock, ends, holds = unpack(KEYS, 3 * i - 2, 3 * i)
  local token, ttl_ms, not_after = unpack(ARGV, 3 * i - 2, 3 * i)
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
  local later = now + tonumber(ttl_ms) * 1000
  if later > ends_at then
    date_share(group, token, later)
    ends_at = later
  end
  return {1, now, left_ms(ends_at)}
end)
