#!lua flags=allow-oom
-- Bind a claimed entry to its job's id, which may have come out of the decoded bytes.
--
-- KEYS  the streams of the classes; P:job:<id> (last)
-- ARGV  group, worker, class, entry, fence, crashes
-- {'run', attempt, last seq} | {'already'} the id has ended, or another entry with it is at
-- work: this entry is gone | {'lost'} somebody else has claimed the entry
local group, me, class, entry, fence, crashes = unpack(ARGV)
local stream, job = KEYS[tonumber(class)], KEYS[#KEYS]

local pending = redis.call('XPENDING', stream, group, entry, entry, 1)[1]
if not pending or pending[2] ~= me then return { 'lost' } end

local state, old_fence, old_stream, old_entry, attempt, seq = unpack(
    redis.call('HMGET', job, 'state', 'fence', 'stream', 'entry', 'attempt', 'seq'))
seq = tonumber(seq or 0)

-- Asked again because the reply was lost.
if old_fence == fence and old_entry == entry and state == 'running' then
    return { 'run', tonumber(attempt), seq }
end

local function at_work_elsewhere()
    if state ~= 'running' or (old_entry == entry and old_stream == stream) then
        return false
    end
    for i = 1, #KEYS - 1 do
        if KEYS[i] == old_stream then
            return redis.call('XRANGE', old_stream, old_entry, old_entry)[1] ~= nil
        end
    end
    return false
end

local ended = { succeeded = true, failed = true, canceled = true, expired = true }
if ended[state] or at_work_elsewhere() then
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
    return { 'already' }
end

local time = redis.call('TIME')
attempt = tonumber(attempt or 0) + 1
redis.call('HSET', job, 'state', 'running', 'attempt', attempt, 'crashes', crashes,
    'fence', fence, 'worker', me, 'stream', stream, 'entry', entry, 'seq', seq,
    'created_ms', string.match(entry, '^%d+'),
    'started_ms', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('PERSIST', job)
return { 'run', attempt, seq }
