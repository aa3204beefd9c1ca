#!lua
-- Send a job and its `queued` event. Asked again after a lost reply, it finds the events.
--
-- KEYS  stream, P:events:<id>
-- ARGV  ttl s, maxlen, event text, channel of the job, channel of all, field, value, …
-- the entry's id | 'already': this id has events
local ttl, maxlen, text, channel, all = unpack(ARGV)
if redis.call('EXISTS', KEYS[2]) == 1 then return 'already' end
local entry = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 6))
redis.call('XADD', KEYS[2], 'MAXLEN', '~', maxlen, '*', 'event', text)
redis.call('EXPIRE', KEYS[2], ttl)
redis.call('PUBLISH', channel, text)
redis.call('PUBLISH', all, text)
return entry
