#!lua flags=allow-oom
-- Purpose: record that the sweep has looked at announcements. Forget those whose room or user was sealed because no job was
--   left, unless it was announced again since; look at the others again later.
-- KEYS: 1 index (sorted set: entry -> token of the last announcement), 2 look (sorted set: entry -> microseconds of the last
--   look at it, or of its announcement)
-- ARGV: pairs of entry and the token that it was sealed with, or '' if it was not sealed
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
