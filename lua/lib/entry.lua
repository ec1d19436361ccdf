-- The entry of a member, written out: state|epoch|base, and what member_settle.lua says may follow. Where the state is j and
-- nothing follows the base, the room may have epoch|base in its place, and where the base is 0 as well, only the epoch. Such an
-- epoch has ten digits, of which the first one is a letter, as all have from 2002 to 2085.
local function entry_of(stored)
  if not stored or string.find(stored, '^[ijl]|') then return stored end
  if string.find(stored, '^%l[%l%d][%l%d][%l%d][%l%d][%l%d][%l%d][%l%d][%l%d][%l%d]$') then return 'j|' .. stored .. '|0' end
  if #stored < 27 and string.find(stored, '^%l[%l%d][%l%d][%l%d][%l%d][%l%d][%l%d][%l%d][%l%d][%l%d]|%d+$') then return 'j|' .. stored end
  return stored
end

-- Whether there is no entry, or one of a user who was invited or has left.
local function not_joined(entry) return not entry or string.find(entry, '^[il]|') ~= nil end
