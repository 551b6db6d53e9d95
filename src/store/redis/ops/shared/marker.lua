
-- Stands before every script that may find a shared lock (`shared`). What a lock is while it is shared: how many permits
-- there are (0: it is shared without a limit), and the generation of those who share it.
local MARK = 'leasehold-share:'

local function is_marker(value)
  return type(value) == 'string' and string.sub(value, 1, #MARK) == MARK
end
