#!lua flags=allow-oom
-- Purpose: charge calls of a vendor endpoint against the limit of an app, or of one of its users, and let through as many as
--   the limit allows over all pods together (GCRA). One string holds the theoretical arrival time in microseconds of this
--   server's clock; it expires when the whole burst is available again. No caller is refused for longer than one burst,
--   whatever the clock does and whatever stands in the key.
-- KEYS: 1 tat (string)
-- ARGV: 1 emission (microseconds per call), 2 burst (calls that may come at once), 3 calls to charge, at least 1,
--   4 1: a pod has let them through already, so they are charged even if they exceed the limit; else 0
-- Reply: {calls let through, remaining calls, microseconds to wait if one was refused, microseconds until the burst is whole};
--   neither of the two times is longer than one burst
local tat_key = KEYS[1]
local emission, burst, calls, owed = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local tolerance = emission * burst
-- Calls that a pod has let through already can move the time past now + tolerance, where no call is left. It moves no further
-- than this, so that the next call is let through after one burst at most.
local furthest = now + 2 * tolerance - emission

local stored = redis.pcall('GET', tat_key)
-- A key of another type is overwritten below. Any other error goes to the caller.
if type(stored) == 'table' and not string.find(stored.err, 'WRONGTYPE', 1, true) then return stored end
local tat = type(stored) == 'string' and tonumber(stored)
-- A time in the past, or no number at all (`nan` compares as false), means that the whole burst is available.
if not (tat and tat >= now) then tat = now end
-- The time is further ahead only if the clock stepped back, or if another server took over whose clock is behind. The script then
-- stores the time at which no call is left, by the current clock. Otherwise calls would be refused until the clock is back where
-- it was.
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
