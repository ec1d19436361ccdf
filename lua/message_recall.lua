#!lua
-- Purpose: recall a message. It no longer counts for members who have not read it.
-- KEYS: 1 meta (hash), 2 members (hash: user -> entry, see member_settle.lua),
--   3 ids (hash: id -> rev|position|time|recall|number, see message_send.lua),
--   4 recalled (sorted set of positions), 5 allmentions (sorted set of positions), 6 pending (hash: job -> record),
--   7 timed (hash), 8 bounds (sorted set) and 9 arrived (hash): lib/time
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), 3 history in messages,
--   4 history in microseconds, 5 id, 6 and 7 the pair whose direct room the caller means, or '' and '',
--   8 '' or, if the event is placed by its time, time or import: it waits for a message that is not known
-- Reply: {'OK', job or '', record or '', pending jobs (lib/fanout), now, rev, head, kind, status, type, tags, born,
--   mrev, created, last_at, last_time, 1 if room_trim.lua should forget recalled positions} or {'DUP', the same}
--   or {'STALE', token above which to announce again}, {'ROOM'} no such room, {'MESSAGE'} no such message, or older than the
--   history, or the pair has no such room, {'FULL'} by time: others have the pair's room, or the error UNREADABLE
-- Lib: fanout, entry, members, live
local meta, members, ids, recalled, allmentions, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local token, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local max_messages, max_age, id = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local one, two = ARGV[6], ARGV[7]

local now = clock()
local m = opened(meta, 'last_id', 'accepted', 'trim', 'told', 'last_payload', 'live')
tell_room(meta, m[18])
numbers(m, 14, 15)
if m[12] and tonumber(m[12]) >= token then return {'STALE', m[12]} end
-- By time a message that is not known may still come.
local function unknown()
  if ARGV[8] == '' then return {'MESSAGE'} end
  -- Lib: time
  local time = time_order(KEYS[7], KEYS[8], KEYS[9], now)
  time.wait(id, 'c')
  time.finish(meta, m)
  local reply = {'OK', '', '', unfinished(pending), now, unpack(m, 1, 11)}
  reply[17] = 0
  return reply
end
local is_theirs = one == '' or (m[7] and m[3] == 'direct' and pair_in(members, tonumber(m[7]), meta, one, two))
if not is_theirs and m[7] then return {ARGV[8] == '' and 'MESSAGE' or 'FULL'} end
if not is_theirs then return unknown() end
if not m[7] then return {'ROOM'} end
local entry = redis.call('HGET', ids, id)
if not entry then return unknown() end
local first, position, time, recall, number, silent = string.match(entry .. '|||',
  '^(%d+)|(%d+)|(%-?%d+)|(%d+)|(%d+)|(s?)|[^|]*|[%x.]*|*$')
must(first, 'what is known of a message')
must(m[14], 'a field of the meta is missing')
-- Ids are kept a little longer than the history, so that a repeated request is known. But a message that is older than the
-- history can't be recalled.
if tonumber(first) < now - max_age or tonumber(m[14]) - tonumber(number) >= max_messages then return unknown() end
if recall ~= '0' then
  local record = redis.call('HGET', pending, recall) or ''
  local reply = {'DUP', recall, record, unfinished(pending), now, unpack(m, 1, 11)}
  reply[17] = 0
  return reply
end

local rev = int(math.max(tonumber(m[1]) + 1, now))
local open, job, record, much = unfinished(pending), '', '', 0
local many = redis.call('ZCOUNT', recalled, '-inf', '+inf')
redis.call('ZCOUNT', allmentions, 0, 0)
redis.call('HSET', ids, id, first .. '|' .. position .. '|' .. time .. '|' .. rev .. '|' .. number
  .. string.match(entry, '^%d+|%d+|%-?%d+|%d+|%d+(.*)$'))
if silent == '' then
  -- Only a supergroup's members subtract recalled positions when they read, and only a group can become a supergroup.
  if m[3] ~= 'direct' then
    redis.call('ZADD', recalled, position, position)
    if many + 1 >= tonumber(m[15] or 1024) then much = 1 end
  end
  redis.call('ZREM', allmentions, position)
  if m[3] ~= 'supergroup' then
    job = rev
    record = int(now + lease) .. '\nall\n\nc|' .. position
    redis.call('HSET', pending, job, record)
  elseif m[16] then
    -- Members whose slots don't know yet that the room is a supergroup would still count the message. So the caller waits for the
    -- job of that conversion.
    record = redis.call('HGET', pending, m[16]) or ''
    if record ~= '' then job = m[16] end
  end
end
m[1] = rev
redis.call('HSET', meta, 'rev', rev)
if m[13] == id then
  redis.call('HSET', meta, 'last_type', 'recall', 'last_text', '', 'last_updated', rev)
  if m[17] then redis.call('HDEL', meta, 'last_payload') end
end
local reply = {'OK', job, record, open, now, unpack(m, 1, 11)}
reply[17] = much
return reply
