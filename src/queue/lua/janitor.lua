#!lua flags=allow-oom
-- Tidy the group: consumers that are not alive and hold nothing leave it (one that holds
-- something must stay: with it its entries would be lost), and entries that the group has
-- read but that nobody holds are put into P:delayed, due at once. Such entries come from
-- XGROUP DELCONSUMER, XACK or DEL by hand; without this they would wait for ever.
--
-- KEYS  the streams of the classes, P:workers, P:delayed
-- ARGV  group, ms without a sign of life that make a consumer dead, entries to look at in
--       each stream, then where to begin in each stream ('-': at its first)
-- {consumers removed, entries put back, where to go on in each stream …}
local group, dead_ms, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local classes = #KEYS - 2
local workers, delayed = KEYS[classes + 1], KEYS[classes + 2]
local removed, found = 0, 0

local function fields_of(info)
    local at = {}
    for i = 1, #info, 2 do at[info[i]] = info[i + 1] end
    return at
end

local function remove_dead(stream)
    for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
        local one = fields_of(info)
        if one.pending == 0 and one.idle > dead_ms and
            not redis.call('ZSCORE', workers, one.name) then
            redis.call('XGROUP', 'DELCONSUMER', stream, group, one.name)
            removed = removed + 1
        end
    end
end

local function put_back(stream, from)
    local last = last_read(stream, group)
    local rows = redis.call('XRANGE', stream, from, last, 'COUNT', count)
    for _, row in ipairs(rows) do
        local name = delayed_name(stream, row[1])
        if not holder(stream, group, row[1]) and not redis.call('ZSCORE', delayed, name) then
            redis.call('ZADD', delayed, now_ms(), name)
            found = found + 1
        end
    end
    return #rows == count and '(' .. rows[count][1] or '-'
end

local answer = {}
for class = 1, classes do
    remove_dead(KEYS[class])
    answer[class] = put_back(KEYS[class], ARGV[3 + class])
end
return { removed, found, unpack(answer) }
