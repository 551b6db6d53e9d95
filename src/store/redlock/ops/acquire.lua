-- Tries to take locks on one node, all under one proposed fence (L4, L5), not after their time (R5).
-- KEYS marker; of each try lock, fence; then of each try queue
-- ARGV proposed fence, fence retention ms, max ttl ms, round (1 or 2), process, ticket ms, the tokens of all tries in one
-- text; of all tries, or of each try: ttl ms, order (0: only try); last not after us
-- Answers a text, now us and a reply for each try: 1 granted, 1:ttl left ms granted, 2:why:ttl left ms:fence denied, 3 too
-- late, 4:seen the fence is too low, 5:left ms quarantined, 6:fence:ttl left ms held by the token already, 7:ms another
-- max ttl is in use, 9 failed: then the text stands in a list, with the error.
-- why: 0 held under that fence, 1 a value of another kind, 2 another process is ahead in the queue, for so long at most.
-- A queue is a hash from each waiting process to its order, the same on all nodes, and the end of its ticket in us.
local KEYS, ARGV = KEYS, ARGV
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stamp = string.format('%.0f', now)
local tries = (#KEYS - 1) / 3
if now > tonumber(ARGV[#ARGV]) then
  return stamp .. string.rep(' 3', tries)
end
-- Values of another kind read as nothing here.
local values = redis.call('MGET', unpack(KEYS, 1, 2 * tries + 1))
local floor, max
if values[1] then
  floor, max = string.match(values[1], '^(%d+) (%d+) ')
end
if not floor then
  -- The node was flushed, or is new: what it has forgotten may be held for so long.
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
local fence_text, life, is_first_round, run = ARGV[1], ARGV[2], ARGV[4] == '1', redis.pcall
local proposed = tonumber(fence_text)
if proposed > now then
  -- The fence is ahead of the clock, and must be kept until the clock has passed it.
  life = string.format('%.0f', life + math.ceil((proposed - now) / 1000))
end
local function left(lock)
  return string.format('%.0f', run('PTTL', lock))
end
local process, ticket_us = ARGV[5], ARGV[6] * 1000
-- Mostly nobody waits for any of them.
local is_queued = run('EXISTS', unpack(KEYS, 2 * tries + 2)) ~= 0

-- Takes this process's place in the queue, or keeps it.
local function wait(queue, order)
  if order ~= '0' then
    run('HSET', queue, process, order .. ' ' .. string.format('%.0f', now + ticket_us))
    run('PEXPIRE', queue, string.format('%.0f', 2 * ticket_us / 1000))
  end
end

-- When the last ticket ends of a process that has waited for longer; nil if there is none. A ticket that ends later than
-- any can was dated by a clock that has been set back since: it counts as one that has run out.
local function ahead(queue, order)
  local entries, own, ends = run('HGETALL', queue), tonumber(order), nil
  for j = 1, #entries, 2 do
    local name = entries[j]
    local its_order, until_us = string.match(entries[j + 1], '^(%d+) (%d+)$')
    its_order, until_us = tonumber(its_order), tonumber(until_us)
    if not until_us or until_us <= now or until_us > now + 2 * ticket_us then
      run('HDEL', queue, name)
    elseif name ~= process and (own == 0 or its_order < own or (its_order == own and name < process)) then
      ends = math.max(ends or 0, until_us)
    end
  end
  return ends
end

-- Decides one try; answers the reply, and the error if it has failed.
local function try(i, token, ttl, order)
  local lock, value, fence = KEYS[2 * i], values[2 * i], tonumber(values[2 * i + 1] or 0) or 0
  local queue = KEYS[2 * tries + 1 + i]
  local ahead_until = is_queued and not value and ahead(queue, order)
  if value and value ~= token then
    wait(queue, order)
    return string.format('2:0:%s:%.0f', left(lock), fence)
  elseif ahead_until then
    wait(queue, order)
    return string.format('2:2:%.0f:0', math.ceil((ahead_until - now) / 1000))
  elseif value and is_first_round then
    return string.format('6:%.0f:%s', fence, left(lock))
  elseif proposed <= fence or proposed <= floor then
    return string.format('4:%.0f', math.max(fence, floor))
  end
  local done = run('SET', KEYS[2 * i + 1], fence_text, 'PX', life)
  if not done.err and not value then
    -- Last, so that a try that fails half-way leaves no lock.
    done = run('SET', lock, token, 'NX', 'PX', ttl)
  end
  if not done then
    -- It holds a value of another kind, or an earlier try in this command took it.
    wait(queue, order)
    return string.format('2:%d:%s:0', run('TYPE', lock).ok == 'string' and 0 or 1, left(lock))
  elseif done.err then
    return '9', done
  end
  if is_queued then
    run('HDEL', queue, process)
  end
  return value and '1:' .. left(lock) or '1'
end

local tokens, ttl, order, each = ARGV[7], ARGV[8], ARGV[9], #ARGV > 10
local sub, replies, failed = string.sub, {stamp}, nil
for i = 1, tries do
  if each then
    ttl, order = ARGV[6 + 2 * i], ARGV[7 + 2 * i]
  end
  local reply, err = try(i, sub(tokens, 36 * i - 35, 36 * i), ttl, order)
  replies[i + 1], failed = reply, failed or err
end
local text = table.concat(replies, ' ')
return failed and {text, failed} or text
