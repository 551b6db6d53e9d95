-- Ends any holder and publishes it to every process (R26), not after its time (R5). A higher fence was stored before.
-- KEYS: lock. ARGV: channel of the lock, channel of forced locks, not after us
-- Answers {1, now us} released, {2, now us} it was free, {3, now us} too late.
if now > tonumber(ARGV[3]) then
  return {3, now}
end
if redis.call('DEL', KEYS[1]) == 0 then
  return {2, now}
end
redis.pcall('PUBLISH', ARGV[1], 'forced')
redis.pcall('PUBLISH', ARGV[2], KEYS[1])
return {1, now}
