-- Tries to take locks (R1), each idempotent by token (R2), not after its time (R5), with a fence (R12), in turn (R16).
-- Each try: KEYS lock, fence, queue, alive
--           ARGV token, ttl ms, not after us, fence retention ms, highest fence seen, ticket, 1 to queue (0: only try)
-- Answers for each {1, now us, fence, ttl left ms, 0 taken now or 1 held already} granted, {2, now us, why, retry ms}
-- denied, {3, now us} too late, or an error. why: 0 held, 1 another kind of value, 2 another process is ahead.
-- retry ms: below 0 if a call will come, or the time is not known.

local function denied(k, a, why, retry_ms)
  if ARGV[a + 7] == '1' then
    local queue, alive, ticket = KEYS[k + 3], KEYS[k + 4], ARGV[a + 6]
    redis.call('ZADD', queue, 'NX', number(now), ticket)
    redis.call('ZADD', alive, number(now + TICKET_US), ticket)
    redis.call('PEXPIRE', queue, 2 * TICKET_MS)
    redis.call('PEXPIRE', alive, 2 * TICKET_MS)
    if why ~= 2 and redis.call('ZRANGE', queue, 0, 0)[1] ~= ticket then
      -- Tickets behind the first are called, and need not try.
      retry_ms = -1
    end
  end
  return {2, now, why, retry_ms}
end

-- Stores and answers a fence. Mostly the clock is above all others, and one command will do.
local function mint(k, a)
  local fence = math.max(ARGV[a + 5] + 1, now)
  local stored = redis.call('SET', KEYS[k + 2], number(fence), 'PX', ARGV[a + 4], 'GET')
  stored = stored and tonumber(stored) or 0
  if stored < fence and fence == now then
    return fence
  end
  return mint_fence(KEYS[k + 2], stored, ARGV[a + 5], ARGV[a + 4])
end

local function grant(k, a)
  local fence = mint(k, a)
  -- Last, so that a try that fails half-way leaves no lock.
  redis.call('SET', KEYS[k + 1], ARGV[a + 1], 'PX', ARGV[a + 2])
  return {1, now, fence, tonumber(ARGV[a + 2]), 0}
end

-- Whether two tickets are of one process.
local function is_same(one, other)
  return string.match(one, '^(.*):') == string.match(other, '^(.*):')
end

return answer_each(#KEYS / 4, function(i)
  local k, a = 4 * (i - 1), 7 * (i - 1)
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
    return {1, now, fence > 0 and fence or mint(k, a), redis.call('PTTL', KEYS[k + 1]), 1}
  end
  if value then
    return denied(k, a, 0, redis.call('PTTL', KEYS[k + 1]))
  end
  local first, ends = first_ticket(KEYS[k + 3], KEYS[k + 4])
  if first then
    if not is_same(first, ARGV[a + 6]) then
      return denied(k, a, 2, math.ceil((ends - now) / 1000))
    end
    -- Any grant to the process uses its place up.
    drop(KEYS[k + 3], KEYS[k + 4], first)
  end
  return grant(k, a)
end)
