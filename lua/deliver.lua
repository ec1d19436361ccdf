#!lua
-- Purpose: bring a room's snapshot, and the marks of its jobs, to users' slots. Deliveries may be repeated, reordered or made
--   by two pods at once: the state they end in is the same. A call may name several users where one node holds all of them.
-- KEYS: seven per user: counts (hash of plain numbers, absent = 0), rooms (hash: room -> record), supers (hash: supergroup ->
--   record), refs (hash: how many rooms carry a tag or type; direct rooms by peer), marks (sorted set: room|h|position own or
--   recalled, room|m|position mention, room|e|position|stamp|1 or 0: an edit of that stamp says if the message mentions the
--   user, room|x|position: in a supergroup, a counts.set has made it no mention), left (hash: room -> epoch|microseconds;
--   '*' -> when the user was deleted, '~' -> the same while a room still has to hear of it, '#' -> when tombstones were swept,
--   '!' -> the token it was sealed with), prefs (hash).
--   Or only the first two per user, which is cheaper and enough for most deliveries (the fast path): the script leaves a user
--   who needs the other five (the slow path) unchanged, and the caller sends that user again with all seven keys.
--   Records: state|epoch|rev|read|head|holes|mentions|kind|status|type|tags|peer|made|last, of supergroups
--   state|epoch|rev|read|holes|mentions. To keep records short, epoch is in base 36; rev is its distance from epoch (it is
--   never less), also in base 36; made is the distance of the room's creation from epoch, in milliseconds; kind is one letter:
--   d direct, g group. Every other number, here and in ARGV, is decimal. After last may stand | and the letters of the
--   user's preferences for the room that are true: h hidden, s sticky, m muted; then e if there are marks of edits; then a digit
--   for what the room adds to the user's sums, unless it is everything: 1 its messages, 2 its mentions, 3 nothing. In a
--   supergroup's record | with e, this digit or both may stand after mentions. At the end of either may stand | and the member's
--   last reset: its distance from epoch, in base 36, and if positions above the read position are older than what was known then,
--   comma and the highest of them (each counts, recalled or not). If there is a reset, the | for letters and digit is there, too.
--   In marks, positions below 0 are - and the fifteen digits of 10^15 + position, so that they are in order.
--   records.txt has examples.
-- ARGV: 1 room, 2 rev, 3 head, 4 kind, 5 status, 6 type, 7 tags, 8 created (milliseconds), 9 the last message as it stands
--   in a record ('': none), 10 holes and 11 mentions that every user of the call gets (comma lists of positions, each
--   with : and the stamp of its job), then four per user:
--   a) state (j, i, l, or - for no member) and epoch as they stand in a record; then, if this slot refused the membership
--      before and the room has decided since that the membership comes after what the slot named: | and what it named (decimal);
--      then, if the user gets marks and has been reset: | (two, if nothing was named) and the last reset as it stands in a record
--   b) rev as it stands in a record ('': less than epoch)
--   c) base
--   d) '' or lines: peer; '' or the stamp at which the user was named as a sender, with ! and the deletion that it comes after,
--      if there was one; '' or the position read up to; holes (comma list); mentions (comma list); then preferences (name,
--      stamp and JSON value in turn; @ and a position: an edit says if the message mentions the user, 1, or not, 0; or that it
--      still does, since the supergroup now counts it as a mention of everybody, 2, or no longer does so, 3; or that it does so
--      now, since the supergroup counts it, 4; < first, with what read_reset.lua wrote after b|: a reset)
--   At last, if the pod knows that nobody is watched: anything.
-- Reply: a text per user. K: kept. C: send again with all seven keys. The other four refuse, and change nothing. D and a
--   deletion of the user: the membership, or the naming, may be older than it. O and a deletion of the user: the slot had the
--   membership before the deletion, so it is over. A and a stamp of this room, later than rev, at which the membership was over.
--   R and the stamp of a reset: the user gets marks that may be later than this reset, which the slot does not have yet.
--   After the users' texts, if some record has a later stamp than rev: > and the latest of these stamps.
-- Lib: live
local call, match, number = redis.call, string.match, tonumber
local room, rev, head = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local kind, status, type, tags = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local created, last = tonumber(ARGV[8]), ARGV[9]
local function int(n) return string.format('%d', n) end
-- The latest stamp of all records that are later than this snapshot.
local ahead = 0
-- The fast path is for the common case: the slot has a record of this very membership, and only positions move. It does what
-- `merge` would do. A record exists only while the user has neither left nor been deleted, so the other keys need no look.
local details = string.sub(kind, 1, 1) .. '|' .. status .. '|' .. type .. '|' .. tags
local names, filled, with_peer
-- Sets `names` to the mark of lib/live and the plain counts that a message moves, and `filled` to these counts, each followed by
-- a place for its value.
local function fields_of(peer)
  with_peer = peer
  names, filled = {'live', 'room:' .. room, 'messages:' .. kind}, {}
  if type ~= '' then names[4] = 'messages:' .. kind .. ':' .. type end
  for tag in string.gmatch(tags, '[^,]+') do names[#names + 1] = 'tag:' .. tag end
  if peer ~= '' then names[#names + 1] = 'peer:' .. peer end
  for i = 2, #names do filled[2 * i - 3] = names[i] end
end

-- What becomes of a record on the fast path: by how much its plain counts grow, its new text, and how many of `names` grow;
-- nil: the slow path.
local function moved(text, membership, after, more)
  local peer, read_to = '', ''
  if more ~= '' then
    peer, read_to = match(more, '^([^\n]*)\n%d*\n(%d*)\n\n\n$')
    if not peer then return nil end
  end
  local of, v, r, h, holes, mentions, set, with, made, ends =
    match(text, '^(%a|%w+)|(%w+)|(%-?%d+)|(%d+)|(%d+)|(%d+)|(%a|%d|[^|]*|[^|]*)|([^|]*)|([^|]*)|[^|]*(.*)$')
  local flags, adds, reset = ends, '', ''
  if of and ends ~= '' then
    flags, adds, reset = match(ends, '^(|?%a*)([123]?)(|?[%w,]*)$')
    if not flags then return nil end
  end
  if of ~= membership or set ~= details or with ~= peer then return nil end
  local by, top = head - number(h), ARGV[3]
  if by < 0 then by, top = 0, h end
  local joined = string.byte(of) == 106
  if read_to ~= '' then
    local further = tonumber(read_to) - r
    if further > 0 then
      -- The read position may pass marks, the read may be older than a reset, or the user may be no member: only the slow path
      -- can tell.
      if holes ~= '0' or mentions ~= '0' or not joined or string.find(flags, 'e', 1, true) or reset ~= ''
        or tonumber(read_to) > tonumber(top) then return nil end
      by, r = by - further, read_to
    end
  end
  if after ~= v then
    if after == '' or number(after, 36) < number(v, 36) then
      -- A late delivery. If it moves nothing, the record stays as it is; if it does, it goes the slow path.
      if by ~= 0 or top ~= h then return nil end
      ahead = math.max(ahead, number(match(of, '%w+$'), 36) + number(v, 36))
      return 0, text
    end
    -- A later revision has a head at least as high, unless the room has lost data.
    if head < number(h) then return nil end
  end
  if not joined or status ~= '1' then by = 0 end
  if with_peer ~= peer then fields_of(peer) end
  return by, of .. '|' .. after .. '|' .. r .. '|' .. top .. '|' .. holes .. '|' .. mentions .. '|' .. set .. '|' .. with
    .. '|' .. made .. '|' .. last .. ends, (adds == '' or adds == '1') and #names - 1 or 1
end

local reply, slow = {}, {}
-- In a cluster one more key follows, which only guards the call.
local users = math.floor((#ARGV - 11) / 4)
-- Whether the marks of watched users are read, and the first of `names` that is.
local marks_read = (#ARGV - 11) % 4 == 0 and 1 or 0
local first = 2 - marks_read
local each = #KEYS < users * 7 and 2 or 7
local only_positions = kind ~= 'supergroup' and ARGV[10] == '' and ARGV[11] == ''
-- Users who joined in the same event have equal records until one of them reads: the result is worked out once for all.
local seen, seen_membership, by, record, moves
for i = 0, users - 1 do
  local membership, more = ARGV[12 + i * 4], ARGV[15 + i * 4]
  local text = only_positions and call('HGET', KEYS[i * each + 2], room)
  if not text then
    record = nil
  elseif text ~= seen or membership ~= seen_membership or more ~= '' then
    by, record, moves = moved(text, membership, ARGV[13 + i * 4], more)
    seen, seen_membership = more == '' and text, membership
  end
  if text and record and by ~= 0 then
    local values = call('HMGET', KEYS[i * each + 1], unpack(names, first, moves + 1))
    for n = 1, moves do
      local value = (values[n + marks_read] or 0) + by
      -- `merge` deletes a field that comes to zero: the slow path, too.
      if value == 0 then
        record, seen = nil, nil
        break
      end
      filled[2 * n] = string.format('%d', value)
    end
    if record then
      call('HSET', KEYS[i * each + 1], unpack(filled, 1, 2 * moves))
      if not values[1 + marks_read] and moves > 1 then
        -- The room had nothing unread until now.
        local rooms = 'unread_rooms:' .. kind
        call('HSET', KEYS[i * each + 1], rooms, (call('HGET', KEYS[i * each + 1], rooms) or 0) + 1)
      end
      if marks_read == 1 and values[1] then tell_watchers(KEYS[i * each + 1], values[1]) end
    end
  end
  if record then
    if record ~= text then call('HSET', KEYS[i * each + 2], room, record) end
    reply[i + 1] = 'K'
  else
    seen = nil
    reply[i + 1] = 'C'
    slow[#slow + 1] = i
  end
end
if kind == 'supergroup' and each == 7 and ARGV[10] == '' and ARGV[11] == '' then
  -- The new text of a supergroup's record after a message of the member's own, or a read; nil: the slow path. Such a record moves no
  -- plain counts.
  local function passed(text, membership, after, more, counts)
    local of, v, r = match(text, '^(%a|%w+)|(%w+)|(%d+)|0|0$')
    if of ~= membership or string.byte(of) ~= 106 or after == '' or number(after, 36) < number(v, 36) then return nil end
    if more ~= '' then
      local named, read_to = match(more, '^\n([%d!]*)\n(%d*)\n\n\n$')
      if not named or (named ~= '' and call('HEXISTS', counts, 'known') == 0) then return nil end
      if read_to ~= '' and number(read_to) > number(r) then r = read_to end
    end
    return of .. '|' .. after .. '|' .. r .. '|0|0'
  end
  local left = {}
  for _, i in ipairs(slow) do
    local supers = KEYS[i * 7 + 3]
    local text = call('HGET', supers, room)
    local record = text and passed(text, ARGV[12 + i * 4], ARGV[13 + i * 4], ARGV[15 + i * 4], KEYS[i * 7 + 1])
    if record then
      if record ~= text then
        call('HSET', supers, room, record)
        if marks_read == 1 then tell_watchers(KEYS[i * 7 + 1], call('HGET', KEYS[i * 7 + 1], 'live')) end
      end
      reply[i + 1] = 'K'
    else
      left[#left + 1] = i
    end
  end
  slow = left
end
if #slow == 0 or each == 2 then
  if ahead > 0 then reply[users + 1] = '>' .. int(ahead) end
  return reply
end

-- The slow path.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local common = {}
for i = 1, 2 do
  local list = {}
  for position, stamp in string.gmatch(ARGV[i + 9], '(%d+):?(%d*)') do
    list[#list + 1] = {tonumber(position), tonumber(stamp) or math.huge}
  end
  common[i] = list
end

-- A position as it stands in a mark.
local function place(position)
  if position < 0 then return '-' .. string.format('%015.0f', 1000000000000000 + position) end
  return string.format('%016.0f', position)
end

local function mark(letter, position) return room .. '|' .. letter .. '|' .. place(position) end

local function add(delta, field, by) delta[field] = (delta[field] or 0) + by end

local function by_kind(delta, rec, family, by)
  if by == 0 then return end
  add(delta, family .. ':' .. rec.kind, by)
  if rec.type ~= '' then add(delta, family .. ':' .. rec.kind .. ':' .. rec.type, by) end
end

-- Adds to `delta` what a membership contributes to the plain counts: n messages, m mentions, i invitations, u rooms with
-- something unread. The room's own count has all its messages; the sums have what the user's preference counts.
local function contribute(delta, rec, n, m, i, u)
  local with_messages = rec.adds == '' or rec.adds == '1'
  if with_messages then by_kind(delta, rec, 'messages', n) end
  if rec.adds == '' or rec.adds == '2' then by_kind(delta, rec, 'mentions', m) end
  by_kind(delta, rec, 'invitations', i)
  if with_messages and u ~= 0 then add(delta, 'unread_rooms:' .. rec.kind, u) end
  if n == 0 then return end
  add(delta, 'room:' .. room, n)
  if with_messages then
    if rec.peer ~= '' then add(delta, 'peer:' .. rec.peer, n) end
    for tag in string.gmatch(rec.tags, '[^,]+') do add(delta, 'tag:' .. tag, n) end
  end
end

-- Adds to `delta` the references to the tags and the type of a membership's room.
local function refer(delta, rec, by)
  if rec.state ~= 'j' or rec.status ~= '1' then return end
  for tag in string.gmatch(rec.tags, '[^,]+') do
    add(delta, 'tag:' .. tag, by)
  end
  if rec.type ~= '' then add(delta, 'type:' .. rec.type, by) end
end

local function numbers(rec)
  if rec.status ~= '1' then return 0, 0, 0 end
  if rec.state == 'i' then return 0, 0, 1 end
  return rec.head - rec.read - rec.nh, rec.nm, 0
end

-- Moves the fields of a hash by `delta`, and deletes a field that comes to zero. Returns the mark of lib/live, or nil if nothing
-- moves.
local function apply(key, delta)
  local fields = {}
  for field, by in pairs(delta) do
    if by ~= 0 then fields[#fields + 1] = field end
  end
  local count = #fields
  if count == 0 then return end
  if marks_read == 1 then fields[count + 1] = 'live' end
  local values = redis.call('HMGET', key, unpack(fields))
  local set, gone = {}, {}
  for i = 1, count do
    local value = tonumber(values[i] or 0) + delta[fields[i]]
    -- An earlier version keeps no count of unread rooms: where one has delivered, the count may be too low until a rebuild.
    if value == 0 or (value < 0 and match(fields[i], '^unread_rooms:')) then
      gone[#gone + 1] = fields[i]
    else
      set[#set + 1] = fields[i]
      set[#set + 1] = int(value)
    end
  end
  if #set > 0 then redis.call('HSET', key, unpack(set)) end
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  return values[count + 1] or false
end

local function peer_rooms(refs, peer, with)
  local field, rooms = 'direct:' .. peer, {}
  for other in string.gmatch(redis.call('HGET', refs, field) or '', '[^,]+') do
    if other ~= room then rooms[#rooms + 1] = other end
  end
  if with then rooms[#rooms + 1] = room end
  if #rooms == 0 then
    redis.call('HDEL', refs, field)
  else
    table.sort(rooms)
    redis.call('HSET', refs, field, table.concat(rooms, ','))
  end
end

local pref_fields = {'tags', 'tag_colors', 'hidden', 'sticky', 'muted', 'folder', 'count', 'extra'}
local digits = {messages = '1', mentions = '2', none = '3'}

-- The letters of the preferences that are true, and the digit of what the room adds to sums, as a record ends with them.
local function flags_of(prefs)
  local values = redis.call('HMGET', prefs, room .. '|hidden', room .. '|sticky', room .. '|muted', room .. '|count')
  local letters = ''
  for i, letter in ipairs({'h', 's', 'm'}) do
    if values[i] and match(values[i], '|true$') then letters = letters .. letter end
  end
  return letters, digits[match(values[4] or '', '|"(%a+)"$') or ''] or ''
end

-- The marks of this letter up to a position go. Returns how many.
local function forget(marks, letter, up_to)
  return redis.call('ZREMRANGEBYLEX', marks, '[' .. room .. '|' .. letter .. '|', '[' .. mark(letter, up_to))
end

-- Everything up to there has been read.
local function pass(new, marks, up_to)
  if up_to <= new.read then return end
  new.read = up_to
  if new.nh > 0 then new.nh = new.nh - forget(marks, 'h', up_to) end
  if new.nm > 0 then new.nm = new.nm - forget(marks, 'm', up_to) end
  if new.edits ~= '' then
    redis.call('ZREMRANGEBYLEX', marks, '[' .. room .. '|e|', '[' .. mark('e', up_to) .. '|~')
  end
  if new.reset ~= '' then
    forget(marks, 'x', up_to)
    if new.unknown <= up_to then new.unknown = 0 end
  end
end

-- The mark of an edit of the message at this position, and the edit's stamp.
local function edited(marks, position)
  local from = room .. '|e|' .. string.format('%016.0f', position) .. '|'
  local found = redis.call('ZRANGEBYLEX', marks, '[' .. from, '[' .. from .. '~', 'LIMIT', 0, 1)[1]
  return found, found and number(match(found, '|(%d+)|[01]$'))
end

local function hole(new, marks, position)
  if position > new.read and not (new.reset ~= '' and position <= new.unknown)
    and redis.call('ZADD', marks, '0', mark('h', position)) == 1 then
    new.nh = new.nh + 1
    new.head = math.max(new.head, position)
    if new.nm > 0 then new.nm = new.nm - redis.call('ZREM', marks, mark('m', position)) end
    if new.reset ~= '' then redis.call('ZREM', marks, mark('x', position)) end
  end
end

local function mention(new, marks, position)
  -- An edit comes after the message, whenever it is delivered.
  if new.edits ~= '' and edited(marks, position) then return end
  if position > new.read and not (new.nh > 0 and redis.call('ZSCORE', marks, mark('h', position)))
    and redis.call('ZADD', marks, '0', mark('m', position)) == 1 then
    new.nm = new.nm + 1
    new.head = math.max(new.head, position)
  end
end

local function edit(new, marks, position, stamp, says)
  local found, before = edited(marks, position)
  if position <= new.read or (before and before >= number(stamp)) then return end
  if found then redis.call('ZREM', marks, found) end
  -- Up to there the supergroup counts no mention by itself, and a reset has said which of them are mentions.
  local is_unknown = new.reset ~= '' and position <= new.unknown
  if says == '4' then says = is_unknown and '1' or '0' end
  local by_name, by_room, is_named = mark('m', position), mark('x', position), (says == '1' or says == '3') and '1' or '0'
  redis.call('ZADD', marks, '0', room .. '|e|' .. string.format('%016.0f', position) .. '|' .. stamp .. '|' .. is_named)
  new.head = math.max(new.head, position)
  new.edits = 'e'
  local counts = not (new.nh > 0 and redis.call('ZSCORE', marks, mark('h', position)))
  if is_unknown and (says == '2' or says == '3') then
    -- It stays what the reset has made of it.
  elseif says == '2' and new.reset ~= '' then
    -- What a reset has made of the mention stays. If it is one, its mark stays too, and is not counted twice.
    if redis.call('ZSCORE', marks, by_name) then
      redis.call('ZREM', marks, by_room)
    elseif counts then
      redis.call('ZADD', marks, '0', by_room)
    end
  elseif says == '3' and new.reset ~= '' and redis.call('ZSCORE', marks, by_room) then
    -- It is no mention, and stays so.
  else
    if new.reset ~= '' then redis.call('ZREM', marks, by_room) end
    if is_named == '0' then
      new.nm = new.nm - redis.call('ZREM', marks, by_name)
    elseif counts then
      new.nm = new.nm + redis.call('ZADD', marks, '0', by_name)
    end
  end
end

local function merge(k, a)
  local counts, rooms, supers, refs, marks, left, prefs =
    KEYS[k + 1], KEYS[k + 2], KEYS[k + 3], KEYS[k + 4], KEYS[k + 5], KEYS[k + 6], KEYS[k + 7]
  local state, began, vouched, asked = match(ARGV[a + 1], '^(.)|(%w+)|?(%d*)|?(%w*)$')
  local epoch, after, base = tonumber(began, 36), ARGV[a + 2], tonumber(ARGV[a + 3])
  local peer, named, read_to, holes, mentions, preferences = '', '', '', '', '', ''
  if ARGV[a + 4] ~= '' then
    peer, named, read_to, holes, mentions, preferences =
      match(ARGV[a + 4], '^([^\n]*)\n([%d!]*)\n(%d*)\n([%d,]*)\n([%d,]*)\n(.*)$')
  end
  local reset_rev, reset, merged
  if preferences ~= '' then
    reset_rev, reset = match(preferences, '^<\n(%d+)\n([^\n]+)\n')
    if reset then
      -- Lib: resets
      reset, merged = parse_reset(reset), merge_reset
    end
  end

  -- The counts are looked at before anything is written: if they can't be read, the slot stays as it is.
  local is_known = redis.call('HEXISTS', counts, 'known') == 1
  local ended = redis.call('HMGET', left, room, '*', '~')
  local over, deletion = tonumber(string.match(ended[1] or '', '^%d+')), ended[2]
  if named ~= '' and not is_known then
    local stamp, after_it = match(named, '^(%d+)!?(%d*)$')
    if not deletion or after_it == deletion then
      redis.call('HSET', counts, 'known', stamp)
    elseif not (over and over >= tonumber(stamp)) then
      return 'D' .. deletion
    end
  end
  if state == '-' then return 'K' end
  -- A membership that began after the snapshot gets a delivery of its own. This snapshot may be of an earlier room of that name.
  if state ~= 'l' and rev < epoch then return 'K' end

  -- At most 16 fields: Lua would make room for twice as many. What few records have is looked at only where it is.
  local old, old_epoch, flags, was_super = nil, nil, '', false
  local text = redis.call('HGET', kind == 'supergroup' and supers or rooms, room)
  if text then
    was_super = kind == 'supergroup'
  else
    text = redis.call('HGET', kind == 'supergroup' and rooms or supers, room)
    was_super = text and kind ~= 'supergroup'
  end
  if text then
    local s, e, v, r, h, nh, nm, kd, st, ty, tg, pr, md, ls, ends
    local ed, ad, bar, rs, un = '', '', '', '', ''
    if was_super then
      s, e, v, r, nh, nm, ends = match(text, '^(%a)|(%w+)|(%w+)|(%-?%d+)|(%d+)|(%d+)(.*)$')
      if s and ends ~= '' then ed, ad, bar, rs, un = match(ends, '^|?(e?)([123]?)(|?)(%w*),?(%d*)$') end
    else
      s, e, v, r, h, nh, nm, kd, st, ty, tg, pr, md, ls, ends = match(text,
        '^(%a)|(%w+)|(%w+)|(%-?%d+)|(%d+)|(%d+)|(%d+)|(%a)|(%d)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)(.*)$')
      if s and ends ~= '' then flags, ed, ad, bar, rs, un = match(ends, '^|?([hsm]*)(e?)([123]?)(|?)(%w*),?(%d*)$') end
    end
    if not s or not ed or (bar == '' and rs ~= '') then error({err = 'UNREADABLE a record'}) end
    old_epoch = tonumber(e, 36)
    if was_super then
      -- Only the room knows the other parts; a supergroup adds nothing to the plain counts.
      old = {state = s, after = v, read = tonumber(r), head = math.max(tonumber(r), 0), nh = tonumber(nh), nm = tonumber(nm),
        kind = 'supergroup', status = '1', type = '', tags = '', peer = '', edits = ed, adds = ad, reset = rs}
    else
      old = {state = s, after = v, read = tonumber(r), head = tonumber(h), nh = tonumber(nh), nm = tonumber(nm),
        kind = kd == 'd' and 'direct' or 'group', status = st, type = ty, tags = tg, peer = pr, made = md, last = ls,
        edits = ed, adds = ad, reset = rs}
    end
    if rs ~= '' then old.unknown = tonumber(un) or 0 end
  end
  local same = old and old_epoch == epoch
  if old and old_epoch > epoch and vouched ~= int(old_epoch) then
    return old_epoch > rev and rev > 0 and 'A' .. int(old_epoch) or 'K'
  end
  if not old or same then
    -- Only a slot without a record can have a tombstone or a deletion that is later than the membership.
    if not old and over and over >= epoch and vouched ~= int(over) then
      if state == 'l' then return 'K' end
      if deletion then return 'O' .. deletion end
      return over > rev and rev > 0 and 'A' .. int(over) or 'K'
    end
    if not old and deletion and state ~= 'l' and vouched ~= deletion then return 'D' .. deletion end
  end

  -- A reset changes what marks mean: those that are older than the slot's last one have no effect. `since`: its stamp.
  local since, is_reset, forgets = 0, false, false
  if state == 'j' then
    local has = same and old.reset ~= '' and tonumber(old.reset, 36) or 0
    local wants = asked ~= '' and tonumber(asked, 36) or 0
    if wants > has then
      is_reset = reset and tonumber(reset_rev) == epoch + wants
      if not is_reset then return 'R' .. int(epoch + wants) end
    elseif wants < has and rev < epoch + has then
      -- The pod saw the member before that reset, so all marks that it sends are older.
      read_to, holes, mentions, preferences = '', '', '', string.gsub(preferences, '@%d+\n%d+\n%d\n', '')
      since = math.huge
    elseif wants < has and (read_to .. holes .. mentions .. ARGV[10] .. ARGV[11] ~= '' or string.find(preferences, '@', 1, true)) then
      -- The room has lost that reset.
      forgets = true
    end
    if wants > 0 and since == 0 then since = epoch + wants end
  end

  -- The plain counts will move by the difference between the old record and the new one. Where what the record counts for stays
  -- as it is, three numbers say what it was; otherwise the old record is needed as a whole.
  local new, settled, old_n, old_m, old_i
  if state ~= 'l' then
    if same then
      settled = preferences == '' and old.kind == kind
        and (was_super or (old.status == status and old.type == type and old.tags == tags and old.peer == peer))
      if settled then
        old_n, old_m, old_i = numbers(old)
        new = old
      else
        new = {}
        for field, value in pairs(old) do new[field] = value end
      end
    else
      flags = ''
      new = {state = state, read = base, head = base, nh = 0, nm = 0, edits = '', adds = '', reset = ''}
    end
    -- A snapshot of the record's own revision is taken as well: it is equal, unless a repair has corrected the record. A repair
    -- sets the revision back to the epoch, so that any snapshot is taken.
    local delivered = new.after and tonumber(new.after, 36)
    local further = delivered and tonumber(after, 36) - delivered
    if not delivered or further >= 0 then
      new.after, new.kind, new.status, new.type, new.tags, new.peer, new.last = after, kind, status, type, tags, peer, last
      new.made = new.made or int(created - math.floor(epoch / 1000))
    else
      ahead = math.max(ahead, epoch + delivered)
    end
    if further and further > 0 and head < new.head and not was_super then
      -- The room has lost messages, and will give their positions to other messages.
      new.head, new.read = head, math.min(new.read, head)
      local from = string.format('%016.0f', head + 1)
      new.nh = new.nh - redis.call('ZREMRANGEBYLEX', marks, '[' .. room .. '|h|' .. from, '[' .. room .. '|h|~')
      new.nm = new.nm - redis.call('ZREMRANGEBYLEX', marks, '[' .. room .. '|m|' .. from, '[' .. room .. '|m|~')
      if new.edits ~= '' then redis.call('ZREMRANGEBYLEX', marks, '[' .. room .. '|e|' .. from, '[' .. room .. '|e|~') end
      if new.reset ~= '' then redis.call('ZREMRANGEBYLEX', marks, '[' .. room .. '|x|' .. from, '[' .. room .. '|x|~') end
    end
    new.head = math.max(new.head, head)
  end

  if old and not same then
    redis.call('ZREMRANGEBYLEX', marks, '[' .. room .. '|', '(' .. room .. '}')
    for _, field in ipairs(pref_fields) do redis.call('HDEL', prefs, room .. '|' .. field) end
  end

  if new and new.state == 'j' then
    if not is_reset and read_to ~= '' then pass(new, marks, tonumber(read_to)) end
    if forgets or is_reset then
      new.reset = asked
      new.unknown = new.unknown or 0
    end
    if is_reset then
      merged(reset, new, marks, room, {
        pass = function(up_to) pass(new, marks, up_to) end,
        hole = function(position) hole(new, marks, position) end,
        mention = function(position) mention(new, marks, position) end,
        forget = function(letter, up_to) return forget(marks, letter, up_to) end,
        mark = mark,
      })
      if read_to ~= '' then pass(new, marks, tonumber(read_to)) end
    end
    if holes ~= '' then
      for text in string.gmatch(holes, '%d+') do hole(new, marks, tonumber(text)) end
    end
    for _, one in ipairs(common[1]) do
      if one[2] > since then hole(new, marks, one[1]) end
    end
    if mentions ~= '' then
      for text in string.gmatch(mentions, '%d+') do mention(new, marks, tonumber(text)) end
    end
    for _, one in ipairs(common[2]) do
      if one[2] > since then mention(new, marks, one[1]) end
    end
    new.head = math.max(new.head, new.read)
    if preferences ~= '' then
      for name, stamp, value in string.gmatch(preferences, '([^\n]+)\n(%d+)\n([^\n]+)') do
        local position = match(name, '^@(%d+)$')
        local field = room .. '|' .. name
        local stored = not position and name ~= '<' and redis.call('HGET', prefs, field)
        if name == '<' then
          -- The reset, which was merged first.
        elseif position then
          edit(new, marks, number(position), stamp, value)
        elseif not stored or tonumber(string.match(stored, '^%d+')) < tonumber(stamp) then
          redis.call('HSET', prefs, field, stamp .. '|' .. value)
        end
      end
    end
  end

  -- A supergroup's record has no letters of preferences.
  if new and (preferences ~= '' or (was_super and new.kind ~= 'supergroup')) then flags, new.adds = flags_of(prefs) end
  if new and new.edits ~= '' then
    local left = redis.call('ZRANGEBYLEX', marks, '[' .. room .. '|e|', '[' .. room .. '|e|~', 'LIMIT', 0, 1)
    if #left == 0 then new.edits = '' end
  end

  local delta = {}
  local counted_old = old ~= nil and not was_super
  local counted_new = new ~= nil and new.kind ~= 'supergroup'
  local is_super = new ~= nil and not counted_new
  if settled then
    if counted_new then
      local n, m, i = numbers(new)
      contribute(delta, new, n - old_n, m - old_m, i - old_i, (n > 0 and 1 or 0) - (old_n > 0 and 1 or 0))
    end
  else
    local ref = {}
    if counted_old then
      local n, m, i = numbers(old)
      contribute(delta, old, -n, -m, -i, n > 0 and -1 or 0)
      refer(ref, old, -1)
    end
    if counted_new then
      local n, m, i = numbers(new)
      contribute(delta, new, n, m, i, n > 0 and 1 or 0)
      refer(ref, new, 1)
    end
    apply(refs, ref)
    local before, after = counted_old and old.peer or '', counted_new and new.peer or ''
    if before ~= after then
      if before ~= '' then peer_rooms(refs, before, false) end
      if after ~= '' then peer_rooms(refs, after, true) end
    end
  end
  local mark = apply(counts, delta)
  -- What moves positions only is seen by the sweep of the pods that watch.
  if mark == nil and marks_read == 1 and (is_super or not settled) then mark = redis.call('HGET', counts, 'live') end
  tell_watchers(counts, mark)

  if new then
    if not old then redis.call('HSETNX', counts, 'known', int(epoch)) end
    local start = new.state .. '|' .. began .. '|' .. new.after .. '|' .. int(new.read) .. '|'
    local ends = new.reset ~= '' and '|' .. new.reset .. (new.unknown > 0 and ',' .. int(new.unknown) or '') or ''
    if counted_new then
      local flags = flags .. new.edits .. new.adds .. ends
      redis.call('HSET', rooms, room, start .. int(new.head) .. '|' .. new.nh .. '|' .. new.nm .. '|' .. string.sub(new.kind, 1, 1) .. '|'
        .. new.status .. '|' .. new.type .. '|' .. new.tags .. '|' .. new.peer .. '|' .. new.made .. '|' .. new.last
        .. (flags ~= '' and '|' .. flags or ''))
    else
      local flags = new.edits .. new.adds .. ends
      redis.call('HSET', supers, room, start .. new.nh .. '|' .. new.nm .. (flags ~= '' and '|' .. flags or ''))
    end
  end
  if counted_old and not counted_new then redis.call('HDEL', rooms, room) end
  if was_super ~= is_super then
    if was_super then redis.call('HDEL', supers, room) end
    local n = redis.call('HLEN', supers)
    if n > 0 then redis.call('HSET', counts, 'supers', n) else redis.call('HDEL', counts, 'supers') end
  end

  if state == 'l' then
    redis.call('HSET', left, room, int(epoch) .. '|' .. int(now))
    if not ended[3] then redis.call('PEXPIRE', left, 86400000) end
    -- More than 512 tombstones are swept, but at most every ten minutes: a user may leave thousands of rooms in a row. A
    -- tombstone goes after an hour. One from the future was made before the clock stepped back: its hour begins now.
    local swept = tonumber(redis.call('HGET', left, '#') or 0)
    if redis.call('HLEN', left) > 512 and (now - swept > 600000000 or swept > now) then
      redis.call('HSET', left, '#', int(now))
      local all = redis.call('HGETALL', left)
      for i = 1, #all, 2 do
        local tomb, since = string.match(all[i + 1], '^(%d+)|(%d+)$')
        if since and tonumber(since) > now then
          redis.call('HSET', left, all[i], tomb .. '|' .. int(now))
        elseif since and tonumber(since) < now - 3600000000 then
          redis.call('HDEL', left, all[i])
        end
      end
    end
  elseif ended[1] then
    redis.call('HDEL', left, room)
  end
  return 'K'
end

for _, i in ipairs(slow) do reply[i + 1] = merge(i * 7, 11 + i * 4) end
if ahead > 0 then reply[users + 1] = '>' .. int(ahead) end
return reply
