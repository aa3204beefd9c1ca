#!lua flags=no-writes
-- How the queue is. Changes nothing, and looks at a bounded number of entries.
--
-- KEYS  the streams of the classes; P:delayed, P:paused, P:dead, P:workers, P:stats
-- ARGV  group, most worker names, the fields of P:stats …
-- {now ms, {{waiting, delayed, running, ms of the oldest waiting (-1: none), paused}, …},
--  dead letters, {names of workers}, {stats}}
local group, most_names = ARGV[1], tonumber(ARGV[2])
local classes = #KEYS - 5
local delayed, paused, dead, workers, stats = unpack(KEYS, classes + 1)
local most_delayed, most_released, most_looked_at = 10000, 1000, 16
local now = now_ms()

-- Of each class. Above the limit the later ones are taken to be split like the first.
local function count_delayed()
    local counts = {}
    local members = redis.call('ZRANGE', delayed, 0, most_delayed - 1)
    for _, member in ipairs(members) do
        local class = string.match(member, '^[^:]*')
        counts[class] = (counts[class] or 0) + 1
    end
    local share = redis.call('ZCARD', delayed) / math.max(1, #members)
    for class, n in pairs(counts) do counts[class] = math.floor(n * share + 0.5) end
    return counts
end

-- Where the group stands in a stream that may not have it yet.
local function group_of(stream)
    local found = redis.pcall('XINFO', 'GROUPS', stream)
    for _, info in ipairs(found.err and {} or found) do
        local at = {}
        for i = 1, #info, 2 do at[info[i]] = info[i + 1] end
        if at.name == group then return at.pending, at['last-delivered-id'] end
    end
    return 0, '0-0'
end

-- Those that were handed back: pending, but with nobody.
local function released(stream, pending)
    if pending == 0 then return {} end
    return redis.call('XPENDING', stream, group, 'IDLE', released_ms, '-', '+', most_released)
end

local function age(entry)
    return math.max(0, now - tonumber(string.match(entry, '^%d+')))
end

-- The first entry that the group has not read and that waits.
local function oldest_unread(stream, last)
    for _ = 1, most_looked_at do
        local row = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
        if not row then return -1 end
        last = row[1]
        if not holder(stream, group, last) and
            not redis.call('ZSCORE', delayed, delayed_name(stream, last)) then
            return age(last)
        end
    end
    return -1
end

local delays, rows = count_delayed(), {}
for class = 1, classes do
    local stream = KEYS[class]
    local name = class_of(stream)
    local pending, last = group_of(stream)
    local back = released(stream, pending)
    local running, put_off = pending - #back, delays[name] or 0
    local waiting = math.max(0, redis.call('XLEN', stream) - running - put_off)
    local oldest = waiting > #back and oldest_unread(stream, last) or -1
    if back[1] then oldest = math.max(oldest, age(back[1][1])) end
    rows[class] = { waiting, put_off, running, oldest,
        redis.call('SISMEMBER', paused, name) }
end
return { now, rows, redis.call('XLEN', dead),
    redis.call('ZREVRANGE', workers, 0, most_names - 1),
    redis.call('HMGET', stats, unpack(ARGV, 3)) }
