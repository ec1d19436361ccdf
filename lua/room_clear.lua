#!lua
-- Purpose: read a room for everybody who has joined it, up to a position. In a direct room or a group a job delivers that to each
--   member. A supergroup keeps the position in its meta, where each read of a count looks; so it is one step, whatever the size.
-- KEYS: 1 meta (hash), 2 ids (hash: id -> rev|position|time|recall|number, see message_send.lua),
--   3 log (list: rev|position|time|id),
--   4 pending (hash: job -> record), 5 and 6 keys that were taken (hashes),
--   7 timed (hash), 8 bounds (sorted set) and 9 arrived (hash): lib/time, 10 members (hash: user -> entry, see member_settle.lua)
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), 3 the event's key (lib/keys) or '',
--   4 history in messages, 5 history in microseconds, 6 all|id|time|position, 7 the id, the time (milliseconds) or the position,
--   8 '' or, if the event is placed by its time, time or import, 9 that time (milliseconds): without a bound it goes up to there
-- Reply: {'OK', job or '', record or '' (in a supergroup those of a pending conversion to one), pending jobs (lib/fanout), now,
--   rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time} or {'DUP', the same}
--   or {'STALE', token above which to announce again}, {'KEY'} the key was another event's, {'ROOM'} no such room,
--   {'MESSAGE'} no such message, or older than the history and not the room's last one, or the error UNREADABLE
-- Lib: fanout, entry, keys, arrived, bound, time, live
local meta, ids, log, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local how, value, by_time = ARGV[6], ARGV[7], ARGV[8] ~= ''
if by_time and how == 'all' then how, value = 'time', ARGV[9] end

local now = clock()
local m = opened(meta, 'late', 'accepted', 'mintime', 'maxtime', 'cleared', 'told', 'resets', 'timed', 'live')
tell_room(meta, m[21])
numbers(m, 14, 15, 16)
if m[12] and tonumber(m[12]) >= token then return {'STALE', m[12]} end
local taken, take = keyed(KEYS[5], KEYS[6], ARGV[3], now)
if taken then
  if not taken.same then return {'KEY'} end
  local record = redis.call('HGET', pending, taken.job) or ''
  return {'DUP', taken.job, record, unfinished(pending), now, unpack(m, 1, 11)}
end
if not m[7] then return {'ROOM'} end
-- A message that a member read on arrival is for that member as if never sent, so the clearing may go less far for some. `chain`
-- has all positions that it goes to, for each member the first one that the member did not read on arrival.
-- `places` has the place of each in `arrived`: of a silent message that is the number below zero.
local time = (by_time or m[13]) and time_order(KEYS[7], KEYS[8], KEYS[9], now)
local chain, places, users, set, by_all = {}, {}, {}, {}, false
if m[13] then users, set, by_all = time.all_arrived() end
local function skip(at, position)
  if set[at] then
    chain[#chain + 1] = position or at
    places[#chain] = at
  end
  return set[at]
end
local position, limit, sent = bound(how, value, meta, m, ids, log, now, tonumber(ARGV[4]), tonumber(ARGV[5]), skip)
-- Where all that is known of that time was read on arrival by some, it goes nowhere for a member who read it all so.
if not position and #chain > 0 then position, limit = 0, sent end
if not position then return {'MESSAGE'} end
chain[#chain + 1] = position
position = chain[1]

-- For members who were reset by time as of a later moment it is too old.
local moment = by_time and (how == 'time' and tonumber(value) or tonumber(ARGV[9])) or math.floor(now / 1000)
local too_old = by_time and m[13] and time.resets_since(moment) or {}
-- For whom a job's position does not hold, as it stands in the job: user:position, or user: where it is too old.
local function others()
  local but, own = {}, {}
  if #chain > 1 and by_all then users = redis.call('HKEYS', KEYS[10]) end
  for _, user in ipairs(#chain > 1 and users or {}) do
    local epoch = not too_old[user] and string.match(entry_of(redis.call('HGET', KEYS[10], user)) or '', '^j|(%w+)')
    own = epoch and read_on_arrival(KEYS[9], user, tonumber(epoch, 36)) or {}
    if own[places[1]] then
      local n = 1
      while n < #chain and own[places[n]] do n = n + 1 end
      but[#but + 1] = user .. ':' .. int(chain[n])
    end
  end
  for user in pairs(too_old) do but[#but + 1] = user .. ':' end
  return #but > 0 and '|' .. table.concat(but, ',') or ''
end
local open, job, record = unfinished(pending), '', ''
if m[3] == 'supergroup' and m[18] then
  -- Members whose slots don't have the conversion to a supergroup yet would still count the messages: the caller waits for
  -- that job.
  record = redis.call('HGET', pending, m[18]) or ''
  if record ~= '' then job = m[18] end
end
-- After a reset a read position may be below 0.
if position > 0 or m[19] or by_time then
  m[1] = int(math.max(tonumber(m[1]) + 1, now))
  -- An earlier entry with no position that is higher has no effect any more, unless this one is too old for some. The others are
  -- for members who have been reset since, or who read messages on arrival.
  local list = {}
  if m[3] == 'supergroup' then
    local lowest = math.min(unpack(chain, math.max(#chain - 4000, 1)))
    for rev, all in string.gmatch(m[17] or '', '(%d+)|([%d;:%-]+)') do
      local highest = 0
      for at in string.gmatch(all .. ';', '(%d+);') do highest = math.max(highest, tonumber(at)) end
      if highest > lowest or next(too_old) then list[#list + 1] = rev .. '|' .. all end
    end
    -- A membership that was placed by its time may begin below the highest one.
    if #list > 1 and not (m[13] or m[19] or m[20]) then list = {list[1]} end
  end
  if m[3] == 'supergroup' and #list < (m[13] and 32 or 8) then
    for n, at in ipairs(chain) do chain[n] = (places[n] and places[n] < 0 and int(places[n]) .. ':' or '') .. int(at) end
    list[#list + 1] = m[1] .. '|' .. table.concat(chain, ';')
    redis.call('HSET', meta, 'rev', m[1], by_time and 'all_read' or 'all_set', m[1], 'cleared', table.concat(list, ','))
    redis.call('HSETNX', meta, 'late', '0')
  else
    job = m[1]
    record = int(now + lease) .. '\nall\n\nr|' .. int(position) .. others()
    redis.call('HSET', meta, 'rev', job, by_time and 'all_read' or 'all_set', job)
    redis.call('HSET', pending, job, record)
  end
else
  -- There is nothing to read, but everybody has been here.
  m[1] = int(math.max(tonumber(m[1]) + 1, now))
  redis.call('HSET', meta, 'rev', m[1], 'all_set', m[1])
end
if by_time then
  if how == 'time' then limit = tonumber(value) elseif how == 'position' then limit = time_at(position, log, tonumber(ARGV[4])) end
  time.all_have_read(limit, moment, m[1], next(too_old) ~= nil)
  for user, epoch in pairs(too_old) do time.exempt(user, epoch, m[1]) end
end
if time then time.finish(meta) end
take(job)
return {'OK', job, record, open, now, unpack(m, 1, 11)}
