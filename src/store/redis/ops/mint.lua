
-- Stores and answers a fence that is above the stored one and the highest that the process has seen, and not below the
-- clock (R12). A fence that is ahead of the clock must outlive that.
local function mint_fence(key, stored, highest, retention_ms)
  local fence = math.max(stored + 1, highest + 1, now)
  local life = retention_ms + math.ceil((fence - now) / 1000)
  redis.call('SET', key, number(fence), 'PX', number(life))
  return fence
end
