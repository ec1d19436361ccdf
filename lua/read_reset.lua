#!lua
-- Purpose: reset a member's read position: back to just before a message (room.unread), or to where so many messages are unread
--   (counts.set). The script writes the job that delivers the reset to that member. A user's slot ignores what is older than its
--   last reset, so all that is older has to be delivered first: the reply names those jobs, and the caller asks again after them.
-- KEYS: 1 meta (hash), 2 members (hash: user -> entry, see member_settle.lua), 3 ids (hash: id -> what message_send.lua writes),
--   4 log (list: rev|position|time|id, see message_send.lua), 5 allmentions (sorted set of positions),
--   6 pending (hash: job -> record), 7 and 8 keys that were taken (hashes),
--   9 timed (hash), 10 bounds (sorted set) and 11 arrived (hash): lib/time
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), 3 the event's key (lib/keys) or '',
--   4 history in messages (of which a reset knows the newest 10,000: longer scripts would keep Redis from all else), 5 history in
--   microseconds, 6 user, 7 id|time|position: back to before that; or count: so many messages
--   are unread, 8 the id, the time (milliseconds), the position, or the number, 9 with count: '' or how many of them are mentions,
--   10 '' or, if the event is placed by its time, time or import, 11 that time (milliseconds). By time the number is as of then,
--   and what names an unknown message waits for it
-- Reply: {'OK', job or '', record or '', pending jobs (lib/fanout), now, rev, head, kind, status, type, tags, born,
--   mrev, created, last_at, last_time} or {'DUP', the same}
--   or {'WAIT', '', '', pending jobs of this member that have to be delivered first (job and record in turn), now and so on, all
--   pending jobs (lib/fanout)}
--   or {'BUSY'} too many jobs are pending,
--   or {'STALE', token above which to announce again}, {'KEY'} the key was another event's, {'ROOM'} no such room,
--   {'MEMBER'} the user has not joined, {'MESSAGE'} no such message, or older than the history, or the error UNREADABLE
-- Lib: fanout, entry, version, keys, arrived, cleared, time
local meta, members, ids, log, allmentions, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local token, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local max_messages, max_age = math.min(tonumber(ARGV[4]), 10000), tonumber(ARGV[5])
local user, how, value, mentions = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local by_time, event_time = ARGV[10] ~= '', tonumber(ARGV[11])

local now = clock()
local m = opened(meta, 'accepted', 'cleared', 'timed', 'late', 'all_read', 'all_set')
numbers(m, 13)
if m[12] and tonumber(m[12]) >= token then return {'STALE', m[12]} end
local taken, take = keyed(KEYS[7], KEYS[8], ARGV[3], now)
if taken then
  if not taken.same then return {'KEY'} end
  local record = redis.call('HGET', pending, taken.job) or ''
  return {'DUP', taken.job, record, unfinished(pending), now, unpack(m, 1, 11)}
end
if not m[7] then return {'ROOM'} end
local entry = entry_of(redis.call('HGET', members, user))
local start, state, began, here, rest, since, reset = string.match(entry or '', '^(([ijl])|(%w+)|%d+(h?%w*))(|?%d*|?(%d*))|?(%d*)$')
must(start or not_joined(entry), 'an entry of a member')
if state ~= 'j' or tonumber(began, 36) < tonumber(m[7]) then return {'MEMBER'} end
local epoch = tonumber(began, 36)
local head, is_supergroup = tonumber(m[2]), m[3] == 'supergroup'

-- The newest elements of the log, from the last one back, until `look` has seen enough; at most so many.
local function newest_first(most, look)
  local stop = redis.call('LLEN', log)
  local oldest = math.max(stop - most, 0)
  while stop > oldest do
    local chunk = redis.call('LRANGE', log, math.max(stop - 64, oldest), stop - 1)
    if look(chunk) then return end
    stop = stop - 64
  end
end

-- By time it is late if something later has set the read position, or has said the number, or if the number is old and the user
-- has read or sent anything since joining.
local time = time_order(KEYS[9], KEYS[10], KEYS[11], now)
local arrived, reset_time, as_of, exempt = {}, nil, nil, nil
if m[16] then
  local _
  arrived, reset_time, as_of, _, exempt = read_on_arrival(KEYS[11], user, epoch)
end
if by_time then
  -- What set the read position by arrival: reads and clearings, of which the last one is known, and own messages.
  local since_joining = tonumber(string.sub(here, 2), 16)
  local set = since_joining and math.floor(epoch / 1000) + since_joining
  local was_set = set and time.holds(set * 1000) and set >= event_time
  for _, place in ipairs({17, 18}) do
    local rev = tonumber(m[place])
    if rev and rev > epoch then
      here = 'h'
      was_set = was_set or (place == 18 and time.holds(rev) and math.floor(rev / 1000) >= event_time)
    end
  end
  -- A message stays in the log for longer than a moment is remembered, also where the history is shorter.
  newest_first(10000, function(chunk)
    for i = #chunk, 1, -1 do
      local rev, sender, flag = string.match(chunk[i], '^(%d+)|%d+|%-?%d+|[^|]*|?([^|]*)|?[^|]*|?(%-?)$')
      must(rev, 'a message of the history')
      -- All that is older was accepted before that time, or before what is remembered.
      local is_older = tonumber(rev) <= epoch or math.floor(rev / 1000) < event_time
      if was_set or is_older or (tonumber(rev) < now and not time.holds(rev)) then return true end
      was_set = sender == user and flag == '' and time.holds(rev)
    end
  end)
  local has_been_here = here ~= ''
  local is_old = event_time < math.floor(now / 1000) - 600000 and has_been_here
  if was_set or time.was_set_since(user, began, event_time) or (how == 'count' and ((as_of and event_time <= as_of) or is_old)) then
    take('')
    return {'DUP', '', '', unfinished(pending), now, unpack(m, 1, 11)}
  end
end
local function is_told(one) return not by_time or one.time <= event_time end

-- The pending jobs that this member's slot merges in another way before the reset than after it.
if redis.call('HLEN', pending) > 5000 then return {'BUSY'} end
local first = tonumber(since) or epoch
local all, wait = redis.call('HGETALL', pending), {}
local function is_in(list) return list == '*' or string.find(',' .. list .. ',', ',' .. user .. ',', 1, true) end
for i = 1, #all, 2 do
  -- Most of many are about others, and name neither this user nor everybody.
  local text, audience, names, what, act = all[i + 1], nil, nil, nil, nil
  if string.find(text, user, 1, true) or string.find(text, '*', 1, true) or string.find(text, '\nall\n', 1, true) then
    audience, names, what, act = string.match(text, '^%d+\n(%a+)\n([^\n]*)\n(%a)|(.*)$')
  end
  local concerns = false
  if what == 'm' then
    local own, sender, named, except = string.match(act, '^%d+|(%a)|([^|]*)|([^|]*)|?[^|]*|?%d*|?([^|]*)$')
    must(own, 'a job')
    concerns = (sender == user and (own == 'r' or own == 'h')) or is_in(named) or is_in(except)
  elseif what == 'e' then
    local on, off = string.match(act, '^%d+|([^|]*)|([^|]*)$')
    must(on, 'a job')
    -- Before a user may stand a sign; * may stand beside users: everybody of the audience.
    for _, list in ipairs({on, off}) do
      local has_all = string.find(',' .. list .. ',', ',*,', 1, true) and (audience ~= 'reset' or reset ~= '')
      concerns = concerns or has_all or is_in((string.gsub(list, '[+!*]', '')))
    end
  elseif what == 'r' or what == 'c' or what == 'b' then
    concerns = audience == 'all' or is_in(names)
  end
  -- A join that was placed by its time brings marks along; its job has the number at which the membership began.
  local is_join = what == 'j' and tonumber(all[i]) >= first and string.find('|' .. act, '|' .. user .. ':', 1, true)
  if is_join or (concerns and tonumber(all[i]) > first) then
    wait[#wait + 1] = all[i]
    wait[#wait + 1] = all[i + 1]
  end
end
if #wait > 0 then
  local reply = {'WAIT', '', '', wait, now, unpack(m, 1, 11)}
  reply[17] = unfinished(pending)
  return reply
end

-- What the reset means for messages that are read on arrival. `back`: from this time on none is any more; or all: none is.
local counts_again = {}
local function placed(back, left)
  local moment = by_time and event_time or math.floor(now / 1000)
  local is_count = how == 'count'
  time.reset(user, began, moment, back, is_count and by_time and event_time or nil, left, by_time
    and math.max(event_time, reset_time or 0) or reset_time, is_count and by_time and event_time or as_of, tonumber(m[1]))
  if not by_time and m[15] then time.cancel_reads(user, m[1]) end
  time.finish(meta)
end
local function nothing(back, left)
  m[1] = int(math.max(tonumber(m[1]) + 1, now))
  redis.call('HSET', meta, 'rev', m[1])
  placed(back, left)
  take('')
  return {'OK', '', '', unfinished(pending), now, unpack(m, 1, 11)}
end

-- The messages of the history that count, from the newest one back, some at a time; each with its position, time and id, and what
-- follows in its element. Then the silent ones. Nothing older is known.
local function history(look)
  newest_first(max_messages, function(chunk)
    local found, silent, is_over = {}, {}, false
    for i = #chunk, 1, -1 do
      local rev, at, time, id, sender, except = string.match(chunk[i], '^(%d+)|(%d+)|(%-?%d+)|([^|]*)|?([^|]*)|?([^|]*)|?%-?$')
      must(rev, 'a message of the history')
      is_over = tonumber(rev) < now - max_age
      if is_over then break end
      local list = at == '0' and silent or found
      list[#list + 1] = {rev = rev, at = tonumber(at), time = tonumber(time), id = id, sender = sender, except = except}
    end
    return look(found, silent) or is_over
  end)
end

-- Where a room.unread goes back to.
local to, back, is_there = nil, nil, how == 'count'
if how == 'id' then
  local known = redis.call('HGET', ids, value)
  local function unknown()
    if not by_time then return {'MESSAGE'} end
    time.wait(value, 'u', user, began, int(event_time))
    time.finish(meta)
    take('')
    return {'OK', '', '', unfinished(pending), now, unpack(m, 1, 11)}
  end
  if not known then return unknown() end
  local rev, at, sent, number, silent = string.match(known .. '|', '^(%d+)|(%d+)|(%-?%d+)|%d+|(%d+)|(s?)')
  must(rev and m[13], 'what is known of a message')
  if tonumber(rev) < now - max_age or tonumber(m[13]) - tonumber(number) >= max_messages then return unknown() end
  back = tonumber(sent)
  to = silent == 's' and tonumber(at) or tonumber(at) - 1
elseif how == 'position' then
  if head == 0 then return nothing(nil, arrived) end
  local position = math.min(head, tonumber(value))
  history(function(found)
    for _, one in ipairs(found) do
      if one.at == position then is_there, back = true, one.time end
    end
    return is_there
  end)
  if not is_there then return {'MESSAGE'} end
  to = position - 1
elseif how == 'time' then
  local lowest
  back = tonumber(value)
  history(function(found)
    for _, one in ipairs(found) do
      if one.time >= back then lowest = one.at end
    end
  end)
  to = lowest and lowest - 1
end

-- What was read on arrival, and still is after the reset. A silent message has its number there, below zero.
local left = how == 'count' and {} or arrived
if back and next(arrived) then
  left = {}
  for at in pairs(arrived) do left[at] = true end
  history(function(found, silent)
    for _, one in ipairs(found) do
      if one.time >= back then left[one.at] = nil end
    end
    for _, one in ipairs(silent) do
      local rev, number = string.match(one.time >= back and redis.call('HGET', ids, one.id) or '', '^(%d+)|%d+|%-?%d+|%d+|(%d+)')
      if rev == one.rev then left[-tonumber(number)] = nil end
    end
  end)
end
if how == 'time' and not to then return nothing(back, left) end
-- The lowest position that counts again, if it lies below the one that is named: times may be in another order than positions.
local lowest_again = head + 1
if back then
  for at in pairs(arrived) do
    if at > 0 and not left[at] then lowest_again = math.min(lowest_again, at) end
  end
end

-- What the room knows of the positions above the new read position: those that don't count (the user's own, and those that except
-- the user; and recalled ones), and those that mention the user (in a supergroup those that the room counts as mentions of
-- everybody, and the others).
local own, gone, to_all, named, later = {}, {}, {}, {}, {}
local missing, lowest = tonumber(how == 'count' and value or '0'), head + 1
history(function(found)
  if how == 'count' and missing == 0 and to then return true end
  local some = {}
  for i, one in ipairs(found) do some[i] = one.id end
  local known = #some > 0 and redis.call('HMGET', ids, unpack(some)) or {}
  for i, one in ipairs(found) do
    local is_below = to and one.at <= to
    if is_below and one.at < lowest_again then return true end
    local rev, recall, mentioned = string.match((known[i] or '') .. '|||', '^(%d+)|%d+|%-?%d+|(%d+)|%d+|s?|([^|]*)|')
    local is_known = rev == one.rev
    local counts = true
    local is_own = one.sender == user or is_in(one.except)
    if is_own or left[one.at] then
      if not is_below then own[#own + 1] = one.at end
      counts = false
    end
    if is_known and recall ~= '0' then
      if not is_below then gone[#gone + 1] = one.at end
      counts = false
    end
    if is_below and not arrived[one.at] then counts = false end
    if counts and is_known and is_in(mentioned) then
      local by_room = is_supergroup and mentioned == '*' and redis.call('ZSCORE', allmentions, one.at)
      local list = by_room and to_all or named
      list[#list + 1] = one.at
    end
    if counts and arrived[one.at] and not left[one.at] then counts_again[#counts_again + 1] = one.at end
    if not is_below then
      if not is_told(one) then later[#later + 1] = one.at end
      lowest = one.at
    end
    if how == 'count' and missing == 0 and is_told(one) and not to then to = one.at end
    if how == 'count' and counts and is_told(one) and missing > 0 then
      missing = missing - 1
      if missing == 0 then
        to = one.at - 1
        return true
      end
    end
  end
end)
local unknown = ''
if how == 'count' and not to then
  -- Each position that is older than the history, or before the first message, counts as one.
  to = lowest - 1 - missing
  if missing > 0 then
    unknown = int(lowest - 1)
    if is_supergroup and to < lowest - 1 then
      local kept = redis.call('ZRANGE', allmentions, int(to + 1), int(lowest - 1), 'BYSCORE', 'LIMIT', 0, 10000)
      for _, at in ipairs(kept) do to_all[#to_all + 1] = tonumber(at) end
    end
  end
end

local open = unfinished(pending)
local rev = math.max(tonumber(m[1]) + 1, now)
m[1] = int(rev)
m[8] = version(rev, m[8], 'b' .. user .. m[1])
local function list(positions)
  for i = 1, #positions do positions[i] = int(positions[i]) end
  return table.concat(positions, ',')
end
local cleared = is_supergroup and cleared_up_to(m[14], math.max(epoch, tonumber(reset) or 0),
  function(at) return arrived[at] end, exempt)
local what = table.concat({how == 'count' and 'n' or 'u', int(to), m[2], unknown, mentions, cleared and int(cleared) or '',
  list(own), list(gone), list(to_all), list(named)}, '|')
if #counts_again + #later > 0 then what = what .. '|' .. list(counts_again) .. '|' .. list(later) end
local record = int(now + lease) .. '\nsome\n' .. user .. '\nb|' .. what
-- The entry always has the places before that of the reset.
local filled = rest
while select(2, string.gsub(filled, '|', '')) < 2 do filled = filled .. '|' end
redis.call('HSET', members, user, start .. filled .. '|' .. m[1])
redis.call('HSET', meta, 'rev', m[1], 'mrev', m[8], 'resets', '1')
redis.call('HSET', pending, m[1], record)
placed(back, left)
take(m[1])
return {'OK', m[1], record, open, now, unpack(m, 1, 11)}
