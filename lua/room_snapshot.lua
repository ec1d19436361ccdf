#!lua flags=no-writes
-- Purpose: a room as it is told to users, at one instant; writes nothing.
-- KEYS: 1 meta (hash)
-- ARGV: none
-- Reply: {now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time} (nothing each if there is none)
-- Lib: fanout
return {clock(), unpack(redis.call('HMGET', KEYS[1], unpack(asked)), 1, 11)}
