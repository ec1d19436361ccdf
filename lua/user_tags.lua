#!lua flags=no-writes
-- Purpose: read the plain count of every tag of a user's rooms, at one instant; writes nothing.
-- KEYS: 1 counts (hash), 2 refs (hash)
-- ARGV: none
-- Reply: {number of supergroups, then tag and count in turn}, numbers as they are stored
local counts, refs = KEYS[1], KEYS[2]
local reply = {redis.call('HGET', counts, 'supers') or 0}
for _, field in ipairs(redis.call('HKEYS', refs)) do
  if string.sub(field, 1, 4) == 'tag:' then
    reply[#reply + 1] = string.sub(field, 5)
    reply[#reply + 1] = redis.call('HGET', counts, field) or 0
  end
end
return reply
