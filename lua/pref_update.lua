#!lua
-- Purpose: accept a change of a member's own settings of a room; the user's slot takes them by the order of acceptance.
-- KEYS: 1 meta (hash), 2 members (hash: user -> state|epoch in base 36|base), 3 pending (hash: job -> record)
-- ARGV: 1 trust (microseconds until which the announcement in the index holds), 2 lease (microseconds), 3 user,
--   4 settings: lines of field and JSON value in turn
-- Reply: {'OK', job, record, now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time,
--   entry of the user}
--   or {'STALE'} or {'ROOM'} no such room, {'MEMBER'} the user has not joined
local meta, members, pending = KEYS[1], KEYS[2], KEYS[3]
local trust, lease, user, settings = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if now > trust then return {'STALE'} end
local m = redis.call('HMGET', meta, 'rev', 'born', 'head', 'kind', 'status', 'type', 'tags', 'mrev',
  'created', 'last_at', 'last_time')
if not m[2] then return {'ROOM'} end
local entry = redis.call('HGET', members, user)
local state, epoch = string.match(entry or '', '^(%a)|(%w+)|')
if state ~= 'j' or tonumber(epoch, 36) < tonumber(m[2]) then return {'MEMBER'} end

local revs = string.format('%.0f', math.max(tonumber(m[1]) + 1, now))
local record = string.format('%.0f', now + lease) .. '\nsome\n' .. user .. '\np|' .. settings
redis.call('HSET', meta, 'rev', revs)
redis.call('HSET', pending, revs, record)
return {'OK', revs, record, now, revs, m[3], m[4], m[5], m[6], m[7], m[2], m[8], m[9], m[10], m[11], entry}
