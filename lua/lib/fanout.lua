-- Stamps and fan-outs, for the scripts that accept events into a room.

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- A whole number in digits. Exact below 2^53.
local function int(n) return string.format('%.0f', n) end

-- A stamp as it stands in an entry: in base 36. Exact below 2^53.
local function short(n)
  local text = ''
  repeat
    local digit = n % 36
    text = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', digit + 1, digit + 1) .. text
    n = (n - digit) / 36
  until n == 0
  return text
end

-- The fan-outs that have not reached everybody: job and record in turn. The pod takes their marks along with its own, so
-- that no member is shown the room's head without what belongs to it. More than 64: only their number, and the pod asks.
local function unfinished(pending)
  local n = redis.call('HLEN', pending)
  if n == 0 then return {} end
  if n > 64 then return {n} end
  return redis.call('HGETALL', pending)
end

-- The first twelve fields that the accepting scripts ask of a room's meta; the reply holds the first eleven.
local asked = {'rev', 'head', 'kind', 'status', 'type', 'tags', 'born', 'mrev', 'created', 'last_at', 'last_time', 'sealed'}

-- A script stops here, before it has written anything, where it can't read what it goes on from.
local function must(right, what)
  if not right then error({err = 'UNREADABLE ' .. what}) end
end

-- Whether these are the digits of a whole number below 2^53.
local function whole(digits)
  return digits and #digits <= 16 and string.match(digits, '^%d+$') and tonumber(digits) < 9007199254740992
end

-- What stands in these places of a reply has to be such a number, or nothing.
local function numbers(m, ...)
  for _, place in ipairs({...}) do must(not m[place] or whole(m[place]), 'a number of a room') end
end

-- What `asked` names of a room's meta.
local function opened(meta)
  local m = redis.call('HMGET', meta, unpack(asked))
  numbers(m, 1, 2, 7, 9, 11, 12)
  -- When the last message was accepted, and, after a comma, when a later one was that did not take its place.
  local at, later = string.match(m[10] or '', '^(%d+),(%d+)$')
  must(not m[10] or whole(m[10]) or (whole(at) and whole(later)), 'a number of a room')
  must(not m[7] or (m[1] and m[2] and m[3] and m[4] and m[5] and m[6] and m[8] and m[9]), 'a field of the meta is missing')
  must(not m[7] or ((m[3] == 'direct' or m[3] == 'group' or m[3] == 'supergroup') and (m[4] == '1' or m[4] == '0')
    and string.match(m[5], '^[%w_.@~=%%\128-\255-]*$') and string.match(m[6], '^[%w_.@~=%%,\128-\255-]*$')), 'the settings of a room')
  return m
end

-- Who was in a direct room last and is not any more, the latest first, when these have left it; before that it was `before`.
-- The list holds two at most: the peer of a user is the first in it who is not that user.
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

-- The version of a list of members that `what` has changed. Two histories of a room never come to the same one, also where
-- a clock stepped back and data was restored: the digest covers all changes so far.
local function version(rev, before, what)
  return int(rev) .. '.' .. string.sub(redis.sha1hex((before or '') .. '\n' .. what), 1, 8)
end
