#!lua flags=allow-oom
-- Purpose: let one call of an app's vendor endpoint through, or not, over all pods together (GCRA). One string holds the
--   theoretical arrival time in microseconds of this server's clock; it expires when the whole burst is there again.
-- KEYS: 1 tat (string)
-- ARGV: 1 emission (microseconds per call), 2 burst (calls that may come at once)
-- Reply: {allowed 0|1, remaining calls, microseconds to wait if refused, microseconds until the burst is whole}
local tat_key = KEYS[1]
local emission, burst = tonumber(ARGV[1]), tonumber(ARGV[2])

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local tolerance = emission * burst
local tat = tonumber(redis.call('GET', tat_key) or now)
if tat < now then tat = now end
-- A clock that stepped back (a failover) must not lock an app out for longer than one burst.
if tat > now + tolerance then tat = now + tolerance end

local new = tat + emission
local allow_at = new - tolerance
if allow_at > now then
  return {0, 0, allow_at - now, tat - now}
end
redis.call('SET', tat_key, string.format('%.0f', new), 'PX', math.ceil((new - now) / 1000) + 1)
return {1, math.floor((tolerance - (new - now)) / emission), 0, new - now}
