#!lua
-- Purpose: make users join a room, invite them or take them out. The base of a new membership is the current head.
-- KEYS: 1 meta (hash), 2 members (hash: user -> state|epoch|base, the epoch in base 36, or shorter, as lib/entry says; in state l
--   the base is the epoch of the membership that ended (also in base 36) or 0 if the user was deleted; member_settle.lua says what
--   may follow), 3 pending (hash: job -> record), 4 and 5 keys that were taken (hashes),
--   6 timed (hash), 7 bounds (sorted set) and 8 arrived (hash): lib/time, 9 ids (hash), 10 log (list) and
--   11 allmentions (sorted set of positions): message_send.lua
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), 3 the event's key (lib/keys) or '',
--   4 the new state: j joined, i invited, l left, 5 '' or, if the users are deleted, the latest epoch of a
--   membership that ends, 6 '' or, if the event is placed by its time, time or import, 7 that time (milliseconds),
--   8 history in messages, 9 history in microseconds, 10 up to which moment (microseconds) a pod of an earlier version, which can't
--   read short entries (lib/entry), may run, 11.. users
-- Reply: {'OK', job or '', record or '', pending jobs (lib/fanout), now, rev, head, kind, status, type, tags, born,
--   mrev, created, last_at, last_time, entry of each user or '', or - if by time the user's state is of a later event}
--   or {'DUP', the same without entries}
--   or {'STALE', token above which to announce again}, {'KEY'} the key was another event's, {'ROOM'} no such room,
--   {'FULL'} a direct room takes two, or the error UNREADABLE
-- Lib: fanout, entry, members, version, keys
local meta, members, pending = KEYS[1], KEYS[2], KEYS[3]
local token, lease, state, up_to = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[4], tonumber(ARGV[5])

local now = clock()
local m = opened(meta, 'parted', 'timed', 'late')
if m[12] and tonumber(m[12]) >= token then return {'STALE', m[12]} end
local known, take = keyed(KEYS[4], KEYS[5], ARGV[3], now)
if known then
  if not known.same then return {'KEY'} end
  local record = redis.call('HGET', pending, known.job) or ''
  return {'DUP', known.job, record, unfinished(pending), now, unpack(m, 1, 11)}
end
if not m[7] then return {'ROOM'} end
local born, kind = tonumber(m[7]), m[3]
local rev = math.max(tonumber(m[1]) + 1, now)
local rev_text, epoch_text = int(rev), short(rev)
local is_short = now > tonumber(ARGV[10]) and #epoch_text == 10 and string.find(epoch_text, '^%l')

-- A member's state, epoch, and epoch as it stands in the entry; nil for an entry that is older than the room: a room of that
-- name was deleted and made again.
local function member(entry)
  if not entry then return nil end
  local s, began = string.match(entry_of(entry), '^([ijl])|(%w+)|%w+|?%d*|?%d*|?%d*$')
  must(s, 'an entry of a member')
  local epoch = tonumber(began, 36)
  if s == 'l' or epoch < born then return nil end
  return s, epoch, began
end

-- By time an event changes nothing where a later one has made the state. A user who is deleted leaves in any case.
local by_time, at_time = ARGV[6] ~= '', tonumber(ARGV[7])
local time
if by_time or m[14] or m[15] then
  -- Lib: time
  time = time_order(KEYS[6], KEYS[7], KEYS[8], now)
end
local overtaken, any_left = {}, false
for i = 11, #ARGV do
  overtaken[ARGV[i]] = by_time and not up_to and time.is_overtaken(ARGV[i], at_time)
  any_left = any_left or not overtaken[ARGV[i]]
end
if not any_left then
  take('')
  return {'DUP', '', '', unfinished(pending), now, unpack(m, 1, 11)}
end

if kind == 'direct' and state ~= 'l' then
  local count, present = 0, {}
  local all = redis.call('HGETALL', members)
  for i = 1, #all, 2 do
    if member(all[i + 1]) then count = count + 1; present[all[i]] = true end
  end
  for i = 11, #ARGV do
    if not (present[ARGV[i]] or overtaken[ARGV[i]]) then count = count + 1; present[ARGV[i]] = true end
  end
  if count > 2 then return {'FULL'} end
end

local base, later = m[2], {}
if by_time and state == 'j' and base ~= '0' then
  -- Lib: join
  base, later = begins(ARGV[6], at_time, tonumber(m[2]), KEYS[10], now, tonumber(ARGV[8]), tonumber(ARGV[9]))
  base = int(base)
end
local changed, entries, reply, made = {}, {}, {}, {}
for i = 11, #ARGV do
  local user = ARGV[i]
  local entry = entries[user] or redis.call('HGET', members, user)
  local s, epoch, began = member(entry)
  local new
  if overtaken[user] then
    entry = '-'
  elseif state == 'l' then
    -- The delivery also brings the epoch of the membership that ended. A member is known, so by this epoch the user's slot knows
    -- since when the user exists.
    if s and (not up_to or epoch <= up_to) then new = 'l|' .. epoch_text .. '|' .. (up_to and '0' or began) end
  elseif not s or (state == 'j' and s == 'i') then
    new = state .. '|' .. epoch_text .. '|' .. base
    if state == 'j' and is_short then new = epoch_text .. (base ~= '0' and '|' .. base or '') end
  end
  if new then
    changed[#changed + 1] = user
    entry = new
  end
  if entry ~= '-' then entries[user] = entry end
  reply[i - 10] = entry or ''
  -- By time an event that finds the state as it says confirms it.
  if time and entry ~= '-' and (new or by_time) and not (state == 'i' and s == 'j') then made[#made + 1] = {user, new} end
end

local gone = kind == 'direct' and state == 'l' and parted(m[13], changed)
local open, job, record = unfinished(pending), '', ''
if #changed > 0 then
  m[1], job = rev_text, rev_text
  m[8] = version(rev, m[8], state .. table.concat(changed, ','))
  local marks = ''
  if #later > 0 then
    -- Lib: join
    marks = marks_of_range(later, changed, KEYS[9], kind == 'supergroup' and KEYS[11])
  end
  -- Each of the two in a direct room has the other one for the peer, so the job is for both.
  if kind == 'direct' then
    record = int(now + lease) .. '\nall' .. (marks ~= '' and '\n\nj|' .. marks or '')
  else
    record = int(now + lease) .. '\nsome\n' .. table.concat(changed, ',') .. (marks ~= '' and '\nj|' .. marks or '')
  end
  for _, user in ipairs(changed) do redis.call('HSET', members, user, entries[user]) end
  redis.call('HSET', meta, 'rev', rev_text, 'mrev', m[8])
  if gone then redis.call('HSET', meta, 'parted', gone) end
  redis.call('HSET', pending, job, record)
end
for _, one in ipairs(made) do
  time.state_made(one[1], by_time and at_time)
  if one[2] and state == 'l' then time.leave(one[1]) end
  if one[2] and state == 'j' and by_time then time.has_read(one[1], epoch_text, at_time, at_time) end
end
if time then time.finish(meta) end
take(job)
local head = {'OK', job, record, open, now, unpack(m, 1, 11)}
for i = 1, #reply do head[16 + i] = reply[i] end
return head
