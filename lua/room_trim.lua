#!lua flags=allow-oom
-- Purpose: forget positions that nobody counts any more: recalled ones, and mentions of everybody, that every member has read
--   and that are older than the history. A call forgets so many of either kind at most; the caller makes another one while
--   that many went.
-- KEYS: 1 meta (hash), 2 recalled (sorted set of positions), 3 allmentions (sorted set of positions)
-- ARGV: 1 born of the room as it was looked at, 2 the highest such position, 3 most to forget of either kind
-- Reply: most positions forgotten of either kind. When there are as many again as were left (1,024 at least), the room asks for it again.
local meta, recalled, allmentions = KEYS[1], KEYS[2], KEYS[3]
if redis.call('HGET', meta, 'born') ~= ARGV[1] then return 0 end
local most, left = 0, 0
for _, key in ipairs({recalled, allmentions}) do
  local old = redis.call('ZRANGE', key, '-inf', ARGV[2], 'BYSCORE', 'LIMIT', 0, ARGV[3])
  for i = 1, #old, 1000 do
    redis.call('ZREM', key, unpack(old, i, math.min(i + 999, #old)))
  end
  most = math.max(most, #old)
  left = math.max(left, redis.call('ZCOUNT', key, '-inf', '+inf'))
end
redis.call('HSET', meta, 'trim', string.format('%.0f', math.max(2 * left, 1024)))
return most
