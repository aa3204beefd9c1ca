#!lua flags=allow-oom
-- Cancel a job: one that waits is taken out of the queue, one that a worker has is marked, so
-- that the worker stops. The mark stays, whoever has the job next.
--
-- KEYS  stream, P:job:<id>, P:events:<id>, P:delayed, P:stats, P:checkpoint:<id>,
--       P:unique:<key> (the key '' is nobody's)
-- ARGV  group, id, entry ('': none was found), seq of its last event, ttl s, maxlen, event
--       text, channel of the job, channel of all, channel of the doorbell ('': do not ring)
-- {'canceled'} | {'asked', worker} | {'ended', state} | {'unknown'}: marked for an hour |
-- {'again'}: it is not where it was found; nothing was changed
local stream, job, events, delayed, stats, checkpoint, unique = unpack(KEYS)
local group, id, entry, seq, ttl, maxlen, text, channel, all, bell = unpack(ARGV)
local mark_s = 3600

local state, its_stream, its_entry, its_seq, worker = unpack(
    redis.call('HMGET', job, 'state', 'stream', 'entry', 'seq', 'worker'))
its_seq = tonumber(its_seq or 0)

local ended = { succeeded = true, failed = true, canceled = true, expired = true }
if ended[state] then return { 'ended', state } end

local function mark(word, who)
    redis.call('HSET', job, 'cancel', 1)
    if redis.call('TTL', job) < 0 then
        redis.call('EXPIRE', job, state and job_ttl_s or mark_s)
    end
    if bell ~= '' then redis.call('PUBLISH', bell, 'cancel ' .. id) end
    return { word, who or '' }
end

if state == 'running' then return mark('asked', worker) end
if entry == '' then return state and { 'again' } or mark('unknown') end
if its_entry and (its_entry ~= entry or its_stream ~= stream) then return { 'again' } end
if its_seq ~= tonumber(seq) then return { 'again' } end

local owner, _, released = holder(stream, group, entry)
if owner and not released then return mark('asked', owner) end
if not state and not redis.call('XRANGE', stream, entry, entry)[1] then return { 'again' } end

drop(stream, group, entry)
redis.call('ZREM', delayed, delayed_name(stream, entry))
redis.call('HSET', job, 'state', 'canceled', 'cancel', 1, 'stream', stream, 'entry', entry,
    'seq', its_seq + 1, 'ended_ms', now_ms())
redis.call('EXPIRE', job, ttl)
redis.call('DEL', checkpoint)
if redis.call('GET', unique) == id then redis.call('DEL', unique) end
redis.call('HINCRBY', stats, 'canceled', 1)
tell(events, maxlen, ttl, text, channel, all)
return { 'canceled' }
