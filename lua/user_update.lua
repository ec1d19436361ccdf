#!lua
-- Purpose: create a user or merge fields into its profile.
-- KEYS: 1 counts (hash), 2 profile (hash), 3 and 4 keys that were taken (hashes)
-- ARGV: 1 the event's key (lib/keys) or '', then field, value in turn
-- Reply: 'OK', 'DUP' the key was taken before, or 'KEY' by another event
-- Lib: fanout, keys
local counts, profile = KEYS[1], KEYS[2]
local now = clock()
local known, take = keyed(KEYS[3], KEYS[4], ARGV[1], now)
if known then return known.same and 'DUP' or 'KEY' end
redis.call('HSETNX', counts, 'known', int(now))
if #ARGV > 1 then redis.call('HSET', profile, unpack(ARGV, 2)) end
take('')
return 'OK'
