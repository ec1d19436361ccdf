#!lua flags=allow-oom
-- Purpose: take over fan-outs of a room whose lease has run out, so that one pod at a time works on each.
-- KEYS: 1 meta (hash), 2 pending (hash: job -> record, whose first line is the end of the lease in microseconds)
-- ARGV: 1 lease (microseconds), 2 most jobs to take
-- Reply: {jobs left in all, microseconds now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time
--   ('' each if there is none), then job and record of each one taken}
local meta, pending = KEYS[1], KEYS[2]
local lease, most = tonumber(ARGV[1]), tonumber(ARGV[2])

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local m = redis.call('HMGET', meta, 'rev', 'head', 'kind', 'status', 'type', 'tags', 'born', 'mrev', 'created',
  'last_at', 'last_time')
local reply = {redis.call('HLEN', pending), now}
for i = 1, 11 do reply[i + 2] = m[i] or '' end
local cursor, taken = '0', 0
repeat
  local page = redis.call('HSCAN', pending, cursor, 'COUNT', 100)
  cursor = page[1]
  local found = page[2]
  for i = 1, #found, 2 do
    local until_, rest = string.match(found[i + 1], '^(%d+)(.*)$')
    if taken < most and tonumber(until_) < now then
      local record = string.format('%.0f', now + lease) .. rest
      redis.call('HSET', pending, found[i], record)
      reply[#reply + 1] = found[i]
      reply[#reply + 1] = record
      taken = taken + 1
    end
  end
until cursor == '0' or taken >= most
return reply
