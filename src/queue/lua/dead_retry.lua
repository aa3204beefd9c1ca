#!lua
-- A new life for a dead job: its entry goes to the end of its class, nothing is left of the
-- old life, its dead letter included. Refused by Redis while its memory is full.
--
-- KEYS  stream, P:dead, P:job:<id>, P:events:<id>, P:checkpoint:<id>, P:unique:<key> (the
--       key '' is nobody's)
-- ARGV  entry in P:dead, id, unique key or '', '1': the fields do not say the id, add it,
--       maxlen, event text, channel of the job, channel of all
-- {'ok', entry} | {'absent'}: no such dead letter, as after a lost reply |
-- {'busy', state}: a job with this id is there | {'duplicate', id that holds the key}
local stream, dead, job, events, checkpoint, unique = unpack(KEYS)
local entry, id, key, put_id, maxlen, text, channel, all = unpack(ARGV)

local row = redis.call('XRANGE', dead, entry, entry)[1]
if not row then return { 'absent' } end

local state = redis.call('HGET', job, 'state')
local live = { queued = true, delayed = true, running = true }
if live[state] then return { 'busy', state } end

local other = key ~= '' and redis.call('GET', unique)
if other and other ~= id then return { 'duplicate', other } end

local fields = {}
for i = 1, #row[2], 2 do
    local name = string.match(row[2][i], '^job%.(.*)$')
    if name then
        fields[#fields + 1] = name
        fields[#fields + 1] = row[2][i + 1]
    end
end
if put_id == '1' then
    fields[#fields + 1] = 'id'
    fields[#fields + 1] = id
end

local new = redis.call('XADD', stream, '*', unpack(fields))
redis.call('DEL', job, events, checkpoint)
redis.call('HSET', job, 'state', 'queued', 'stream', stream, 'entry', new, 'seq', 0,
    'created_ms', string.match(new, '^%d+'))
if key ~= '' then
    redis.call('SET', unique, id, 'EX', job_ttl_s)
    redis.call('HSET', job, 'unique', key)
end
redis.call('EXPIRE', job, job_ttl_s)
redis.call('XDEL', dead, entry)
tell(events, maxlen, job_ttl_s, text, channel, all)
return { 'ok', new }
