#!lua flags=allow-oom
-- Purpose: take away the mark of a user of whom nothing is known, when a pod stops watching that user. Otherwise a user who was only
--   watched would leave a key. The script tells the pods that still watch the user, and they set the mark again. A second call
--   changes nothing.
-- KEYS: 1 counts (hash)
-- ARGV: none
-- Reply: 1 if the mark was taken away, else 0
-- Lib: live
local counts = KEYS[1]
local found = redis.call('HMGET', counts, 'known', 'live')
if found[1] then return 0 end
tell_watchers(counts, found[2])
return found[2] and 1 or 0
