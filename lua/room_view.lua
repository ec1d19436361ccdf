#!lua flags=no-writes
-- Purpose: a room as the self-check compares one user's record with it: its state, that user's entry, and what has not
--   reached everybody yet; writes nothing.
-- KEYS: 1 meta (hash), 2 members (hash: user -> state|epoch in base 36|base),
--   3 recalled (sorted set of positions), 4 pending (hash: job -> record)
-- ARGV: 1 user, 2 read position, above which recalled positions are told (10,000 at most)
-- Reply: {now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time ('' each if there is none),
--   entry of the user or '', the other one of a direct room or '', recalled positions (comma list), jobs pending (list)}
local meta, members, recalled, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local user, read = ARGV[1], ARGV[2]

local t = redis.call('TIME')
local m = redis.call('HMGET', meta, 'rev', 'head', 'kind', 'status', 'type', 'tags', 'born', 'mrev', 'created',
  'last_at', 'last_time')
local reply = {t[1] * 1000000 + t[2]}
for i = 1, 11 do reply[i + 1] = m[i] or '' end
reply[13] = redis.call('HGET', members, user) or ''
local other = ''
if m[3] == 'direct' and m[7] then
  local all = redis.call('HGETALL', members)
  for i = 1, #all, 2 do
    local state, epoch = string.match(all[i + 1], '^(%a)|(%w+)')
    if all[i] ~= user and state ~= 'l' and tonumber(epoch, 36) >= tonumber(m[7]) then other = all[i] end
  end
end
reply[14] = other
reply[15] = table.concat(redis.call('ZRANGE', recalled, '(' .. read, '+inf', 'BYSCORE', 'LIMIT', 0, 10000), ',')
reply[16] = redis.call('HKEYS', pending)
return reply
