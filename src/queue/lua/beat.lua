#!lua flags=allow-oom
-- Say that a worker is alive and what it does. Names without a sign of life for a ttl leave
-- the list.
--
-- KEYS  P:workers, P:worker:<name>
-- ARGV  name, ttl ms, field, value, …
-- 'ok' | 'drain': somebody wants this worker to stop
local name, ttl = ARGV[1], tonumber(ARGV[2])
local now = now_ms()
redis.call('HSET', KEYS[2], 'seen_ms', now, unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[2], ttl)
redis.call('ZADD', KEYS[1], now, name)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ttl)
return redis.call('HGET', KEYS[2], 'drain') == '1' and 'drain' or 'ok'
