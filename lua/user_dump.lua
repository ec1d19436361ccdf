#!lua flags=no-writes
-- Purpose: all that a user's slot says about counts and positions, at one instant, for the self-check; writes nothing.
-- KEYS: 1 counts (hash), 2 rooms (hash), 3 supers (hash), 4 refs (hash), 5 marks (sorted set), 6 left (hash),
--   7 profile (hash), 8 pending (hash), 9 prefs (hash)
-- ARGV: none
-- Reply: {microseconds now, profile 0|1, pending jobs, counts, rooms, supers, refs, left, prefs (each a list of field and
--   value in turn), marks (list)}
local t = redis.call('TIME')
local reply = {t[1] * 1000000 + t[2], redis.call('EXISTS', KEYS[7]), redis.call('HLEN', KEYS[8])}
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6], KEYS[9]}) do
  reply[#reply + 1] = redis.call('HGETALL', key)
end
reply[#reply + 1] = redis.call('ZRANGE', KEYS[5], 0, -1)
return reply
