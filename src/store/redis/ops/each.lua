
-- For scripts that take many locks: a lock that fails does not fail the others.
local function answer_each(locks, act)
  local answers = {}
  for i = 1, locks do
    local done, answer = pcall(act, i)
    answers[i] = (done or type(answer) == 'table') and answer or redis.error_reply(answer)
  end
  return answers
end
