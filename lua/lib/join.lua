-- Where a membership begins that is placed by its time.

-- The highest position of a counted message that is not later than `time`, and the later ones: {position, id, sender, except}
-- each. With the order `time`, what the room accepted more than ten minutes ago is not later either; nor, at any time, what is
-- older than the history.
local function begins(order, time, head, log, now, max_messages, max_age)
  local later, stop, first = {}, redis.call('LLEN', log), head + 1
  local oldest = math.max(stop - max_messages, 0)
  while stop > oldest do
    local chunk = redis.call('LRANGE', log, math.max(stop - 64, oldest), stop - 1)
    for i = #chunk, 1, -1 do
      local rev, at, when, id, sender, except = string.match(chunk[i], '^(%d+)|(%d+)|(%-?%d+)|([^|]*)|?([^|]*)|?([^|]*)')
      if not rev or tonumber(rev) < now - max_age then return first - 1, later end
      if at ~= '0' then
        local is_old = order == 'time' and math.floor(now / 1000) - math.floor(tonumber(rev) / 1000) > 600000
        if is_old or tonumber(when) <= time then return tonumber(at), later end
        first = tonumber(at)
        later[#later + 1] = {at, id, sender, except}
      end
    end
    stop = stop - 64
  end
  return first - 1, later
end

-- What these messages are to users who join before them, as it stands in a job after j|: user:holes:mentions for each user who
-- has any, with | between them. `everybody`: in a supergroup, its mentions of everybody. It adds these by itself, and subtracts
-- recalled positions; what mentioned everybody before it became a supergroup is not among them.
local function marks_of_range(later, users, ids, everybody)
  local by_user, act = {}, {}
  for _, user in ipairs(users) do by_user[user] = {{}, {}} end
  for from = 1, #later, 1000 do
    local part = {}
    for i = from, math.min(from + 999, #later) do part[#part + 1] = later[i][2] end
    for i, entry in ipairs(redis.call('HMGET', ids, unpack(part))) do
      local at, _, sender, except = unpack(later[from + i - 1])
      local recall, named = string.match((entry or '') .. '|||', '^%d+|%d+|%-?%d+|(%d+)|%d+|s?|([^|]*)|')
      local is_recalled = recall and recall ~= '0'
      local by_room = everybody and named == '*' and redis.call('ZSCORE', everybody, at)
      local told = {}
      local function tell(user, what)
        if by_user[user] and not told[user] then
          told[user] = true
          table.insert(by_user[user][what], at)
        end
      end
      local function tell_all(what)
        for _, user in ipairs(users) do tell(user, what) end
      end
      tell(sender, 1)
      for user in string.gmatch(except, '[^,]+') do tell(user, 1) end
      if is_recalled and not everybody then
        tell_all(1)
      elseif named == '*' and not is_recalled then
        if not by_room then tell_all(2) end
      elseif named and not is_recalled then
        for user in string.gmatch(named, '[^,]+') do tell(user, 2) end
      end
    end
  end
  for _, user in ipairs(users) do
    local holes, mentions = unpack(by_user[user])
    if #holes + #mentions > 0 then
      act[#act + 1] = user .. ':' .. table.concat(holes, ',') .. ':' .. table.concat(mentions, ',')
    end
  end
  return table.concat(act, '|')
end
