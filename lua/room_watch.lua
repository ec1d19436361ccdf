#!lua flags=allow-oom
-- Purpose: set the mark by which a change of a room is told to the pods that watch members of it, if there is such a room.
--   Setting it again changes nothing.
-- KEYS: 1 meta (hash)
-- ARGV: none
-- Reply: 1, or 0: no such room
if redis.call('HEXISTS', KEYS[1], 'born') == 0 then return 0 end
redis.call('HSETNX', KEYS[1], 'live', '1')
return 1
