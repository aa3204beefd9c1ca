#!lua
-- Send a job and its `queued` event. Asked again after a lost reply, it finds the state.
--
-- KEYS  stream, P:job:<id>, P:events:<id>, P:unique:<key> (the key '' is nobody's)
-- ARGV  id, unique key or '', maxlen, event text, channel of the job, channel of all, field,
--       value, …
-- {'ok', entry} | {'already'}: a job with this id is known, waiting, running or ended |
-- {'duplicate', id}: that job holds the unique key; nothing was sent
local stream, job, events, unique = unpack(KEYS)
local id, key, maxlen, text, channel, all = unpack(ARGV)
local first_field = 7

if redis.call('HEXISTS', job, 'state') == 1 or redis.call('EXISTS', events) == 1 then
    return { 'already' }
end
if key ~= '' then
    local other = redis.call('GET', unique)
    if other and other ~= id then return { 'duplicate', other } end
    redis.call('SET', unique, id, 'EX', job_ttl_s)
    redis.call('HSET', job, 'unique', key)
end
local entry = redis.call('XADD', stream, '*', unpack(ARGV, first_field))
redis.call('HSET', job, 'state', 'queued', 'stream', stream, 'entry', entry, 'seq', 0,
    'created_ms', string.match(entry, '^%d+'))
redis.call('EXPIRE', job, job_ttl_s)
tell(events, maxlen, job_ttl_s, text, channel, all)
return { 'ok', entry }
