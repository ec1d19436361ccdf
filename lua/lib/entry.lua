-- The entry of a member, written out: state|epoch|base, and what member_settle.lua says may follow. Where the state is j and
-- nothing follows the base, the room may have epoch|base in its place, and where the base is 0 as well, only the epoch. Such an
-- epoch has ten digits, as all have until the year 2085.
local function entry_of(stored)
  if not stored or string.find(stored, '^[ijl]|') then return stored end
  if string.find(stored, '^%w%w%w%w%w%w%w%w%w%w$') then return 'j|' .. stored .. '|0' end
  if string.find(stored, '^%w%w%w%w%w%w%w%w%w%w|%d+$') then return 'j|' .. stored end
  return stored
end
