#!lua flags=allow-oom
-- End a job: the one place where a terminal event is made, so that there is exactly one.
--
-- KEYS  stream, P:job:<id>, P:events:<id>, P:result:<id>:0 …
-- ARGV  group, worker, entry, fence, state, ms the job has been ours, ttl s, maxlen,
--       event text, channel of the job, channel of all, error message ('': none)
--       [, the bytes of each result]
-- 'ok' | 'already': ended by us before | 'stale': not ours, nothing was changed |
-- 'missing': a result is not stored (its event was dropped or Redis lost it); nothing was
-- changed, call again with the bytes
local group, me, entry, fence, state, held_ms, ttl, maxlen, text, channel, all, message =
    unpack(ARGV)
local stream, job, events, first_bytes = KEYS[1], KEYS[2], KEYS[3], 13

local its_state, its_fence, worker = unpack(
    redis.call('HMGET', job, 'state', 'fence', 'worker'))
if its_state then
    if its_fence ~= fence or worker ~= me then return 'stale' end
    if its_state ~= 'running' then return 'already' end
end

-- A claim that another worker has not bound yet shows in the pending list only.
local pending = redis.pcall('XPENDING', stream, group, entry, entry, 1)
local owner = not pending.err and pending[1] and pending[1][2]
if owner and owner ~= me then return 'stale' end

-- Neither hash nor claim. Either Redis lost its data: then the work is stored all the same.
-- Or the job was ended by somebody else, so long ago that the hash has expired: that takes
-- longer than a ttl since it was ours, and the entry is gone.
if not its_state and not owner and tonumber(held_ms) >= ttl * 1000 and
    not redis.call('XRANGE', stream, entry, entry)[1] then
    return 'stale'
end

for i = 4, #KEYS do
    local bytes = ARGV[first_bytes + i - 4]
    if bytes then
        redis.call('SET', KEYS[i], bytes, 'EX', ttl)
    elseif redis.call('EXPIRE', KEYS[i], ttl) == 0 then
        return 'missing'
    end
end

local time = redis.call('TIME')
redis.pcall('XACK', stream, group, entry)
redis.call('XDEL', stream, entry)
redis.call('HSET', job, 'state', state, 'fence', fence, 'worker', me,
    'ended_ms', time[1] * 1000 + math.floor(time[2] / 1000))
if message ~= '' then redis.call('HSET', job, 'error', message) end
redis.call('EXPIRE', job, ttl)
redis.call('XADD', events, 'MAXLEN', '~', maxlen, '*', 'event', text)
redis.call('EXPIRE', events, ttl)
redis.call('PUBLISH', channel, text)
redis.call('PUBLISH', all, text)
return 'ok'
