-- Tries to take shares of locks (R1), each idempotent by token (R2), not after its time (R5), with a fence (R12), in turn
-- (R16).
-- KEYS all locks, then all queues, fences, tickets, ends, holds
-- ARGV earliest not after us of all, highest fence seen of all, fence retention ms, process; then of each try token,
-- details: ttl ms, limit (0: shared), permits, not after us, highest fence seen, number of the ticket (0: only try)
-- Answers as acquire.lua for locks that one has for itself does: now us alone if all are granted, for the whole ttl, with
-- now us as their fence. Else for each {1, now us} such a grant, {1, now us, fence, ttl left ms, 0 taken now or 1 held
-- already} granted, {2, now us, why, retry ms} denied, {3, now us} too late, or an error. why: 0 held, 1 another kind of
-- value, 2 another process is ahead, 3 it is shared in another way.
local tries, retention_ms, process = #KEYS / 6, ARGV[3], ARGV[4]

local function key(kind, i)
  return KEYS[(kind - 1) * tries + i]
end

local function details(i)
  local life_ms, limit, permits, not_after, seen, count =
    string.match(ARGV[2 * i + 4], '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  return {
    token = ARGV[2 * i + 3], life_ms = tonumber(life_ms), limit = limit, permits = permits,
    not_after = tonumber(not_after), seen = seen, ticket = count ~= '0' and process .. ':' .. count,
  }
end

-- Until when to wait for a ticket of another process that this try may not pass; nil if there is none. A share without a
-- limit passes others for shares, which can have theirs at the same time.
local function is_ahead(queue, tickets, ask)
  local first, ends_at = first_ticket(queue, tickets)
  if not first or string.match(first, '^(.*):') == process then
    return nil, first
  end
  if ask.limit ~= '0' then
    return ends_at
  end
  local waiting = redis.call('ZRANGE', queue, 0, TOGETHER)
  for _, other in ipairs(waiting) do
    if other == ask.ticket then
      return nil
    end
    if not is_for_share(other) then
      return ends_at
    end
  end
  return #waiting > TOGETHER and ends_at or nil
end

local function try(i)
  local lock, queue, fence_key, tickets, ends, holds = key(1, i), key(2, i), key(3, i), key(4, i), key(5, i), key(6, i)
  local ask = details(i)
  if now > ask.not_after then
    return {3, now}
  end

  local function mint()
    return mint_fence(fence_key, tonumber(redis.call('GET', fence_key) or 0) or 0, ask.seen, retention_ms)
  end

  local function denied(why, retry_ms)
    if ask.ticket then
      take_ticket(queue, tickets, ask.ticket, '')
      if why ~= 2 and redis.call('ZRANGE', queue, 0, 0)[1] ~= ask.ticket then
        -- Tickets behind the first are called, and need not try.
        retry_ms = -1
      end
    end
    return {2, now, why, retry_ms}
  end

  local group, value = read_group(lock, ends, holds, ask.token)
  local ends_at, held_fence, held = share_of(group, ask.token)
  if group and (group.limit ~= tonumber(ask.limit) or (ends_at and held ~= ask.permits)) then
    return {2, now, 3, -1}
  end
  if ends_at then
    return {1, now, held_fence, left_ms(ends_at), 1}
  end
  if type(value) == 'table' then
    return denied(1, redis.call('PTTL', lock))
  end
  if value then
    ask_for(lock, queue, value)
    return denied(0, redis.call('PTTL', lock))
  end
  local has_queue, wait_until, first = redis.call('EXISTS', queue) == 1, nil, nil
  if has_queue then
    wait_until, first = is_ahead(queue, tickets, ask)
  end
  if wait_until then
    return denied(2, math.ceil((wait_until - now) / 1000))
  end
  if group and group.limit > 0 and group.used + tonumber(ask.permits) > group.limit then
    return denied(0, left_ms(group.first) + 1)
  end
  local place = first or ask.ticket
  if has_queue and place then
    -- Any grant to the process uses its place up.
    drop(queue, tickets, place)
  end
  local fence = mint()
  if group then
    join_group(group, ask.token, ask.permits, fence, ask.life_ms)
  else
    start_group(lock, ask.limit, ask.token, ask.permits, fence, ask.life_ms)
  end
  -- The next one may have room, too.
  local following = has_queue and first_ticket(queue, tickets)
  if following and is_for_share(following) then
    call_ticket(lock, queue, following)
  end
  return {1, now, fence, ask.life_ms, 0}
end

-- Takes them all with few commands, if all are free. Answers those that were taken meanwhile: a key may stand twice.
local function take_all()
  if not are_all_free(tries) then
    return nil
  end
  local stamp, taken = number(now), {}
  for i = 1, tries do
    local ask = details(i)
    local value = sole_value(ask.limit, now, ask.permits, ask.token)
    redis.call('SET', key(3, i), stamp, 'PX', retention_ms)
    if not redis.call('SET', key(1, i), value, 'PX', number(ask.life_ms), 'NX') then
      taken[#taken + 1] = i
    end
  end
  return taken
end

return take_all_or_each(tries, take_all, try)
