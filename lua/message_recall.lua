#!lua
-- Purpose: take a message back: it stops counting for everybody who had not read it.
-- KEYS: 1 meta (hash), 2 ids (hash: id -> rev|position|time|recall|number), 3 recalled (sorted set of positions),
--   4 allmentions (sorted set of positions), 5 pending (hash: job -> record)
-- ARGV: 1 trust (microseconds until which the announcement in the index holds), 2 lease (microseconds),
--   3 history in messages, 4 history in microseconds, 5 id
-- Reply: {'OK', job or '', record or '', now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time}
--   or {'DUP', the same} or {'STALE'} or {'ROOM'} no such room, {'MESSAGE'} no such message, or older than the history
local meta, ids, recalled, allmentions, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local trust, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local max_messages, max_age, id = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if now > trust then return {'STALE'} end
local m = redis.call('HMGET', meta, 'rev', 'born', 'head', 'kind', 'status', 'type', 'tags', 'mrev', 'last_id', 'accepted',
  'created', 'last_at', 'last_time')
if not m[2] then return {'ROOM'} end
local entry = redis.call('HGET', ids, id)
if not entry then return {'MESSAGE'} end
local first, position, time, recall, number, silent = string.match(entry, '^(%d+)|(%d+)|(%-?%d+)|(%d+)|(%d+)(.*)$')
-- Ids are kept a little longer, so that a request sent again is known; the history ends where it ends.
if tonumber(first) < now - max_age or tonumber(m[10]) - tonumber(number) >= max_messages then return {'MESSAGE'} end
if recall ~= '0' then
  local record = redis.call('HGET', pending, recall) or ''
  return {'DUP', recall, record, now, m[1], m[3], m[4], m[5], m[6], m[7], m[2], m[8], m[11], m[12], m[13]}
end

local revs = string.format('%.0f', math.max(tonumber(m[1]) + 1, now))
local job, record = '', ''
redis.call('HSET', ids, id, first .. '|' .. position .. '|' .. time .. '|' .. revs .. '|' .. number .. silent)
if silent == '' then
  -- Only a supergroup's members subtract at reading, and only a group can become one.
  if m[4] ~= 'direct' then redis.call('ZADD', recalled, position, position) end
  redis.call('ZREM', allmentions, position)
  if m[4] ~= 'supergroup' then
    job = revs
    record = string.format('%.0f', now + lease) .. '\nall\n\nc|' .. position
    redis.call('HSET', pending, job, record)
  end
end
redis.call('HSET', meta, 'rev', revs)
if m[9] == id then
  redis.call('HSET', meta, 'last_type', 'recall', 'last_text', '', 'last_updated', revs)
end
return {'OK', job, record, now, revs, m[3], m[4], m[5], m[6], m[7], m[2], m[8], m[11], m[12], m[13]}
