#!lua flags=no-writes
-- Purpose: read a room's snapshot; writes nothing.
-- KEYS: 1 meta (hash)
-- ARGV: none
-- Reply: {now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time} (each nil if there is none)
local t = redis.call('TIME')
local m = redis.call('HMGET', KEYS[1], 'rev', 'head', 'kind', 'status', 'type', 'tags', 'born', 'mrev', 'created', 'last_at', 'last_time')
return {t[1] * 1000000 + t[2], unpack(m, 1, 11)}
