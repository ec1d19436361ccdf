-- A user's records of supergroups, and the positions of their marks.

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

-- The edits of a room's messages that the user's slot knows, if the end of the record says that there are any: a comma list of
-- position:stamp. nil: one of them can't be read.
local function edits_of(marks, room, ends)
  if not string.find(ends, '^|?e') then return '' end
  local edits, start = {}, room .. '|e|'
  for _, found in ipairs(redis.call('ZRANGEBYLEX', marks, '[' .. start, '(' .. start .. '~')) do
    local position, stamp = string.match(string.sub(found, #start + 1), '^0*(%d+)|(%d+)|[01]$')
    if not position then return nil end
    edits[#edits + 1] = position .. ':' .. stamp
  end
  return table.concat(edits, ',')
end

-- The positions of holes, mentions and unset mentions that belong to a record of a supergroup, and the edits (comma lists of
-- positions, and of position:stamp); then the last reset as it stands in the record. Of the record: how many holes and mentions it
-- counts, and its end; nil: it can't be read. Returns nil and an error reply if something can't be read.
local function lists_of(marks, room, nh, nm, ends)
  local reset = nh and reset_of(ends)
  if not reset then return nil, redis.error_reply('-UNREADABLE a record of a supergroup') end
  local holes, mentions = marked(marks, room, 'h', nh), marked(marks, room, 'm', nm)
  if not holes or not mentions then return nil, redis.error_reply('-UNREADABLE marks that a record counts') end
  local edits = edits_of(marks, room, ends)
  if not edits then return nil, redis.error_reply('-UNREADABLE the mark of an edit') end
  return {holes, mentions, reset ~= '' and marked(marks, room, 'x') or '', edits}, reset
end

-- Arguments: the keys of supers and marks. Returns fields and values in turn, each value with |holes|mentions|unset mentions|edits
-- appended: comma lists of positions, and of position:stamp; or nil and an error reply.
local function with_positions(supers, marks)
  local large = redis.call('HGETALL', supers)
  for i = 1, #large, 2 do
    local nh, nm, ends = string.match(large[i + 1], '^%a|%w+|%w+|%-?%d+|(%d+)|(%d+)(.*)$')
    local lists, unreadable = lists_of(marks, large[i], nh, nm, ends)
    if not lists then return nil, unreadable end
    large[i + 1] = large[i + 1] .. '|' .. table.concat(lists, '|')
  end
  return large
end
