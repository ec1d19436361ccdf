-- Stamps, jobs and the meta of a room, for the scripts that accept events.

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- A whole number in digits. Exact below 2^53.
local function int(n) return string.format('%d', n) end

-- The pending jobs: job and record in turn. The pod delivers their marks along with its own, so that no member sees the
-- room's head without the marks that belong to it. If there are more than 64, only their number: the pod then reads them itself.
local function unfinished(pending)
  local n = redis.call('HLEN', pending)
  if n == 0 then return {} end
  if n > 64 then return {n} end
  return redis.call('HGETALL', pending)
end

-- Ends the script with UNREADABLE if it can't read what it needs. Scripts call this before they write anything.
local function must(right, what)
  if not right then error({err = 'UNREADABLE ' .. what}) end
end

-- Whether these are the digits of a whole number below 2^53.
local function whole(digits)
  local n = digits and #digits or 0
  return n > 0 and n <= 16 and not string.find(digits, '%D') and (n < 16 or tonumber(digits) < 9007199254740992)
end

-- The fields at these places must be such numbers, or missing.
local function numbers(m, ...)
  for i = 1, select('#', ...) do
    local digits = m[select(i, ...)]
    if digits and not whole(digits) then must(false, 'a number of a room') end
  end
end

-- A room's meta, checked: twelve fields that all accepting scripts read, of which their replies have the first eleven; then the
-- fields that this script names.
local function opened(meta, ...)
  local m = redis.call('HMGET', meta, 'rev', 'head', 'kind', 'status', 'type', 'tags', 'born', 'mrev', 'created', 'last_at',
    'last_time', 'sealed', ...)
  numbers(m, 1, 2, 7, 9, 11, 12)
  -- When the room accepted its last message; after a comma, when it accepted a newer one that is not the last one by its time.
  local at, later = string.match(m[10] or '', '^(%d+),(%d+)$')
  must(not m[10] or whole(m[10]) or (whole(at) and whole(later)), 'a number of a room')
  must(not m[7] or (m[1] and m[2] and m[3] and m[4] and m[5] and m[6] and m[8] and m[9]), 'a field of the meta is missing')
  must(not m[7] or ((m[3] == 'direct' or m[3] == 'group' or m[3] == 'supergroup') and (m[4] == '1' or m[4] == '0')
    and string.match(m[5], '^[%w_.@~=%%\128-\255-]*$') and string.match(m[6], '^[%w_.@~=%%,\128-\255-]*$')), 'the settings of a room')
  return m
end
