
-- Stands before every script about shares. A group is all who share a lock. Beside the lock stand a sorted set (`ends`: the
-- token of each share, by its end in microseconds) and a hash (`holds`: by token, how many permits and the fence; the
-- generation; how many permits are used; the last of the ends; until when both are kept, in milliseconds).

-- The lock's marker goes, and with it all shares.
local function end_group(group)
  redis.call('DEL', group.lock, group.ends, group.holds)
end

-- Until when the lock lasts whose last share ends then, in milliseconds.
local function end_ms(ends_at)
  return math.ceil(ends_at / 1000)
end

-- Until when to keep what stands beside a lock whose last share ends then: for twice as long, so that not every later end
-- needs it to be dated anew.
local function kept_until(ends_at)
  return end_ms(2 * ends_at - now) + 1000
end

-- Takes a share out that is not the last one.
local function remove_share(group, token)
  redis.call('ZREM', group.ends, token)
  if group.limit > 0 then
    local permits = string.match(redis.call('HGET', group.holds, token) or '', '^(%d+) ')
    group.used = group.used - tonumber(permits or 0)
    redis.call('HSET', group.holds, 'used', number(group.used))
  end
  redis.call('HDEL', group.holds, token)
end

-- Ends a share, whose end is known, and dates the marker by the last one that is left. Answers whether one is.
local function end_share(group, token, ends_at)
  local last = ends_at == group.last and redis.call('ZREVRANGE', group.ends, 0, 1, 'WITHSCORES')
  if last and #last <= 2 then
    end_group(group)
    return false
  end
  remove_share(group, token)
  if last then
    group.last = tonumber(last[1] == token and last[4] or last[2])
    redis.call('HSET', group.holds, 'last', number(group.last))
    redis.call('PEXPIREAT', group.lock, number(end_ms(group.last)))
  end
  return true
end

-- Has a share end then, which may be later than the last one did. `holds`: what else is to be written of it.
local function date_share(group, token, ends_at, ...)
  local written = {...}
  redis.call('ZADD', group.ends, number(ends_at), token)
  if ends_at > group.last then
    group.last = ends_at
    written[#written + 1] = 'last'
    written[#written + 1] = number(ends_at)
    redis.call('PEXPIREAT', group.lock, number(end_ms(ends_at)))
    if end_ms(ends_at) + 1000 > group.kept then
      local kept = number(kept_until(ends_at))
      written[#written + 1] = 'kept'
      written[#written + 1] = kept
      redis.call('PEXPIREAT', group.ends, kept)
      redis.call('PEXPIREAT', group.holds, kept)
    end
  end
  if #written > 0 then
    redis.call('HSET', group.holds, unpack(written))
  end
end

-- Those who share a lock now: whoever's end is past has gone. If nobody does: nil, and the lock's value, false if it is
-- free. A marker whose shares were lost, by an eviction, is nobody's. `token`: one that `share_of` will be asked about.
local function read_group(lock, ends, holds, token)
  local value = redis.pcall('GET', lock)
  if not is_marker(value) then
    return nil, value
  end
  local limit, generation = string.match(value, '^(%d+):(%d+)$', #MARK + 1)
  if not generation then
    return nil, value
  end
  local known = redis.call('HMGET', holds, 'generation', 'used', 'last', 'kept', token)
  local group = {
    lock = lock, ends = ends, holds = holds, limit = tonumber(limit), used = tonumber(known[2] or 0),
    last = tonumber(known[3] or 0), kept = tonumber(known[4] or 0), hold = known[5],
  }
  local first = known[1] == generation and redis.call('ZRANGE', ends, 0, 0, 'WITHSCORES') or {}
  while first[1] and tonumber(first[2]) <= now do
    remove_share(group, first[1])
    first = redis.call('ZRANGE', ends, 0, 0, 'WITHSCORES')
  end
  if not first[1] then
    end_group(group)
    return nil, false
  end
  group.first = tonumber(first[2])
  return group
end

-- What is written of a share: how many permits, and its fence.
local function read_hold(hold)
  local permits, fence = string.match(hold or '', '^(%d+) (%d+)$')
  return permits, tonumber(fence)
end

-- Until when a token shares the lock, its fence, and its permits; nil if it does not. The group was read for this token.
local function share_of(group, token)
  local ends_at = group and group.hold and redis.call('ZSCORE', group.ends, token)
  if ends_at then
    local permits, fence = read_hold(group.hold)
    return fence and tonumber(ends_at), fence, permits
  end
end

-- Whole milliseconds until then.
local function left_ms(ends_at)
  return math.floor((ends_at - now) / 1000)
end

-- The first share of a lock that nobody holds. The marker comes last, so that a script that fails half-way leaves no lock.
local function start_group(lock, ends, holds, limit, token, permits, fence, life_ms)
  local generation, ends_at = number(fence), now + life_ms * 1000
  local kept = number(kept_until(ends_at))
  redis.call('ZADD', ends, number(ends_at), token)
  redis.call('HSET', holds, 'generation', generation, 'used', permits, 'last', number(ends_at), 'kept', kept, token,
    permits .. ' ' .. generation)
  redis.call('PEXPIREAT', ends, kept)
  redis.call('PEXPIREAT', holds, kept)
  redis.call('SET', lock, MARK .. limit .. ':' .. generation, 'PX', number(life_ms + 1))
end

-- A further share of a lock.
local function join_group(group, token, permits, fence, life_ms)
  group.used = group.used + tonumber(permits)
  date_share(group, token, now + life_ms * 1000, token, permits .. ' ' .. number(fence), 'used', number(group.used))
end
