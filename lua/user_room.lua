#!lua flags=no-writes
-- Purpose: read what one user has unread in one room. Of a supergroup the slot knows only the user's part; writes nothing.
-- KEYS: 1 counts (hash), 2 supers (hash), 3 marks (sorted set), and, if ARGV[2] is r, 4 rooms (hash: room -> record)
-- ARGV: 1 room, 2 r if the reply should have the record, too
-- Reply: {plain count}, with ARGV[2] = r {plain count, record or ''}, or for a supergroup {-1, state, epoch (in base 36), read
--   position, holes, mentions, last reset as it stands in the record or '', mentions of everybody that are none for the user}
--   (comma lists of positions), or the error UNREADABLE
local counts, supers, marks = KEYS[1], KEYS[2], KEYS[3]
local room = ARGV[1]
local record = redis.call('HGET', supers, room)
if not record then
  local reply = {redis.call('HGET', counts, 'room:' .. room) or 0}
  if ARGV[2] == 'r' then reply[2] = redis.call('HGET', KEYS[4], room) or '' end
  return reply
end
local state, epoch, read, nh, nm, ends = string.match(record, '^([ij])|(%w+)|%w+|(%-?%d+)|(%d+)|(%d+)(.*)$')
local reset = ''
if state and ends ~= '' then reset = string.match(ends, '^|?e?[123]?(|?%w*,?%d*)$') end
if not state or not reset or (reset ~= '' and not string.match(reset, '^|%w+,?%d*$')) then
  return redis.error_reply('-UNREADABLE a record of a supergroup')
end
-- The positions of the user's marks of this letter: a comma list. nil: there are not as many as there should be, if that is known.
local function marked(letter, many)
  if many == '0' then return '' end
  local positions, start = {}, room .. '|' .. letter .. '|'
  for _, found in ipairs(redis.call('ZRANGEBYLEX', marks, '[' .. start, '(' .. start .. '~')) do
    local below, digits = string.match(string.sub(found, #start + 1), '^(%-?)0*(%d+)$')
    positions[#positions + 1] = below == '' and digits or digits and string.format('%.0f', tonumber(digits) - 1000000000000000)
  end
  return (not many or #positions == tonumber(many)) and table.concat(positions, ',') or nil
end
local holes, mentions = marked('h', nh), marked('m', nm)
if not holes or not mentions then return redis.error_reply('-UNREADABLE marks that a record counts') end
return {-1, state, epoch, read, holes, mentions, reset ~= '' and string.match(reset, '%w.*$') or '', reset ~= '' and marked('x') or ''}
