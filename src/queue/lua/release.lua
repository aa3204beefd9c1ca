#!lua flags=allow-oom
-- Hand a job back that this worker will not finish: any worker may claim it at once, and
-- the delivery does not count as a crash.
--
-- KEYS  stream, P:job:<id>
-- ARGV  group, worker, entry, fence
-- 'ok' | 'lost': not ours any more
local group, me, entry, fence = unpack(ARGV)
local idle_ms = 2592000000 -- longer than any lease
local state, its_fence, worker = unpack(
    redis.call('HMGET', KEYS[2], 'state', 'fence', 'worker'))
local pending = redis.call('XPENDING', KEYS[1], group, entry, entry, 1)[1]
if its_fence ~= fence or worker ~= me or state ~= 'running' or not pending or
    pending[2] ~= me then
    return 'lost'
end
redis.call('XCLAIM', KEYS[1], group, me, 0, entry, 'IDLE', idle_ms,
    'RETRYCOUNT', pending[4] - 1, 'JUSTID')
redis.call('HSET', KEYS[2], 'state', 'queued')
return 'ok'
