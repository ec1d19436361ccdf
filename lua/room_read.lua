#!lua
-- Purpose: find the position up to which a member has read a room, and record that it is to be delivered to that member.
-- KEYS: 1 meta (hash), 2 members (hash: user -> state|epoch in base 36|base),
--   3 ids (hash: id -> rev|position|time|recall|number), 4 log (list: rev|position|time|id), 5 pending (hash: job -> record)
-- ARGV: 1 trust (microseconds until which the announcement in the index holds), 2 lease (microseconds),
--   3 history in messages, 4 history in microseconds, 5 user, 6 all|id|time, 7 the id or the time (milliseconds)
-- Reply: {'OK', job or '', record or '', now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time,
--   entry of the user}
--   or {'STALE'} or {'ROOM'} no such room, {'MEMBER'} the user has not joined,
--   {'MESSAGE'} no such message, or older than the history
local meta, members, ids, log, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local trust, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local max_messages, max_age = tonumber(ARGV[3]), tonumber(ARGV[4])
local user, how, value = ARGV[5], ARGV[6], ARGV[7]

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if now > trust then return {'STALE'} end
local m = redis.call('HMGET', meta, 'rev', 'born', 'head', 'kind', 'status', 'type', 'tags', 'mrev', 'mintime', 'maxtime',
  'accepted', 'created', 'last_at', 'last_time')
if not m[2] then return {'ROOM'} end
local entry = redis.call('HGET', members, user)
local state, epoch, base = string.match(entry or '', '^(%a)|(%w+)|(%d+)')
if state ~= 'j' or tonumber(epoch, 36) < tonumber(m[2]) then return {'MEMBER'} end

local head, position = tonumber(m[3]), nil
if how == 'all' then
  position = head
elseif how == 'id' then
  local known = redis.call('HGET', ids, value)
  local first, at, number = string.match(known or '', '^(%d+)|(%d+)|%-?%d+|%d+|(%d+)')
  if not first or tonumber(first) < now - max_age or tonumber(m[11]) - tonumber(number) >= max_messages then
    return {'MESSAGE'}
  end
  position = tonumber(at)
else
  local time = tonumber(value)
  if head == 0 or time < tonumber(m[9]) then
    position = 0
  elseif time >= tonumber(m[10]) then
    position = head
  else
    -- From the newest back: the first one at or before the time has the highest position.
    local stop, first = redis.call('LLEN', log), nil
    local oldest = math.max(stop - max_messages, 0)
    while not position and stop > oldest do
      local chunk = redis.call('LRANGE', log, math.max(stop - 64, oldest), stop - 1)
      for i = #chunk, 1, -1 do
        local at, when = string.match(chunk[i], '^%d+|(%d+)|(%-?%d+)|')
        if at ~= '0' then
          first = tonumber(at)
          if tonumber(when) <= time then position = first; break end
        end
      end
      stop = stop - 64
    end
    if not position then
      -- Nothing in the history is that old. Without a message before it, or before the joining, nothing is read.
      first = first or head + 1
      if first > 1 and tonumber(base) < first - 1 then return {'MESSAGE'} end
      position = 0
    end
  end
end

local job, record, rev = '', '', m[1]
if position > tonumber(base) then
  rev = string.format('%.0f', math.max(tonumber(m[1]) + 1, now))
  job = rev
  record = string.format('%.0f', now + lease) .. '\nsome\n' .. user .. '\nr|' .. string.format('%.0f', position)
  redis.call('HSET', meta, 'rev', rev)
  redis.call('HSET', pending, job, record)
end
return {'OK', job, record, now, rev, m[3], m[4], m[5], m[6], m[7], m[2], m[8], m[12], m[13], m[14], entry}
