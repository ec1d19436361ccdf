#!lua flags=allow-oom
-- Purpose: clear fan-outs that are finished, where a member's slot has seen a later stamp of the room than the one that was
--   delivered: the room has come further meanwhile, or has lost data. In that case it begins to count above that stamp, and
--   the fan-outs stay until they are delivered again.
-- KEYS: 1 meta (hash), 2 pending (hash: job -> record)
-- ARGV: 1 the latest stamp that was seen, 2.. jobs
-- Reply: {} cleared, or {now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time}: deliver
--   again, or the error UNREADABLE
-- Lib: fanout
local meta, pending = KEYS[1], KEYS[2]
local seen = tonumber(ARGV[1])

local now = clock()
local m = opened(meta)
if m[7] and tonumber(m[1]) < seen then
  m[1] = int(math.max(seen + 1, now))
  redis.call('HSET', meta, 'rev', m[1])
  return {now, unpack(m, 1, 11)}
end
for i = 2, #ARGV do redis.call('HDEL', pending, ARGV[i]) end
return {}
