#!lua
-- Take one job: an entry whose worker stopped renewing, else the oldest new entry of the
-- first class that has one. Refused by Redis while its memory is full: no room for results.
--
-- KEYS  the streams of the classes, best first; the fence counter (last)
-- ARGV  group, worker, lease ms (0: leave other workers' entries alone)
-- {'job', class (1..), entry, fence, ms waited, crashes, {field, value, …}}
-- {'none', last id of each class}: what to wait from, without missing a job
--
-- XPENDING IDLE finds a stale entry wherever it stands; XAUTOCLAIM would look at COUNT * 10
-- entries from a cursor that somebody has to carry. The list holds running jobs only.
-- XCLAIM drops an entry that was deleted meanwhile, so the loop comes to an end.
local group, me, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local classes = #KEYS - 1

local function taken(class, entry, crashes)
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local created = tonumber(string.match(entry[1], '^%d+'))
    local fence = redis.call('INCR', KEYS[#KEYS])
    return { 'job', class, entry[1], fence, math.max(0, now - created), crashes, entry[2] }
end

if lease > 0 then
    for class = 1, classes do
        while true do
            local stale = redis.call('XPENDING', KEYS[class], group, 'IDLE', lease,
                '-', '+', 1)[1]
            if not stale then break end
            local got = redis.call('XCLAIM', KEYS[class], group, me, lease, stale[1])
            if got[1] then return taken(class, got[1], stale[4]) end
        end
    end
end

for class = 1, classes do
    local got = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', 1,
        'STREAMS', KEYS[class], '>')
    if got then return taken(class, got[1][2][1], 0) end
end

local none = { 'none' }
for class = 1, classes do
    local info = redis.call('XINFO', 'STREAM', KEYS[class])
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then none[class + 1] = info[i + 1] end
    end
end
return none
