-- One try to take a lock (R1), idempotent by token (R2), not after its time (R5), with a fence (R12), in turn (R16).
-- KEYS: lock, fence, queue, alive
-- ARGV: token, ttl ms, not after us, fence retention ms, highest fence seen, process ('' = only try), ticket ms
-- Answers {1, now us, fence, ttl left ms} granted, {2, now us, why, retry ms} denied, {3, now us} too late.
-- why: 0 held, 1 another kind of value, 2 another process is ahead.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[3]) then
  return {3, now}
end
local process = ARGV[6]

local function denied(why, retry_ms)
  if process ~= '' then
    local ticket_ms = tonumber(ARGV[7])
    redis.call('ZADD', KEYS[3], 'NX', string.format('%.0f', now), process)
    redis.call('ZADD', KEYS[4], string.format('%.0f', now + ticket_ms * 1000), process)
    redis.call('PEXPIRE', KEYS[3], 2 * ticket_ms)
    redis.call('PEXPIRE', KEYS[4], 2 * ticket_ms)
  end
  return {2, now, why, retry_ms}
end

-- Stores and answers a fence above the stored one, the highest that this process knows, and the clock.
local function mint()
  local fence = math.max(tonumber(ARGV[5]) + 1, now)
  local function store()
    local life = tonumber(ARGV[4]) + math.ceil(math.max(0, fence - now) / 1000)
    return redis.call('SET', KEYS[2], string.format('%.0f', fence), 'PX', string.format('%.0f', life), 'GET')
  end
  local old = tonumber(store() or 0) or 0
  if old >= fence then
    fence = old + 1
    store()
  end
  return fence
end

local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' then
  return denied(1, redis.call('PTTL', KEYS[1]))
end
if value == ARGV[1] then
  local fence = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
  return {1, now, fence > 0 and fence or mint(), redis.call('PTTL', KEYS[1])}
end
if value then
  return denied(0, redis.call('PTTL', KEYS[1]))
end

-- It is free. Tickets that ran out belong to processes that died.
while true do
  local first = redis.call('ZRANGE', KEYS[3], 0, 0)[1]
  if not first then
    break
  end
  local ends = tonumber(redis.call('ZSCORE', KEYS[4], first) or 0)
  if ends > now then
    if first ~= process then
      return denied(2, math.ceil((ends - now) / 1000))
    end
    redis.call('ZREM', KEYS[3], first)
    redis.call('ZREM', KEYS[4], first)
    break
  end
  redis.call('ZREM', KEYS[3], first)
  redis.call('ZREM', KEYS[4], first)
end

local fence = mint()
-- Last, so that a script that fails half-way leaves no lock.
redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
return {1, now, fence, tonumber(ARGV[2])}
