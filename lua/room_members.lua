#!lua flags=no-writes
-- Purpose: the members of a room, who was in it last, and the version of that list, at one instant; too long a list is left to
--   HSCAN.
-- KEYS: 1 meta (hash), 2 members (hash: user -> entry, see member_settle.lua)
-- ARGV: 1 longest list to answer
-- Reply: {born or '', mrev or '', who has left a direct room last (comma list of up to two, the latest first), length, then
--   user and entry of each, or nothing if the list is longer}
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
