#!lua flags=no-writes
-- Purpose: read what one user has unread in one room. Of a supergroup the slot knows only the user's part; writes nothing.
-- KEYS: 1 counts (hash), 2 supers (hash), 3 marks (sorted set), and, if ARGV[2] is r, 4 rooms (hash: room -> record)
-- ARGV: 1 room, 2 r if the reply should have the record, too
-- Reply: {plain count}, with ARGV[2] = r {plain count, record or ''}, or for a supergroup {-1, state, epoch (in base 36), read
--   position, holes, mentions, last reset as it stands in the record or '', mentions of everybody that are none for the user,
--   edits that the slot knows} (comma lists of positions, and of position:stamp), or the error UNREADABLE
local counts, supers, marks = KEYS[1], KEYS[2], KEYS[3]
local room = ARGV[1]
local record = redis.call('HGET', supers, room)
if not record then
  local reply = {redis.call('HGET', counts, 'room:' .. room) or 0}
  if ARGV[2] == 'r' then reply[2] = redis.call('HGET', KEYS[4], room) or '' end
  return reply
end
-- Lib: supers
local state, epoch, read, nh, nm, ends = string.match(record, '^([ij])|(%w+)|%w+|(%-?%d+)|(%d+)|(%d+)(.*)$')
local lists, reset = lists_of(marks, room, nh, nm, ends)
if not lists then return reset end
return {-1, state, epoch, read, lists[1], lists[2], reset ~= '' and string.match(reset, '%w.*$') or '', lists[3], lists[4]}
