-- Tries to take locks (R1), each idempotent by token (R2), not after its time (R5), with a fence (R12), in turn (R16).
-- Each try: KEYS lock, fence, queue, alive
--           ARGV token, ttl ms, not after us, fence retention ms, highest fence seen, process, ticket ms (0: only try)
-- Answers for each {1, now us, fence, ttl left ms} granted, {2, now us, why, retry ms} denied, {3, now us} too late,
-- or an error. why: 0 held, 1 another kind of value, 2 another process is ahead.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function denied(k, a, why, retry_ms)
  local process, ticket_ms = ARGV[a + 6], tonumber(ARGV[a + 7])
  if ticket_ms > 0 then
    redis.call('ZADD', KEYS[k + 3], 'NX', string.format('%.0f', now), process)
    redis.call('ZADD', KEYS[k + 4], string.format('%.0f', now + ticket_ms * 1000), process)
    redis.call('PEXPIRE', KEYS[k + 3], 2 * ticket_ms)
    redis.call('PEXPIRE', KEYS[k + 4], 2 * ticket_ms)
  end
  return {2, now, why, retry_ms}
end

-- Stores and answers a fence above the stored one, the highest that this process knows, and the clock.
local function mint(k, a)
  local fence = math.max(ARGV[a + 5] + 1, now)
  local old = redis.call('SET', KEYS[k + 2], string.format('%.0f', fence), 'PX', ARGV[a + 4], 'GET')
  old = old and tonumber(old) or 0
  if old < fence and fence == now then
    return fence
  end
  -- It is ahead of the clock, and must outlive that.
  fence = math.max(fence, old + 1)
  local life = ARGV[a + 4] + math.ceil((fence - now) / 1000)
  redis.call('SET', KEYS[k + 2], string.format('%.0f', fence), 'PX', string.format('%.0f', life))
  return fence
end

local function grant(k, a)
  local fence = mint(k, a)
  -- Last, so that a try that fails half-way leaves no lock.
  redis.call('SET', KEYS[k + 1], ARGV[a + 1], 'PX', ARGV[a + 2])
  return {1, now, fence, tonumber(ARGV[a + 2])}
end

local function try(k, a)
  if now > tonumber(ARGV[a + 3]) then
    return {3, now}
  end
  -- Mostly nobody holds it, and nobody waits.
  if redis.call('EXISTS', KEYS[k + 1], KEYS[k + 3]) == 0 then
    return grant(k, a)
  end
  local value = redis.pcall('GET', KEYS[k + 1])
  if type(value) == 'table' then
    return denied(k, a, 1, redis.call('PTTL', KEYS[k + 1]))
  end
  if value == ARGV[a + 1] then
    local fence = tonumber(redis.call('GET', KEYS[k + 2]) or 0) or 0
    return {1, now, fence > 0 and fence or mint(k, a), redis.call('PTTL', KEYS[k + 1])}
  end
  if value then
    return denied(k, a, 0, redis.call('PTTL', KEYS[k + 1]))
  end
  -- It is free. Tickets that ran out belong to processes that died; the process's own is used up by any grant to it.
  local queue, alive = KEYS[k + 3], KEYS[k + 4]
  while true do
    local first = redis.call('ZRANGE', queue, 0, 0)[1]
    if not first then
      break
    end
    local ends = tonumber(redis.call('ZSCORE', alive, first) or 0)
    if ends > now and first ~= ARGV[a + 6] then
      return denied(k, a, 2, math.ceil((ends - now) / 1000))
    end
    redis.call('ZREM', queue, first)
    redis.call('ZREM', alive, first)
    if ends > now then
      break
    end
  end
  return grant(k, a)
end

local answers = {}
for i = 0, #KEYS / 4 - 1 do
  local done, answer = pcall(try, 4 * i, 7 * i)
  -- One that fails does not take the others with it.
  answers[i + 1] = (done or type(answer) == 'table') and answer or redis.error_reply(answer)
end
return answers
