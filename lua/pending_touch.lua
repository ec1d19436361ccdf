#!lua
-- Purpose: announce that rooms or users are about to take on work, before they do: the index by which any pod finds
--   the unfinished work of a dead one. Repeating it only makes the entries younger.
-- KEYS: 1 index (sorted set: entry -> microseconds of the last announcement)
-- ARGV: 1.. entries
-- Reply: microseconds now; accepting scripts refuse an announcement that is too old (STALE)
local index = KEYS[1]
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000000 + t[2])
for i = 1, #ARGV do
  redis.call('ZADD', index, now, ARGV[i])
end
return tonumber(now)
