#!lua
-- Take one waiting entry that the group has not read yet, ahead of its turn: into a batch,
-- or because its model is loaded. claim.lua steps over it when its turn comes.
--
-- KEYS  stream, P:fence, P:delayed, P:paused
-- ARGV  group, worker, class (1..), entry
-- as claim.lua's 'job', also when it is ours already, because a reply was lost | {'none'}:
-- somebody else has it, or it is gone
local stream, fence_key, delayed, paused = unpack(KEYS)
local group, me, class, entry = unpack(ARGV)

-- Ids compare by their two numbers.
local function is_after(a, b)
    local a1, a2 = string.match(a, '^(%d+)-(%d+)$')
    local b1, b2 = string.match(b, '^(%d+)-(%d+)$')
    a1, a2, b1, b2 = tonumber(a1), tonumber(a2), tonumber(b1), tonumber(b2)
    return a1 > b1 or (a1 == b1 and a2 > b2)
end

local last = last_read(stream, group)
if last.err then return last end
local owner, times, released = holder(stream, group, entry)
local unheard = owner == me and not released
if not unheard and
    (owner or redis.call('SISMEMBER', paused, class_of(stream)) == 1 or
        not is_after(entry, last) or
        redis.call('ZSCORE', delayed, delayed_name(stream, entry))) then
    return { 'none' }
end
times = unheard and times or 1
local got = redis.call('XCLAIM', stream, group, me, 0, entry, 'FORCE', 'RETRYCOUNT', times)[1]
if not got then return { 'none' } end
local fence = redis.call('INCR', fence_key)
local waited = now_ms() - tonumber(string.match(entry, '^%d+'))
return { 'job', tonumber(class), entry, fence, math.max(0, waited), times - 1, got[2] }
