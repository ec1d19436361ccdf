#!lua flags=allow-oom
-- Purpose: clear jobs of a user's slot that are finished.
-- KEYS: 1 pending (hash: job -> record)
-- ARGV: jobs
-- Reply: jobs left
local pending = KEYS[1]
for i = 1, #ARGV do redis.call('HDEL', pending, ARGV[i]) end
return redis.call('HLEN', pending)
