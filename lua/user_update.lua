#!lua
-- Purpose: create a user or merge what others see of it.
-- KEYS: 1 counts (hash), 2 profile (hash)
-- ARGV: field, value in turn
-- Reply: 1
local counts, profile = KEYS[1], KEYS[2]
local t = redis.call('TIME')
redis.call('HSETNX', counts, 'known', string.format('%.0f', t[1] * 1000000 + t[2]))
if #ARGV > 0 then redis.call('HSET', profile, unpack(ARGV)) end
return 1
