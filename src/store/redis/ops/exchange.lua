-- Ends what a token holds, and tries to take the lock for another token of the same process, in turn: release.lua and
-- acquire.lua in one (R1, R4, R12, R16), not after its time (R5).
-- KEYS: lock, fence, queue, tickets
-- ARGV: token that holds, not after us, next token, ttl ms, fence retention ms, highest fence seen, process, number of the
-- next ticket, number of its offer (0: none), prefix of the keys beside locks
-- Answers as acquire.lua does where the first token held the lock: {1, now us, fence, ttl ms, 0} granted, {2, now us, 2,
-- retry ms} another process is ahead, and has it or was called. {3, now us} too late. Else the next token was not tried:
-- {4, now us} the first held nothing, {5, now us} it was released, and is free, or the queue cannot be read.
local lock, fence_key, queue, tickets = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if now > tonumber(ARGV[2]) then
  return {3, now}
end
if redis.pcall('GET', lock) ~= ARGV[1] then
  return {4, now}
end
local is_read, first, ends = pcall(first_ticket, queue, tickets)
redis.call('DEL', lock)
if not is_read then
  return {5, now}
end
call_watchers(tickets, ARGV[10])
if first and string.match(first, '^(.*):') ~= ARGV[7] then
  pcall(hand_over_or_call, lock, fence_key, queue, tickets)
  local next_offer = ARGV[9] == '0' and '' or table.concat({'', ARGV[9], ARGV[5], ARGV[6], ARGV[3]}, ' ')
  take_ticket(queue, tickets, ARGV[7] .. ':' .. ARGV[8], next_offer)
  return {2, now, 2, math.ceil((ends - now) / 1000)}
end
if now % LEFT_FREE == 0 then
  return {5, now}
end
if first then
  -- Any grant to the process uses its place up.
  drop(queue, tickets, first)
end
local fence = mint_fence(fence_key, tonumber(redis.call('GET', fence_key) or 0) or 0, ARGV[6], ARGV[5])
redis.call('SET', lock, ARGV[3], 'PX', ARGV[4])
return {1, now, fence, tonumber(ARGV[4]), 0}
