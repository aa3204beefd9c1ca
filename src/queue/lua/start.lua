#!lua flags=allow-oom
-- Bind a claimed entry to its job's id, which may have come out of the decoded bytes, and
-- say what is to be done with it.
--
-- KEYS  the streams of the classes; P:delayed, P:unique:<key> (the key '' is nobody's),
--       P:job:<id>
-- ARGV  group, worker, class, entry, fence, deliveries that came to nothing, id, ttl_ms,
--       delay_ms (0: none), a seed, unique key or ''
-- {word, attempt, last seq, crashes, failures that passed, seed, id that holds the
-- unique key, worker that had it before}
-- word: 'run' · 'canceled' | 'expired' | 'duplicate': ours, to be ended so · 'delayed': put
-- off, not ours any more · 'already': the id has ended, or another entry with it is there:
-- this entry is gone · 'lost': somebody else has claimed the entry, or it was handed back
local group, me, class, entry, fence, crashes, id, ttl, delay, seed, key = unpack(ARGV)
local classes = #KEYS - 3
local stream = KEYS[tonumber(class)]
local delayed, unique, job = KEYS[classes + 1], KEYS[classes + 2], KEYS[classes + 3]
local now = now_ms()
ttl, delay, crashes = tonumber(ttl), tonumber(delay), tonumber(crashes)

local owner, _, released = holder(stream, group, entry)
if owner ~= me or released then return { 'lost' } end

local old = {}
local names = { 'state', 'fence', 'stream', 'entry', 'attempt', 'seq', 'created_ms', 'due_ms',
    'started_ms', 'crash_base', 'failures', 'seed', 'cancel', 'worker', 'last_worker' }
for i, value in ipairs(redis.call('HMGET', job, unpack(names))) do old[names[i]] = value end
local attempt, seq = tonumber(old.attempt or 0), tonumber(old.seq or 0)
-- Asked again because the reply was lost.
local again = old.fence == fence and old.worker == me and old.entry == entry and
    old.state == 'running'
local started, last_worker = now, old.worker
if again then started, last_worker = tonumber(old.started_ms), old.last_worker end
local created = tonumber(old.created_ms or string.match(entry, '^%d+'))
crashes = crashes + tonumber(old.crash_base or 0)

local function answer(word)
    return { word, attempt, seq, crashes, tonumber(old.failures or 0), old.seed or seed,
        redis.call('GET', unique) or '', last_worker or '' }
end

local function verdict()
    if old.cancel == '1' then return 'canceled' end
    if key ~= '' then
        redis.call('SET', unique, id, 'NX', 'EX', job_ttl_s)
        if redis.call('GET', unique) ~= id then return 'duplicate' end
    end
    -- Counted from when it might have begun, and only until it did.
    local since = math.max(created, tonumber(old.due_ms or 0))
    if ttl > 0 and attempt == 1 and started > since + ttl then return 'expired' end
    return 'run'
end

if again then return answer(verdict()) end

local function stands_elsewhere()
    if not old.entry or (old.entry == entry and old.stream == stream) then return false end
    for i = 1, classes do
        if KEYS[i] == old.stream then
            return redis.call('XRANGE', old.stream, old.entry, old.entry)[1] ~= nil
        end
    end
    return false
end

local ended = { succeeded = true, failed = true, canceled = true, expired = true }
if ended[old.state] or stands_elsewhere() then
    drop(stream, group, entry)
    return { 'already' }
end

redis.call('HSET', job, 'stream', stream, 'entry', entry, 'created_ms', created, 'seq', seq,
    'seed', old.seed or seed)
redis.call('EXPIRE', job, job_ttl_s)

if delay > 0 and not old.due_ms and attempt == 0 and old.cancel ~= '1' and
    created + delay > now then
    redis.call('XACK', stream, group, entry)
    redis.call('ZADD', delayed, created + delay, delayed_name(stream, entry))
    redis.call('HSET', job, 'state', 'delayed', 'due_ms', created + delay, 'crash_base',
        crashes)
    return { 'delayed' }
end

attempt = attempt + 1
if key ~= '' then redis.call('HSET', job, 'unique', key) end
if last_worker then redis.call('HSET', job, 'last_worker', last_worker) end
redis.call('HSET', job, 'state', 'running', 'attempt', attempt, 'crashes', crashes, 'fence',
    fence, 'worker', me, 'started_ms', started)
return answer(verdict())
