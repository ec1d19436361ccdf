#!lua flags=no-writes
-- Purpose: read all that a user's slot holds about unread counts, at one instant; writes nothing.
-- KEYS: 1 counts (hash), 2 refs (hash), 3 rooms (hash), 4 supers (hash), 5 marks (sorted set)
-- ARGV: 1 what to answer beside supers: any of the letters c counts, r refs, o rooms
-- Reply: {'1' if the user is known or '', counts, refs, rooms, supers} each a list of field and value in turn;
--   a supers record gets |holes|mentions|unset mentions|edits appended (comma lists of positions, and of position:stamp); or the
--   error UNREADABLE
-- Lib: supers
local counts, refs, rooms, supers, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local what = ARGV[1]
local function all(letter, key)
  if string.find(what, letter, 1, true) then return redis.call('HGETALL', key) end
  return {}
end

local large, unreadable = with_positions(supers, marks)
if not large then return unreadable end
return {redis.call('HEXISTS', counts, 'known') == 1 and '1' or '', all('c', counts), all('r', refs), all('o', rooms), large}
