-- One try to take a lock on one node, under a proposed fence (L4, L5), not after its time (R5).
-- KEYS: lock, fence, marker
-- ARGV: token, ttl ms, not after us, proposed fence, fence retention ms, max ttl ms, turn (1 or 2)
-- Answers {1, now us, ttl left ms} granted, {2, now us, why, ttl left ms} denied, {3, now us} too late,
--   {4, now us, seen} the fence is too low, {5, now us, left ms} quarantined,
--   {6, now us, fence, ttl left ms} held by the token already, {7, now us, ms} another max ttl is in use.
-- why: 0 held, 1 another kind of value.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[3]) then
  return {3, now}
end
-- Values of another kind read as nothing here.
local values = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3])
local value, ends, max = values[1], nil, nil
if values[3] then
  ends, max = string.match(values[3], '^(%d+) (%d+) ')
end
if not ends then
  -- It was flushed, or is new: what it has forgotten may be held for so long.
  ends, max = now + ARGV[6] * 1000, ARGV[6]
  redis.call('SET', KEYS[3], string.format('%.0f %s -', ends, max))
elseif max ~= ARGV[6] then
  return {7, now, tonumber(max)}
end
ends = tonumber(ends)
if ends > now then
  return {5, now, math.ceil((ends - now) / 1000)}
end
if value and value ~= ARGV[1] then
  return {2, now, 0, redis.call('PTTL', KEYS[1])}
end
local fence = tonumber(values[2] or 0) or 0
if value and ARGV[7] == '1' then
  return {6, now, fence, redis.call('PTTL', KEYS[1])}
end
local proposed = tonumber(ARGV[4])
-- The end of the last quarantine is the floor for all fences.
if proposed <= math.max(fence, ends) then
  return {4, now, math.max(fence, ends)}
end
local life = tonumber(ARGV[5]) + math.ceil(math.max(0, proposed - now) / 1000)
redis.call('SET', KEYS[2], ARGV[4], 'PX', string.format('%.0f', life))
if value then
  return {1, now, redis.call('PTTL', KEYS[1])}
end
-- Last, so that a script that fails half-way leaves no lock.
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {2, now, 1, redis.call('PTTL', KEYS[1])}
end
return {1, now, tonumber(ARGV[2])}
