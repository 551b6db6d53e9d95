-- Stands before the scripts that call the first process in a lock's queue. The queue is a hash from each waiting process
-- to its order, the same on all nodes, and the end of its ticket in us.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- Calls the process that has waited for longest, on its own channel. A hint: an error here ends nothing.
local function call_first(lock, queue)
  -- Empty if the queue is a value of another kind.
  local entries = redis.pcall('HGETALL', queue)
  local first, first_order
  for j = 1, #entries, 2 do
    local process = entries[j]
    local order, until_us = string.match(entries[j + 1], '^(%d+) (%d+)$')
    order, until_us = tonumber(order), tonumber(until_us)
    if until_us and until_us > now
      and (not first or order < first_order or (order == first_order and process < first)) then
      first, first_order = process, order
    end
  end
  if first then
    redis.pcall('PUBLISH', string.match(queue, '^(.-)queue:') .. 'turn:' .. first, '0 ' .. lock)
  end
end
