-- Resets of read positions, for the script that delivers them.

-- What read_reset.lua wrote after b|, in parts. '-': the slot has lost the reset, and takes it for known. The parts: u (back to
-- `to` at most) or n (to `to`, wherever that is); the new read position; the room's head then; a position up to which each counts,
-- or ''; how many of the unread messages are mentions, or ''; up to where a supergroup was cleared, or ''; then the positions that
-- the room knows: those that don't count for the user, recalled ones, those that a supergroup counts as mentions of everybody, and
-- other mentions of the user; then, where there are any: those that were read on arrival and count again, and those that are later
-- than the time of a number.
local function parse_reset(text)
  if text == '-' then return {} end
  local r = {}
  r.how, r.to, r.top, r.unknown, r.most, r.cleared, r.own, r.gone, r.to_all, r.named, r.again, r.later = string.match(text,
    '^([un])|(%-?%d+)|(%d+)|(%d*)|(%d*)|(%d*)|([%d,]*)|([%d,]*)|([%d,]*)|([%d,]*)|?([%d,]*)|?([%d,]*)$')
  if not r.how then error({err = 'UNREADABLE a reset'}) end
  return r
end

-- The positions of a list that are in (above, up_to].
local function listed(list, above, up_to)
  local found = {}
  for text in string.gmatch(list, '%d+') do
    local position = tonumber(text)
    if position > above and position <= up_to then found[#found + 1] = position end
  end
  return found
end

-- Merges a reset into the record `new` and the marks of a room. `by` has what else moves marks: pass (all is read up to there),
-- hole and mention (a mark of one position), forget (marks of a letter up to a position), mark (the text of one).
local function merge_reset(r, new, marks, room, by)
  if not r.how then return end
  local mark = by.mark
  -- The positions in (above, up_to] that have marks of this letter.
  local function marked(letter, above, up_to)
    local found, start = {}, room .. '|' .. letter .. '|'
    for _, text in ipairs(redis.call('ZRANGEBYLEX', marks, '(' .. mark(letter, above), '[' .. mark(letter, up_to))) do
      local sign, digits = string.match(string.sub(text, #start + 1), '^(%-?)(%d+)$')
      found[#found + 1] = sign == '' and tonumber(digits) or tonumber(digits) - 1000000000000000
    end
    return found
  end
  local to, top, in_room = tonumber(r.to), tonumber(r.top), new.kind == 'supergroup'
  if r.cleared ~= '' then by.pass(tonumber(r.cleared)) end
  local from = new.read
  if r.how == 'u' then to = math.min(to, from) end
  by.pass(to)
  new.read = to
  new.head = math.max(new.head, top)
  -- What opens again has the marks that the room knows.
  for _, position in ipairs(listed(r.own, to, from)) do by.hole(position) end
  if not in_room then
    for _, position in ipairs(listed(r.gone, to, from)) do by.hole(position) end
    for _, position in ipairs(listed(r.to_all, to, from)) do by.mention(position) end
  end
  for _, position in ipairs(listed(r.named, to, from)) do by.mention(position) end
  -- Messages that were read on arrival count again.
  local named = ',' .. r.named .. ',' .. (in_room and '' or r.to_all) .. ','
  for _, position in ipairs(listed(r.again, from, top)) do
    new.nh = new.nh - redis.call('ZREM', marks, mark('h', position))
    -- An edit has told the slot whether the message mentions the user, while it did not count.
    local from_edit = mark('e', position) .. '|'
    local edit = new.edits ~= '' and redis.call('ZRANGEBYLEX', marks, '[' .. from_edit, '[' .. from_edit .. '~', 'LIMIT', 0, 1)[1]
    if edit then
      if string.match(edit, '|1$') then new.nm = new.nm + redis.call('ZADD', marks, 0, mark('m', position)) end
    elseif string.find(named, ',' .. string.format('%.0f', position) .. ',', 1, true) then
      by.mention(position)
    end
  end
  if r.unknown ~= '' then
    -- Each position up to there counts as one. Mentions that were unread there are still mentions.
    local unknown = tonumber(r.unknown)
    if in_room then
      for _, position in ipairs(listed(r.to_all, math.max(to, from), unknown)) do
        if not redis.call('ZSCORE', marks, mark('x', position)) and not redis.call('ZSCORE', marks, mark('h', position)) then
          new.nm = new.nm + redis.call('ZADD', marks, 0, mark('m', position))
        end
      end
    end
    new.nh = new.nh - by.forget('h', unknown)
    by.forget('x', unknown)
    if unknown > 0 then new.unknown = unknown end
  end
  if r.most == '' then return end
  -- So many of what is unread are mentions: the newest of those that are, then the newest others.
  local most, other, is_mention, found, by_room = tonumber(r.most), {}, {}, marked('m', to, top), {}
  for _, position in ipairs(marked('h', to, top)) do other[position] = true end
  -- The number does not speak of what is later than its time.
  for _, position in ipairs(listed(r.later, to, top)) do other[position] = true end
  for _, position in ipairs(found) do is_mention[position] = true end
  if in_room then
    for _, position in ipairs(listed(r.gone, to, top)) do other[position] = true end
    local unset = {}
    for _, position in ipairs(marked('x', to, top)) do unset[position] = true end
    for _, position in ipairs(listed(r.to_all, math.max(to, new.unknown), top)) do
      by_room[position] = true
      if not unset[position] and not other[position] and not is_mention[position] then
        is_mention[position] = true
        found[#found + 1] = position
      end
    end
  end
  for i = #found, 1, -1 do
    if other[found[i]] then table.remove(found, i) end
  end
  table.sort(found, function(one, two) return one > two end)
  for i = most + 1, #found do
    new.nm = new.nm - redis.call('ZREM', marks, mark('m', found[i]))
    if by_room[found[i]] then redis.call('ZADD', marks, 0, mark('x', found[i])) end
  end
  local more, position = most - #found, top
  while more > 0 and position > to do
    if not other[position] and not is_mention[position] then
      redis.call('ZREM', marks, mark('x', position))
      if not by_room[position] then
        new.nm = new.nm + redis.call('ZADD', marks, 0, mark('m', position))
      end
      more = more - 1
    end
    position = position - 1
  end
end
