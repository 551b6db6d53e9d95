
-- Stands before every script about shares. A group is all who share a lock. Where that is one alone, the lock's value says
-- all (`sole`). Else beside the lock stand a sorted set (`ends`: the token of each share, by its end in microseconds) and a
-- hash (`holds`: by token, how many permits and the fence; the generation; how many permits are used; the last of the
-- ends; until when both are kept, in milliseconds).

-- The value of a lock that one share alone has. Its fence is the generation.
local function sole_value(limit, fence, permits, token)
  return MARK .. limit .. ':' .. number(fence) .. ':' .. permits .. ':' .. token
end

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
  local last = ends_at == group.last and not group.sole and redis.call('ZREVRANGE', group.ends, 0, 1, 'WITHSCORES')
  if group.sole or (last and #last <= 2) then
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

-- Has a share end then, which may be later than the last one did. Behind that: what else is to be written of it.
local function date_share(group, token, ends_at, ...)
  if group.sole then
    redis.call('PEXPIREAT', group.lock, number(end_ms(ends_at)))
    return
  end
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

-- The one that has a lock alone. One without an end is nobody's.
local function read_sole(group, permits, token)
  local left = redis.call('PTTL', group.lock)
  if left < 0 then
    end_group(group)
    return nil, false
  end
  group.sole, group.hold = token, permits .. ' ' .. group.generation
  group.last = now + left * 1000
  group.first, group.used = group.last, tonumber(permits)
  return group
end

-- Those who share a lock now: whoever's end is past has gone. If nobody does: nil, and the lock's value, false if it is
-- free. A marker whose shares were lost, by an eviction, is nobody's. `token`: one that `share_of` will be asked about.
local function read_group(lock, ends, holds, token)
  local value = redis.pcall('GET', lock)
  if not is_marker(value) then
    return nil, value
  end
  local limit, generation, sole = string.match(value, '^(%d+):(%d+):?(.*)$', #MARK + 1)
  if not generation then
    return nil, value
  end
  local group = {lock = lock, ends = ends, holds = holds, limit = tonumber(limit), generation = generation}
  local permits, only = string.match(sole, '^(%d+):(.+)$')
  if only then
    return read_sole(group, permits, only)
  end
  local known = redis.call('HMGET', holds, 'generation', 'used', 'last', 'kept', token)
  group.used, group.last, group.kept = tonumber(known[2] or 0), tonumber(known[3] or 0), tonumber(known[4] or 0)
  group.hold = known[5]
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
  if not group or not group.hold or (group.sole and group.sole ~= token) then
    return nil
  end
  local ends_at = group.sole and group.last or redis.call('ZSCORE', group.ends, token)
  if ends_at then
    local permits, fence = read_hold(group.hold)
    return fence and tonumber(ends_at), fence, permits
  end
end

-- Up to so many shares, whoever ends first: a list of token, end in microseconds, what is written of it.
local function list_shares(group, most)
  if group.sole then
    return {{group.sole, group.last, group.hold}}
  end
  local shares = {}
  local found = redis.call('ZRANGE', group.ends, 0, most - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    shares[#shares + 1] = {found[i], tonumber(found[i + 1]), redis.call('HGET', group.holds, found[i])}
  end
  return shares
end

-- Whole milliseconds until then.
local function left_ms(ends_at)
  return math.floor((ends_at - now) / 1000)
end

-- The first share of a lock that nobody holds.
local function start_group(lock, limit, token, permits, fence, life_ms)
  redis.call('SET', lock, sole_value(limit, fence, permits, token), 'PX', number(life_ms))
end

-- Writes the one that has the lock alone where others can stand beside it. What an earlier generation left goes.
local function make_room(group)
  local kept = number(kept_until(group.last))
  group.kept = tonumber(kept)
  redis.call('DEL', group.ends, group.holds)
  redis.call('ZADD', group.ends, number(group.last), group.sole)
  redis.call('HSET', group.holds, 'generation', group.generation, 'used', number(group.used), 'last', number(group.last),
    'kept', kept, group.sole, group.hold)
  redis.call('PEXPIREAT', group.ends, kept)
  redis.call('PEXPIREAT', group.holds, kept)
  redis.call('SET', group.lock, MARK .. number(group.limit) .. ':' .. group.generation, 'KEEPTTL')
  group.sole = nil
end

-- A further share of a lock.
local function join_group(group, token, permits, fence, life_ms)
  if group.sole then
    make_room(group)
  end
  group.used = group.used + tonumber(permits)
  date_share(group, token, now + life_ms * 1000, token, permits .. ' ' .. number(fence), 'used', number(group.used))
end
