-- Stands before every script that looks at a lock's queue (R16). Two sorted sets: which ticket was taken when (queue),
-- and which lasts until when (alive). A ticket is called `<process>:<number>`. Beside the tickets `alive` may hold the
-- name of those who watch without a place: WATCHED.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local TICKET_MS, WATCHED = 1000, '*'
local TICKET_US = TICKET_MS * 1000

local function number(text)
  return string.format('%.0f', text)
end

local function drop(queue, alive, ticket)
  redis.call('ZREM', queue, ticket)
  redis.call('ZREM', alive, ticket)
end

-- The first ticket that lasts still, and until when. Those before it belong to processes that died, or are dated
-- further ahead than a clock that nobody set could have dated them: they are dropped.
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

-- Tells a ticket's process, on its own channel, that trying again may help. A hint: whoever may not publish goes on.
-- The channel's name begins as that of the queue does.
local function call_ticket(lock, queue, ticket)
  local process, count = string.match(ticket, '^(.*):(%d+)$')
  if process then
    redis.pcall('PUBLISH', string.match(queue, '^(.-)queue:') .. 'turn:' .. process, count .. ' ' .. lock)
  end
end

local function call_first(lock, queue, alive)
  local ticket = first_ticket(queue, alive)
  if ticket then
    call_ticket(lock, queue, ticket)
  end
end

-- For scripts of many locks: one that fails does not take the others with it.
local function answer_each(locks, act)
  local answers = {}
  for i = 1, locks do
    local done, answer = pcall(act, i)
    answers[i] = (done or type(answer) == 'table') and answer or redis.error_reply(answer)
  end
  return answers
end
