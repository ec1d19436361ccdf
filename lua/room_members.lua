#!lua flags=no-writes
-- Purpose: read the members of a room, the version of that list, and who left a direct room last, at one instant. A list that
--   is too long is left out: the caller reads it by HSCAN.
-- KEYS: 1 meta (hash), 2 members (hash: user -> entry, see member_settle.lua)
-- ARGV: 1 most members to answer
-- Reply: {born or '', mrev or '', who left a direct room last (comma list of up to two users, the latest first), number of
--   members, then user and entry of each, or nothing if there are more}
local meta, members = KEYS[1], KEYS[2]
local most = tonumber(ARGV[1])
local m = redis.call('HMGET', meta, 'born', 'mrev', 'parted')
local length = redis.call('HLEN', members)
local reply = {m[1] or '', m[2] or '', m[3] or '', length}
if length <= most then
  local all = redis.call('HGETALL', members)
  for i = 1, #all do reply[i + 4] = all[i] end
end
return reply
