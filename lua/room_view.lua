#!lua flags=no-writes
-- Purpose: read what the self-check compares one user's record of a room with: the room's snapshot, that user's entry, and the
--   pending jobs; writes nothing.
-- KEYS: 1 meta (hash), 2 members (hash: user -> entry, see member_settle.lua),
--   3 recalled (sorted set of positions), 4 pending (hash: job -> record), 5 arrived (hash): lib/arrived
-- ARGV: 1 user, 2 read position: the reply has recalled positions above it (10,000 at most)
-- Reply: {now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time ('' each if there is none),
--   entry of the user or '', the peer in a direct room (the user who is in it, or was last) or '', recalled
--   positions and those that the user read on arrival (comma list), pending jobs (list)}, or the error UNREADABLE
-- Lib: arrived, entry
local meta, members, recalled, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local user, read = ARGV[1], ARGV[2]

local t = redis.call('TIME')
local m = redis.call('HMGET', meta, 'rev', 'head', 'kind', 'status', 'type', 'tags', 'born', 'mrev', 'created',
  'last_at', 'last_time', 'parted', 'late')
local reply, missing, there = {t[1] * 1000000 + t[2]}, nil, false
for i = 1, 11 do
  reply[i + 1] = m[i] or ''
  if i < 10 and not m[i] then missing = true end
  if i > 1 and m[i] then there = true end
end
-- The meta has all fields of a room, or only the revision of a deleted one.
if there and missing then return redis.error_reply('-UNREADABLE a field of the meta is missing') end
local entry = redis.call('HGET', members, user)
-- An empty entry is not the same as no entry.
if entry == '' then return redis.error_reply('-UNREADABLE an entry of a member') end
reply[13] = entry or ''
local other = ''
local born = m[3] == 'direct' and m[7] and tonumber(m[7])
if born then
  local all = redis.call('HGETALL', members)
  for i = 1, #all, 2 do
    local state, epoch = string.match(entry_of(all[i + 1]), '^([ijl])|(%w+)|%w+|?%d*|?%d*|?%d*$')
    if not state then return redis.error_reply('-UNREADABLE an entry of a member') end
    if all[i] ~= user and state ~= 'l' and tonumber(epoch, 36) >= born then other = all[i] end
  end
  for left in string.gmatch(m[12] or '', '[^,]+') do
    if other == '' and left ~= user then other = left end
  end
end
reply[14] = other
local gone = redis.call('ZRANGE', recalled, '(' .. read, '+inf', 'BYSCORE', 'LIMIT', 0, 10000)
local began = m[13] and string.match(entry_of(entry) or '', '^j|(%w+)')
for at in pairs(began and read_on_arrival(KEYS[5], user, tonumber(began, 36)) or {}) do
  if at > tonumber(read) and at > 0 then gone[#gone + 1] = string.format('%.0f', at) end
end
reply[15] = table.concat(gone, ',')
reply[16] = redis.call('HKEYS', pending)
return reply
