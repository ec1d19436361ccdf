#!lua
-- Purpose: find the position up to which a member has read a room, and write the job that delivers it to that member.
-- KEYS: 1 meta (hash), 2 members (hash: user -> entry, see member_settle.lua),
--   3 ids (hash: id -> rev|position|time|recall|number, see message_send.lua), 4 log (list: rev|position|time|id),
--   5 pending (hash: job -> record),
--   6 and 7 keys that were taken (hashes), 8 timed (hash), 9 bounds (sorted set) and 10 arrived (hash): lib/time
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), 3 the event's key (lib/keys) or '',
--   4 history in messages, 5 history in microseconds, 6 user, 7 all|id|time|position, 8 the id, the time (milliseconds) or the
--   position,
--   9 a position up to which the user is known to have read, or '', 10 '' or, if the event is placed by its time, time or import,
--   11 that time (milliseconds). By time a read without a bound goes up to this time, and one by an unknown id waits for the
--   message
-- Reply: {'OK', job or '', record or '', pending jobs (lib/fanout), now, rev, head, kind, status, type, tags, born,
--   mrev, created, last_at, last_time} or {'DUP', the same}
--   or {'STALE', token above which to announce again}, {'KEY'} the key was another event's, {'ROOM'} no such room,
--   {'MEMBER'} the user has not joined, {'MESSAGE'} no such message, or older than the history and not the room's last one,
--   {'OLD', position, born} the position is older than the history, and not above this one,
--   or the error UNREADABLE
-- Lib: fanout, entry, keys
local meta, members, ids, log, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local max_messages, max_age = tonumber(ARGV[4]), tonumber(ARGV[5])
local user, how, value, read = ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9]) or -math.huge
local by_time, event_time = ARGV[10] ~= '', tonumber(ARGV[11])
if by_time and how == 'all' then how, value = 'time', ARGV[11] end

local now = clock()
local m
if how == 'id' then
  m = opened(meta, 'late', 'accepted')
elseif how == 'time' then
  m = opened(meta, 'late', 'accepted', 'mintime', 'maxtime')
else
  m = opened(meta, 'late')
end
numbers(m, 14, 15, 16)
local late = m[13]
if m[12] and tonumber(m[12]) >= token then return {'STALE', m[12]} end
local taken, take = keyed(KEYS[6], KEYS[7], ARGV[3], now)
if taken then
  if not taken.same then return {'KEY'} end
  local record = redis.call('HGET', pending, taken.job) or ''
  return {'DUP', taken.job, record, unfinished(pending), now, unpack(m, 1, 11)}
end
if not m[7] then return {'ROOM'} end
local entry = entry_of(redis.call('HGET', members, user))
local start, state, began, base, here, rest, reset =
  string.match(entry or '', '^(([ijl])|(%w+)|(%d+))(h?%w*)(|?%d*|?%d*|?(%d*))$')
must(start or not_joined(entry), 'an entry of a member')
if state ~= 'j' or tonumber(began, 36) < tonumber(m[7]) then return {'MEMBER'} end
local epoch
epoch, reset = tonumber(began, 36), tonumber(reset)

local arrived, reset_time, exempt, _
if late then
  -- Lib: arrived
  arrived, reset_time, _, _, exempt = read_on_arrival(KEYS[10], user, epoch)
end
if by_time and reset_time and (how == 'time' and tonumber(value) or event_time) <= reset_time then
  -- It is older than the last reset.
  take('')
  return {'DUP', '', '', unfinished(pending), now, unpack(m, 1, 11)}
end
local position, more, sent = tonumber(m[2]), nil, nil
if how ~= 'all' then
  -- Lib: bound
  local function skip(at) return arrived and arrived[at] end
  if late and m[3] == 'supergroup' then
    -- Lib: cleared
    read = math.max(read, cleared_up_to(redis.call('HGET', meta, 'cleared'), reset or epoch, skip, exempt) or read)
  end
  position, more, sent = bound(how, value, meta, m, ids, log, now, max_messages, max_age, skip)
end
local limit = position and more or sent
if not position then
  local forgotten = more
  if not forgotten and by_time then
    -- Lib: arrived, time
    local time = time_order(KEYS[8], KEYS[9], KEYS[10], now)
    time.wait(value, 'r', user, began, int(event_time), m[1])
    time.finish(meta)
    take('')
    return {'OK', '', '', unfinished(pending), now, unpack(m, 1, 11)}
  end
  if not forgotten then return {'MESSAGE'} end
  -- For a member whose base or known read position is not below the history, the event changes nothing. After a reset, the read
  -- position may be below the base.
  if math.max(reset and read or tonumber(base), read) < forgotten then return {'OLD', int(forgotten), m[7]} end
  position = 0
end
if by_time then
  -- Lib: arrived, time
  local time = time_order(KEYS[8], KEYS[9], KEYS[10], now)
  if how == 'time' then limit = tonumber(value) elseif how == 'position' then limit = time_at(position, log, max_messages) end
  time.has_read(user, began, limit, how == 'time' and tonumber(value) or event_time)
  time.finish(meta)
end

local open, job, record = unfinished(pending), '', ''
if position > tonumber(base) or reset then
  m[1] = int(math.max(tonumber(m[1]) + 1, now))
  job = m[1]
  record = int(now + lease) .. '\nsome\n' .. user .. '\nr|' .. int(position)
  redis.call('HSET', meta, 'rev', job)
  redis.call('HSET', pending, job, record)
end
-- Who has read or sent anything since joining has an h after the base, and behind it how long after joining this member last read
-- by arrival: milliseconds, in base 16.
if not by_time then
  here = string.format('h%x', math.max(math.floor(now / 1000) - math.floor(epoch / 1000), 0))
elseif here == '' then
  here = 'h'
end
redis.call('HSET', members, user, start .. here .. rest)
take(job)
return {'OK', job, record, open, now, unpack(m, 1, 11)}
