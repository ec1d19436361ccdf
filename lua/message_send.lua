#!lua
-- Purpose: accept messages into a room in the order given: number those that count, remember their ids, record what is to
--   be delivered to whom. With a pair of users: the direct room of the two, made (or completed) if need be.
-- KEYS: 1 meta (hash), 2 members (hash: user -> state|epoch in base 36|base),
--   3 ids (hash: id -> rev|position|time|recall|number), 4 log (list: rev|position|time|id), 5 allmentions (sorted set of positions), 6 pending (hash: job -> record)
-- ARGV: 1 trust (microseconds until which the announcement in the index holds), 2 lease (microseconds),
--   3 history in messages, 4 history in microseconds, 5 and 6 the pair or '' and '', then eight per message:
--   id, sender or '', time (milliseconds), silent 0|1, mark read 0|1, mentions ('', '*' or comma list), text, message type
-- Reply: {'OK', job or '', record or '' (of the pair's joining, or of a conversion under way), now, rev, head,
--   kind, status, type, tags, born, mrev, created, last_at, last_time, then four per message:
--   'A' applied or 'D' duplicate, position (0: silent), job or '', record or ''}
--   or {'STALE'} or {'ROOM'} no such room, {'FULL'} the pair's room is taken, {'KIND'} the pair's room is not direct
local meta, members, ids, log, allmentions, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local trust, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local max_messages, max_age = tonumber(ARGV[3]), tonumber(ARGV[4])
local one, two = ARGV[5], ARGV[6]

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if now > trust then return {'STALE'} end
local m = redis.call('HMGET', meta, 'rev', 'born', 'head', 'kind', 'status', 'type', 'tags', 'mrev', 'mintime', 'maxtime',
  'accepted', 'told', 'created', 'last_at', 'last_time')
local rev, last_at = tonumber(m[1] or 0), tonumber(m[14] or 0)
local function tick()
  rev = math.max(rev + 1, now)
  return string.format('%d', rev)
end
local function int(n) return string.format('%d', n) end
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

local born, head, kind, mrev = m[2], tonumber(m[3] or 0), m[4], m[8]
local function member(user)
  local entry = redis.call('HGET', members, user)
  if not entry or not born then return nil end
  local s, epoch = string.match(entry, '^(%a)|(%w+)')
  if s == 'l' or tonumber(epoch, 36) < tonumber(born) then return nil end
  return s
end

-- Those of a comma list who have joined, without one of them.
local function joined_of(list, but)
  local found, part = {}, {}
  local function look()
    if #part == 0 then return end
    local entries = redis.call('HMGET', members, unpack(part))
    for i = 1, #part do
      local s, epoch = string.match(entries[i] or '', '^(%a)|(%w+)')
      if s == 'j' and tonumber(epoch, 36) >= tonumber(born) then found[#found + 1] = part[i] end
    end
    part = {}
  end
  for user in string.gmatch(list, '[^,]+') do
    if user ~= but then part[#part + 1] = user end
    if #part == 1000 then look() end
  end
  look()
  return found
end

local set = {}
local function put(field, value) set[#set + 1] = field; set[#set + 1] = value end

-- The message's first time here, if the history goes back that far.
local function known_as(id)
  local known = redis.call('HGET', ids, id)
  if not known then return nil end
  local first, position = string.match(known, '^(%d+)|(%d+)|')
  if tonumber(first) < now - max_age then return nil end
  return first, position, string.match(known, '|s$')
end

-- A message that is known changes nothing, so it brings nobody back into the room either.
local any_new = false
for i = 7, #ARGV, 8 do
  if one == '' or any_new then break end
  any_new = not (born and known_as(ARGV[i]))
end

local job, record = '', ''
if any_new then
  local made = not born
  if born and kind ~= 'direct' then return {'KIND'} end
  local here = {}
  if not made then
    local all = redis.call('HGETALL', members)
    for i = 1, #all, 2 do
      if member(all[i]) and all[i] ~= one and all[i] ~= two then return {'FULL'} end
      here[all[i]] = member(all[i])
    end
  end
  local missing = {}
  if here[one] ~= 'j' then missing[1] = one end
  if two ~= one and here[two] ~= 'j' then missing[#missing + 1] = two end
  if #missing > 0 then
    local revs = tick()
    if made then
      born, head, kind = revs, 0, 'direct'
      m[5], m[6], m[7] = '1', '', ''
      put('born', born); put('kind', kind); put('status', '1'); put('type', ''); put('tags', '')
      m[13] = ARGV[9]
      put('created', m[13])
    end
    mrev = revs
    put('mrev', mrev)
    local epochs = short(rev)
    for _, user in ipairs(missing) do
      redis.call('HSET', members, user, 'j|' .. epochs .. '|' .. int(head))
    end
    job, record = revs, int(now + lease) .. '\nall'
    redis.call('HSET', pending, job, record)
  end
end
if not born then return {'ROOM'} end
if job == '' and kind == 'supergroup' and m[12] then
  -- Members who have not been told yet that this is a supergroup would not see the message.
  record = redis.call('HGET', pending, m[12]) or ''
  if record ~= '' then job = m[12] end
end

local mintime, maxtime, accepted = tonumber(m[9]), tonumber(m[10]), tonumber(m[11] or 0)
local last, length, reply = nil, nil, {}
for i = 7, #ARGV, 8 do
  local id, sender, time = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local silent, mark, mentions = ARGV[i + 3] == '1', ARGV[i + 4] == '1', ARGV[i + 5]
  local first, position, was_silent = known_as(id)
  local n = #reply
  if first then
    reply[n + 1] = 'D'
    reply[n + 2] = was_silent and 0 or tonumber(position)
    reply[n + 3] = first
    reply[n + 4] = redis.call('HGET', pending, first) or ''
  else
    local revs = tick()
    if not silent then
      head = head + 1
      mintime = math.min(mintime or tonumber(time), tonumber(time))
      maxtime = math.max(maxtime or tonumber(time), tonumber(time))
    end
    -- A silent message stands where the last counted one before it does.
    local at = int(head)
    accepted = accepted + 1
    redis.call('HSET', ids, id, revs .. '|' .. at .. '|' .. time .. '|0|' .. int(accepted) .. (silent and '|s' or ''))
    length = redis.call('RPUSH', log, revs .. '|' .. (silent and '0' or at) .. '|' .. time .. '|' .. id)
    m[14], m[15] = revs, time
    last = {'last_id', id, 'last_sender', sender, 'last_time', time, 'last_at', revs, 'last_updated', revs,
      'last_text', ARGV[i + 6], 'last_type', ARGV[i + 7]}

    -- A silent one too: it is the room's last message, by which members sort their rooms.
    local all = kind ~= 'supergroup'
    local named = {}
    if not silent and mentions == '*' then
      if kind == 'supergroup' then
        redis.call('ZADD', allmentions, at, at)
      else
        named[1] = '*'
      end
    elseif not silent and mentions ~= '' then
      named = joined_of(mentions, sender)
    end
    local what = ''
    if all or sender ~= '' or #named > 0 then
      local own = 'n'
      if sender ~= '' and member(sender) == 'j' then
        if mark then own = 'r' elseif not silent then own = 'h' end
      end
      what = int(now + lease) .. (all and '\nall\n\n' or '\nsome\n\n') .. 'm|' .. at .. '|' .. own .. '|' .. sender
        .. '|' .. table.concat(named, ',')
      redis.call('HSET', pending, revs, what)
    end
    reply[n + 1] = 'A'
    reply[n + 2] = silent and 0 or head
    reply[n + 3] = what ~= '' and revs or ''
    reply[n + 4] = what
  end
end

-- What is older than the history is forgotten, the oldest first, but by number only when it is too old to be part of a
-- request that is sent again; an id that came again since belongs to the newer entry. Bounded, so that a history made
-- shorter is not cut down in one go.
length = length or redis.call('LLEN', log)
local retried, most = now - 900000000, max_messages + 50000
for _ = 1, #ARGV / 8 + 16 do
  local oldest = redis.call('LINDEX', log, 0)
  if not oldest then break end
  local stamp, id = string.match(oldest, '^(%d+)|%d+|%-?%d+|(.*)$')
  local at = tonumber(stamp)
  if not (at < now - max_age or (length > max_messages and at < retried) or length > most) then break end
  redis.call('LPOP', log)
  length = length - 1
  local entry = redis.call('HGET', ids, id)
  if entry and string.match(entry, '^%d+') == stamp then redis.call('HDEL', ids, id) end
end
-- The history as a whole ends some time after its last entry. That is put off once in ten minutes, for long enough to hold
-- for all that comes in them.
local spell = 600000000
if math.floor(last_at / spell) ~= math.floor(now / spell) then
  local keep = string.format('%.0f', (max_age + 2 * spell) / 1000)
  redis.call('PEXPIRE', ids, keep)
  redis.call('PEXPIRE', log, keep)
end

local revs = int(rev)
put('rev', revs); put('head', int(head)); put('accepted', int(accepted))
if mintime then put('mintime', int(mintime)); put('maxtime', int(maxtime)) end
if last then for i = 1, #last do set[#set + 1] = last[i] end end
redis.call('HSET', meta, unpack(set))
-- What was left of a room of that name was to go.
if not m[2] then redis.call('PERSIST', meta) end
return {'OK', job, record, now, revs, int(head), kind, m[5], m[6], m[7], born, mrev, m[13], m[14], m[15], unpack(reply)}
