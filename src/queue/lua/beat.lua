#!lua flags=allow-oom
-- Say that a worker is alive and what it does. Names without a sign of life for a ttl leave
-- the list.
--
-- KEYS  P:workers, P:worker:<name>
-- ARGV  name, ttl ms, field, value, …
local name, ttl = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[2], 'seen_ms', now, unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[2], ttl)
redis.call('ZADD', KEYS[1], now, name)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ttl)
return 'ok'
