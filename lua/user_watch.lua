#!lua flags=allow-oom
-- Purpose: set the mark by which a change of a user's counts is told to the pods that watch the user, and read what they show, at
--   one instant. Setting it again changes nothing.
-- KEYS: 1 counts (hash), 2 rooms (hash), 3 supers (hash), 4 marks (sorted set)
-- ARGV: 1 '1': with the rooms; then the fields of counts to read
-- Reply: as that of user_overview.lua, with these fields of counts that are there, and without refs; or the error UNREADABLE
-- Lib: supers
local counts, rooms, supers, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local large, unreadable = with_positions(supers, marks)
if not large then return unreadable end
local values, found = redis.call('HMGET', counts, 'known', unpack(ARGV, 2)), {}
for i = 2, #ARGV do
  if values[i] then
    found[#found + 1] = ARGV[i]
    found[#found + 1] = values[i]
  end
end
local all = ARGV[1] == '1' and redis.call('HGETALL', rooms) or {}
redis.call('HSETNX', counts, 'live', '1')
return {values[1] and '1' or '', found, {}, all, large}
