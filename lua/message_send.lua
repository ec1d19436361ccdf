#!lua
-- Purpose: accept messages into a room in the order given: number those that count, remember their ids, and write a job for
--   each delivery. With a pair of users the room is the direct room of the two. The script makes it if needed, and lets in
--   the one who is not in it; a user who is invited stays invited.
-- KEYS: 1 meta (hash), 2 members (hash: user -> entry, see member_settle.lua),
--   3 ids (hash: id -> rev|position|time|recall|number; where needed | and s if it is silent, | and whom it mentions ('*' or a
--   comma list), | and digests of what edits gave, see message_update.lua), 4 log (list: rev|position|time|id; where needed | and
--   the sender, | and the users for whom the message does not count, |- if it does not set the sender's read position by arrival),
--   5 allmentions (sorted set of positions), 6 pending (hash: job -> record), 7 timed (hash), 8 bounds (sorted set) and
--   9 arrived (hash): lib/time, 10 recalled (sorted set of positions)
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), 3 history in messages,
--   4 history in microseconds, 5 and 6 the pair or '' and '', 7 what the caller expects of the pair's room: 'new' it is made if
--   it does not exist; 'existing' both have to be in it; 'rejoined' it has to exist, and the one who left comes back,
--   8 '' or, if the messages are placed by their times, time or import, then eleven per message:
--   id, sender or '', time (milliseconds), silent 0|1, mark read 0|1, mentions ('', '*' or comma list), text, message type,
--   1 if the event gave the time, 0 if the pod took the time of arrival, payload (JSON) or '',
--   users for whom it does not count ('' or comma list)
-- Reply: {'OK', job or '', record or '' (of the pair's joining, or of a pending conversion to a supergroup), pending jobs
--   (lib/fanout), now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time, 1 if room_trim.lua should
--   forget mentions of everybody, then four per message: 'A' applied or 'D' duplicate, position (0: silent), job or '',
--   record or ''; then how many room.unread have waited for these messages, and of each user, time, id and when it was accepted;
--   then job and record in turn: what else has waited (lib/time)}
--   or {'STALE', token above which to announce again}, {'ROOM'} no such room, {'FULL'} other users have the pair's room,
--   {'KIND'} the pair's room is not direct, {'LEFT'} one of the two is not in it, or the room is gone, or the error UNREADABLE
-- Lib: fanout, entry, members, version, live
local meta, members, ids, log, allmentions, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local token, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local max_messages, max_age = tonumber(ARGV[3]), tonumber(ARGV[4])
local one, two, found, by_time = ARGV[5], ARGV[6], ARGV[7], ARGV[8] ~= ''

local now = clock()
local m = opened(meta, 'mintime', 'maxtime', 'accepted', 'told', 'kept', 'last_payload', 'timed', 'live')
tell_room(meta, m[20])
numbers(m, 13, 14, 15, 19)
if m[12] and tonumber(m[12]) >= token then return {'STALE', m[12]} end
local rev, existed = tonumber(m[1] or 0), m[7]
local function tick()
  rev = math.max(rev + 1, now)
  return int(rev)
end

local born, head, kind = m[7], tonumber(m[2] or 0), m[3]
-- All is read before anything is written, so that a key of another type than it should be ends the script before. The first
-- sender's entry and the oldest message are needed later.
local looked_at, entry = ARGV[10], redis.call('HGET', members, ARGV[10])
local oldest = redis.call('LINDEX', log, 0)
local function member(user)
  if user ~= looked_at then looked_at, entry = user, redis.call('HGET', members, user) end
  if not entry then return nil end
  entry = entry_of(entry)
  local s, epoch, here = string.match(entry, '^(%a)|(%w+)|%d*(h?)')
  if not s or s == 'l' or tonumber(epoch, 36) < tonumber(born) then return nil end
  -- Who has read or sent anything since joining has an h after the base.
  if s == 'j' and here == '' then
    entry = string.gsub(entry, '^(%a|%w+|%d+)', '%1h', 1)
    redis.call('HSET', members, user, entry)
  end
  return s, epoch
end

-- Which of the messages the history knows, and when each was accepted.
local asked_ids, known, to_everybody = {}, {}, by_time
for i = 9, #ARGV, 11 do
  asked_ids[#asked_ids + 1] = ARGV[i]
  to_everybody = to_everybody or ARGV[i + 5] == '*'
end
for i, entry in ipairs(redis.call('HMGET', ids, unpack(asked_ids))) do
  if entry then
    local first, position, silent = string.match(entry .. '|||', '^(%d+)|(%d+)|%-?%d+|%d+|%d+|(s?)|[^|]*|[%x.]*|*$')
    must(first, 'what is known of a message')
    if tonumber(first) >= now - max_age then
      known[asked_ids[i]] = {first = first, position = silent == 's' and 0 or tonumber(position)}
    end
  end
end

-- What the order of time needs. It is nothing in a room that keeps nothing of it and takes messages by their arrival.
local time, waiting, extra, unread, last_reset = nil, {}, nil, nil, nil
if by_time or m[19] then
  extra, unread = {}, {}
  -- Lib: arrived, time
  time = time_order(KEYS[7], KEYS[8], KEYS[9], now)
  time.live = m[19] and time.holds(m[19])
  if time.live then waiting = time.waiting(asked_ids) end
end
if kind == 'supergroup' and (to_everybody or time) then redis.call('ZCOUNT', allmentions, 0, 0) end

-- A message that is known changes nothing, so it lets nobody into the room either.
local any_new = false
for _, id in ipairs(asked_ids) do
  if one == '' or any_new then break end
  any_new = not (born and known[id])
end

local open, job, record, set = unfinished(pending), '', '', {}
if any_new then
  local function put(field, value) set[#set + 1] = field; set[#set + 1] = value end
  local made = not born
  if made and found ~= 'new' then return {'LEFT'} end
  if born and kind ~= 'direct' then return {'KIND'} end
  local here = made and {} or pair_in(members, tonumber(born), meta, one, two)
  if not here then return {'FULL'} end
  local missing = {}
  if not here[one] then missing[1] = one end
  if two ~= one and not here[two] then missing[#missing + 1] = two end
  if #missing > 0 and found == 'existing' then return {'LEFT'} end
  if #missing > 0 then
    local rev_text = tick()
    if made then
      born, head, kind = rev_text, 0, 'direct'
      m[3], m[4], m[5], m[6], m[7] = kind, '1', '', '', born
      put('born', born); put('kind', kind); put('status', '1'); put('type', ''); put('tags', '')
      m[9] = ARGV[11]
      put('created', m[9])
    end
    m[8] = version(rev, m[8], 'j' .. table.concat(missing, ','))
    put('mrev', m[8])
    local epoch_text, base, marks = short(rev), head, ''
    if by_time and head > 0 then
      -- Lib: join
      local later
      base, later = begins(ARGV[8], tonumber(ARGV[11]), head, log, now, max_messages, max_age)
      marks = marks_of_range(later, missing, ids)
    end
    for _, user in ipairs(missing) do
      redis.call('HSET', members, user, 'j|' .. epoch_text .. '|' .. int(base))
      if time then
        time.state_made(user, by_time and tonumber(ARGV[11]))
        if by_time then time.has_read(user, epoch_text, nil, tonumber(ARGV[11])) end
      end
    end
    job, record = rev_text, int(now + lease) .. '\nall' .. (marks ~= '' and '\n\nj|' .. marks or '')
    redis.call('HSET', pending, job, record)
    looked_at = nil
  end
end
if not born then return {'ROOM'} end
if job == '' and kind == 'supergroup' and m[16] then
  -- Members whose slots don't know yet that the room is a supergroup would not see the message. So the caller waits for the job
  -- of that conversion.
  record = redis.call('HGET', pending, m[16]) or ''
  if record ~= '' then job = m[16] end
end

local mintime, maxtime, accepted = tonumber(m[13]), tonumber(m[14]), tonumber(m[15] or 0)
local last, payload, much, length = nil, '', 0, nil
local reply = {'OK', job, record, open, now, unpack(m, 1, 11)}
reply[17] = 0
local last_at, last_time = tonumber(string.match(m[10] or '', '^%d+')), tonumber(m[11])
local readers, take_effect, wait_for_unread
if time then
  -- Lib: arrived, bound
  -- The time of this member's last by-time reset, or nil.
  function last_reset(user, epoch) return select(2, read_on_arrival(KEYS[9], user, tonumber(epoch, 36))) end
  -- The caller carries it out, unless the membership has ended.
  function wait_for_unread(id, act)
    local s, epoch = string.match(entry_of(redis.call('HGET', members, act[3])) or '', '^(%a)|(%w+)')
    if s == 'j' and epoch == act[4] then unread[#unread + 1] = {act[3], act[5], id, int(act[2])} end
  end
  local held = {}
  -- The members who read a message of that time on arrival, and up to which rev everybody's membership has begun who does.
  function readers(at_time)
    local users, revs = time.readers(at_time)
    local names, here = {}, {}
    for user in pairs(users) do names[#names + 1] = user end
    for from = 1, #names, 1000 do
      local part = {unpack(names, from, math.min(from + 999, #names))}
      for i, entry in ipairs(redis.call('HMGET', members, unpack(part))) do
        local s, epoch = string.match(entry_of(entry) or '', '^(%a)|(%w+)')
        if s == 'j' and epoch == users[part[i]] and tonumber(epoch, 36) >= tonumber(born) then here[part[i]] = epoch end
      end
    end
    if #revs > 0 and kind ~= 'supergroup' then
      -- Most messages of a call have the same revs.
      local which = table.concat(revs, ',')
      if not held[which] then
        local joined, all = {}, redis.call('HGETALL', members)
        for i = 1, #all, 2 do
          local s, epoch = string.match(entry_of(all[i + 1]), '^(%a)|(%w+)')
          if s == 'j' and tonumber(epoch, 36) >= tonumber(born) then joined[#joined + 1] = {all[i], epoch} end
        end
        held[which] = time.held_by(joined, revs)
      end
      for user, epoch in pairs(held[which]) do here[user] = epoch end
    end
    return here, revs
  end
  -- What has waited for a message takes effect.
  function take_effect(id, list, at, at_time, silent, recall)
    local mm = {[2] = head, [14] = accepted, [15] = mintime, [16] = maxtime}
    for _, act in ipairs(list) do
      local record
      if act[1] == 'c' and recall then
        if not silent and kind ~= 'direct' then
          if redis.call('ZADD', KEYS[10], at, at) == 1 and redis.call('ZCOUNT', KEYS[10], '-inf', '+inf') >= (tonumber(redis.call('HGET', meta, 'trim') or '') or 1024) then much = 1 end
        end
        if not silent and kind ~= 'supergroup' then record = int(now + lease) .. '\nall\n\nc|' .. at end
        recall = false
      elseif act[1] == 'u' then
        wait_for_unread(id, act)
      elseif act[1] == 'r' then
        local user, epoch, when = act[3], act[4], tonumber(act[5])
        local s, began, base, more = string.match(entry_of(redis.call('HGET', members, user)) or '', '^(%a)|(%w+)|(%d+)h?%w*(.*)$')
        local set, reset = read_on_arrival(KEYS[9], user, tonumber(epoch, 36))
        if s == 'j' and began == epoch and not (reset and when <= reset) and not time.is_cancelled(user, act[6]) then
          local position = tonumber(at)
          local function skip(before) return set[before] end
          if skip(position) then position = bound('time', at_time, meta, mm, ids, log, now, max_messages, max_age, skip) or 0 end
          time.has_read(user, epoch, tonumber(at_time), when)
          if position > tonumber(base) or string.match(more, '%d$') then record = int(now + lease) .. '\nsome\n' .. user .. '\nr|' .. int(position) end
        end
      end
      if record then
        extra[#extra + 1] = tick()
        extra[#extra + 1] = record
        redis.call('HSET', pending, extra[#extra - 1], extra[#extra])
      end
    end
  end
end
-- When a message was sent: the time that its event gave, but not later than its acceptance.
local function moment(time, at) return math.min(time, math.floor(at / 1000)) end
for i = 9, #ARGV, 11 do
  local id, sender, sent = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local silent, mark, mentions = ARGV[i + 3] == '1', ARGV[i + 4] == '1', ARGV[i + 5]
  local n = #reply
  if known[id] then
    local first = known[id].first
    reply[n + 1] = 'D'
    reply[n + 2] = known[id].position
    reply[n + 3] = first
    reply[n + 4] = redis.call('HGET', pending, first) or ''
    -- The one that took the message may not have come to what has waited for it.
    for _, act in ipairs(waiting[id] or {}) do
      if act[1] == 'u' then wait_for_unread(id, act) end
    end
  else
    local rev_text = tick()
    if not silent then
      head = head + 1
      mintime = math.min(mintime or tonumber(sent), tonumber(sent))
      maxtime = math.max(maxtime or tonumber(sent), tonumber(sent))
    end
    -- A silent message has no position; its place is that of the last message with a position before it.
    local at = int(head)
    accepted = accepted + 1
    local text, message_type, with, recall, digests = ARGV[i + 6], ARGV[i + 7], ARGV[i + 9], '0', nil
    for n = 1, waiting[id] and #waiting[id] or 0 do
      -- Edits go by the order in which the room accepted them, and none comes after a recall.
      local act = waiting[id][n]
      if act[1] == 'c' then recall, text, message_type, with = rev_text, '', 'recall', '' end
      if act[1] == 'e' and recall == '0' then
        digests = digests or {'', '', ''}
        for part = 1, 3 do
          if act[part + 2] ~= '' then digests[part] = string.sub(redis.sha1hex(string.sub(act[part + 2], 2)), 1, 8) end
        end
        if act[3] ~= '' then text = string.sub(act[3], 2) end
        if act[4] ~= '' then message_type = string.sub(act[4], 2) end
        if act[5] ~= '' then with = string.sub(act[5], 2) end
        if act[6] ~= '' then mentions = string.sub(act[6], 2) end
      end
    end
    digests = digests and table.concat(digests) ~= '' and '|' .. table.concat(digests, '.')
    local what_more = silent and '|s' or mentions ~= '' and '||' .. mentions or ''
    if digests then what_more = '|' .. (silent and 's|' or '|' .. mentions) .. digests end
    redis.call('HSET', ids, id, rev_text .. '|' .. at .. '|' .. sent .. '|' .. recall .. '|' .. int(accepted) .. what_more)
    known[id] = {first = rev_text, position = silent and 0 or head}
    local except = silent and '' or ARGV[i + 10]
    length = redis.call('RPUSH', log, rev_text .. '|' .. (silent and '0' or at) .. '|' .. sent .. '|' .. id
      .. (sender ~= '' and (by_time or not mark) and '|' .. sender .. '|' .. except .. '|-'
        or except ~= '' and '|' .. sender .. '|' .. except or sender ~= '' and '|' .. sender or ''))
    local at_time, given = tonumber(sent), ARGV[i + 8] == '1'
    if given and last_at and last_time and moment(at_time, tonumber(rev_text)) < moment(last_time, last_at) then
      -- Late: the room keeps its last message, but this is its newest one.
      m[10] = int(last_at) .. ',' .. rev_text
      if not last and redis.call('HEXISTS', meta, 'last_position') == 0 then
        -- An earlier version did not store the position of the last message; there it was the message accepted last.
        redis.call('HSET', meta, 'last_position', int(silent and head or head - 1))
      end
    else
      last_at, last_time = tonumber(rev_text), at_time
      m[10], m[11] = rev_text, sent
      last = {'last_id', id, 'last_position', at, 'last_sender', sender, 'last_time', sent, 'last_updated', rev_text,
        'last_text', text, 'last_type', message_type}
      payload = with
    end

    -- A silent message goes to all members, too: it is the room's last message, by which they sort their rooms.
    local all = kind ~= 'supergroup'
    local named = {}
    if not silent and mentions == '*' and recall == '0' then
      if kind == 'supergroup' then
        redis.call('ZADD', allmentions, at, at)
        if redis.call('ZCOUNT', allmentions, '-inf', '+inf') >= (tonumber(redis.call('HGET', meta, 'trim') or '') or 1024) then much = 1 end
      else
        named[1] = '*'
      end
    elseif not silent and mentions ~= '' and mentions ~= '*' then
      named = joined_of(members, born, mentions, {[sender] = true})
    end
    local excepted = except ~= '' and joined_of(members, born, except, {}) or {}
    if by_time and time.live then
      local here, revs = readers(at_time)
      local is_excepted = {[sender] = true}
      for _, user in ipairs(excepted) do is_excepted[user] = true end
      time.arrive(here, silent and '-' .. int(accepted) or at, all and {max_messages, head, accepted})
      for user in pairs(here) do
        if all and not silent and not is_excepted[user] then excepted[#excepted + 1] = user end
      end
      if #revs > 0 and not all then time.all_arrive(silent and '-' .. int(accepted) or at, revs) end
    end
    local what = ''
    if all or sender ~= '' or #named > 0 or #excepted > 0 then
      -- What the message is to its sender: r read up to here, h a hole, q nothing; n the sender has not joined. Then, if they are
      -- needed: the pair that is let into its room and the base, and the members for whom the message does not count.
      local own, more = 'n', ''
      local s, epoch
      if sender ~= '' then s, epoch = member(sender) end
      if s == 'j' then own = mark and 'r' or silent and 'q' or 'h' end
      if by_time and own == 'r' then
        local reset = last_reset(sender, epoch)
        if reset and at_time <= reset then
          -- Older than the last reset, it neither moves the read position nor sets a bound.
          own = silent and 'q' or 'h'
        else
          time.has_read(sender, epoch, at_time, at_time)
          time.live = true
        end
      end
      if one ~= '' then more = '|' .. one .. ',' .. two .. '|' .. int(silent and head or head - 1) end
      if #excepted > 0 then more = (more ~= '' and more or '||') .. '|' .. table.concat(excepted, ',') end
      what = int(now + lease) .. (all and '\nall\n\n' or '\nsome\n\n') .. 'm|' .. at .. '|' .. own .. '|' .. sender
        .. '|' .. table.concat(named, ',') .. more
      redis.call('HSET', pending, rev_text, what)
    end
    reply[n + 1] = 'A'
    reply[n + 2] = silent and 0 or head
    reply[n + 3] = what ~= '' and rev_text or ''
    reply[n + 4] = what
    if waiting[id] then
      take_effect(id, waiting[id], at, sent, silent, recall ~= '0')
      time.taken(id, waiting[id])
      time.live = true
    end
  end
end

-- Messages beyond the history are forgotten, the oldest first. One beyond the number of messages stays as long as a request
-- with it may be sent again. An id that was used again belongs to the newer message. A call forgets a bounded number, so
-- that it stays short after an operator has shortened the history.
local retried, most = now - 900000000, max_messages + 50000
for _ = 1, #ARGV / 11 + 16 do
  if not oldest then break end
  local stamp, id = string.match(oldest, '^(%d+)|%d+|%-?%d+|([^|]*)')
  -- An element that can't be read counts as old.
  local at = tonumber(stamp or 0)
  length = length or redis.call('LLEN', log)
  if not (at < now - max_age or (length > max_messages and at < retried) or length > most) then break end
  redis.call('LPOP', log)
  length = length - 1
  local entry = id and redis.call('HGET', ids, id)
  if entry and string.match(entry, '^%d+') == stamp then redis.call('HDEL', ids, id) end
  oldest = redis.call('LINDEX', log, 0)
end
-- Redis expires the whole history some time after its last message. The script puts that off once in ten minutes, for long
-- enough to cover all messages of those ten minutes.
local spell = 600000000
local kept = int(math.floor(now / spell))
if m[17] ~= kept then
  local keep = string.format('%.0f', (max_age + 2 * spell) / 1000)
  redis.call('PEXPIRE', ids, keep)
  redis.call('PEXPIRE', log, keep)
  set[#set + 1] = 'kept'
  set[#set + 1] = kept
end

last = last or {}
if payload ~= '' then
  last[#last + 1] = 'last_payload'
  last[#last + 1] = payload
elseif last[1] and m[18] then
  redis.call('HDEL', meta, 'last_payload')
end
if mintime ~= tonumber(m[13]) then
  last[#last + 1] = 'mintime'
  last[#last + 1] = int(mintime)
end
if maxtime ~= tonumber(m[14]) then
  last[#last + 1] = 'maxtime'
  last[#last + 1] = int(maxtime)
end
if m[10] then
  last[#last + 1] = 'last_at'
  last[#last + 1] = m[10]
end
for i = 1, #set do last[#last + 1] = set[i] end
reply[6], reply[7] = int(rev), int(head)
redis.call('HSET', meta, 'rev', reply[6], 'head', reply[7], 'accepted', int(accepted), unpack(last))
if time then time.finish(meta) end
-- If a room of this name was deleted before, Redis would expire its meta.
if not existed then redis.call('PERSIST', meta) end
reply[15], reply[16], reply[17] = m[10], m[11], much
reply[#reply + 1] = unread and #unread or 0
if time then
  for _, one in ipairs(unread) do
    for i = 1, 4 do reply[#reply + 1] = one[i] end
  end
  for i = 1, #extra do reply[#reply + 1] = extra[i] end
end
return reply
