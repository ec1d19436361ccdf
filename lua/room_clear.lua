#!lua
-- Purpose: read a room for everybody who has joined it, up to a position. In a direct room or a group a job delivers that to each
--   member. A supergroup keeps the position in its meta, where each read of a count looks; so it is one step, whatever the size.
-- KEYS: 1 meta (hash), 2 ids (hash: id -> rev|position|time|recall|number, see message_send.lua),
--   3 log (list: rev|position|time|id),
--   4 pending (hash: job -> record), 5 and 6 keys that were taken (hashes)
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), 3 the event's key (lib/keys) or '',
--   4 history in messages, 5 history in microseconds, 6 all|id|time|position, 7 the id, the time (milliseconds) or the position
-- Reply: {'OK', job or '', record or '' (in a supergroup those of a pending conversion to one), pending jobs (lib/fanout), now,
--   rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time} or {'DUP', the same}
--   or {'STALE', token above which to announce again}, {'KEY'} the key was another event's, {'ROOM'} no such room,
--   {'MESSAGE'} no such message, or older than the history and not the room's last one, or the error UNREADABLE
-- Lib: fanout, keys, bound
local meta, ids, log, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, lease = tonumber(ARGV[1]), tonumber(ARGV[2])

local now = clock()
asked[13], asked[14], asked[15], asked[16], asked[17] = 'mintime', 'maxtime', 'accepted', 'last_id', 'last_position'
asked[18], asked[19], asked[20] = 'cleared', 'told', 'resets'
local m = opened(meta)
numbers(m, 13, 14, 15, 17)
if m[12] and tonumber(m[12]) >= token then return {'STALE', m[12]} end
local taken, take = keyed(KEYS[5], KEYS[6], ARGV[3], now)
if taken then
  if not taken.same then return {'KEY'} end
  local record = redis.call('HGET', pending, taken.job) or ''
  return {'DUP', taken.job, record, unfinished(pending), now, unpack(m, 1, 11)}
end
if not m[7] then return {'ROOM'} end
local position = bound(ARGV[6], ARGV[7], m, ids, log, now, tonumber(ARGV[4]), tonumber(ARGV[5]))
if not position then return {'MESSAGE'} end

local open, job, record = unfinished(pending), '', ''
if m[3] == 'supergroup' and m[19] then
  -- Members whose slots don't have the conversion to a supergroup yet would still count the messages: the caller waits for
  -- that job.
  record = redis.call('HGET', pending, m[19]) or ''
  if record ~= '' then job = m[19] end
end
-- After a reset a read position may be below 0.
if position > 0 or m[20] then
  m[1] = int(math.max(tonumber(m[1]) + 1, now))
  -- An earlier entry with a position that is not higher has no effect any more. The others are for members who have been reset
  -- since.
  local list = {}
  if m[3] == 'supergroup' then
    for rev, at in string.gmatch(m[18] or '', '(%d+)|(%d+)') do
      if tonumber(at) > position then list[#list + 1] = rev .. '|' .. at end
    end
    if #list > 1 and not m[20] then list = {list[1]} end
  end
  if m[3] == 'supergroup' and #list < 8 then
    list[#list + 1] = m[1] .. '|' .. int(position)
    redis.call('HSET', meta, 'rev', m[1], 'cleared', table.concat(list, ','))
  else
    job = m[1]
    record = int(now + lease) .. '\nall\n\nr|' .. int(position)
    redis.call('HSET', meta, 'rev', job)
    redis.call('HSET', pending, job, record)
  end
end
take(job)
return {'OK', job, record, open, now, unpack(m, 1, 11)}
