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

local large = redis.call('HGETALL', supers)
for i = 1, #large, 2 do
  local nh, nm, reset = string.match(large[i + 1], '^%a|%w+|%w+|%-?%d+|(%d+)|(%d+)|?e?[123]?(|?%w*,?%d*)$')
  if not nh or (reset ~= '' and not string.match(reset, '^|%w+,?%d*$')) then return redis.error_reply('-UNREADABLE a record of a supergroup') end
  for _, mark in ipairs({{'h', nh}, {'m', nm}, {'x', reset == '' and '0'}}) do
    local positions = {}
    if mark[2] ~= '0' then
      local start = large[i] .. '|' .. mark[1] .. '|'
      for _, found in ipairs(redis.call('ZRANGEBYLEX', marks, '[' .. start, '(' .. start .. '~')) do
        local below, digits = string.match(string.sub(found, #start + 1), '^(%-?)0*(%d+)$')
        positions[#positions + 1] = below == '' and digits or digits and string.format('%.0f', tonumber(digits) - 1000000000000000)
      end
    end
    if mark[2] and #positions ~= tonumber(mark[2]) then return redis.error_reply('-UNREADABLE marks that a record counts') end
    large[i + 1] = large[i + 1] .. '|' .. table.concat(positions, ',')
  end
end
return {redis.call('HEXISTS', counts, 'known') == 1 and '1' or '', all('c', counts), all('r', refs), all('o', rooms), large}
