-- Reads the value that a release has left (S19): `<when us> <value>`.
-- KEYS: value. ARGV: not left longer ago than us
-- Answers {1, now us, when us, value}, or {0, now us} if there is none, or the clock has been set back since.
local left = redis.pcall('GET', KEYS[1])
local stamp = type(left) == 'string' and string.match(left, '^(%d+) ')
local age = stamp and now - tonumber(stamp)
if not age or age < 0 or age > tonumber(ARGV[1]) then
  return {0, now}
end
return {1, now, tonumber(stamp), string.sub(left, #stamp + 2)}
