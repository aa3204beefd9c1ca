#!lua flags=allow-oom
-- Ask a worker to finish what it has and leave; it reads that with its next beat.
--
-- KEYS  P:worker:<name>
-- ARGV  name, channel of the doorbell
-- 'ok' | 'absent': there is no such worker
if redis.call('EXISTS', KEYS[1]) == 0 then return 'absent' end
redis.call('HSET', KEYS[1], 'drain', 1)
redis.call('PUBLISH', ARGV[2], 'drain ' .. ARGV[1])
return 'ok'
