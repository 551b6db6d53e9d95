-- Tries to take locks (R1), each idempotent by token (R2), not after its time (R5), with a fence (R12), in turn (R16).
-- KEYS all locks, then all queues, fences, tickets
-- ARGV earliest not after us of all, highest fence seen of all, fence retention ms, process; then of each try token,
-- ttl ms, details: not after us, highest fence seen, number of the ticket (0: only try), number of its offer (0: none)
-- Answers now us alone if all are granted, for the whole ttl, with now us as their fence. Else for each {1, now us} such a
-- grant, {1, now us, fence, ttl left ms, 0 taken now or 1 held already} granted, {2, now us, why, retry ms} denied,
-- {3, now us} too late, or an error. why: 0 held, 1 another kind of value, 2 another process is ahead.
-- retry ms: below 0 if a call will come, or the time is not known.
local tries, retention_ms, process = #KEYS / 4, ARGV[3], ARGV[4]

local function details(i)
  local not_after, seen, count, offer = string.match(ARGV[3 * i + 4], '^(%S+) (%S+) (%S+) (%S+)$')
  return tonumber(not_after), seen, count ~= '0' and process .. ':' .. count, offer
end

local function denied(i, why, retry_ms)
  local _, seen, ticket, offer = details(i)
  if ticket then
    local queue, tickets = KEYS[tries + i], KEYS[3 * tries + i]
    local words = {'', offer, retention_ms, seen, ARGV[3 * i + 2]}
    take_ticket(queue, tickets, ticket, offer == '0' and '' or table.concat(words, ' '))
    if why ~= 2 and redis.call('ZRANGE', queue, 0, 0)[1] ~= ticket then
      -- Tickets behind the first are called, and need not try.
      retry_ms = -1
    end
  end
  return {2, now, why, retry_ms}
end

-- Stores and answers a fence.
local function mint(i)
  local key, _, seen = KEYS[2 * tries + i], details(i)
  return mint_fence(key, tonumber(redis.call('GET', key) or 0) or 0, seen, retention_ms)
end

local function grant(i)
  local fence, ttl_ms = mint(i), ARGV[3 * i + 3]
  -- Last, so that a try that fails half-way leaves no lock.
  redis.call('SET', KEYS[i], ARGV[3 * i + 2], 'PX', ttl_ms)
  return {1, now, fence, tonumber(ttl_ms), 0}
end

local function try(i)
  local lock, queue, tickets, token = KEYS[i], KEYS[tries + i], KEYS[3 * tries + i], ARGV[3 * i + 2]
  if now > details(i) then
    return {3, now}
  end
  if redis.call('EXISTS', lock, queue) == 0 then
    return grant(i)
  end
  local value = redis.pcall('GET', lock)
  if type(value) == 'table' then
    return denied(i, 1, redis.call('PTTL', lock))
  end
  if value == token then
    local fence = tonumber(redis.call('GET', KEYS[2 * tries + i]) or 0) or 0
    return {1, now, fence > 0 and fence or mint(i), redis.call('PTTL', lock), 1}
  end
  if value then
    ask_for(lock, queue, value)
    return denied(i, 0, redis.call('PTTL', lock))
  end
  local first, ends = first_ticket(queue, tickets)
  if first then
    if string.match(first, '^(.*):') ~= process then
      return denied(i, 2, math.ceil((ends - now) / 1000))
    end
    -- Any grant to the process uses its place up.
    drop(queue, tickets, first)
  end
  return grant(i)
end

-- Takes them all with few commands, if all are free. Answers those that were taken meanwhile: a key may stand twice.
local function take_all()
  if not are_all_free(tries) then
    return nil
  end
  local stamp, taken = number(now), {}
  for i = 1, tries do
    redis.call('SET', KEYS[2 * tries + i], stamp, 'PX', retention_ms)
    if not redis.call('SET', KEYS[i], ARGV[3 * i + 2], 'PX', ARGV[3 * i + 3], 'NX') then
      taken[#taken + 1] = i
    end
  end
  return taken
end

return take_all_or_each(tries, take_all, try)
