-- Stores a fence (R12), not after its time (R5).
-- KEYS: fence. ARGV: not after us, fence retention ms, highest fence seen, 1 to mint, 2 as a forced release does (0: the stored one will do)
-- Answers {1, now us, fence}, {3, now us} too late.
if now > tonumber(ARGV[1]) then
  return {3, now}
end
local stored = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
if ARGV[4] == '0' and stored > 0 then
  return {1, now, stored}
end
if ARGV[4] == '2' then
  stored = math.max(stored, now + CLAIM_LEAD)
end
return {1, now, mint_fence(KEYS[1], stored, ARGV[3], ARGV[2])}
