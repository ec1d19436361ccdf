-- The entry of a member, written out: state|epoch|base, and what member_settle.lua says may follow. Where the state is j and
-- nothing follows the base, the room may have epoch|base in its place, and where the base is 0 as well, only the epoch. Such an
-- epoch has ten digits, of which the first one is a letter, as all have from 2002 to 2085.
local function entry_of(stored)
  if not stored or string.find(stored, '^[ijl]|') then return stored end
  local epoch, base = string.match(stored, '^(%l[%l%d]*)(|?%d*)$')
  if not epoch or #epoch ~= 10 or base == '|' or #base > 16 then return stored end
  return 'j|' .. epoch .. (base ~= '' and base or '|0')
end

-- Whether there is no entry, or one of a user who was invited or has left.
local function not_joined(entry) return not entry or string.find(entry, '^[il]|') ~= nil end
