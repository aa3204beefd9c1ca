#!lua flags=allow-oom
-- A job failed for a reason that may pass: it goes from its worker to P:delayed, with an
-- event that says so.
--
-- KEYS  stream, P:job:<id>, P:events:<id>, P:delayed, P:stats
-- ARGV  group, worker, entry, fence, seq, delay ms, error, ttl s, maxlen, event text,
--       channel of the job, channel of all
-- 'ok' | 'already' | 'lost': not ours any more
local stream, job, events, delayed, stats = unpack(KEYS)
local group, me, entry, fence, seq, delay, message, ttl, maxlen, text, channel, all =
    unpack(ARGV)
local state, its_fence, worker, crashes = unpack(
    redis.call('HMGET', job, 'state', 'fence', 'worker', 'crashes'))
if its_fence ~= fence or worker ~= me then return 'lost' end
if state == 'delayed' then return 'already' end
if state ~= 'running' or holder(stream, group, entry) ~= me then return 'lost' end

local due = now_ms() + tonumber(delay)
redis.call('XACK', stream, group, entry)
redis.call('ZADD', delayed, due, delayed_name(stream, entry))
redis.call('HSET', job, 'state', 'delayed', 'due_ms', due, 'seq', seq, 'crash_base', crashes,
    'error', message)
redis.call('HINCRBY', job, 'failures', 1)
redis.call('HINCRBY', stats, 'retried', 1)
tell(events, maxlen, ttl, text, channel, all)
return 'ok'
