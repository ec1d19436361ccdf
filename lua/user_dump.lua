#!lua flags=no-writes
-- Purpose: read a whole user's slot at one instant, for the self-check; writes nothing.
-- KEYS: 1 counts (hash), 2 rooms (hash), 3 supers (hash), 4 refs (hash), 5 marks (sorted set), 6 left (hash),
--   7 prefs (hash), 8 profile (hash), 9 pending (hash: job -> record)
-- ARGV: none
-- Reply: {microseconds now, counts, rooms, supers, refs, left, prefs, profile, pending (each a list of field and value in
--   turn), marks (list of member and score in turn)}; in place of a key that is of another type: its name
local function all(name, ...)
  local answer = redis.pcall(...)
  if not answer.err then return answer end
  if string.find(answer.err, 'WRONGTYPE', 1, true) then return name end
  return answer
end
local t = redis.call('TIME')
return {t[1] * 1000000 + t[2], all('counts', 'HGETALL', KEYS[1]), all('rooms', 'HGETALL', KEYS[2]),
  all('supers', 'HGETALL', KEYS[3]), all('refs', 'HGETALL', KEYS[4]), all('left', 'HGETALL', KEYS[6]),
  all('prefs', 'HGETALL', KEYS[7]), all('profile', 'HGETALL', KEYS[8]), all('pending', 'HGETALL', KEYS[9]),
  all('marks', 'ZRANGE', KEYS[5], 0, -1, 'WITHSCORES')}
