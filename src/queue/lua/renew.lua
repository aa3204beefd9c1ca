#!lua flags=allow-oom
-- Keep a running job ours for another lease. XCLAIM alone would steal a job back from the
-- worker that took it over, so both the fence and the pending list must say it is ours.
--
-- KEYS  stream, P:job:<id>
-- ARGV  group, worker, entry, fence
-- 'ok' | 'cancel': still ours, and its client wants it no more | 'lost': another worker has
-- it, or it has ended | 'gone': the claim is not there (Redis lost its data); nobody else
-- has it, so the work goes on
local group, me, entry, fence = unpack(ARGV)
local state, its_fence, worker, cancel = unpack(
    redis.call('HMGET', KEYS[2], 'state', 'fence', 'worker', 'cancel'))
if state and (its_fence ~= fence or worker ~= me or state ~= 'running') then
    return 'lost'
end
local owner = holder(KEYS[1], group, entry)
if owner and owner ~= me then return 'lost' end
if not owner then return 'gone' end
redis.call('XCLAIM', KEYS[1], group, me, 0, entry, 'JUSTID')
redis.call('EXPIRE', KEYS[2], job_ttl_s)
return cancel == '1' and 'cancel' or 'ok'
