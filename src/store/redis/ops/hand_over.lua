
-- Stands before the scripts that release (`hand_over`). An offer is what a process that waits has said beforehand, so that
-- the lock can be given to it without being asked: `<number of the offer> <fence retention ms> <highest fence seen>
-- <token>`.
-- A lock that was handed over is kept for so long; whoever needs it for longer extends it.
local HAND_OVER_MS = 1000
-- Of so many releases one leaves the lock free all the same: a client that only polls would else never find it so (H4).
local LEFT_FREE = 8

-- Whether a ticket's process listens at this server. It may listen at another node of a Cluster, or at a replica, which get
-- the message as well: so who is counted after the message was sent says nothing.
local function listens_here(queue, ticket)
  local channel = channel_of(queue, ticket)
  local listeners = channel and redis.pcall('PUBSUB', 'NUMSUB', channel)
  return (tonumber(listeners and listeners[2]) or 0) > 0
end

-- Gives a free lock to a ticket's process, and tells it so: number of the offer, fence, now us, token. Answers whether that
-- was done: else the lock is free.
local function hand_over(lock, fence_key, queue, tickets, ticket, offer)
  local count, retention_ms, seen, token = string.match(offer, '^ (%S+) (%S+) (%S+) (%S+)$')
  if not count or now % LEFT_FREE == 0 or not listens_here(queue, ticket) then
    return false
  end
  local fence = mint_fence(fence_key, tonumber(redis.call('GET', fence_key) or 0) or 0, seen, retention_ms)
  redis.call('SET', lock, token, 'PX', HAND_OVER_MS)
  local said = ':' .. count .. ':' .. number(fence) .. ':' .. number(now) .. ':' .. token
  if not tell_ticket(lock, queue, ticket, said) then
    redis.call('DEL', lock)
    return false
  end
  drop(queue, tickets, ticket)
  return true
end

-- Hands a free lock over to the first ticket's process, or calls that.
local function hand_over_or_call(lock, fence_key, queue, tickets)
  local ticket, _, offer = first_ticket(queue, tickets)
  if ticket and not hand_over(lock, fence_key, queue, tickets, ticket, offer) then
    call_first(lock, queue, tickets)
  end
end

-- As call_others, but the first ticket may get the lock.
local function tell_others(lock, fence_key, queue, tickets, prefix)
  pcall(hand_over_or_call, lock, fence_key, queue, tickets)
  call_watchers(tickets, prefix)
end
