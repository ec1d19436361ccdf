#!lua flags=allow-oom
-- Purpose: clear fan-outs that have reached everybody, and the entries of members whose leaving was delivered.
-- KEYS: 1 meta (hash), 2 members (hash: user -> state|epoch in base 36|base), 3 pending (hash: job -> record)
-- ARGV: 1 number of jobs, then the jobs, then pairs of user and the epoch delivered
-- Reply: jobs left
local meta, members, pending = KEYS[1], KEYS[2], KEYS[3]
local jobs = tonumber(ARGV[1])

local born = tonumber(redis.call('HGET', meta, 'born') or math.huge)
for i = jobs + 2, #ARGV, 2 do
  local user, delivered = ARGV[i], tonumber(ARGV[i + 1])
  local state, epoch = string.match(redis.call('HGET', members, user) or '', '^(%a)|(%w+)')
  epoch = tonumber(epoch or '', 36)
  -- Either this very leaving, or a membership from before the room was deleted.
  if epoch and ((state == 'l' and epoch <= delivered) or (epoch < born and epoch < delivered)) then
    redis.call('HDEL', members, user)
  end
end
for i = 2, jobs + 1 do redis.call('HDEL', pending, ARGV[i]) end
return redis.call('HLEN', pending)
