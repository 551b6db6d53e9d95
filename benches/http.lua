-- Acquires a key of its own, and releases it a while later: by then the acquire has been answered, whichever
-- connections the two went over. The echo is sent the same bodies.
local lag, count, thread = 128, 0, 0
local headers = { ["content-type"] = "application/json", ["authorization"] = "Bearer load-secret-0123456789" }
local echo = false

function setup(t)
    t:set("thread_id", thread)
    thread = thread + 1
end

function init(args)
    echo = args[1] == "echo"
    math.randomseed(os.time() + thread_id)
    run = string.format("%08x", math.random(0, 0x7fffffff))
end

local function body(n)
    local token = string.format("%s-0000-4000-8000-%02x%010x", run, thread_id, n)
    return string.format('{"key":"load:%s:%d:%d","token":"%s"}', run, thread_id, n, token)
end

function request()
    count = count + 1
    local path, n = "/acquire", count
    if count % 2 == 0 then
        path, n = "/release", count - 1 - lag
    end
    if n < 1 then
        path, n = "/acquire", count
    end
    return wrk.format("POST", echo and "/echo" or path, headers, body(n))
end
