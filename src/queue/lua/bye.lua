#!lua flags=allow-oom
-- A worker leaves: out of the list, and out of the groups where it holds nothing. (Deleting
-- a consumer that holds entries would lose them.) What is pending for it, though it has ended
-- all it knew of, are claims whose reply was lost: they are handed back as by release.lua.
--
-- KEYS  the streams of the classes, P:workers, P:worker:<name>
-- ARGV  group, name
local group, name = ARGV[1], ARGV[2]
local most = 64 -- more than a worker holds
for class = 1, #KEYS - 2 do
    local pending = redis.pcall('XPENDING', KEYS[class], group, '-', '+', most, name)
    if not pending.err and not pending[1] then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[class], group, name)
    end
    for _, one in ipairs(pending.err and {} or pending) do
        local id, _, idle, times = unpack(one)
        if idle < released_ms then
            redis.call('XCLAIM', KEYS[class], group, name, 0, id, 'IDLE', released_ms,
                'RETRYCOUNT', math.max(0, times - 1), 'JUSTID')
        end
    end
end
redis.call('ZREM', KEYS[#KEYS - 1], name)
redis.call('DEL', KEYS[#KEYS])
return 'ok'
