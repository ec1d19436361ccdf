#!lua flags=allow-oom
-- Purpose: extend the leases of jobs that this pod still works on, so that no other pod takes them over. A job that was cleared
--   stays cleared.
-- KEYS: 1 pending (hash: job -> record, whose first line is the end of the lease in microseconds)
-- ARGV: 1 lease (microseconds), 2.. jobs
-- Reply: jobs renewed
local pending = KEYS[1]
local lease = tonumber(ARGV[1])

local t = redis.call('TIME')
local until_ = string.format('%.0f', t[1] * 1000000 + t[2] + lease)
local renewed = 0
for i = 2, #ARGV do
  local record = redis.call('HGET', pending, ARGV[i])
  if record then
    redis.call('HSET', pending, ARGV[i], (string.gsub(record, '^%d+', until_)))
    renewed = renewed + 1
  end
end
return renewed
