#!lua
-- Purpose: check whether an event's key was taken in a user's slot, or take it there. This is for an event of many rooms: the
--   caller checks first, and takes the key when all rooms are done.
-- KEYS: 1 and 2 keys that were taken (hashes)
-- ARGV: 1 the event's key (lib/keys), 2 1: take it; 0: only check
-- Reply: 'OK', 'DUP' the key was taken before, or 'KEY' by another event
-- Lib: fanout, keys
local known, take = keyed(KEYS[1], KEYS[2], ARGV[1], clock())
if known then return known.same and 'DUP' or 'KEY' end
if ARGV[2] == '1' then take('') end
return 'OK'
