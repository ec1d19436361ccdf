#!lua
-- Purpose: bring a user's slot up to the schema of this version: work out from the positions, at one instant, the numbers of
--   rooms with unread messages, which earlier versions did not keep. From then on deliveries keep them. Doing it again changes
--   nothing.
-- KEYS: 1 counts (hash), 2 rooms (hash: room -> record, see deliver.lua)
-- ARGV: 1 '1': write; '0': only look
-- Reply: 1 if something was written, or would be; 0 if all is there; or the error UNREADABLE
-- Lib: live
local counts, rooms = KEYS[1], KEYS[2]

local want = {direct = 0, group = 0}
local all = redis.call('HGETALL', rooms)
for i = 1, #all, 2 do
  local state, read, head, holes, kind, status, adds = string.match(all[i + 1],
    '^([ij])|%w+|%w+|(%-?%d+)|(%-?%d+)|(%d+)|%d+|([dg])|([01])|[^|]*|[^|]*|[^|]*|%-?%d+|[%d,%-]*|?[hsm]*e?([123]?)|?[%d,]*$')
  if not state then return redis.error_reply('-UNREADABLE a record of a room') end
  if state == 'j' and status == '1' and (adds == '' or adds == '1') and tonumber(head) - tonumber(read) - tonumber(holes) > 0 then
    local of = kind == 'd' and 'direct' or 'group'
    want[of] = want[of] + 1
  end
end

local names, changed = {'direct', 'group'}, 0
local stored = redis.call('HMGET', counts, 'unread_rooms:direct', 'unread_rooms:group', 'live')
for i, of in ipairs(names) do
  if want[of] > 0 and stored[i] ~= string.format('%.0f', want[of]) then
    changed = 1
    if ARGV[1] == '1' then redis.call('HSET', counts, 'unread_rooms:' .. of, string.format('%.0f', want[of])) end
  elseif want[of] == 0 and stored[i] then
    changed = 1
    if ARGV[1] == '1' then redis.call('HDEL', counts, 'unread_rooms:' .. of) end
  end
end
if changed == 1 and ARGV[1] == '1' then tell_watchers(counts, stored[3]) end
return changed
