-- Tries to take locks on one node, each under a proposed fence (L4, L5), not after its time (R5).
-- Each try: KEYS lock, fence, marker
--           ARGV token, ttl ms, not after us, proposed fence, fence retention ms, max ttl ms, turn (1 or 2)
-- Answers for each {1, now us, ttl left ms} granted, {2, now us, why, ttl left ms} denied, {3, now us} too late,
-- {4, now us, seen} the fence is too low, {5, now us, left ms} quarantined, {6, now us, fence, ttl left ms} held by the
-- token already, {7, now us, ms} another max ttl is in use, or an error. why: 0 held, 1 another kind of value.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function try(k, a)
  local lock, token = KEYS[k + 1], ARGV[a + 1]
  if now > tonumber(ARGV[a + 3]) then
    return {3, now}
  end
  -- Values of another kind read as nothing here.
  local values = redis.call('MGET', lock, KEYS[k + 2], KEYS[k + 3])
  local value, ends, max = values[1], nil, nil
  if values[3] then
    ends, max = string.match(values[3], '^(%d+) (%d+) ')
  end
  if not ends then
    -- It was flushed, or is new: what it has forgotten may be held for so long.
    ends, max = now + ARGV[a + 6] * 1000, ARGV[a + 6]
    redis.call('SET', KEYS[k + 3], string.format('%.0f %s -', ends, max))
  elseif max ~= ARGV[a + 6] then
    return {7, now, tonumber(max)}
  end
  ends = tonumber(ends)
  if ends > now then
    return {5, now, math.ceil((ends - now) / 1000)}
  end
  if value and value ~= token then
    return {2, now, 0, redis.call('PTTL', lock)}
  end
  local fence = values[2] and tonumber(values[2]) or 0
  if value and ARGV[a + 7] == '1' then
    return {6, now, fence, redis.call('PTTL', lock)}
  end
  local proposed = tonumber(ARGV[a + 4])
  -- The end of the last quarantine is the floor for all fences.
  if proposed <= math.max(fence, ends) then
    return {4, now, math.max(fence, ends)}
  end
  local life = ARGV[a + 5]
  if proposed > now then
    -- It is ahead of the clock, and must outlive that.
    life = string.format('%.0f', life + math.ceil((proposed - now) / 1000))
  end
  redis.call('SET', KEYS[k + 2], ARGV[a + 4], 'PX', life)
  if value then
    return {1, now, redis.call('PTTL', lock)}
  end
  -- Last, so that a try that fails half-way leaves no lock.
  if not redis.call('SET', lock, token, 'NX', 'PX', ARGV[a + 2]) then
    return {2, now, 1, redis.call('PTTL', lock)}
  end
  return {1, now, tonumber(ARGV[a + 2])}
end

local answers = {}
for i = 0, #KEYS / 3 - 1 do
  local done, answer = pcall(try, 3 * i, 7 * i)
  -- One that fails does not take the others with it.
  answers[i + 1] = (done or type(answer) == 'table') and answer or redis.error_reply(answer)
end
return answers
