-- Ends any holder, raises the fence, ends the queue and publishes it to every process (R26), not after its time (R5).
-- KEYS: lock, fence, queue, tickets
-- ARGV: channel of the lock, channel of forced locks, not after us, fence retention ms, highest fence seen, fence
-- of the grant to be ended or ''
-- Answers {1, now us, fence} released, {2, now us, fence} it was free, {3, now us} too late, {2, now us} it is another's,
-- {4, now us} it is shared (`shared`), and one share is to be ended.
if now > tonumber(ARGV[3]) then
  return {3, now}
end
local lock, fence_key, queue, tickets = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local stored = tonumber(redis.call('GET', fence_key) or 0) or 0
if ARGV[6] ~= '' and is_marker(redis.pcall('GET', lock)) then
  return {4, now}
end
if ARGV[6] ~= '' and stored ~= tonumber(ARGV[6]) then
  return {2, now}
end
local fence = mint_fence(fence_key, math.max(stored, now + CLAIM_LEAD), ARGV[5], ARGV[4])
local held = redis.call('DEL', lock)
-- Every process that waits is called, in the old order, and queues anew. The first keeps its turn for one ticket's life:
-- as a ticket of its process that is not renewed. A queue of another type is a quorum's: it ends too, and its processes
-- try again by themselves.
local first, all, watched = nil, {}, nil
if redis.call('TYPE', queue).ok ~= 'hash' then
  first = first_ticket(queue, tickets)
  all = redis.call('ZRANGE', queue, 0, -1)
  watched = redis.call('HGET', tickets, WATCHED)
end
redis.call('DEL', queue, tickets)
local process = first and string.match(first, '^(.*):')
if process then
  take_ticket(queue, tickets, process .. ':0', '')
end
if watched then
  redis.call('HSET', tickets, WATCHED, watched)
  redis.call('PEXPIRE', tickets, 2 * TICKET_MS)
end
for _, ticket in ipairs(all) do
  call_ticket(lock, queue, ticket)
end
if held == 0 then
  return {2, now, fence}
end
redis.pcall('PUBLISH', ARGV[1], 'forced')
redis.pcall('PUBLISH', ARGV[2], lock)
return {1, now, fence}
