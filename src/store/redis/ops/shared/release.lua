-- Ends shares (R4), and calls those who have room now (R16), not after its time (R5).
-- KEYS all locks, then all tickets, queues, ends, holds
-- ARGV earliest not after us of all, 0, prefix of the keys beside locks; then of each token, not after us
-- Answers now us alone if all are released. Else for each {1, now us} released, {2, now us} gone already, {3, now us} too
-- late, {4, now us} it is no share: the token has the lock for itself; or an error.
local locks, prefix = #KEYS / 5, ARGV[3]

local function release(i)
  local lock, tickets, queue, ends, holds =
    KEYS[i], KEYS[locks + i], KEYS[2 * locks + i], KEYS[3 * locks + i], KEYS[4 * locks + i]
  local token = ARGV[2 * i + 2]
  if now > tonumber(ARGV[2 * i + 3]) then
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
end

-- Whether each has its lock alone.
local function is_sole(value, token)
  return is_marker(value) and string.sub(value, -#token - 1) == ':' .. token
end

return end_all_or_each(locks, is_sole, release)
