
-- Stands before every script that uses a lock's queue (R16). A sorted set says which ticket was taken when (queue), a hash
-- what each is worth (tickets): until when it lasts, and behind that perhaps its offer (`hand_over.lua`). A ticket is
-- called `<process>:<number>`. Beside the tickets the hash may hold the mark that the lock is watched without a place:
-- WATCHED.
local TICKET_MS, WATCHED = 1000, '*'
local TICKET_US = TICKET_MS * 1000
-- So many tickets for shares are called at once.
local TOGETHER = 32

-- Whether a ticket is for a share of the lock (`shared`): then its number is odd.
local function is_for_share(ticket)
  return string.match(ticket, '[13579]$') ~= nil
end

local function drop(queue, tickets, ticket)
  redis.call('ZREM', queue, ticket)
  redis.call('HDEL', tickets, ticket)
end

-- Has a ticket last from now on. `offer` stands behind its end: '', or ' ' and an offer.
local function keep_ticket(tickets, ticket, offer)
  redis.call('HSET', tickets, ticket, number(now + TICKET_US) .. offer)
end

-- Takes a ticket, or keeps one that was taken. Its offer is from now on this one.
local function take_ticket(queue, tickets, ticket, offer)
  redis.call('ZADD', queue, 'NX', number(now), ticket)
  keep_ticket(tickets, ticket, offer)
  redis.call('PEXPIRE', queue, 2 * TICKET_MS)
  redis.call('PEXPIRE', tickets, 2 * TICKET_MS)
end

-- Until when a ticket lasts, or the mark WATCHED does, and its offer.
local function worth_of(tickets, ticket)
  local ends, offer = string.match(redis.call('HGET', tickets, ticket) or '0', '^(%d+)(.*)$')
  return tonumber(ends), offer
end

-- The first ticket that still lasts, until when, and its offer. Tickets before it belong to processes that died, or are
-- dated further ahead than a clock that was not set could have dated them: they are dropped.
local function first_ticket(queue, tickets)
  while true do
    local found = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
    local ticket = found[1]
    if not ticket then
      return nil
    end
    local ends, offer = worth_of(tickets, ticket)
    if ends > now and ends <= now + 2 * TICKET_US and tonumber(found[2]) <= now + TICKET_US then
      return ticket, ends, offer
    end
    drop(queue, tickets, ticket)
  end
end

-- On which a ticket's process listens, and the number of the ticket.
local function channel_of(queue, ticket)
  local process, count = string.match(ticket, '^(.*):(%d+)$')
  if process then
    return string.match(queue, '^(.-)queue:') .. 'turn:' .. process, count
  end
end

-- Publishes to a ticket's process, on its own channel: the number of the ticket and what is said of it, and the lock.
-- Answers whether it was sent: a user without rights to channels does without.
local function tell_ticket(lock, queue, ticket, said)
  local channel, count = channel_of(queue, ticket)
  return channel and type(redis.pcall('PUBLISH', channel, count .. said .. ' ' .. lock)) == 'number'
end

-- Calls a ticket's process: trying again may help. A hint.
local function call_ticket(lock, queue, ticket)
  tell_ticket(lock, queue, ticket, '')
end

-- Asks a process for a lock that it has a claim on, which may be idle: the claim's token names its channel. Such a token
-- is a UUID of version 8. For a lock that is shared without a limit, all processes are asked: others may ride on what one
-- has of it.
local function ask_for(lock, queue, value)
  if string.sub(value, 1, #MARK + 2) == MARK .. '0:' then
    redis.pcall('PUBLISH', string.match(queue, '^(.-)queue:') .. 'shares', lock)
  elseif #value == 36 and string.byte(value, 15) == 56 then
    redis.pcall('PUBLISH', string.match(queue, '^(.-)queue:') .. 'claims:' .. string.sub(value, 1, 13), lock)
  end
end

-- Calls the first ticket; if it is for a share, with those for shares that follow it.
local function call_first(lock, queue, tickets)
  local ticket = first_ticket(queue, tickets)
  if ticket then
    call_ticket(lock, queue, ticket)
  end
  if not ticket or not is_for_share(ticket) then
    return
  end
  for _, other in ipairs(redis.call('ZRANGE', queue, 1, TOGETHER - 1)) do
    if not is_for_share(other) then
      return
    end
    call_ticket(lock, queue, other)
  end
end

-- Tells those who watch without a place of a release.
local function call_watchers(tickets, prefix)
  if worth_of(tickets, WATCHED) > now then
    redis.pcall('PUBLISH', prefix .. 'wake:' .. string.sub(tickets, #prefix + #'tickets:' + 1), 'released')
  end
end

-- After a release: calls the first ticket, and those who watch without a place. Hints, which may fail: where the slot is
-- moving, the queue may be gone from this node, and the lock is free all the same.
local function call_others(lock, queue, tickets, prefix)
  pcall(call_first, lock, queue, tickets)
  call_watchers(tickets, prefix)
end
