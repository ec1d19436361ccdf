#!lua
-- Purpose: accept a change of a member's preferences of a room. Of each preference the user's slot keeps the value that the
--   room accepted last.
-- KEYS: 1 meta (hash), 2 members (hash: user -> entry, see member_settle.lua), 3 pending (hash: job -> record),
--   4 and 5 keys that were taken (hashes)
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), 3 the event's key (lib/keys) or '', 4 user,
--   5 preferences: lines of name and JSON value in turn
-- Reply: {'OK', job, record, pending jobs (lib/fanout), now, rev, head, kind, status, type, tags, born, mrev,
--   created, last_at, last_time} or {'DUP', the same}
--   or {'STALE', token above which to announce again}, {'KEY'} the key was another event's, {'ROOM'} no such room,
--   {'MEMBER'} the user has not joined, or the error UNREADABLE
-- Lib: fanout, entry, keys
local meta, members, pending = KEYS[1], KEYS[2], KEYS[3]
local token, lease, user, prefs = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4], ARGV[5]

local now = clock()
local m = opened(meta)
if m[12] and tonumber(m[12]) >= token then return {'STALE', m[12]} end
local known, take = keyed(KEYS[4], KEYS[5], ARGV[3], now)
if known then
  if not known.same then return {'KEY'} end
  local record = redis.call('HGET', pending, known.job) or ''
  return {'DUP', known.job, record, unfinished(pending), now, unpack(m, 1, 11)}
end
if not m[7] then return {'ROOM'} end
local entry = entry_of(redis.call('HGET', members, user))
local state, epoch = string.match(entry or '', '^([ijl])|(%w+)|')
must(state or not_joined(entry), 'an entry of a member')
if state ~= 'j' or tonumber(epoch, 36) < tonumber(m[7]) then return {'MEMBER'} end

local rev = int(math.max(tonumber(m[1]) + 1, now))
local open = unfinished(pending)
local record = int(now + lease) .. '\nsome\n' .. user .. '\np|' .. prefs
m[1] = rev
redis.call('HSET', meta, 'rev', rev)
redis.call('HSET', pending, rev, record)
take(rev)
return {'OK', rev, record, open, now, unpack(m, 1, 11)}
