#!lua flags=no-writes
-- Purpose: read a room's snapshot; writes nothing.
-- KEYS: 1 meta (hash)
-- ARGV: none
-- Reply: {now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time} (each nil if there is none)
-- Lib: fanout
return {clock(), unpack(redis.call('HMGET', KEYS[1], unpack(asked)), 1, 11)}
