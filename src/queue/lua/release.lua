#!lua flags=allow-oom
-- Hand a job back that this worker will not finish: any worker may claim it at once, and
-- the delivery does not count as a crash.
--
-- KEYS  stream, P:job:<id>, P:stats
-- ARGV  group, worker, entry, fence
-- 'ok' | 'already' | 'lost': not ours any more
local stream, job, stats = unpack(KEYS)
local group, me, entry, fence = unpack(ARGV)
local state, its_fence, worker, its_stream, its_entry = unpack(
    redis.call('HMGET', job, 'state', 'fence', 'worker', 'stream', 'entry'))
local owner, times, released = holder(stream, group, entry)
if owner ~= me then return 'lost' end
if released then return 'already' end
if state and its_fence == fence then
    if worker ~= me or state ~= 'running' then return 'lost' end
    redis.call('HSET', job, 'state', 'queued')
elseif state == 'running' and its_stream == stream and its_entry == entry and
    tonumber(its_fence) > tonumber(fence) then
    return 'lost' -- not if it is the state of another entry with the same id
end
redis.call('XCLAIM', stream, group, me, 0, entry, 'IDLE', released_ms, 'RETRYCOUNT',
    math.max(0, times - 1), 'JUSTID')
redis.call('HINCRBY', stats, 'released', 1)
return 'ok'
