#!lua flags=allow-oom
-- End a job: the one place where a running job's terminal event is made, so that there is
-- exactly one.
--
-- KEYS  stream, P:job:<id>, P:events:<id>, P:stats, P:dead, P:checkpoint:<id>,
--       P:unique:<key> (the key '' is nobody's), P:result:<id>:0 …
-- ARGV  group, worker, entry, fence, state, ms the job has been ours, ttl s, maxlen,
--       event text, channel of the job, channel of all, seq, id, error code and message
--       ('': none), reason to put it among the dead ('': none), maxlen of those
--       [, the bytes of each result]
-- 'ok' | 'already': ended by us before | 'stale': not ours, nothing was changed |
-- 'missing': a result is not stored (its event was dropped or Redis lost it); nothing was
-- changed, call again with the bytes
local stream, job, events, stats, dead, checkpoint, unique = unpack(KEYS)
local group, me, entry, fence, state, held_ms, ttl, maxlen, text, channel, all, seq, id, code,
    message, reason, dead_maxlen = unpack(ARGV)
local first_key, first_bytes = 8, 18
local most_strings = 4000 -- Lua takes no more than 8000 arguments

local its_state, its_fence, worker, attempt, crashes, last_worker = unpack(redis.call('HMGET',
    job, 'state', 'fence', 'worker', 'attempt', 'crashes', 'last_worker'))

-- Not ours any more, and the one who has it may be at work on it.
local function stale()
    redis.call('HINCRBY', stats, 'lost', 1)
    return 'stale'
end

if its_state then
    if its_fence ~= fence or worker ~= me then return stale() end
    if its_state ~= 'running' then return 'already' end
end

-- A claim that another worker has not bound yet shows in the pending list only.
local owner = holder(stream, group, entry)
if owner and owner ~= me then return stale() end

local row = redis.call('XRANGE', stream, entry, entry)[1]

-- Neither hash nor claim. Either Redis lost its data: then the work is stored all the same.
-- Or the job was ended by somebody else, so long ago that the hash has expired: that takes
-- longer than a ttl since it was ours, and the entry is gone.
if not its_state and not owner and tonumber(held_ms) >= ttl * 1000 and not row then
    return stale()
end

for i = first_key, #KEYS do
    local bytes = ARGV[first_bytes + i - first_key]
    if bytes then
        redis.call('SET', KEYS[i], bytes, 'EX', ttl)
    elseif redis.call('EXPIRE', KEYS[i], ttl) == 0 then
        return 'missing'
    end
end

local now = now_ms()
if reason ~= '' then
    local put = { 'id', id, 'class', class_of(stream), 'reason', reason, 'message', message,
        'attempts', attempt or 1, 'crashes', crashes or 0, 'worker',
        reason == 'poison' and last_worker or me, 'died_ms', now }
    for i, part in ipairs(row and row[2] or {}) do
        if i > most_strings then break end
        put[#put + 1] = i % 2 == 1 and 'job.' .. part or part
    end
    redis.call('XADD', dead, 'MAXLEN', '~', dead_maxlen, '*', unpack(put))
end

drop(stream, group, entry)
redis.call('HSET', job, 'state', state, 'fence', fence, 'worker', me, 'seq', seq, 'ended_ms',
    now)
if message ~= '' then redis.call('HSET', job, 'code', code, 'error', message) end
redis.call('EXPIRE', job, ttl)
redis.call('DEL', checkpoint)
if redis.call('GET', unique) == id then redis.call('DEL', unique) end
redis.call('HINCRBY', stats, state, 1)
if reason == 'poison' then redis.call('HINCRBY', stats, 'poison', 1) end
tell(events, maxlen, ttl, text, channel, all)
return 'ok'
