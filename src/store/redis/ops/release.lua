-- Ends what tokens hold, and hands over to the first ticket, or calls it (R4, R16), not after its time (R5).
-- KEYS all locks, then all tickets, queues, fences
-- ARGV earliest not after us of all, 0, prefix of the keys beside locks; then of each token, not after us
-- Answers now us alone if all are released. Else for each {1, now us} released, {2, now us} gone already, {3, now us} too
-- late, {4, now us} it is shared (`shared`), or an error.
local locks, prefix = #KEYS / 4, ARGV[3]

local function release(i)
  local lock, tickets, queue = KEYS[i], KEYS[locks + i], KEYS[2 * locks + i]
  if now > tonumber(ARGV[2 * i + 3]) then
    return {3, now}
  end
  local value = redis.pcall('GET', lock)
  if value ~= ARGV[2 * i + 2] then
    return {is_marker(value) and 4 or 2, now}
  end
  redis.call('DEL', lock)
  if redis.call('EXISTS', tickets) == 1 then
    tell_others(lock, KEYS[3 * locks + i], queue, tickets, prefix)
  end
  return {1, now}
end

return end_all_or_each(locks, function(value, token) return value == token end, release)
