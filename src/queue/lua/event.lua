#!lua
-- Publish an event that does not end the job, and store the picture it announces. Refused
-- by Redis when its memory is full: then progress is dropped, and finish.lua stores what
-- was not stored here. An event whose seq is not above the last one was stored already.
--
-- KEYS  P:job:<id>, P:events:<id> [, P:result:<id>:<n>]
-- ARGV  worker, fence, seq, ttl s, maxlen, event text, channel of the job, channel of all,
--       channel for the raw bytes ('': none), bytes
-- 'ok' | 'cancel': published; the client wants the job no more | 'already' | 'lost' | 'gone'
-- (as in renew.lua; nothing is published)
local me, fence, seq, ttl, maxlen, text, channel, all, raw, bytes = unpack(ARGV)
local state, its_fence, worker, last, cancel = unpack(
    redis.call('HMGET', KEYS[1], 'state', 'fence', 'worker', 'seq', 'cancel'))
if not state then return 'gone' end
if its_fence ~= fence or worker ~= me or state ~= 'running' then return 'lost' end
if tonumber(seq) <= tonumber(last or 0) then return 'already' end

redis.call('HSET', KEYS[1], 'seq', seq)
if KEYS[3] then redis.call('SET', KEYS[3], bytes, 'EX', ttl) end
tell(KEYS[2], maxlen, ttl, text, channel, all)
if raw ~= '' then redis.call('PUBLISH', raw, bytes) end
return cancel == '1' and 'cancel' or 'ok'
