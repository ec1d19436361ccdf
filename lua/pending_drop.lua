#!lua flags=allow-oom
-- Purpose: forget an announcement whose room or user has no unfinished work, unless it was renewed since it was looked at.
-- KEYS: 1 index (sorted set)
-- ARGV: 1 entry, 2 the score it had when it was looked at
-- Reply: 1 dropped, 0 renewed or gone
local index = KEYS[1]
local entry, score = ARGV[1], ARGV[2]
local current = redis.call('ZSCORE', index, entry)
if current and tonumber(current) == tonumber(score) then
  return redis.call('ZREM', index, entry)
end
return 0
