-- What the scripts share; script.c puts it behind the first line of each.

local function now_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Seconds that the state of a job is kept before it ends: longer than any ttl_ms, delay_ms.
local job_ttl_s = 2678400

-- An entry that was handed back (release.lua) stays pending, but idle for so long, longer than
-- any lease: nobody has it.
local released_ms = 2592000000

-- The class of a stream, as P:paused and P:delayed name it: "normal".
local function class_of(stream)
    return string.match(stream, '[^:]+$')
end

-- The member of P:delayed that stands for an entry.
local function delayed_name(stream, entry)
    return class_of(stream) .. ':' .. entry
end

-- For whom an entry is pending, how often it was delivered, and whether it was handed back;
-- nil: for nobody.
local function holder(stream, group, entry)
    local pending = redis.pcall('XPENDING', stream, group, entry, entry, 1)
    if pending.err or not pending[1] then return nil, 0, false end
    local _, worker, idle, times = unpack(pending[1])
    return worker, times, idle >= released_ms
end

-- The entry goes for good.
local function drop(stream, group, entry)
    redis.pcall('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
end

-- The group has read a stream up to here; an error when there is no such group.
local function last_read(stream, group)
    for _, info in ipairs(redis.pcall('XINFO', 'GROUPS', stream)) do
        local at = {}
        for i = 1, #info, 2 do at[info[i]] = info[i + 1] end
        if at.name == group then return at['last-delivered-id'] end
    end
    return redis.error_reply('NOGROUP no group ' .. group)
end

-- Make an event known: to late readers, to those who listen to the job and to all jobs.
local function tell(events, maxlen, ttl_s, text, channel, all)
    redis.call('XADD', events, 'MAXLEN', '~', maxlen, '*', 'event', text)
    redis.call('EXPIRE', events, ttl_s)
    redis.call('PUBLISH', channel, text)
    redis.call('PUBLISH', all, text)
end
