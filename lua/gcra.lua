#!lua flags=allow-oom
-- Purpose: let calls of an app's vendor endpoint (or of one user of it) through, as many of those that came together as the
--   limit allows, over all pods together (GCRA). One string holds the theoretical arrival time in microseconds of this
--   server's clock; it expires when the whole burst is there again. Nobody is refused for longer than one burst, whatever
--   the clock does and whatever stands in the key.
-- KEYS: 1 tat (string)
-- ARGV: 1 emission (microseconds per call), 2 burst (calls that may come at once), 3 calls that came, at least 1,
--   4 1: they have been let through already, and count whether there was room for them or not; else 0
-- Reply: {calls let through, remaining calls, microseconds to wait if one was refused, microseconds until the burst is whole};
--   neither of the two times is longer than one burst
local tat_key = KEYS[1]
local emission, burst, calls, owed = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local tolerance = emission * burst
-- Calls that were let through already can take the time past now + tolerance, where nothing is left. No further than this:
-- then the next call has room after one burst.
local furthest = now + 2 * tolerance - emission

local stored = redis.pcall('GET', tat_key)
-- A key of another type is overwritten below. Any other error is the caller's to see.
if type(stored) == 'table' and not string.find(stored.err, 'WRONGTYPE', 1, true) then return stored end
local tat = type(stored) == 'string' and tonumber(stored)
-- The past, and what is no number (`nan` compares as false), is the whole burst.
if not (tat and tat >= now) then tat = now end
-- Only a clock that stepped back, or a failover to a server whose clock is behind, leaves a time further ahead. It means
-- "nothing is left", by the clock as it is now; and that is stored, or the calls would be refused until the clock is back
-- where it was.
local stepped = tat > furthest
if stepped then tat = now + tolerance end

local room = math.floor((now + tolerance - tat) / emission)
local granted = owed and calls or math.max(math.min(calls, room), 0)
local new = math.min(tat + emission * granted, furthest)
if granted > 0 or stepped then
  redis.call('SET', tat_key, string.format('%.0f', new), 'PX', math.ceil((new - now) / 1000) + 1)
end
return {
  granted,
  math.max(room - granted, 0),
  math.max(new + emission - tolerance - now, 0),
  math.min(new - now, tolerance)
}
