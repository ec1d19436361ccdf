-- What is watched: a pod that shows a user's counts as they change sets a mark, the field 'live' of the user's counts
-- (user_watch.lua), and of the meta of each supergroup that the user is in (room_watch.lua). Whatever changes them takes the mark
-- away and says so on a channel of the same slot. The pods that hear it read, and set the mark again, so many changes are few
-- messages. A Redis user without the right to publish loses nothing of what is written.

-- Arguments: the counts' key, and the mark or false.
local function tell_watchers(counts, mark)
  if not mark then return end
  redis.call('HDEL', counts, 'live')
  redis.pcall('SPUBLISH', string.sub(counts, 1, -7) .. 'live', '')
end

-- The same of a room's meta, for a script that may change what all members of a supergroup have unread.
local function tell_room(meta, mark)
  if not mark then return end
  redis.call('HDEL', meta, 'live')
  redis.pcall('SPUBLISH', string.sub(meta, 1, -5) .. 'live', '')
end
