#!lua
-- Purpose: announce that rooms or users are about to take on work, before they do: the index by which any pod finds
--   the unfinished work of a dead one. Repeating it only makes the announcements younger.
-- KEYS: 1 index (sorted set: entry -> token of the last announcement, in microseconds of this server's clock where it
--   does not step back), 2 look (sorted set: entry -> microseconds since when nobody has looked at it)
-- ARGV: pairs of entry and a token that its own has to be above (0: any)
-- Reply: {microseconds now, then a token for each entry}. What is sealed (jobs_claim.lua) with this token or a later one
--   accepts no more on the strength of it, so an entry that was forgotten has to be announced again.
local index, look = KEYS[1], KEYS[2]
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local nows, reply = string.format('%.0f', now), {now}
for i = 1, #ARGV, 2 do
  local entry = ARGV[i]
  local before = tonumber(redis.call('ZSCORE', index, entry) or 0)
  local token = math.max(now, before + 1, tonumber(ARGV[i + 1]) + 1)
  redis.call('ZADD', index, string.format('%.0f', token), entry)
  -- However busy an entry is, it gets looked at: only the first announcement counts here.
  redis.call('ZADD', look, 'NX', nows, entry)
  reply[#reply + 1] = token
end
return reply
