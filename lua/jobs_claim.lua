#!lua flags=allow-oom
-- Purpose: take over the jobs of a room or user whose lease has ended, so that one pod at a time works on each. Where no job is
--   left, seal the room or user instead: it then accepts nothing on this announcement or an older one, so that the sweep can
--   forget the announcement, even if a pod that holds it has been stopped for a long time.
-- KEYS: 1 meta (hash), or a user's left (hash); 2 pending (hash: job -> record, whose first line is the end of
--   the lease in microseconds)
-- ARGV: 1 lease (microseconds), 2 the longest lease that a pod takes (microseconds), 3 most jobs to take, 4 the token to seal
--   with ('': don't seal), 5 the field to seal in: `sealed` of a room, `!` of a user,
--   6 milliseconds to keep the seal of a room or user that does not exist
-- Reply: {jobs pending, 1 if it was sealed, microseconds now, rev, head, kind, status, type, tags, born, mrev, created,
--   last_at, last_time (each nil if there is none), then job and record of each job taken}
local meta, pending = KEYS[1], KEYS[2]
local lease, longest, most, token, field = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local left, sealed = redis.call('HLEN', pending), 0
if left == 0 and token ~= '' then
  if (tonumber(redis.call('HGET', meta, field) or '') or 0) < tonumber(token) then redis.call('HSET', meta, field, token) end
  if redis.call('HLEN', meta) == 1 then redis.call('PEXPIRE', meta, ARGV[6]) end
  sealed = 1
end
local reply = {left, sealed, now}
local m = {}
if field == 'sealed' then
  m = redis.call('HMGET', meta, 'rev', 'head', 'kind', 'status', 'type', 'tags', 'born', 'mrev', 'created', 'last_at', 'last_time')
end
for i = 1, 11 do reply[i + 3] = m[i] or false end
local cursor, taken, set = '0', 0, {}
repeat
  local found
  if left <= most then
    found = redis.call('HGETALL', pending)
  else
    local page = redis.call('HSCAN', pending, cursor, 'COUNT', 1000)
    cursor, found = page[1], page[2]
  end
  for i = 1, #found, 2 do
    local ends, rest = string.match(found[i + 1], '^(%d+)(.*)$')
    ends = tonumber(ends or '')
    -- A record that can't be read has no lease. A lease that ends later than the longest one can was given before the clock
    -- stepped back. Both are taken over.
    if taken < most and not (ends and ends >= now and ends <= now + longest) then
      local record = ends and string.format('%.0f', now + lease) .. rest or found[i + 1]
      if ends then
        set[#set + 1] = found[i]
        set[#set + 1] = record
      end
      reply[#reply + 1] = found[i]
      reply[#reply + 1] = record
      taken = taken + 1
      if #set == 1000 then
        redis.call('HSET', pending, unpack(set))
        set = {}
      end
    end
  end
until cursor == '0' or taken >= most
if #set > 0 then redis.call('HSET', pending, unpack(set)) end
return reply
