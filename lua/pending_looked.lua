#!lua flags=allow-oom
-- Purpose: put down what looking at announced entries came to: forget one that had nothing unfinished, unless it was
--   announced again since, and look at the others again later.
-- KEYS: 1 index (sorted set: entry -> microseconds of the last announcement), 2 look (sorted set: entry -> microseconds
--   since when nobody has looked at it)
-- ARGV: pairs of entry and, if it may be forgotten, its announcement as it was before it was looked at (0: none), else ''
-- Reply: entries forgotten
local index, look = KEYS[1], KEYS[2]
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000000 + t[2])
local forgotten = 0
for i = 1, #ARGV, 2 do
  local entry, seen = ARGV[i], ARGV[i + 1]
  local announced = redis.call('ZSCORE', index, entry)
  if seen ~= '' and (not announced or tonumber(announced) == tonumber(seen)) then
    redis.call('ZREM', index, entry)
    redis.call('ZREM', look, entry)
    forgotten = forgotten + 1
  else
    redis.call('ZADD', look, 'XX', now, entry)
  end
end
return forgotten
