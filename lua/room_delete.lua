#!lua flags=allow-oom
-- Purpose: delete a room; what remains is its revision (so that a room made again is newer) and the fan-out that takes
--   the room out of everybody's counts.
-- KEYS: 1 meta (hash), 2 members (hash), 3 ids (hash), 4 log (list), 5 recalled (sorted set), 6 allmentions (sorted set),
--   7 pending (hash: job -> record; what was accepted before stays: it makes senders known, and no more than that)
-- ARGV: 1 trust (microseconds until which the announcement in the index holds), 2 lease (microseconds),
--   3 milliseconds to keep the revision
-- Reply: {'OK', job or '', record or '', now} or {'STALE'} or {'ROOM', the same} no such room (any more)
local meta, members, ids, log, recalled, allmentions, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local trust, lease, keep = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if now > trust then return {'STALE'} end
local m = redis.call('HMGET', meta, 'rev', 'born')
if not m[2] then
  local record = m[1] and redis.call('HGET', pending, m[1]) or ''
  return {'ROOM', record and record ~= '' and m[1] or '', record or '', now}
end
local revs = string.format('%.0f', math.max(tonumber(m[1]) + 1, now))

redis.call('DEL', meta, ids, log, recalled, allmentions)
redis.call('HSET', meta, 'rev', revs)
redis.call('PEXPIRE', meta, keep)
if redis.call('EXISTS', members) == 0 then return {'OK', '', '', now} end
local record = string.format('%.0f', now + lease) .. '\ngone'
redis.call('HSET', pending, revs, record)
return {'OK', revs, record, now}
