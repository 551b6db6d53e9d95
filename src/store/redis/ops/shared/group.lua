
-- Stands before every script about shares. A group is all who share a lock. Beside the lock stand a sorted set (`ends`: the
-- token of each share, by its end in microseconds) and a hash (`holds`: by token, how many permits and the fence; the
-- generation; how many permits are used).

-- The lock's marker goes, and with it all shares.
local function end_group(group)
  redis.call('DEL', group.lock, group.ends, group.holds)
end

-- Takes a share out. The group is to be kept after that.
local function remove_share(group, token)
  local permits = string.match(redis.call('HGET', group.holds, token) or '', '^(%d+) ')
  redis.call('ZREM', group.ends, token)
  redis.call('HDEL', group.holds, token)
  group.used = redis.call('HINCRBY', group.holds, 'used', -(tonumber(permits or 0)))
end

-- Dates the marker by the last share that ends, and the keys beside it a little later, so that they are not missed before.
-- Ends a group that nobody is left of. Answers whether it goes on.
local function keep_group(group)
  local last = redis.call('ZREVRANGE', group.ends, 0, 0, 'WITHSCORES')[2]
  if not last then
    end_group(group)
    return false
  end
  local end_ms = math.ceil(tonumber(last) / 1000)
  redis.call('PEXPIREAT', group.lock, number(end_ms))
  redis.call('PEXPIREAT', group.ends, number(end_ms + 1000))
  redis.call('PEXPIREAT', group.holds, number(end_ms + 1000))
  return true
end

-- Those who share a lock now: whoever's end is past has gone. If nobody does: nil, and the lock's value, false if it is
-- free. A marker whose shares were lost, by an eviction, is nobody's.
local function read_group(lock, ends, holds)
  local value = redis.pcall('GET', lock)
  if not is_marker(value) then
    return nil, value
  end
  local limit, generation = string.match(value, '^(%d+):(%d+)$', #MARK + 1)
  if not generation then
    return nil, value
  end
  local known = redis.call('HMGET', holds, 'generation', 'used')
  local group = {lock = lock, ends = ends, holds = holds, limit = tonumber(limit), used = tonumber(known[2] or 0)}
  if known[1] ~= generation then
    end_group(group)
    return nil, false
  end
  local over = redis.call('ZRANGEBYSCORE', ends, '-inf', number(now))
  for _, token in ipairs(over) do
    remove_share(group, token)
  end
  if (#over > 0 or redis.call('EXISTS', ends) == 0) and not keep_group(group) then
    return nil, false
  end
  return group
end

-- Until when a token shares the lock, its fence, and its permits; nil if it does not.
local function share_of(group, token)
  local ends_at = group and redis.call('ZSCORE', group.ends, token)
  if ends_at then
    local permits, fence = string.match(redis.call('HGET', group.holds, token) or '', '^(%d+) (%d+)$')
    return fence and tonumber(ends_at), tonumber(fence or 0), permits
  end
end

-- Whole milliseconds until then.
local function left_ms(ends_at)
  return math.floor((ends_at - now) / 1000)
end

-- The first share of a lock that nobody holds. The marker comes last, so that a script that fails half-way leaves no lock.
local function start_group(lock, ends, holds, limit, token, permits, fence, life_ms)
  local generation, ends_at = number(fence), now + life_ms * 1000
  redis.call('DEL', ends, holds)
  redis.call('ZADD', ends, number(ends_at), token)
  redis.call('HSET', holds, 'generation', generation, 'used', permits, token, permits .. ' ' .. generation)
  redis.call('PEXPIRE', ends, number(life_ms + 1000))
  redis.call('PEXPIRE', holds, number(life_ms + 1000))
  redis.call('SET', lock, MARK .. limit .. ':' .. generation, 'PX', number(life_ms + 1))
end

-- A further share of a lock.
local function join_group(group, token, permits, fence, life_ms)
  redis.call('ZADD', group.ends, number(now + life_ms * 1000), token)
  redis.call('HSET', group.holds, token, permits .. ' ' .. number(fence))
  group.used = redis.call('HINCRBY', group.holds, 'used', permits)
  keep_group(group)
end
