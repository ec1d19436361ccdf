#!lua flags=no-writes
-- Purpose: read all that a user's slot holds about unread counts, at one instant; writes nothing.
-- KEYS: 1 counts (hash), 2 refs (hash), 3 rooms (hash), 4 supers (hash), 5 marks (sorted set)
-- ARGV: 1 what to answer beside supers: any of the letters c counts, r refs, o rooms
-- Reply: {'1' if the user is known or '', counts, refs, rooms, supers} each a list of field and value in turn;
--   a supers record gets |holes|mentions|unset mentions (comma lists of positions) appended; or the error UNREADABLE
local counts, refs, rooms, supers, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local what = ARGV[1]
local function all(letter, key)
  if string.find(what, letter, 1, true) then return redis.call('HGETALL', key) end
  return {}
end

-- The positions of a user's marks of this letter in a room: a comma list. nil: there are not as many as there should be, if that
-- is known.
local function marked(room, letter, many)
  if many == '0' then return '' end
  local positions, start = {}, room .. '|' .. letter .. '|'
  for _, found in ipairs(redis.call('ZRANGEBYLEX', marks, '[' .. start, '(' .. start .. '~')) do
    local below, digits = string.match(string.sub(found, #start + 1), '^(%-?)0*(%d+)$')
    positions[#positions + 1] = below == '' and digits or digits and string.format('%.0f', tonumber(digits) - 1000000000000000)
  end
  return (not many or #positions == tonumber(many)) and table.concat(positions, ',') or nil
end

local large = redis.call('HGETALL', supers)
for i = 1, #large, 2 do
  local room, nh, nm, ends = large[i], string.match(large[i + 1], '^%a|%w+|%w+|%-?%d+|(%d+)|(%d+)(.*)$')
  local reset = ''
  if nh and ends ~= '' then reset = string.match(ends, '^|?e?[123]?(|?%w*,?%d*)$') end
  if not nh or not reset or (reset ~= '' and not string.match(reset, '^|%w+,?%d*$')) then
    return redis.error_reply('-UNREADABLE a record of a supergroup')
  end
  local holes, mentions = marked(room, 'h', nh), marked(room, 'm', nm)
  if not holes or not mentions then return redis.error_reply('-UNREADABLE marks that a record counts') end
  large[i + 1] = large[i + 1] .. '|' .. holes .. '|' .. mentions .. '|' .. (reset ~= '' and marked(room, 'x') or '')
end
return {redis.call('HEXISTS', counts, 'known') == 1 and '1' or '', all('c', counts), all('r', refs), all('o', rooms), large}
