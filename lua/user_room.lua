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
local state, epoch, read, nh, nm, reset = string.match(record,
  '^([ij])|(%w+)|%w+|(%-?%d+)|(%d+)|(%d+)|?e?[123]?(|?%w*,?%d*)$')
if not state or (reset ~= '' and not string.match(reset, '^|%w+,?%d*$')) then return redis.error_reply('-UNREADABLE a record of a supergroup') end
local reply = {-1, state, epoch, read}
for _, mark in ipairs({{'h', nh}, {'m', nm}, {'x', reset == '' and '0'}}) do
  local positions = {}
  if mark[2] ~= '0' then
    local start = room .. '|' .. mark[1] .. '|'
    for _, found in ipairs(redis.call('ZRANGEBYLEX', marks, '[' .. start, '(' .. start .. '~')) do
      local below, digits = string.match(string.sub(found, #start + 1), '^(%-?)0*(%d+)$')
      positions[#positions + 1] = below == '' and digits or digits and string.format('%.0f', tonumber(digits) - 1000000000000000)
    end
  end
  if mark[2] and #positions ~= tonumber(mark[2]) then return redis.error_reply('-UNREADABLE marks that a record counts') end
  reply[#reply + 1] = table.concat(positions, ',')
end
reply[7], reply[8] = string.match(reset, '%w.*$') or '', reply[7]
return reply
