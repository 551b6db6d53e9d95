
-- Stands before every script that uses a lock's queue (R16). Two sorted sets: which ticket was taken when (queue), and
-- which lasts until when (alive). A ticket is called `<process>:<number>`. Beside the tickets `alive` may hold the mark
-- that the lock is watched without a place: WATCHED.
local TICKET_MS, WATCHED = 1000, '*'
local TICKET_US = TICKET_MS * 1000
-- So many tickets for shares are called at once.
local TOGETHER = 32

-- Whether a ticket is for a share of the lock (`shared`): then its number is odd.
local function is_for_share(ticket)
  return string.match(ticket, '[13579]$') ~= nil
end

local function drop(queue, alive, ticket)
  redis.call('ZREM', queue, ticket)
  redis.call('ZREM', alive, ticket)
end

-- Takes a ticket, or keeps one that was taken.
local function take_ticket(queue, alive, ticket)
  redis.call('ZADD', queue, 'NX', number(now), ticket)
  redis.call('ZADD', alive, number(now + TICKET_US), ticket)
  redis.call('PEXPIRE', queue, 2 * TICKET_MS)
  redis.call('PEXPIRE', alive, 2 * TICKET_MS)
end

-- The first ticket that still lasts, and until when. Tickets before it belong to processes that died, or are dated further
-- ahead than a clock that was not set could have dated them: they are dropped.
local function first_ticket(queue, alive)
  while true do
    local found = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
    local ticket = found[1]
    if not ticket then
      return nil
    end
    local ends = tonumber(redis.call('ZSCORE', alive, ticket) or 0)
    if ends > now and ends <= now + 2 * TICKET_US and tonumber(found[2]) <= now + TICKET_US then
      return ticket, ends
    end
    drop(queue, alive, ticket)
  end
end

-- Publishes to a ticket's process, on its own channel, that trying again may help. A hint: a user without rights to
-- channels does without. The channel's name begins as that of the queue does.
local function call_ticket(lock, queue, ticket)
  local process, count = string.match(ticket, '^(.*):(%d+)$')
  if process then
    redis.pcall('PUBLISH', string.match(queue, '^(.-)queue:') .. 'turn:' .. process, count .. ' ' .. lock)
  end
end

-- Asks a process for a lock that it has a claim on, which may be idle: the claim's token names its channel. Such a token
-- is a UUID of version 8.
local function ask_for(lock, queue, value)
  if #value == 36 and string.byte(value, 15) == 56 then
    redis.pcall('PUBLISH', string.match(queue, '^(.-)queue:') .. 'claims:' .. string.sub(value, 1, 13), lock)
  end
end

-- Calls the first ticket; if it is for a share, with those for shares that follow it.
local function call_first(lock, queue, alive)
  local ticket = first_ticket(queue, alive)
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
local function call_watchers(alive, prefix)
  if tonumber(redis.call('ZSCORE', alive, WATCHED) or 0) > now then
    redis.pcall('PUBLISH', prefix .. 'wake:' .. string.sub(alive, #prefix + #'alive:' + 1), 'released')
  end
end

-- After a release: calls the first ticket, and those who watch without a place. Hints, which may fail: where the slot is
-- moving, the queue may be gone from this node, and the lock is free all the same.
local function call_others(lock, queue, alive, prefix)
  pcall(call_first, lock, queue, alive)
  call_watchers(alive, prefix)
end
