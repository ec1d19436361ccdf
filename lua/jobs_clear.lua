#!lua flags=allow-oom
-- Purpose: clear finished jobs after a delivery in which a member's slot had a later stamp of the room than the snapshot.
--   Either the room has a later revision by now: then the jobs are cleared. Or the room has lost data: then its next revision
--   is above that stamp, and the jobs stay, so that the caller delivers them again.
-- KEYS: 1 meta (hash), 2 pending (hash: job -> record)
-- ARGV: 1 the latest stamp that a slot had, 2.. jobs
-- Reply: {} the jobs are cleared, or {now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time}: deliver
--   again with this snapshot, or the error UNREADABLE
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
