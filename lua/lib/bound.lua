-- How far a read or a clearing goes. The caller has read mintime, maxtime, accepted, last_id and last_position of the meta as
-- fields 13 to 17.

-- `how` is all, id, time or position, and `value` the id, the time (milliseconds) or the position. Returns the position; or nil:
-- there is no such message, or it is older than the history and not the room's last one; or nil and a number: the position is
-- older than the history, and not above this number.
local function bound(how, value, m, ids, log, now, max_messages, max_age)
  local head = tonumber(m[2])
  if how == 'all' then return head end
  if how == 'position' then return math.min(head, tonumber(value)) end
  if how == 'id' then
    local known = redis.call('HGET', ids, value)
    local first, at, number = string.match(known or '', '^(%d+)|(%d+)|%-?%d+|%d+|(%d+)')
    if first and tonumber(first) >= now - max_age and tonumber(m[15]) - tonumber(number) < max_messages then
      return tonumber(at)
    end
    -- An earlier version did not store the position of the last message; there it was the message accepted last.
    return value == m[16] and math.min(head, tonumber(m[17] or head)) or nil
  end
  local time = tonumber(value)
  if head == 0 or time < tonumber(m[13]) then return 0 end
  if time >= tonumber(m[14]) then return head end
  -- From the newest message back: the first one that is not later than the time has the highest position.
  local stop, first = redis.call('LLEN', log), nil
  local oldest = math.max(stop - max_messages, 0)
  while stop > oldest do
    local chunk = redis.call('LRANGE', log, math.max(stop - 64, oldest), stop - 1)
    for i = #chunk, 1, -1 do
      local at, when = string.match(chunk[i], '^%d+|(%d+)|(%-?%d+)|')
      if at ~= '0' then
        first = tonumber(at)
        if tonumber(when) <= time then return first end
      end
    end
    stop = stop - 64
  end
  return nil, (first or head + 1) - 1
end

-- Up to which position a member of a supergroup has read it by clearings after the revision `since`: that at which the membership
-- began, or that of its last reset. nil: by none. `list` is the field `cleared` of the meta: a comma list of rev|position.
local function cleared_up_to(list, since)
  local up_to
  for rev, position in string.gmatch(list or '', '(%d+)|(%d+)') do
    if since < tonumber(rev) then up_to = math.max(up_to or 0, tonumber(position)) end
  end
  return up_to
end
