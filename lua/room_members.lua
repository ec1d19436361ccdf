#!lua flags=no-writes
-- Purpose: the members of a room and the revision of that list, at one instant; too long a list is left to HSCAN.
-- KEYS: 1 meta (hash), 2 members (hash: user -> entry, see member_settle.lua)
-- ARGV: 1 longest list to answer
-- Reply: {born or '', mrev or '', length, then user and entry of each, or nothing if the list is longer}
local meta, members = KEYS[1], KEYS[2]
local most = tonumber(ARGV[1])
local m = redis.call('HMGET', meta, 'born', 'mrev')
local length = redis.call('HLEN', members)
local reply = {m[1] or '', m[2] or '', length}
if length <= most then
  local all = redis.call('HGETALL', members)
  for i = 1, #all do reply[i + 3] = all[i] end
end
return reply
