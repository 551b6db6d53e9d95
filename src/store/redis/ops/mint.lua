
-- Stores a fence. One that is ahead of the clock must outlive that.
local function store_fence(key, fence, retention_ms)
  local life = retention_ms + math.max(0, math.ceil((fence - now) / 1000))
  redis.call('SET', key, number(fence), 'PX', number(life))
end

-- How far the fences that a process makes under a claim may be ahead of this clock, in microseconds: a forced release
-- stores one above.
local CLAIM_LEAD = 10000

-- Stores and answers a fence that is above the stored one and the highest that the process has seen, and not below the
-- clock (R12).
local function mint_fence(key, stored, highest, retention_ms)
  local fence = math.max(stored + 1, highest + 1, now)
  store_fence(key, fence, retention_ms)
  return fence
end
