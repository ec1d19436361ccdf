#!lua flags=allow-oom
-- Purpose: drop all of a user's data at once, and write the job by which the user leaves its rooms. From here on the slot
--   refuses a delivery that would bring a membership back or make the user known, until the room has decided that the
--   membership, or the message, comes after the deletion.
-- KEYS: 1 counts (hash), 2 rooms (hash), 3 supers (hash), 4 refs (hash), 5 marks (sorted set), 6 left (hash),
--   7 prefs (hash), 8 profile (hash), 9 pending (hash: job -> record), 10 and 11 keys that were taken (hashes;
--   they outlive the user)
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), 3 the event's key (lib/keys) or '',
--   4 '' or, if the event is placed by its time, that time (milliseconds)
-- Reply: {'OK', job or '', record or '', now} or {'DUP', the same} or {'STALE', token above which to announce again}
--   or {'KEY'} the key was another event's, {'USER'} no such user, or the error UNREADABLE
-- Lib: fanout, keys, live
local counts, rooms, supers, refs, marks, left, prefs, profile, pending =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local token, lease = tonumber(ARGV[1]), tonumber(ARGV[2])

local now = clock()
local sealed, earlier = unpack(redis.call('HMGET', left, '!', '*'))
numbers({sealed, earlier}, 1, 2)
if sealed and tonumber(sealed) >= token then return {'STALE', sealed} end
local known, take = keyed(KEYS[10], KEYS[11], ARGV[3], now)
if known then
  if not known.same then return {'KEY'} end
  return {'DUP', known.job, redis.call('HGET', pending, known.job) or '', now}
end
if redis.call('HEXISTS', counts, 'known') == 0 then
  -- The user is deleted already but has not left all rooms: the caller waits for that job.
  local jobs = redis.call('HGETALL', pending)
  if #jobs == 0 then return {'USER'} end
  return {'OK', jobs[1], jobs[2], now}
end

-- The stamp is later than that of the deletion before, even if the clock has stepped back: rooms tell deletions apart by it.
local stamp = math.max(now, tonumber(earlier or 0) + 1)
while redis.call('HEXISTS', pending, int(stamp)) == 1 do stamp = stamp + 1 end
local stamps, names, tombs = int(stamp), {}, {}
for _, key in ipairs({rooms, supers}) do
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local began = string.match(all[i + 1], '^%a|(%w+)')
    local epoch = tonumber(began or '', 36)
    if epoch then
      names[#names + 1] = all[i] .. ':' .. began
      tombs[#tombs + 1] = {all[i], int(epoch) .. '|' .. int(now)}
    end
  end
end

local mark = redis.call('HGET', counts, 'live')
redis.call('DEL', counts, rooms, supers, refs, marks, prefs, profile)
tell_watchers(counts, mark)
for _, tomb in ipairs(tombs) do redis.call('HSET', left, tomb[1], tomb[2]) end
redis.call('HSET', left, '*', stamps)
if #names == 0 then
  redis.call('PEXPIRE', left, 86400000)
  take('')
  return {'OK', '', '', now}
end
-- The deletion is remembered until the user has left all rooms, however long that takes (user_done.lua).
redis.call('HSET', left, '~', stamps)
redis.call('PERSIST', left)
local record = int(now + lease) .. '\nleave\n' .. table.concat(names, ',') .. (ARGV[4] ~= '' and '\nt|' .. ARGV[4] or '')
redis.call('HSET', pending, stamps, record)
take(stamps)
return {'OK', stamps, record, now}
