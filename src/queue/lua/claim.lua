#!lua
-- Take one job: an entry whose worker stopped renewing, else one whose delay is over, else
-- the oldest new entry of the class whose turn it is. Refused by Redis while its memory is
-- full: no room for results.
--
-- KEYS  the streams of the classes, best first; P:fence, P:delayed, P:paused, P:stats
-- ARGV  group, worker, lease ms (0: of other workers' entries only those that were handed
--       back), own, a weight for each class, then class:entry of what to leave alone …
--       own: what entries are that the group has for this worker and that it does not know:
--       'none', 'unheard' (a reply was lost: take them) or 'left' (an earlier process of the
--       same name died with them: take them, a crash)
-- {'job', class (1..), entry, fence, ms waited, crashes, {field, value, …}}
-- {'none', last id of each class, ms until the next delay is over (-1: none)}: what to wait
-- for without missing a job
--
-- XPENDING IDLE finds a stale entry wherever it stands; XAUTOCLAIM would look at COUNT * 10
-- entries from a cursor that somebody has to carry. The list holds running jobs only.
-- XCLAIM drops an entry that was deleted meanwhile, so the loops come to an end.
local group, me, lease, own = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local classes = #KEYS - 4
local fence_key, delayed, paused, stats =
    KEYS[classes + 1], KEYS[classes + 2], KEYS[classes + 3], KEYS[classes + 4]
local page = 32
local now = now_ms()

local leave, closed, read_up_to = {}, {}, {}
for i = 5 + classes, #ARGV do leave[ARGV[i]] = true end
for _, class in ipairs(redis.call('SMEMBERS', paused)) do closed[class] = true end

local function is_open(stream) return not closed[class_of(stream)] end

local function taken(class, entry, since, crashes)
    local fence = redis.call('INCR', fence_key)
    return { 'job', class, entry[1], fence, math.max(0, now - since), crashes, entry[2] }
end

local function created(id) return tonumber(string.match(id, '^%d+')) end

-- Among the pending entries that XPENDING with these arguments shows, the first that may be
-- taken. keep: its delivery is not another one. most_idle: what was handed back has more.
local function reclaim(class, min_idle, most_idle, keep, ...)
    local stream, from = KEYS[class], '-'
    while true do
        local found = redis.call('XPENDING', stream, group, 'IDLE', min_idle, from, '+',
            page, ...)
        for _, pending in ipairs(found) do
            local id, _, idle, times = unpack(pending)
            if idle < most_idle and not leave[delayed_name(stream, id)] then
                local got = redis.call('XCLAIM', stream, group, me, min_idle, id,
                    'RETRYCOUNT', keep and times or times + 1)
                if got[1] then
                    local crashes = keep and times - 1 or times
                    if crashes > 0 then redis.call('HINCRBY', stats, 'recovered', 1) end
                    return taken(class, got[1], created(id), crashes)
                end
            end
        end
        if #found < page then return nil end
        from = '(' .. found[page][1]
    end
end

-- What was claimed before its class was paused goes on; what has to be started again waits.
local function take_own()
    local unheard = own == 'unheard'
    for class = 1, classes do
        local got = (unheard or own == 'left' and is_open(KEYS[class])) and
            reclaim(class, 0, released_ms, unheard, me)
        if got then return got end
    end
end

local function take_stale()
    local idle = lease > 0 and lease or released_ms
    for class = 1, classes do
        local got = is_open(KEYS[class]) and reclaim(class, idle, math.huge, false)
        if got then return got end
    end
end

-- Take the best class's oldest of a page of what is due; nothing in it may be for us, or of
-- a paused class.
local function take_of(names)
    for class = 1, classes do
        local prefix = class_of(KEYS[class]) .. ':'
        for i = 1, #names, 2 do
            local name = names[i]
            if is_open(KEYS[class]) and not leave[name] and
                string.sub(name, 1, #prefix) == prefix then
                local id = string.sub(name, #prefix + 1)
                redis.call('ZREM', delayed, name)
                local got = redis.call('XCLAIM', KEYS[class], group, me, 0, id, 'FORCE',
                    'RETRYCOUNT', 1)
                if got[1] then return taken(class, got[1], tonumber(names[i + 1]), 0) end
            end
        end
    end
end

local function take_due()
    local first, due_page = 0, 256
    while true do
        local names = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'WITHSCORES',
            'LIMIT', first, due_page)
        local got = take_of(names)
        if got or #names < 2 * due_page then return got end
        first = first + due_page
    end
end

-- The next entry that the group has not read. Entries that were taken ahead of their turn
-- (take.lua) stand in its way: reading them would take them from their worker.
local function take_new(class)
    local stream, last = KEYS[class], read_up_to[class]
    while true do
        local next = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
        if not next then return nil end
        if holder(stream, group, next[1]) or
            redis.call('ZSCORE', delayed, delayed_name(stream, next[1])) then
            redis.call('XGROUP', 'SETID', stream, group, next[1])
            last = next[1]
        else
            redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', 1, 'STREAMS', stream, '>')
            return taken(class, next, created(next[1]), 0)
        end
    end
end

-- Whose turn it is: of as many turns as the weights add up to, each class begins its share.
-- The others follow in their order.
local function order()
    local total, first = 0, 1
    for class = 1, classes do total = total + tonumber(ARGV[4 + class]) end
    local turn = tonumber(redis.call('GET', fence_key) or 0) % math.max(1, total)
    for class = 1, classes do
        turn = turn - tonumber(ARGV[4 + class])
        if turn < 0 then
            first = class
            break
        end
    end
    local row = { first }
    for class = 1, classes do if class ~= first then row[#row + 1] = class end end
    return row
end

local function take_any_new()
    for _, class in ipairs(order()) do
        local got = is_open(KEYS[class]) and take_new(class)
        if got then return got end
    end
end

-- A stream without its group makes the worker create it.
for class = 1, classes do
    local last = last_read(KEYS[class], group)
    if last.err then return last end
    read_up_to[class] = last
end

local got = take_own() or take_stale() or take_due() or take_any_new()
if got then return got end

local none = { 'none' }
for class = 1, classes do
    local info = redis.call('XINFO', 'STREAM', KEYS[class])
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then none[class + 1] = info[i + 1] end
    end
end
-- What is due now is not for us, or of a paused class: waiting for it would be no wait.
local due = redis.call('ZRANGEBYSCORE', delayed, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT',
    0, 1)[2]
none[classes + 2] = due and tonumber(due) - now or -1
return none
