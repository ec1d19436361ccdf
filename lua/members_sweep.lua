#!lua flags=allow-oom
-- Purpose: remove the entries of users who left, when their slots know that they left.
-- KEYS: 1 meta (hash), 2 members (hash: user -> entry, see member_settle.lua)
-- ARGV: pairs of user and the epoch that was delivered
-- Reply: how many were dropped
-- Lib: entry
local meta, members = KEYS[1], KEYS[2]

local born = tonumber(redis.call('HGET', meta, 'born') or math.huge)
local dropped = 0
for i = 1, #ARGV, 2 do
  local user, delivered = ARGV[i], tonumber(ARGV[i + 1])
  local state, epoch = string.match(entry_of(redis.call('HGET', members, user)) or '', '^(%a)|(%w+)')
  epoch = tonumber(epoch or '', 36)
  -- Either the entry of this leaving, or a membership in a deleted room of the same name.
  if epoch and ((state == 'l' and epoch <= delivered) or (epoch < born and epoch < delivered)) then
    dropped = dropped + redis.call('HDEL', members, user)
  end
end
return dropped
