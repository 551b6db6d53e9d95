-- Tries to take shares of locks (R1), each idempotent by token (R2), not after its time (R5), with a fence (R12), in turn
-- (R16).
-- Each: KEYS lock, queue, tickets, fence, ends, holds
-- ARGV token, process, details: ttl ms, limit (0: shared), permits, not after us, highest fence seen, fence retention ms,
-- number of the ticket, 1 to queue (0: only try)
-- Answers for each as acquire.lua does: {1, now us, fence, ttl left ms, 0 taken now or 1 held already} granted, {2, now us,
-- why, retry ms} denied, {3, now us} too late, or an error. why: 0 held, 1 another kind of value, 2 another process is
-- ahead, 3 it is shared in another way.

-- Until when to wait for a ticket of another process that this try may not pass; nil if there is none. A share without a
-- limit passes others for shares, which can have theirs at the same time.
local function is_ahead(queue, tickets, process, ticket, limit)
  local first, ends_at = first_ticket(queue, tickets)
  if not first or string.match(first, '^(.*):') == process then
    return nil, first
  end
  if limit ~= '0' then
    return ends_at
  end
  local waiting = redis.call('ZRANGE', queue, 0, TOGETHER)
  for _, other in ipairs(waiting) do
    if other == ticket then
      return nil
    end
    if not is_for_share(other) then
      return ends_at
    end
  end
  return #waiting > TOGETHER and ends_at or nil
end

return answer_each(#KEYS / 6, function(i)
  local lock, queue, tickets, fence_key, ends, holds = unpack(KEYS, 6 * i - 5, 6 * i)
  local token, process, details = unpack(ARGV, 3 * i - 2, 3 * i)
  local life_ms, limit, permits, not_after, seen, retention_ms, count, is_queued =
    string.match(details, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  local ticket = process .. ':' .. count
  if now > tonumber(not_after) then
    return {3, now}
  end

  local function mint()
    return mint_fence(fence_key, tonumber(redis.call('GET', fence_key) or 0) or 0, seen, retention_ms)
  end

  local function start()
    local fence = mint()
    start_group(lock, ends, holds, limit, token, permits, fence, tonumber(life_ms))
    return {1, now, fence, tonumber(life_ms), 0}
  end

  local function denied(why, retry_ms)
    if is_queued == '1' then
      take_ticket(queue, tickets, ticket, '')
      if why ~= 2 and redis.call('ZRANGE', queue, 0, 0)[1] ~= ticket then
        -- Tickets behind the first are called, and need not try.
        retry_ms = -1
      end
    end
    return {2, now, why, retry_ms}
  end

  if redis.call('EXISTS', lock, queue, ends, holds) == 0 then
    return start()
  end
  local group, value = read_group(lock, ends, holds, token)
  local ends_at, fence, held = share_of(group, token)
  if group and (group.limit ~= tonumber(limit) or (ends_at and held ~= permits)) then
    return {2, now, 3, -1}
  end
  if ends_at then
    return {1, now, fence, left_ms(ends_at), 1}
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
    wait_until, first = is_ahead(queue, tickets, process, ticket, limit)
  end
  if wait_until then
    return denied(2, math.ceil((wait_until - now) / 1000))
  end
  if group and group.limit > 0 and group.used + tonumber(permits) > group.limit then
    return denied(0, left_ms(group.first) + 1)
  end
  if has_queue then
    -- Any grant to the process uses its place up.
    drop(queue, tickets, first or ticket)
  end
  local answer
  if not group then
    -- What an earlier generation left.
    redis.call('DEL', ends, holds)
    answer = start()
  else
    fence = mint()
    join_group(group, token, permits, fence, tonumber(life_ms))
    answer = {1, now, fence, tonumber(life_ms), 0}
  end
  -- The next one may have room, too.
  local following = has_queue and first_ticket(queue, tickets)
  if following and is_for_share(following) then
    call_ticket(lock, queue, following)
  end
  return answer
end)
