-- Who is in a room, for the scripts that change or ask it. It needs lib/fanout and lib/entry.

-- A stamp as it stands in a member's entry: in base 36. Exact below 2^53.
local function short(n)
  local text = ''
  repeat
    local digit = n % 36
    text = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', digit + 1, digit + 1) .. text
    n = (n - digit) / 36
  until n == 0
  return text
end

-- Who has left a direct room, the latest first, after the users `left` have left it; `before` is the list so far. It holds
-- two users at most: a user's peer is the first one in it who is not that user.
local function parted(before, left)
  must(not before or string.match(before, '^[%w_.@~=%%,\128-\255-]*$'), 'who was in a direct room')
  local list, seen = {}, {}
  local function take(user)
    if #list < 2 and not seen[user] then
      seen[user] = true
      list[#list + 1] = user
    end
  end
  for i = #left, 1, -1 do take(left[i]) end
  for user in string.gmatch(before or '', '[^,]+') do take(user) end
  return table.concat(list, ',')
end

-- Who of two users is in a direct room made at `born`: user -> state. nil: the room is not theirs, since others are in it or were
-- in it last.
local function pair_in(members, born, meta, one, two)
  local here = {}
  local all = redis.call('HGETALL', members)
  for i = 1, #all, 2 do
    local s, epoch = string.match(entry_of(all[i + 1]), '^(%a)|(%w+)')
    if s and s ~= 'l' and tonumber(epoch, 36) >= born then
      if all[i] ~= one and all[i] ~= two then return nil end
      here[all[i]] = s
    end
  end
  if one == two or not (here[one] and here[two]) then
    -- The room is the pair's only if nobody else was in it last. Where one of the two is still in it, the last user beside that
    -- one counts; where neither is, the last two users count.
    local stays = here[one] and one or here[two] and two
    for user in string.gmatch(parted(redis.call('HGET', meta, 'parted'), {}), '[^,]+') do
      if user ~= one and user ~= two then return nil end
      if stays and user ~= stays then break end
    end
  end
  return here
end

-- The users of a comma list who have joined a room made at `born`, without those of the set `but`. `sign`, if given, stands before
-- those of them who have had a reset.
local function joined_of(members, born, list, but, sign)
  local found, part = {}, {}
  local function look()
    if #part == 0 then return end
    local entries = redis.call('HMGET', members, unpack(part))
    for i = 1, #part do
      local s, epoch, more = string.match(entry_of(entries[i]) or '', '^(%a)|(%w+)(.*)$')
      if s == 'j' and tonumber(epoch, 36) >= tonumber(born) then
        found[#found + 1] = (sign and string.find(more, '^|[^|]*|[^|]*|[^|]*|%d') and sign or '') .. part[i]
      end
    end
    part = {}
  end
  for user in string.gmatch(list, '[^,]+') do
    if not but[user] then part[#part + 1] = user end
    if #part == 1000 then look() end
  end
  look()
  return found
end
