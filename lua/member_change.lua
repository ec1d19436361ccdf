#!lua
-- Purpose: join, invite or take out members; joining starts to count at the head of now.
-- KEYS: 1 meta (hash), 2 members (hash: user -> state|epoch|base, the epoch in base 36; for l the
--   base is the epoch that ended, likewise), 3 pending (hash: job -> record)
-- ARGV: 1 trust (microseconds until which the announcement in the index holds), 2 lease (microseconds),
--   3 state to take: j joined, i invited, l left, 4 '' or the epoch up to which a membership may be ended,
--   5 '' or the position to begin with where that is not the head of now, 6.. users
-- Reply: {'OK', job or '', record or '', now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time,
--   entry of each user or ''}
--   or {'STALE'} or {'ROOM'} no such room, {'FULL'} a direct room takes two
local meta, members, pending = KEYS[1], KEYS[2], KEYS[3]
local trust, lease, state, up_to = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local from = tonumber(ARGV[5])

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if now > trust then return {'STALE'} end
local m = redis.call('HMGET', meta, 'rev', 'born', 'head', 'kind', 'status', 'type', 'tags', 'mrev',
  'created', 'last_at', 'last_time')
if not m[2] then return {'ROOM'} end
local born, kind = tonumber(m[2]), m[4]
local next_rev = math.max(tonumber(m[1]) + 1, now)
local revs = string.format('%.0f', next_rev)
-- A stamp as it stands in an entry: in base 36. Exact below 2^53.
local function short(n)
  local text = ''
  repeat
    local digit = n % 36
    text = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', digit + 1, digit + 1) .. text
    n = (n - digit) / 36
  until n == 0
  return text
end
local epochs = short(next_rev)

-- The state and epoch of a valid member, and that as it stands there; an entry from before the room was made again is none.
local function member(entry)
  if not entry then return nil end
  local s, began = string.match(entry, '^(%a)|(%w+)')
  local epoch = tonumber(began, 36)
  if s == 'l' or epoch < born then return nil end
  return s, epoch, began
end

if kind == 'direct' and state ~= 'l' then
  local count, present = 0, {}
  local all = redis.call('HGETALL', members)
  for i = 1, #all, 2 do
    if member(all[i + 1]) then count = count + 1; present[all[i]] = true end
  end
  for i = 6, #ARGV do
    if not present[ARGV[i]] then count = count + 1; present[ARGV[i]] = true end
  end
  if count > 2 then return {'FULL'} end
end

local base = m[3]
if from and from < tonumber(base) then base = string.format('%.0f', from) end

local changed, reply = {}, {}
local entries = {}
for i = 6, #ARGV do
  local user = ARGV[i]
  local entry = entries[user] or redis.call('HGET', members, user)
  local s, epoch, began = member(entry)
  local new
  if state == 'l' then
    -- Who leaves had been named as a member then, which is how users come to exist: the moment goes along.
    if s and (not up_to or epoch <= up_to) then new = 'l|' .. epochs .. '|' .. began end
  elseif not s or (state == 'j' and s == 'i') then
    new = state .. '|' .. epochs .. '|' .. base
  end
  if new then
    changed[#changed + 1] = user
    entry = new
  end
  entries[user] = entry
  reply[i - 5] = entry or ''
end

local job, record, rev, mrev = '', '', m[1], m[8]
if #changed > 0 then
  rev, mrev, job = revs, revs, revs
  -- The two of a direct room see each other, so both are told.
  if kind == 'direct' then
    record = string.format('%.0f', now + lease) .. '\nall'
  else
    record = string.format('%.0f', now + lease) .. '\nsome\n' .. table.concat(changed, ',')
  end
  for _, user in ipairs(changed) do redis.call('HSET', members, user, entries[user]) end
  redis.call('HSET', meta, 'rev', revs, 'mrev', revs)
  redis.call('HSET', pending, job, record)
end
return {'OK', job, record, now, rev, m[3], kind, m[5], m[6], m[7], m[2], mrev, m[9], m[10], m[11], unpack(reply)}
