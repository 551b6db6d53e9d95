-- Tries to take locks on one node, all under one proposed fence (L4, L5), not after their time (R5).
-- KEYS marker; of each try lock, fence
-- ARGV proposed fence, fence retention ms, max ttl ms, turn (1 or 2); of each try token, ttl ms; last not after us
-- Answers a text, now us and a word for each try: 1 granted, 1:ttl left ms granted, 2:why:ttl left ms denied, 3 too late,
-- 4:seen the fence is too low, 5:left ms quarantined, 6:fence:ttl left ms held by the token already, 7:ms another max
-- ttl is in use, 9 failed: then the text stands in a list, with the error. why: 0 held, 1 another kind of value.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stamp = string.format('%.0f', now)
local tries = (#KEYS - 1) / 2
if now > tonumber(ARGV[#ARGV]) then
  return stamp .. string.rep(' 3', tries)
end
-- Values of another kind read as nothing here.
local values = redis.call('MGET', unpack(KEYS))
local floor, max
if values[1] then
  floor, max = string.match(values[1], '^(%d+) (%d+) ')
end
if not floor then
  -- It was flushed, or is new: what it has forgotten may be held for so long.
  floor, max = now + ARGV[3] * 1000, ARGV[3]
  redis.call('SET', KEYS[1], string.format('%.0f %s -', floor, max))
elseif max ~= ARGV[3] then
  return stamp .. string.rep(' 7:' .. max, tries)
end
-- The end of the last quarantine is the floor for all fences.
floor = tonumber(floor)
if floor > now then
  return stamp .. string.rep(string.format(' 5:%.0f', math.ceil((floor - now) / 1000)), tries)
end
local proposed, life, first, run = tonumber(ARGV[1]), ARGV[2], ARGV[4] == '1', redis.pcall
if proposed > now then
  -- It is ahead of the clock, and must outlive that.
  life = string.format('%.0f', life + math.ceil((proposed - now) / 1000))
end
local function left(lock)
  return string.format('%.0f', run('PTTL', lock))
end
local words, failed = {stamp}, nil
for i = 1, tries do
  local lock, value, fence, token = KEYS[2 * i], values[2 * i], tonumber(values[2 * i + 1] or 0) or 0, ARGV[2 * i + 3]
  local word = '1'
  if value and value ~= token then
    word = '2:0:' .. left(lock)
  elseif value and first then
    word = string.format('6:%.0f:%s', fence, left(lock))
  elseif proposed <= fence or proposed <= floor then
    word = string.format('4:%.0f', math.max(fence, floor))
  else
    local done = run('SET', KEYS[2 * i + 1], ARGV[1], 'PX', life)
    if not done.err and not value then
      -- Last, so that a try that fails half-way leaves no lock.
      done = run('SET', lock, token, 'NX', 'PX', ARGV[2 * i + 4])
    end
    if not done then
      -- Of another kind, or the try before this one was quicker.
      word = '2:' .. (run('TYPE', lock).ok == 'string' and 0 or 1) .. ':' .. left(lock)
    elseif done.err then
      word, failed = '9', done
    elseif value then
      word = '1:' .. left(lock)
    end
  end
  words[i + 1] = word
end
local text = table.concat(words, ' ')
return failed and {text, failed} or text
