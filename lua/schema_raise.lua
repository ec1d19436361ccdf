#!lua
-- Purpose: write the version of the schema, unless a later one is written, or something that is no version. Doing it again changes nothing.
-- KEYS: 1 the version (string: the version written, a space, the oldest version that a program has to know to read it)
-- ARGV: 1 the version that is written from now on, 2 the oldest version that a program has to know to read it
-- Reply: the version that is there now, as it is stored
local found = redis.call('GET', KEYS[1])
local written = found and string.match(found, '^(%d+) %d+$')
if found and not written then return found end
if written and tonumber(written) >= tonumber(ARGV[1]) then return found end
local value = ARGV[1] .. ' ' .. ARGV[2]
redis.call('SET', KEYS[1], value)
return value
