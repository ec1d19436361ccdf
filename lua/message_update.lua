#!lua
-- Purpose: change a message: its text, type and payload where it is the room's last one, and whom it mentions. A job tells those
--   whose being mentioned changes; of several edits the one that the room accepted last holds, in whatever order they come.
-- KEYS: 1 meta (hash), 2 members (hash: user -> entry, see member_settle.lua), 3 ids (hash: id -> what message_send.lua writes),
--   4 allmentions (sorted set of positions), 5 pending (hash: job -> record), 6 and 7 keys that were taken (hashes),
--   8 timed (hash), 9 bounds (sorted set) and 10 arrived (hash): lib/time
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), 3 the event's key (lib/keys) or '',
--   4 history in messages, 5 history in microseconds, 6 id, 7 and 8 the pair whose direct room the caller means, or '' and '',
--   9 text, 10 message type, 11 payload (JSON), 12 mentions ('*' or comma list): each '' (it stays) or = and the new value,
--   13 up to which moment (microseconds) an earlier version may have taken a message: these did not put down whom it mentions,
--   14 '' or, if the event is placed by its time, time or import: it waits for a message that is not known
-- Reply: {'OK', job or '', record or '', pending jobs (lib/fanout), now, rev, head, kind, status, type, tags, born, mrev, created,
--   last_at, last_time, 1 if room_trim.lua should forget mentions of everybody, the position of a message of which the edit changes
--   nothing and whose job may be pending, else 0} or {'DUP', the same}
--   or {'STALE', token above which to announce again}, {'KEY'} the key was another event's, {'ROOM'} no such room,
--   {'MESSAGE'} no such message, or older than the history, or the pair has no such room,
--   {'FULL'} by time: others have the pair's room, or the error UNREADABLE
-- Lib: fanout, entry, members, keys, live
local meta, members, ids, allmentions, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local id, one, two, mentions = ARGV[6], ARGV[7], ARGV[8], ARGV[12]

local now = clock()
local m = opened(meta, 'last_id', 'accepted', 'trim', 'last_text', 'last_type', 'last_payload', 'resets', 'live')
tell_room(meta, m[20])
numbers(m, 14, 15)
if m[12] and tonumber(m[12]) >= token then return {'STALE', m[12]} end
local function answer(word, job, record, open, much, same)
  local reply = {word, job, record, open, now, unpack(m, 1, 11)}
  reply[17] = much
  reply[18] = same or 0
  return reply
end
local known, take = keyed(KEYS[6], KEYS[7], ARGV[3], now)
if known then
  if not known.same then return {'KEY'} end
  return answer('DUP', known.job, redis.call('HGET', pending, known.job) or '', unfinished(pending), 0)
end
-- By time a message that is not known may still come.
local function not_known()
  if ARGV[14] == '' then return {'MESSAGE'} end
  -- Lib: time
  local time = time_order(KEYS[8], KEYS[9], KEYS[10], now)
  time.wait(id, 'e', unpack(ARGV, 9, 12))
  time.finish(meta, m)
  take('')
  return answer('OK', '', '', unfinished(pending), 0)
end
local is_theirs = one == '' or (m[7] and m[3] == 'direct' and pair_in(members, tonumber(m[7]), meta, one, two))
if not is_theirs and m[7] then return {ARGV[14] == '' and 'MESSAGE' or 'FULL'} end
if not is_theirs then return not_known() end
if not m[7] then return {'ROOM'} end
local entry = redis.call('HGET', ids, id)
if not entry then return not_known() end
local start, first, at, recall, number, silent, named, digests =
  string.match(entry .. '|||', '^((%d+)|(%d+)|%-?%d+|(%d+)|(%d+))|(s?)|([^|]*)|([%x.]*)|*$')
must(start, 'what is known of a message')
must(m[14], 'a field of the meta is missing')
if tonumber(first) < now - tonumber(ARGV[5]) or tonumber(m[14]) - tonumber(number) >= tonumber(ARGV[4]) then return not_known() end
local open = unfinished(pending)
-- What was taken back stays so.
if recall ~= '0' then return answer('DUP', recall, redis.call('HGET', pending, recall) or '', open, 0) end

-- The room knows the text, the type and the payload of its last message. Of any other one it knows a digest of each that an edit
-- gave, so that it knows an edit that comes again.
local is_last, changed, set = m[13] == id, false, {}
local digest = {'', '', ''}
for i, part in ipairs({string.match(digests, '^(%x*)%.(%x*)%.(%x*)$')}) do digest[i] = part end
for i, field in ipairs({'last_text', 'last_type', 'last_payload'}) do
  if ARGV[8 + i] ~= '' then
    local value = string.sub(ARGV[8 + i], 2)
    local is = string.sub(redis.sha1hex(value), 1, 8)
    if is_last then
      if (m[15 + i] or (i == 3 and '{}' or '')) ~= value then
        changed = true
        set[#set + 1] = field
        set[#set + 1] = value
      end
    elseif digest[i] ~= is then
      changed = true
    end
    digest[i] = is
  end
end

-- Whom the message mentions may not be known: then it may be anybody.
local unknown = entry == start and tonumber(first) <= tonumber(ARGV[13])

local function set_of(list)
  local users = {}
  for user in string.gmatch(list, '[^,]+') do users[user] = true end
  return users
end

-- Whom the edit mentions who was not mentioned before, and whom it no longer mentions; whom the job is for; and whether the
-- supergroup counts the message as a mention of everybody from now on (nil: as before). What the two lists mean say `Act::Edit` in
-- src/counts/room.rs and `Named` beside it.
local on, off, audience, by_room = {}, {}, 'some', nil
-- What a counts.set has made of a mention is known only with whom the message mentioned.
local keeps = m[19] and not unknown

-- One version of the message mentions these users by name, the other one everybody, whom the supergroup counts by itself. Where
-- members have had a reset, the job becomes one for them: for those whom the list names, what a counts.set has made of their
-- mention stays; for all others it is forgotten.
local function by_name(list)
  if keeps then audience = 'reset' end
  return joined_of(members, m[7], list, {}, keeps and '+')
end

-- The same users, each with a sign that nothing changes for them.
local function as_before(users)
  for i, user in ipairs(users) do users[i] = '!' .. user end
  return users
end

if mentions ~= '' and silent == '' then
  local after = string.sub(mentions, 2)
  if unknown then named = '*' end
  local was, is = set_of(named), set_of(after)
  local differs = unknown
  for user in pairs(was) do differs = differs or not is[user] end
  for user in pairs(is) do differs = differs or not was[user] end
  if differs then
    changed = true
    -- A supergroup keeps mentions of everybody by itself, unless the message is from the time before it became one.
    if m[3] == 'supergroup' and after == '*' then
      by_room = true
      off = by_name(named)
      if keeps then on = {'*'} end
    elseif m[3] == 'supergroup' and named == '*' and redis.call('ZSCORE', allmentions, at) then
      by_room = false
      on = by_name(after)
      if keeps then off = {'*'} end
    elseif after == '*' then
      on, audience = {'*'}, 'all'
      if keeps then off = as_before(joined_of(members, m[7], named, {})) end
    elseif named == '*' then
      on, off, audience = joined_of(members, m[7], after, {}), {'*'}, 'all'
      if keeps then on = as_before(on) end
    else
      on, off = joined_of(members, m[7], after, was), joined_of(members, m[7], named, is)
    end
  end
  named = after
end

local is_edited = table.concat(digest) ~= ''
local text = start
if is_edited or named ~= '' then
  text = text .. '|' .. silent .. '|' .. named .. (is_edited and '|' .. table.concat(digest, '.') or '')
elseif silent ~= '' then
  text = text .. '|s'
elseif entry ~= start or (unknown and mentions ~= '') then
  -- Nobody, and that is known.
  text = text .. '||'
end
local job, record, much = '', '', 0
if by_room then redis.call('ZCOUNT', allmentions, 0, 0) end
if changed then
  m[1] = int(math.max(tonumber(m[1]) + 1, now))
  if #on + #off > 0 then
    job = m[1]
    local about = at .. '|' .. table.concat(on, ',') .. '|' .. table.concat(off, ',')
    if audience == 'all' then
      record = int(now + lease) .. '\nall\n\ne|' .. about
    elseif audience == 'reset' then
      record = int(now + lease) .. '\nreset\n\ne|' .. about
    else
      local all = table.concat(on, ',')
      if #off > 0 then all = (all ~= '' and all .. ',' or '') .. table.concat(off, ',') end
      record = int(now + lease) .. '\nsome\n' .. all .. '\ne|' .. about
    end
    redis.call('HSET', pending, job, record)
  end
  if by_room == true then
    redis.call('ZADD', allmentions, at, at)
    if redis.call('ZCOUNT', allmentions, '-inf', '+inf') >= tonumber(m[15] or 1024) then much = 1 end
  elseif by_room == false then
    redis.call('ZREM', allmentions, at)
  end
  set[#set + 1] = 'rev'
  set[#set + 1] = m[1]
  if is_last and #set > 2 then
    set[#set + 1] = 'last_updated'
    set[#set + 1] = m[1]
  end
  redis.call('HSET', meta, unpack(set))
  take(job)
else
  take('')
end
if text ~= entry then redis.call('HSET', ids, id, text) end
return answer(changed and 'OK' or 'DUP', job, record, open, much, not changed and tonumber(at))
