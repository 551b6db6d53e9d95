-- Stands before every script. `now` is the server's clock in microseconds.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- A number as text, without exponent or fraction.
local function number(value)
  return string.format('%.0f', value)
end
