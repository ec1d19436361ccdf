-- How far a read or a clearing goes. `m` has the fields of the meta at their places in lib/fanout, of which it needs the head and
-- last_time; for an id also accepted at place 14, for a time mintime at 15 and maxtime at 16.

-- `how` is all, id, time or position, and `value` the id, the time (milliseconds) or the position. Returns the position and, of
-- an id or a time, the time up to which that is; or nil: there is no such message, or it is older than the history and not the
-- room's last one; or nil, a number and that time: the position is older than the history, and not above this number.
-- `skip`, if it is given, says of a position whether it is as if never sent: for a member who read that message on arrival
-- (lib/time). Of a message that is named by its id it is asked with its place in `arrived`, and where that leads.
local function bound(how, value, meta, m, ids, log, now, max_messages, max_age, skip)
  local head, least, most = tonumber(m[2]), m[15], m[16]
  if how == 'all' then return head end
  if how == 'position' then return math.min(head, tonumber(value)) end
  if how == 'id' then
    local known = redis.call('HGET', ids, value)
    local first, at, sent, number, silent = string.match(known or '', '^(%d+)|(%d+)|(%-?%d+)|%d+|(%d+)|?(s?)')
    must(not first or m[14], 'a field of the meta is missing')
    if first and tonumber(first) >= now - max_age and tonumber(m[14]) - tonumber(number) < max_messages then
      at = tonumber(at)
    else
      local last = redis.call('HMGET', meta, 'last_id', 'last_position')
      numbers(last, 2)
      if value ~= last[1] then return nil end
      -- An earlier version did not store the position of the last message; there it was the message accepted last.
      at, sent = math.min(head, tonumber(last[2] or head)), m[11]
    end
    if not (skip and skip(silent == 's' and -tonumber(number) or at, at)) then return at, tonumber(sent) end
    value = sent
    least, most = unpack(redis.call('HMGET', meta, 'mintime', 'maxtime'))
    numbers({least, most}, 1, 2)
  end
  local time = tonumber(value)
  must(head == 0 or (least and most), 'a field of the meta is missing')
  if head == 0 or time < tonumber(least) then return 0, time end
  if time >= tonumber(most) then
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
