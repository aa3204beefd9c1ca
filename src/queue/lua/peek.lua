#!lua flags=no-writes
-- Waiting entries that may be taken, class by class in their order. Takes nothing.
--
-- KEYS  the streams of the classes, P:delayed, P:paused
-- ARGV  group, how many entries of each class to look at, bytes that one may have, ms that
--       it must have waited
-- {{class (1..), entry, {field, value, …}}, …}
local group, count, max_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local newest = now_ms() - tonumber(ARGV[4])
local classes = #KEYS - 2
local delayed, paused = KEYS[classes + 1], KEYS[classes + 2]

local function size(fields)
    local bytes = 0
    for _, text in ipairs(fields) do bytes = bytes + #text end
    return bytes
end

local found = {}
for class = 1, classes do
    local stream = KEYS[class]
    local last = last_read(stream, group)
    if last.err then return last end
    local rows = {}
    if redis.call('SISMEMBER', paused, class_of(stream)) == 0 then
        rows = redis.call('XRANGE', stream, '(' .. last, newest, 'COUNT', count)
    end
    for _, row in ipairs(rows) do
        if size(row[2]) <= max_bytes and not holder(stream, group, row[1]) and
            not redis.call('ZSCORE', delayed, delayed_name(stream, row[1])) then
            found[#found + 1] = { class, row[1], row[2] }
        end
    end
end
return found
