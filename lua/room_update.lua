#!lua
-- Purpose: create a room or change some of its details. A change that moves counts becomes a job.
-- KEYS: 1 meta (hash), 2 pending (hash: job -> record), 3 and 4 keys that were taken (hashes)
-- ARGV: 1 the token of the announcement in the index, 2 lease (microseconds), 3 the event's key (lib/keys) or '',
--   4 kind ('' keep; with + before it: that of a new room only), 5 custom type ('' keep, '*' none), 6 tags ('' keep, else '*'
--   and a comma list), 7 status ('' keep), 8 creation time (milliseconds) of a new room, 9.. name and value of each further detail, which is only shown
-- Reply: {'OK', job or '', record or '', pending jobs (lib/fanout), now, rev, head, kind, status, type, tags, born,
--   mrev, created, last_at, last_time} or {'DUP', the same}
--   or {'STALE', token above which to announce again}, {'KEY'} the key was another event's, {'KIND'} that change of kind is
--   not allowed, or the error UNREADABLE
-- Lib: fanout, version, keys, live
local meta, pending = KEYS[1], KEYS[2]
local token, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local kind, custom_type, tags, status, time = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local now = clock()
local m = opened(meta, 'told', 'live')
tell_room(meta, m[14])
local told = m[13]
if m[12] and tonumber(m[12]) >= token then return {'STALE', m[12]} end
local known, take = keyed(KEYS[3], KEYS[4], ARGV[3], now)
if known then
  if not known.same then return {'KEY'} end
  local record = redis.call('HGET', pending, known.job) or ''
  return {'DUP', known.job, record, unfinished(pending), now, unpack(m, 1, 11)}
end

local rev = int(math.max(tonumber(m[1] or 0) + 1, now))
local exists, old_kind = m[7], m[3]
local makes = string.sub(kind, 1, 1) == '+'
if makes then kind = string.sub(kind, 2) end
if exists and kind ~= '' and kind ~= old_kind and (makes or not (old_kind == 'group' and kind == 'supergroup')) then
  return {'KIND'}
end

local new_kind = kind ~= '' and kind or old_kind or 'group'
local new_status = status ~= '' and status or m[4] or '1'
local new_type = m[5] or ''
if custom_type == '*' then new_type = '' elseif custom_type ~= '' then new_type = custom_type end
local new_tags = tags ~= '' and string.sub(tags, 2) or m[6] or ''
local changed = exists and (new_kind ~= old_kind or (new_kind ~= 'supergroup'
  and (new_status ~= m[4] or new_type ~= (m[5] or '') or new_tags ~= (m[6] or ''))))

local set = {'rev', rev, 'kind', new_kind, 'status', new_status, 'type', new_type, 'tags', new_tags}
local function put(field, value) set[#set + 1] = field; set[#set + 1] = value end
m[1], m[3], m[4], m[5], m[6] = rev, new_kind, new_status, new_type, new_tags
if not exists then
  m[2], m[7], m[8], m[9] = '0', rev, version(rev, '', 'made'), time
  put('head', m[2]); put('born', m[7]); put('mrev', m[8]); put('created', m[9])
end
for i = 9, #ARGV, 2 do put(ARGV[i], ARGV[i + 1]) end

local open, job, record = unfinished(pending), '', ''
if changed then
  job = rev
  record = int(now + lease) .. '\nall'
  put('told', job)
elseif told then
  -- The room has these details already. The job that told them may still be pending: then the caller waits for it.
  record = redis.call('HGET', pending, told) or ''
  if record ~= '' then job = told end
end

redis.call('HSET', meta, unpack(set))
if not exists then redis.call('PERSIST', meta) end
if changed then redis.call('HSET', pending, job, record) end
take(job)
return {'OK', job, record, open, now, unpack(m, 1, 11)}
