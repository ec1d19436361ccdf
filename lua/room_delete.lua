#!lua flags=allow-oom
-- Purpose: delete a room. Its revision is kept for a while, so that a new room by that name gets a later one. The job that
--   takes the room out of the slots of its members is kept until everybody has it.
-- KEYS: 1 meta (hash), 2 members (hash), 3 ids (hash), 4 log (list), 5 recalled (sorted set), 6 allmentions (sorted set),
--   7 pending (hash: job -> record; earlier jobs stay, but from now on they only make senders known),
--   8 and 9 keys that were taken (hashes; they outlive the room),
--   10 timed (hash), 11 bounds (sorted set), 12 arrived (hash)
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), 3 the event's key (lib/keys) or '',
--   4 milliseconds to keep the revision
-- Reply: {'OK', job or '', record or '', now} or {'DUP', the same} or {'ROOM', the same} no such room (any more)
--   or {'STALE', token above which to announce again}, {'KEY'} the key was another event's, or the error UNREADABLE
-- Lib: fanout, keys
local meta, members, ids, log, recalled, allmentions, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local token, lease, keep = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4]

local now = clock()
local m = redis.call('HMGET', meta, 'rev', 'born', 'sealed')
numbers(m, 1, 2, 3)
if m[3] and tonumber(m[3]) >= token then return {'STALE', m[3]} end
local known, take = keyed(KEYS[8], KEYS[9], ARGV[3], now)
if known then
  if not known.same then return {'KEY'} end
  return {'DUP', known.job, redis.call('HGET', pending, known.job) or '', now}
end
if not m[2] then
  local record = m[1] and redis.call('HGET', pending, m[1]) or ''
  return {'ROOM', record and record ~= '' and m[1] or '', record or '', now}
end
local rev = int(math.max(tonumber(m[1]) + 1, now))
local any = redis.call('EXISTS', members) == 1
redis.call('HLEN', pending)

redis.call('DEL', meta, ids, log, recalled, allmentions, KEYS[10], KEYS[11], KEYS[12])
redis.call('HSET', meta, 'rev', rev)
if m[3] then redis.call('HSET', meta, 'sealed', m[3]) end
redis.call('PEXPIRE', meta, keep)
if not any then
  take('')
  return {'OK', '', '', now}
end
local record = int(now + lease) .. '\ngone'
redis.call('HSET', pending, rev, record)
take(rev)
return {'OK', rev, record, now}
