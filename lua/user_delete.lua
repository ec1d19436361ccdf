#!lua flags=allow-oom
-- Purpose: drop all of a user's data at once and record the rooms that still have to be told; late deliveries of
--   memberships from before are refused from here on.
-- KEYS: 1 counts (hash), 2 rooms (hash), 3 supers (hash), 4 refs (hash), 5 marks (sorted set), 6 left (hash),
--   7 prefs (hash), 8 profile (hash), 9 pending (hash: job -> record)
-- ARGV: 1 trust (microseconds until which the announcement in the index holds), 2 lease (microseconds)
-- Reply: {'OK', job or '', record or '', now} or {'STALE'} or {'USER'} no such user
local counts, rooms, supers, refs, marks, left, prefs, profile, pending =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local trust, lease = tonumber(ARGV[1]), tonumber(ARGV[2])

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if now > trust then return {'STALE'} end
if redis.call('HEXISTS', counts, 'known') == 0 then
  -- Deleted already, but not out of all rooms yet: whoever sends it again waits for that.
  local jobs = redis.call('HGETALL', pending)
  if #jobs == 0 then return {'USER'} end
  return {'OK', jobs[1], jobs[2], now}
end

local stamp, names, tombs = now, {}, {}
for _, key in ipairs({rooms, supers}) do
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local epoch = tonumber(string.match(all[i + 1], '^%a|(%w+)'), 36)
    stamp = math.max(stamp, epoch)
    names[#names + 1] = all[i]
    tombs[#tombs + 1] = string.format('%.0f', epoch) .. '|' .. string.format('%.0f', now)
  end
end
local stamps = string.format('%.0f', stamp)

redis.call('DEL', counts, rooms, supers, refs, marks, prefs, profile)
for i = 1, #names do redis.call('HSET', left, names[i], tombs[i]) end
redis.call('HSET', left, '*', stamps)
redis.call('PEXPIRE', left, 86400000)
if #names == 0 then return {'OK', '', '', now} end
local record = string.format('%.0f', now + lease) .. '\nleave\n' .. table.concat(names, ',')
redis.call('HSET', pending, stamps, record)
return {'OK', stamps, record, now}
