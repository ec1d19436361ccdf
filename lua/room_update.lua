#!lua
-- Purpose: create a room or merge settings into it; a change that moves counts is recorded as a fan-out.
-- KEYS: 1 meta (hash), 2 pending (hash: job -> record)
-- ARGV: 1 trust (microseconds until which the announcement in the index holds), 2 lease (microseconds),
--   3 kind ('' keep), 4 custom type ('' keep, '*' none), 5 tags ('' keep, else '*' and a comma list), 6 status ('' keep),
--   7 creation time (milliseconds) of a new room, 8.. field, value of what is only shown
-- Reply: {'OK', job or '', record or '', now, rev, head, kind, status, type, tags, born, mrev, created, last_at, last_time}
--   or {'STALE'} announce again, {'KIND'} that change of kind is not allowed
local meta, pending = KEYS[1], KEYS[2]
local trust, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local kind, custom_type, tags, status, time = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if now > trust then return {'STALE'} end

local m = redis.call('HMGET', meta, 'rev', 'born', 'head', 'kind', 'status', 'type', 'tags', 'mrev', 'told',
  'created', 'last_at', 'last_time')
local rev = math.max(tonumber(m[1] or 0) + 1, now)
local revs = string.format('%.0f', rev)
local exists = m[2]
local old_kind = m[4]
if exists and kind ~= '' and kind ~= old_kind and not (old_kind == 'group' and kind == 'supergroup') then
  return {'KIND'}
end

local new_kind = kind ~= '' and kind or old_kind or 'group'
local new_status = status ~= '' and status or m[5] or '1'
local new_type = m[6] or ''
if custom_type == '*' then new_type = '' elseif custom_type ~= '' then new_type = custom_type end
local new_tags = tags ~= '' and string.sub(tags, 2) or m[7] or ''

local set = {'rev', revs, 'kind', new_kind, 'status', new_status, 'type', new_type, 'tags', new_tags}
local function put(field, value) set[#set + 1] = field; set[#set + 1] = value end
local born, mrev, head = m[2], m[8], m[3]
if not exists then
  born, mrev, head = revs, revs, '0'
  put('born', born); put('mrev', mrev); put('head', head); put('created', time)
end
for i = 8, #ARGV, 2 do put(ARGV[i], ARGV[i + 1]) end

local job, record = '', ''
local changed = exists and (new_kind ~= old_kind or (new_kind ~= 'supergroup'
  and (new_status ~= m[5] or new_type ~= (m[6] or '') or new_tags ~= (m[7] or ''))))
if changed then
  job = revs
  record = string.format('%.0f', now + lease) .. '\nall'
  put('told', job)
elseif m[9] then
  -- The same settings sent again: whoever waits for the answer waits for the first telling of them.
  record = redis.call('HGET', pending, m[9]) or ''
  if record ~= '' then job = m[9] end
end

redis.call('HSET', meta, unpack(set))
if not exists then redis.call('PERSIST', meta) end
if changed then redis.call('HSET', pending, job, record) end
return {'OK', job, record, now, revs, head, new_kind, new_status, new_type, new_tags, born, mrev,
  exists and m[10] or time, m[11], m[12]}
