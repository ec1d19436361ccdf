#!lua
-- Purpose: decide, in the room, what becomes of memberships that users' slots refused in a delivery. The delivery only reports
--   the refusal. The script compares no clocks, because the room's node and the user's node may have different ones. It asks
--   whether the job that began the membership is still pending. If it is, not every slot has had the membership yet, so the
--   membership may come after whatever the slot names. Doing it again changes nothing.
-- KEYS: 1 meta (hash), 2 members (hash: user -> state|epoch|base|vouched|since|reset, or shorter, as lib/entry says: vouched is
--   '' or what the slot named and the membership is known to come after; since is '' or, if it is not the epoch, the stamp above
--   which the room's jobs are for this membership; reset is the revision of the last reset, if there was one), 3 pending (hash:
--   job -> record)
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), then six per user: user, the epoch that was
--   refused, why, what the slot named (a stamp of the slot; for A a stamp of this room), '' or the job of a message that brings
--   the user in, '' or the base in that case.
--   Why: D the user was deleted, and the slot did not have the membership before; O it had, so the membership is over; A the
--   slot has a later stamp of this room; N the user was deleted, and the job given in place of the epoch names
--   the user as a sender
-- Reply: {'OK', job or '', record or '', pending jobs (lib/fanout), now, rev, head, kind, status, type, tags, born,
--   mrev, created, last_at, last_time, then for each user its entry or ''; for N: 1 if the user is to become known, else 0}
--   or {'STALE', token above which to announce again}, {'ROOM', now} no such room (any more), or the error UNREADABLE
-- Lib: fanout, entry, members, version
local meta, members, pending = KEYS[1], KEYS[2], KEYS[3]
local token, lease = tonumber(ARGV[1]), tonumber(ARGV[2])

local now = clock()
local m = opened(meta, 'parted')
if m[12] and tonumber(m[12]) >= token then return {'STALE', m[12]} end
if not m[7] then
  -- A sender becomes known even if the room has been deleted since.
  local reply = {'ROOM', now}
  for i = 3, #ARGV, 6 do
    local named = ARGV[i + 2] == 'N' and redis.call('HEXISTS', pending, ARGV[i + 1]) == 1
    reply[#reply + 1] = ARGV[i + 2] == 'N' and (named and 1 or 0) or ''
  end
  return reply
end
local last = tonumber(m[1])
local rev = math.max(last + 1, now)
-- A slot with a later stamp than the room's own means that the room has lost data: its next revision is above that stamp.
for i = 3, #ARGV, 6 do
  if ARGV[i + 2] == 'A' and tonumber(ARGV[i + 3]) > last then rev = math.max(rev, tonumber(ARGV[i + 3]) + 1) end
end
local rev_text, epoch_text = int(rev), short(rev)

local touched, entries, reply, tell, over = {}, {}, {}, {}, {}
for i = 3, #ARGV, 6 do
  local user, epoch, why, stamp, job, base = unpack(ARGV, i, i + 5)
  local place = (i + 3) / 6
  if why == 'N' then
    reply[place] = redis.call('HEXISTS', pending, epoch)
  else
    local entry = entries[user] or entry_of(redis.call('HGET', members, user)) or ''
    local s, began, start, vouched, since, reset = string.match(entry, '^(%a)|(%w+)|(%w+)|?(%d*)|?(%d*)|?(%d*)$')
    local new, redelivered = nil, false
    -- Nothing is decided if another pod has decided meanwhile, or if the refused delivery was only late.
    if s and tonumber(began, 36) == tonumber(epoch) and vouched ~= stamp and not (why == 'A' and tonumber(stamp) <= last) then
      if s == 'l' then
        if why == 'A' then new = 'l|' .. epoch_text .. '|' .. start end
      elseif why ~= 'O' and redis.call('HEXISTS', pending, epoch) == 1 then
        -- The caller makes the refused delivery again, and it brings the membership.
        new, redelivered = s .. '|' .. began .. '|' .. start .. '|' .. stamp .. '|' .. since .. (reset ~= '' and '|' .. reset or ''), true
      elseif job ~= '' and redis.call('HEXISTS', pending, job) == 1 then
        new = 'j|' .. epoch_text .. '|' .. base .. '|' .. stamp .. '|' .. int(tonumber(job) - 1)
      else
        new = 'l|' .. epoch_text .. '|0'
        if tonumber(began, 36) >= tonumber(m[7]) then over[#over + 1] = user end
      end
    end
    if new then
      entries[user] = new
      touched[#touched + 1] = user
      if not redelivered then tell[#tell + 1] = user end
      entry = new
    end
    reply[place] = entry
  end
end

local gone = m[3] == 'direct' and #over > 0 and parted(m[13], over)
local open, job, record = unfinished(pending), '', ''
if #touched > 0 then
  m[1] = rev_text
  local what = {}
  for i, user in ipairs(touched) do what[i] = user .. entries[user] end
  m[8] = version(rev, m[8], table.concat(what, ','))
  for _, user in ipairs(touched) do redis.call('HSET', members, user, entries[user]) end
  redis.call('HSET', meta, 'rev', rev_text, 'mrev', m[8])
  if gone then redis.call('HSET', meta, 'parted', gone) end
end
if #tell > 0 then
  job = rev_text
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
