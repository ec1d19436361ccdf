#!lua
-- Purpose: repair a user's slot: recompute every plain count from the positions, at one instant. The script reads everything
--   before the first write, and doing it again changes nothing. It removes a record that can't be read. Where it can't read
--   the user's preferences, records keep their letters of preferences.
-- KEYS: 1 counts (hash), 2 rooms (hash: room -> record, see deliver.lua), 3 supers (hash: supergroup -> record), 4 refs (hash),
--   5 marks (sorted set), 6 profile (hash), 7 prefs (hash)
-- ARGV: 1 rooms that the caller delivers to the user next (comma list): their marks stay although there is no record, then three
--   per correction: room, its record as the caller saw it, the new record ('': none). The script skips a correction if the
--   record has changed since, and removes marks above a corrected record's head.
-- Reply: four per change: counts|rooms|supers|refs|marks, field, the old value or '', the new value or ''
-- Lib: live
local counts, rooms, supers, refs, marks, profile, prefs =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]

local function int(n) return string.format('%.0f', n) end
-- Whether these digits are a number below 2^53, which is exact in a script.
local function exact(digits) return #digits < 16 or (#digits == 16 and digits <= '9007199254740991') end
local function hash(key)
  local flat, map = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end
local function sorted(list)
  local names = {}
  for name in string.gmatch(list, '[^,]+') do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ',')
end

local stored = {[counts] = hash(counts), [rooms] = hash(rooms), [supers] = hash(supers), [refs] = hash(refs)}
-- It says nothing of counts.
local watched = stored[counts]['live']
stored[counts]['live'] = nil
local all_marks = redis.call('ZRANGE', marks, 0, -1)
local readable = type(redis.pcall('HLEN', prefs)) == 'number'
local set = readable and hash(prefs) or {}
local others_see = redis.pcall('HLEN', profile)
local told_next = {}
for room in string.gmatch(ARGV[1], '[^,]+') do told_next[room] = true end

-- The positions, corrected.
local corrected, gone = {}, {}
for i = 2, #ARGV, 3 do
  local room, seen, put = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  for _, key in ipairs({rooms, supers}) do
    if stored[key][room] == seen then
      if put == '' then gone[key .. room] = true else corrected[key .. room] = put end
    end
  end
end
local digits = {all = '', messages = '1', mentions = '2', none = '3'}
-- The letters of the preferences that are true, and the digit of what the room adds to sums, as a record ends with them.
local function flags_of(room, rec)
  if not readable then return rec.flags, rec.adds end
  local letters, count = '', set[room .. '|count']
  local adds = digits[count and string.match(count, '^%d+|"(%a+)"$') or (count and '?' or 'all')]
  if not adds then return rec.flags, rec.adds end
  for _, preference in ipairs({'hidden', 'sticky', 'muted'}) do
    local stored = set[room .. '|' .. preference]
    local is = stored and string.match(stored, '^%d+|(%a+)$')
    if stored and is ~= 'true' and is ~= 'false' then return rec.flags, rec.adds end
    if is == 'true' then letters = letters .. string.sub(preference, 1, 1) end
  end
  return letters, adds
end

-- Whether this is the last reset as it stands at the end of a record, or nothing.
local function is_reset(text) return text == '' or string.match(text, '^|%w+,?%d*$') end

local records = {}
for room, text in pairs(stored[rooms]) do
  local bound = corrected[rooms .. room]
  local s, e, v, r, h, kd, st, ty, tg, pr, md, ls, fl, ad, rs = string.match(bound or text,
    '^([ij])|(%w+)|(%w+)|(%-?%d+)|(%d+)|%d+|%d+|([dg])|(%d)|([^|]*)|([^|]*)|([^|]*)|(%-?%d+)|([^|]*)|?([hsm]*)e?([123]?)(|?%w*,?%d*)$')
  local whole = s and is_reset(rs) and (ls == '' or string.match(ls, '^%d+,%-?%d+,?%d*$'))
  if whole and not gone[rooms .. room] then
    records[room] = {key = rooms, state = s, began = e, epoch = tonumber(e, 36), after = v, rev = tonumber(v, 36),
      read = tonumber(r), head = tonumber(h), kind = kd == 'd' and 'direct' or 'group', letter = kd, status = st, type = ty, tags = tg, peer = pr, made = md, last = ls, flags = fl, adds = ad, reset = rs, bound = bound, nh = 0, nm = 0}
  end
end
for room, text in pairs(stored[supers]) do
  local bound = corrected[supers .. room]
  local s, e, v, r, ad, rs = string.match(bound or text, '^([ij])|(%w+)|(%w+)|(%-?%d+)|%d+|%d+|?e?([123]?)(|?%w*,?%d*)$')
  local other = records[room]
  if s and is_reset(rs) and not gone[supers .. room] then
    local rec = {key = supers, state = s, began = e, epoch = tonumber(e, 36), after = v, rev = tonumber(v, 36),
      read = tonumber(r), flags = '', adds = ad, reset = rs, bound = bound, nh = 0, nm = 0}
    -- A room with a record in both hashes: the record that was delivered last counts.
    if not other or rec.epoch > other.epoch or (rec.epoch == other.epoch and rec.rev > other.rev) then records[room] = rec end
  end
end

-- Marks without a meaning go; the others give the number of holes and mentions, and whether there are edits.
local drop, holes = {}, {}
for _, letter in ipairs({'h', 'm', 'e', 'x'}) do
  for _, mark in ipairs(all_marks) do
    local room, is, digits = string.match(mark, '^([^|]*)|([hmx])|(%-?%d+)$')
    if not is then room, is, digits = string.match(mark, '^([^|]*)|(e)|(%d+)|%d+|[01]$') end
    local rec, position = records[room or ''], tonumber(digits or 0)
    -- In marks, positions below 0 are - and the fifteen digits of 10^15 + position.
    if position < 0 then position = -1000000000000000 - position end
    if is == letter or (not is and letter == 'h') then
      local at = (room or '') .. '|' .. position
      local stays = not rec and told_next[room or ''] and is and #digits == 16
      if stays then
        -- The next delivery brings its record.
      elseif not is or #digits ~= 16 or not exact(digits) or not rec or rec.state ~= 'j' or position <= rec.read or (is == 'm' and holes[at])
        or (rec.bound and rec.head and position > rec.head) or (is == 'x' and (rec.head or rec.reset == '')) or (is == 'h' and position < 1) then
        drop[#drop + 1] = mark
      elseif is == 'h' then
        holes[at] = true
        rec.nh = rec.nh + 1
        if rec.head then rec.head = math.max(rec.head, position) end
      elseif is == 'e' then
        rec.edits = 'e'
        if rec.head then rec.head = math.max(rec.head, position) end
      elseif is == 'm' then
        rec.nm = rec.nm + 1
        if rec.head then rec.head = math.max(rec.head, position) end
      end
    end
  end
end

-- What the slot has to hold.
local want = {[counts] = {}, [rooms] = {}, [supers] = {}, [refs] = {}}
local known, large = nil, 0
local function add(key, field, by)
  if by ~= 0 then want[key][field] = (want[key][field] or 0) + by end
end
for room, rec in pairs(records) do
  known = math.min(known or rec.epoch, rec.epoch)
  local start = rec.state .. '|' .. rec.began .. '|' .. rec.after .. '|' .. int(rec.read) .. '|'
  local flags, adds = flags_of(room, rec)
  flags = flags .. (rec.edits or '')
  if rec.key == supers then
    large = large + 1
    local ends = (rec.edits or '') .. adds .. rec.reset
    want[supers][room] = start .. rec.nh .. '|' .. rec.nm .. (ends ~= '' and '|' .. ends or '')
  else
    rec.head = math.max(rec.head, rec.read)
    want[rooms][room] = start .. int(rec.head) .. '|' .. rec.nh .. '|' .. rec.nm .. '|' .. rec.letter .. '|' .. rec.status .. '|'
      .. rec.type .. '|' .. rec.tags .. '|' .. rec.peer .. '|' .. rec.made .. '|' .. rec.last
      .. (flags .. adds .. rec.reset ~= '' and '|' .. flags .. adds .. rec.reset or '')
    local with_messages = adds == '' or adds == '1'
    local function by_kind(family, by)
      add(counts, family .. ':' .. rec.kind, by)
      if rec.type ~= '' then add(counts, family .. ':' .. rec.kind .. ':' .. rec.type, by) end
    end
    if rec.status == '1' and rec.state == 'i' then
      by_kind('invitations', 1)
    elseif rec.status == '1' then
      local n = rec.head - rec.read - rec.nh
      if adds == '' or adds == '2' then by_kind('mentions', rec.nm) end
      add(counts, 'room:' .. room, n)
      if with_messages then
        by_kind('messages', n)
        if n > 0 then add(counts, 'unread_rooms:' .. rec.kind, 1) end
        if rec.peer ~= '' then add(counts, 'peer:' .. rec.peer, n) end
      end
      for tag in string.gmatch(rec.tags, '[^,]+') do
        if with_messages then add(counts, 'tag:' .. tag, n) end
        add(refs, 'tag:' .. tag, 1)
      end
      if rec.type ~= '' then add(refs, 'type:' .. rec.type, 1) end
    end
    if rec.peer ~= '' then
      local field = 'direct:' .. rec.peer
      want[refs][field] = (want[refs][field] and want[refs][field] .. ',' or '') .. room
    end
  end
end
for _, key in ipairs({counts, refs}) do
  for field, value in pairs(want[key]) do
    if type(value) == 'number' then want[key][field] = int(value) else want[key][field] = sorted(value) end
  end
end
if large > 0 then want[counts]['supers'] = int(large) end
local since = stored[counts]['known']
if since and string.match(since, '^%d+$') and exact(since) then
  want[counts]['known'] = since
elseif known then
  want[counts]['known'] = int(known)
elseif type(others_see) == 'number' and others_see > 0 then
  local t = redis.call('TIME')
  want[counts]['known'] = int(t[1] * 1000000 + t[2])
end

-- From here on the script only writes.
local reply = {}
local function report(what, field, before, after)
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = what, field, before, after
end
local names = {[counts] = 'counts', [rooms] = 'rooms', [supers] = 'supers', [refs] = 'refs'}
for _, key in ipairs({counts, rooms, supers, refs}) do
  for field, value in pairs(want[key]) do
    local before = stored[key][field]
    if before ~= value and not (before and string.sub(field, 1, 7) == 'direct:' and sorted(before) == value) then
      redis.call('HSET', key, field, value)
      report(names[key], field, before or '', value)
    end
  end
  for field, before in pairs(stored[key]) do
    if not want[key][field] then
      redis.call('HDEL', key, field)
      report(names[key], field, before, '')
    end
  end
end
for _, mark in ipairs(drop) do
  redis.call('ZREM', marks, mark)
  report('marks', mark, mark, '')
end
if #reply > 0 then tell_watchers(counts, watched) end
return reply
