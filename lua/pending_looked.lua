#!lua flags=allow-oom
-- Purpose: put down what looking at announced entries came to: forget one that was sealed because nothing was unfinished,
--   unless it was announced again since, and look at the others again later.
-- KEYS: 1 index (sorted set: entry -> token of the last announcement), 2 look (sorted set: entry -> microseconds
--   since when nobody has looked at it)
-- ARGV: pairs of entry and, if it may be forgotten, the token it was sealed with, else ''
-- Reply: entries forgotten
local index, look = KEYS[1], KEYS[2]
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000000 + t[2])
local forgotten = 0
for i = 1, #ARGV, 2 do
  local entry, sealed = ARGV[i], ARGV[i + 1]
  local token = redis.call('ZSCORE', index, entry)
  if sealed ~= '' and (not token or tonumber(token) <= tonumber(sealed)) then
    redis.call('ZREM', index, entry)
    redis.call('ZREM', look, entry)
    forgotten = forgotten + 1
  else
    redis.call('ZADD', look, 'XX', now, entry)
  end
end
return forgotten
