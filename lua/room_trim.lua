#!lua flags=allow-oom
-- Purpose: forget recalled positions, and positions that mention everybody, once every member has read them and they are older
--   than the history. A call forgets a bounded number of either kind; the caller calls again while the bound is reached.
-- KEYS: 1 meta (hash), 2 recalled (sorted set of positions), 3 allmentions (sorted set of positions)
-- ARGV: 1 born of the room that the caller looked at, 2 the highest position to forget, 3 most positions to forget of either kind
-- Reply: how many positions were forgotten, of the kind with more of them. The room's scripts ask for the next trim when the
--   number that is left has doubled, but not below 1,024.
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
