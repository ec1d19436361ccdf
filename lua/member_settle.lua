#!lua
-- Purpose: decide, in the room, what becomes of memberships that users' slots refused in a delivery. A delivery only reports;
--   no clock is asked, for a room's node and a user's node may have different ones. What counts is whether the fan-out that
--   began the membership is still pending: then nobody has been told yet that it exists, and it may begin after whatever
--   the slot says. Doing it again changes nothing.
-- KEYS: 1 meta (hash), 2 members (hash: user -> state|epoch|base|vouched|since: what the slot named that this membership is
--   known to come after, or ''; and the stamp above which the room's fan-outs are the membership's, if not its epoch),
--   3 pending (hash: job -> record)
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), then six per user: user, the epoch that was
--   refused, why, what the slot named (a stamp of the slot, or of this room for A), '' or the job of a message that brings
--   the user in, '' or the position to begin with then.
--   Why: D the user was deleted, and the membership had not been told before; O it had, so that it is over; A the slot has
--   seen a later stamp of this room; N the user was deleted, and is named by the job given in place of the epoch
-- Reply: {'OK', job or '', record or '', unfinished fan-outs (lib/fanout), now, rev, head, kind, status, type, tags, born,
--   mrev, created, last_at, last_time, then for each user its entry or '', for N 1 if it is to be known and 0 if not}
--   or {'STALE', token above which to announce again}, {'ROOM', now} no such room (any more), or the error UNREADABLE
-- Lib: fanout
local meta, members, pending = KEYS[1], KEYS[2], KEYS[3]
local token, lease = tonumber(ARGV[1]), tonumber(ARGV[2])

local now = clock()
asked[13] = 'parted'
local m = opened(meta)
if m[12] and tonumber(m[12]) >= token then return {'STALE', m[12]} end
if not m[7] then
  -- Senders of a room that was deleted become known all the same.
  local reply = {'ROOM', now}
  for i = 3, #ARGV, 6 do
    local named = ARGV[i + 2] == 'N' and redis.call('HEXISTS', pending, ARGV[i + 1]) == 1
    reply[#reply + 1] = ARGV[i + 2] == 'N' and (named and 1 or 0) or ''
  end
  return reply
end
local last = tonumber(m[1])
local rev = math.max(last + 1, now)
-- Data of the room was lost if a user has seen a later stamp of it than there is: the next one is above that.
for i = 3, #ARGV, 6 do
  if ARGV[i + 2] == 'A' and tonumber(ARGV[i + 3]) > last then rev = math.max(rev, tonumber(ARGV[i + 3]) + 1) end
end
local revs, epochs = int(rev), short(rev)

local touched, entries, reply, tell, over = {}, {}, {}, {}, {}
for i = 3, #ARGV, 6 do
  local user, epoch, why, stamp, job, base = unpack(ARGV, i, i + 5)
  local place = (i + 3) / 6
  if why == 'N' then
    reply[place] = redis.call('HEXISTS', pending, epoch)
  else
    local entry = entries[user] or redis.call('HGET', members, user) or ''
    local s, began, start, vouched, since = string.match(entry, '^(%a)|(%w+)|(%w+)|?(%d*)|?(%d*)$')
    local new, told = nil, false
    -- Somebody else may have decided meanwhile; and what is only late is let be.
    if s and tonumber(began, 36) == tonumber(epoch) and vouched ~= stamp and not (why == 'A' and tonumber(stamp) <= last) then
      if s == 'l' then
        if why == 'A' then new = 'l|' .. epochs .. '|' .. start end
      elseif why ~= 'O' and redis.call('HEXISTS', pending, epoch) == 1 then
        -- The delivery that refused it is made again, and brings it.
        new, told = s .. '|' .. began .. '|' .. start .. '|' .. stamp .. '|' .. since, true
      elseif job ~= '' and redis.call('HEXISTS', pending, job) == 1 then
        new = 'j|' .. epochs .. '|' .. base .. '|' .. stamp .. '|' .. int(tonumber(job) - 1)
      else
        new = 'l|' .. epochs .. '|0'
        if tonumber(began, 36) >= tonumber(m[7]) then over[#over + 1] = user end
      end
    end
    if new then
      entries[user] = new
      touched[#touched + 1] = user
      if not told then tell[#tell + 1] = user end
      entry = new
    end
    reply[place] = entry
  end
end

local gone = m[3] == 'direct' and #over > 0 and parted(m[13], over)
local open, job, record = unfinished(pending), '', ''
if #touched > 0 then
  m[1] = revs
  local what = {}
  for i, user in ipairs(touched) do what[i] = user .. entries[user] end
  m[8] = version(rev, m[8], table.concat(what, ','))
  for _, user in ipairs(touched) do redis.call('HSET', members, user, entries[user]) end
  redis.call('HSET', meta, 'rev', revs, 'mrev', m[8])
  if gone then redis.call('HSET', meta, 'parted', gone) end
end
if #tell > 0 then
  job = revs
  if m[3] == 'direct' then
    record = int(now + lease) .. '\nall'
  else
    record = int(now + lease) .. '\nsome\n' .. table.concat(tell, ',')
  end
  redis.call('HSET', pending, job, record)
end
local head = {'OK', job, record, open, now, unpack(m, 1, 11)}
for i = 1, #reply do head[16 + i] = reply[i] end
return head
