#!lua flags=no-writes
-- Purpose: read all that a user's slot holds about unread counts, at one instant; writes nothing.
-- KEYS: 1 counts (hash), 2 refs (hash), 3 rooms (hash), 4 supers (hash), 5 marks (sorted set)
-- ARGV: 1 what to answer beside supers: any of the letters c counts, r refs, o rooms
-- Reply: {'1' if the user is known or '', counts, refs, rooms, supers} each a list of field and value in turn;
--   a supers record gets |holes|mentions|unset mentions (comma lists of positions) appended; or the error UNREADABLE
-- Lib: supers
local counts, refs, rooms, supers, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local what = ARGV[1]
local function all(letter, key)
  if string.find(what, letter, 1, true) then return redis.call('HGETALL', key) end
  return {}
end

local large = redis.call('HGETALL', supers)
for i = 1, #large, 2 do
  local room, nh, nm, ends = large[i], string.match(large[i + 1], '^%a|%w+|%w+|%-?%d+|(%d+)|(%d+)(.*)$')
  local reset = nh and reset_of(ends)
  if not reset then return redis.error_reply('-UNREADABLE a record of a supergroup') end
  local holes, mentions = marked(marks, room, 'h', nh), marked(marks, room, 'm', nm)
  if not holes or not mentions then return redis.error_reply('-UNREADABLE marks that a record counts') end
  large[i + 1] = large[i + 1] .. '|' .. holes .. '|' .. mentions .. '|' .. (reset ~= '' and marked(marks, room, 'x') or '')
end
return {redis.call('HEXISTS', counts, 'known') == 1 and '1' or '', all('c', counts), all('r', refs), all('o', rooms), large}
