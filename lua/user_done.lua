#!lua flags=allow-oom
-- Purpose: clear finished jobs of a user's slot. When none is left, the deletion is remembered for one more day.
-- KEYS: 1 pending (hash: job -> record), 2 left (hash)
-- ARGV: jobs
-- Reply: jobs left
local pending, left = KEYS[1], KEYS[2]
for i = 1, #ARGV do redis.call('HDEL', pending, ARGV[i]) end
local open = redis.call('HLEN', pending)
if open == 0 and redis.call('HDEL', left, '~') == 1 then redis.call('PEXPIRE', left, 86400000) end
return open
