#!lua flags=allow-oom
-- A worker leaves: out of the list, and out of the groups where it holds nothing. (Deleting
-- a consumer that holds entries would lose them.)
--
-- KEYS  the streams of the classes, P:workers, P:worker:<name>
-- ARGV  group, name
local group, name = ARGV[1], ARGV[2]
for class = 1, #KEYS - 2 do
    local pending = redis.pcall('XPENDING', KEYS[class], group, '-', '+', 1, name)
    if not pending.err and not pending[1] then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[class], group, name)
    end
end
redis.call('ZREM', KEYS[#KEYS - 1], name)
redis.call('DEL', KEYS[#KEYS])
return 'ok'
