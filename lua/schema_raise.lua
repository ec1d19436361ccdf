#!lua
-- Purpose: write the version of the schema, unless a later one is written, or something that is no version. Doing it again changes nothing.
-- KEYS: 1 the version (string: the version written, a space, the oldest version that a program has to know to read it; where
--   data of an earlier version are among them, a space and when these were migrated, in seconds)
-- ARGV: 1 the version that is written from now on, 2 the oldest version that a program has to know to read it,
--   3 '1': there may be data of an earlier version; '0': there are no data
-- Reply: what is there now
local found = redis.call('GET', KEYS[1])
local written = found and string.match(found, '^(%d+) %d+ ?%d*$')
if found and not written then return found end
if written and tonumber(written) >= tonumber(ARGV[1]) then return found end
local value = ARGV[1] .. ' ' .. ARGV[2]
if ARGV[3] == '1' then value = value .. ' ' .. redis.call('TIME')[1] end
redis.call('SET', KEYS[1], value)
return value
