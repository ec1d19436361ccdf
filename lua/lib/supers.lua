-- A user's record of a supergroup, and the positions of its marks.

-- The last reset as it stands at the end of a record, '' if there was none. nil: the end can't be read.
local function reset_of(ends)
  if ends == '' then return '' end
  local reset = string.match(ends, '^|?e?[123]?(|?%w*,?%d*)$')
  if reset and (reset == '' or string.match(reset, '^|%w+,?%d*$')) then return reset end
end

-- The positions of a user's marks of this letter in a room: a comma list. nil: there are not as many as there should be, if that
-- is known.
local function marked(marks, room, letter, many)
  if many == '0' then return '' end
  local positions, start = {}, room .. '|' .. letter .. '|'
  for _, found in ipairs(redis.call('ZRANGEBYLEX', marks, '[' .. start, '(' .. start .. '~')) do
    local below, digits = string.match(string.sub(found, #start + 1), '^(%-?)0*(%d+)$')
    positions[#positions + 1] = below == '' and digits or digits and string.format('%.0f', tonumber(digits) - 1000000000000000)
  end
  return (not many or #positions == tonumber(many)) and table.concat(positions, ',') or nil
end
