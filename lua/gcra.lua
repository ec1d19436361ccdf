#!lua flags=allow-oom
-- Purpose: let calls of an app's vendor endpoint through, as many of those that came together as the limit allows, over all
--   pods together (GCRA). One string holds the theoretical arrival time in microseconds of this server's clock; it expires
--   when the whole burst is there again.
-- KEYS: 1 tat (string)
-- ARGV: 1 emission (microseconds per call), 2 burst (calls that may come at once), 3 calls that came, at least 1,
--   4 1: they have been let through already, and count whether there was room for them or not; else 0
-- Reply: {calls let through, remaining calls, microseconds to wait if one was refused, microseconds until the burst is whole}
local tat_key = KEYS[1]
local emission, burst, calls, owed = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local tolerance = emission * burst
local tat = tonumber(redis.call('GET', tat_key) or now)
if tat < now then tat = now end
-- A clock that stepped back (a failover) must not lock an app out for longer than one burst.
if tat > now + tolerance then tat = now + tolerance end

local room = math.floor((now + tolerance - tat) / emission)
local granted = owed and calls or math.min(calls, room)
local new = tat + emission * granted
if granted > 0 then
  redis.call('SET', tat_key, string.format('%.0f', new), 'PX', math.ceil((new - now) / 1000) + 1)
end
return {granted, math.max(room - granted, 0), math.max(new + emission - tolerance - now, 0), new - now}
