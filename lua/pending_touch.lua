#!lua
-- Purpose: announce rooms or users before they accept an event. By the index any pod finds the unfinished jobs of a pod that
--   died. Announcing again only makes the announcement newer.
-- KEYS: 1 index (sorted set: entry -> token of the last announcement: microseconds of this server's clock, but always more
--   than the token before), 2 look (sorted set: entry -> microseconds of the last look at it, or of its announcement)
-- ARGV: pairs of entry and a token that the new one has to be above (0: any)
-- Reply: {microseconds now, then a token for each entry}. A room or user that was sealed (jobs_claim.lua) with this token or a
--   later one accepts nothing on this token: it has to be announced again.
local index, look = KEYS[1], KEYS[2]
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local nows, reply = string.format('%.0f', now), {now}
for i = 1, #ARGV, 2 do
  local entry = ARGV[i]
  local before = tonumber(redis.call('ZSCORE', index, entry) or 0)
  local token = math.max(now, before + 1, tonumber(ARGV[i + 1]) + 1)
  redis.call('ZADD', index, string.format('%.0f', token), entry)
  -- Only the first announcement counts here, so that the sweep looks at an entry even if it is announced all the time.
  redis.call('ZADD', look, 'NX', nows, entry)
  reply[#reply + 1] = token
end
return reply
