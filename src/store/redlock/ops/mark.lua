-- Keeps the end of a node's quarantine (L4), before which the node does not vote; run once on each connection.
-- The marker is that end in us, the max ttl in ms, and the run of the server for which this was settled.
-- KEYS: marker. ARGV: silence ms that the server's start calls for, max ttl ms, run id
-- Answers {1, now us, left ms} with the quarantine that is left, {7, now us, ms} another max ttl is in use.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ends, max, run
local marker = redis.call('GET', KEYS[1])
if marker then
  ends, max, run = string.match(marker, '^(%d+) (%d+) (%S+)$')
end
if not ends then
  -- The node was flushed, or is new.
  ends = now + ARGV[2] * 1000
elseif max ~= ARGV[2] then
  return {7, now, tonumber(max)}
else
  ends = tonumber(ends)
  if run ~= ARGV[3] and ARGV[1] ~= '0' then
    ends = math.max(ends, now + ARGV[1] * 1000)
  end
end
redis.call('SET', KEYS[1], string.format('%.0f %s %s', ends, ARGV[2], ARGV[3]))
return {1, now, math.max(0, math.ceil((ends - now) / 1000))}
