-- Keeps tickets alive, and answers how each stands (R16): a process that waits polls by this. A ticket that is gone is
-- not made anew: the next try does that.
-- Each: KEYS lock, queue, tickets. ARGV ticket, or WATCHED: the lock is watched without a place
-- Answers for each {1, now us, 0} it waits, {1, now us, 1, ttl left ms} it is the first, and the lock is held,
-- {1, now us, 2} it is the first, and the lock is free, or shared and the ticket for a share: there may be room, {2, now
-- us} there is none, or an error.

local function keep(key)
  redis.call('PEXPIRE', key, 2 * TICKET_MS)
end

return answer_each(#KEYS / 3, function(i)
  local k, ticket = 3 * (i - 1), ARGV[i]
  local lock, queue, tickets = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  if ticket == WATCHED then
    keep_ticket(tickets, WATCHED, '')
    keep(tickets)
    return {1, now, 0}
  end
  local taken = redis.call('ZSCORE', queue, ticket)
  if not taken then
    return {2, now}
  end
  if tonumber(taken) > now + TICKET_US then
    -- Dated ahead, by a clock that was set: it would stand behind all who come.
    drop(queue, tickets, ticket)
    return {2, now}
  end
  local _, offer = worth_of(tickets, ticket)
  keep_ticket(tickets, ticket, offer)
  if first_ticket(queue, tickets) ~= ticket then
    return {1, now, 0}
  end
  -- The first one keeps the sets for all.
  keep(queue)
  keep(tickets)
  local left = redis.call('PTTL', lock)
  local value = redis.pcall('GET', lock)
  if left == -2 or (is_for_share(ticket) and is_marker(value)) then
    return {1, now, 2}
  end
  -- It was asked when the ticket was taken; the message may have been lost.
  if type(value) == 'string' then
    ask_for(lock, queue, value)
  end
  return {1, now, 1, left}
end)
