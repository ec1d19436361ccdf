-- How far a read or a clearing goes. The caller has read mintime, maxtime, accepted, last_id and last_position of the meta as
-- fields 13 to 17.

-- `how` is all, id, time or position, and `value` the id, the time (milliseconds) or the position. Returns the position and, of
-- an id or a time, the time up to which that is; or nil: there is no such message, or it is older than the history and not the
-- room's last one; or nil, a number and that time: the position is older than the history, and not above this number.
-- `skip`, if it is given, says of a position whether it is as if never sent: for a member who read that message on arrival
-- (lib/time). Of a message that is named by its id it is asked with its place in `arrived`, and where that leads.
local function bound(how, value, m, ids, log, now, max_messages, max_age, skip)
  local head = tonumber(m[2])
  if how == 'all' then return head end
  if how == 'position' then return math.min(head, tonumber(value)) end
  if how == 'id' then
    local known = redis.call('HGET', ids, value)
    local first, at, sent, number, silent = string.match(known or '', '^(%d+)|(%d+)|(%-?%d+)|%d+|(%d+)|?(s?)')
    if first and tonumber(first) >= now - max_age and tonumber(m[15]) - tonumber(number) < max_messages then
      at = tonumber(at)
    elseif value == m[16] then
      -- An earlier version did not store the position of the last message; there it was the message accepted last.
      at, sent = math.min(head, tonumber(m[17] or head)), m[11]
    else
      return nil
    end
    if not (skip and skip(silent == 's' and -tonumber(number) or at, at)) then return at, tonumber(sent) end
    value = sent
  end
  local time = tonumber(value)
  if head == 0 or time < tonumber(m[13]) then return 0, time end
  if time >= tonumber(m[14]) then
    local at = head
    while skip and at > 0 and skip(at) do at = at - 1 end
    return at, time
  end
  -- From the newest message back: the first one that is not later than the time has the highest position.
  local stop, first = redis.call('LLEN', log), nil
  local oldest = math.max(stop - max_messages, 0)
  while stop > oldest do
    local chunk = redis.call('LRANGE', log, math.max(stop - 64, oldest), stop - 1)
    for i = #chunk, 1, -1 do
      local at, when = string.match(chunk[i], '^%d+|(%d+)|(%-?%d+)|')
      if at ~= '0' then
        first = tonumber(at)
        if tonumber(when) <= time and not (skip and skip(first)) then return first, time end
      end
    end
    stop = stop - 64
  end
  -- Where nothing is forgotten there is no such message.
  if first == 1 then return 0, time end
  return nil, (first or head + 1) - 1, time
end

-- When the message at this position was sent; nil: the history does not have it.
local function time_at(position, log, max_messages)
  local stop = redis.call('LLEN', log)
  local oldest = math.max(stop - max_messages, 0)
  while stop > oldest do
    local chunk = redis.call('LRANGE', log, math.max(stop - 64, oldest), stop - 1)
    for i = #chunk, 1, -1 do
      local at, when = string.match(chunk[i], '^%d+|(%d+)|(%-?%d+)|')
      if at ~= '0' and tonumber(at) <= position then return tonumber(at) == position and tonumber(when) or nil end
    end
    stop = stop - 64
  end
end

-- Up to which position a member of a supergroup has read it by clearings after the revision `since`: that at which the membership
-- began, or that of its last reset. nil: by none. `list` is the field `cleared` of the meta: a comma list of rev|position, or of
-- several positions with ; between them, of which the first one holds that the member does not skip, or the last. Of a silent
-- message it is -number:position: the number says whether the member skips it.
-- `exempt`: commas around revisions of clearings that are too old for the member.
local function cleared_up_to(list, since, skip, exempt)
  local up_to
  for rev, positions in string.gmatch(list or '', '(%d+)|([%d;:%-]+)') do
    if since < tonumber(rev) and not (exempt and string.find(exempt, ',' .. rev .. ',', 1, true)) then
      local holds, of
      for one in string.gmatch(positions, '[^;]+') do
        if not holds or (skip and skip(of)) then
          local silent, at = string.match(one, '^(%-%d+):(%d+)$')
          holds = tonumber(at or one)
          of = tonumber(silent) or holds
        end
      end
      up_to = math.max(up_to or 0, holds)
    end
  end
  return up_to
end
