#!lua
-- Purpose: announce that rooms or users are about to take on work, before they do: the index by which any pod finds
--   the unfinished work of a dead one. Repeating it only makes the announcements younger.
-- KEYS: 1 index (sorted set: entry -> microseconds of the last announcement), 2 look (sorted set: entry -> microseconds
--   since when nobody has looked at it)
-- ARGV: 1.. entries
-- Reply: microseconds now; accepting scripts refuse an announcement that is too old (STALE)
local index, look = KEYS[1], KEYS[2]
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000000 + t[2])
for i = 1, #ARGV do
  redis.call('ZADD', index, now, ARGV[i])
  -- However busy an entry is, it gets looked at: only the first announcement counts here.
  redis.call('ZADD', look, 'NX', now, ARGV[i])
end
return tonumber(now)
