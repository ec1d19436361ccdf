-- The order of time: what a room keeps of events that are placed by their own times, so that what arrives within ten minutes
-- finds its place. Each entry holds for ten minutes from its acceptance. `accepted` is in microseconds, `time` in milliseconds.
--   timed (hash):
--     u|USER -> epoch|read bounds|moments: two lists of time:accepted of one membership, the latest time first. A message with a
--       time at or before a read bound is read on arrival; a moment is as of when an event set the read position
--     u|* -> the same for everybody, without an epoch: each entry ends with : and the rev up to which a membership has begun
--     s|USER -> time:accepted of the event that made the membership's state
--     w|ID -> what waits for the message with this id: a JSON list, each an act, when it was accepted, and what belongs to it
--     c|USER -> the revision of the last reset by arrival: it cancels the user's reads that wait since an earlier revision
--   bounds (sorted set): USER, or *, -> the latest read bound; and each field of `timed` -> when it was written, below zero
--   arrived (hash): USER -> epoch|positions that this member read on arrival; * -> position:rev, read by who joined before rev
-- The meta has `timed`, when one of the first two was written last, and `late`, the last position that was read on arrival; 0 if
-- there was none, but a reset by time or a clearing of a supergroup: without `late` nobody needs to look for any of it.

local function time_order(timed, bounds, arrived, now)
  local o, hold, most = {}, 600000000, 64
  local end_of_second = math.floor(now / 1000000) * 1000 + 999
  o.written = false
  -- Of another type than they should be, they end the script before it writes anything.
  redis.call('HLEN', timed)
  redis.call('ZCOUNT', bounds, 0, 0)
  redis.call('HLEN', arrived)

  -- Whether what was accepted then still holds. After a clock has stepped back it does so for a while longer.
  local function holds(accepted)
    local at = tonumber(accepted)
    return at and math.abs(now - at) < hold
  end
  o.holds = holds

  -- The entries of a list that hold, up to a time: those before it are outdone by one of now.
  local function kept(list, time)
    local left = {}
    for entry in string.gmatch(list, '[^,]+') do
      local of, accepted = string.match(entry, '^(%-?%d+):(%d+)')
      if of and holds(accepted) and tonumber(of) > time then left[#left + 1] = entry end
    end
    while #left >= most do table.remove(left, 2) end
    return left
  end

  local function latest(list, at_least)
    for entry in string.gmatch(list, '[^,]+') do
      local of, accepted, rev = string.match(entry, '^(%-?%d+):(%d+):?(%d*)$')
      if of and holds(accepted) and tonumber(of) >= at_least then return tonumber(of), tonumber(rev) end
    end
  end

  local function lists(user, epoch)
    local entry = redis.call('HGET', timed, 'u|' .. user)
    local of, read, set = string.match(entry or '', '^(%w*)|([^|]*)|([^|]*)$')
    if of ~= epoch then return '', '' end
    return read, set
  end

  -- Writes a field, and forgets some that hold no longer, so that a room that is never quiet keeps no more than it needs.
  local function write(field, value)
    redis.call('HSET', timed, field, value)
    redis.call('ZADD', bounds, int(-now), field)
    local old = redis.call('ZRANGE', bounds, int(hold - now), '(0', 'BYSCORE', 'LIMIT', 0, 8)
    for _, gone in ipairs(old) do
      redis.call('HDEL', timed, gone)
      redis.call('ZREM', bounds, gone, string.match(gone, '^u|(.*)$') or gone)
    end
    o.written = true
  end

  -- A list with a time of now. `outdoes`: earlier times of the list have no effect any more.
  local function joined(list, time, more, outdoes)
    local entries = kept(list, outdoes and time or -math.huge)
    entries[#entries + 1] = int(time) .. ':' .. int(now) .. more
    if not outdoes then
      local function of(entry) return tonumber(string.match(entry, '^%-?%d+')) end
      table.sort(entries, function(one, two) return of(one) > of(two) end)
    end
    return table.concat(entries, ',')
  end

  local function put(user, epoch, bound, moment, more, outdoes)
    local read, set = lists(user, epoch)
    if bound then
      read = joined(read, math.min(bound, end_of_second), more, outdoes)
      redis.call('ZADD', bounds, string.match(read, '^%-?%d+'), user)
    end
    if moment then set = joined(set, moment, more, outdoes) end
    write('u|' .. user, epoch .. '|' .. read .. '|' .. set)
  end

  -- A member has read: as of `moment`, and up to the time `bound`, if there is one.
  function o.has_read(user, epoch, bound, moment) put(user, epoch, bound, moment, '', true) end

  -- The same for everybody who has joined before `rev`. `but_some`: some are exempt, and for them the earlier bounds hold on.
  function o.all_have_read(bound, moment, rev, but_some) put('*', '', bound, moment, ':' .. rev, not but_some) end

  -- Who reads a message of that time on arrival: user -> epoch of the membership, and the revs of everybody's bounds that do so.
  function o.readers(time)
    local users, revs, found = {}, {}, redis.call('ZRANGE', bounds, int(time), '+inf', 'BYSCORE')
    for from = 1, #found, 1000 do
      local fields = {}
      for i = from, math.min(from + 999, #found) do fields[#fields + 1] = 'u|' .. found[i] end
      for i, entry in ipairs(redis.call('HMGET', timed, unpack(fields))) do
        local user = found[from + i - 1]
        local epoch, read = string.match(entry or '', '^(%w*)|([^|]*)|')
        if user == '*' then
          for one in string.gmatch(read or '', '[^,]+') do
            local of, accepted, rev = string.match(one, '^(%-?%d+):(%d+):(%d+)$')
            if of and holds(accepted) and tonumber(of) >= time then revs[#revs + 1] = rev end
          end
        elseif latest(read or '', time) then
          users[user] = epoch
        end
      end
    end
    return users, revs
  end

  -- Of members, each user and epoch, those for whom an entry of everybody's with one of these revs holds.
  function o.held_by(joined, revs)
    local here = {}
    for from = 1, #joined, 1000 do
      local fields = {}
      for i = from, math.min(from + 999, #joined) do fields[#fields + 1] = 'r|' .. joined[i][1] end
      for i, entry in ipairs(redis.call('HMGET', arrived, unpack(fields))) do
        local user, epoch = unpack(joined[from + i - 1])
        local of, up_to, exempt = string.match(entry or '', '^(%w+)|%d*|%d*|(%d*)|([%d,]*)$')
        local since = math.max(tonumber(epoch, 36), of == epoch and tonumber(up_to) or 0)
        exempt = of == epoch and ',' .. exempt .. ','
        for _, rev in ipairs(revs) do
          if since < tonumber(rev) and not (exempt and string.find(exempt, ',' .. rev .. ',', 1, true)) then
            here[user] = epoch
            break
          end
        end
      end
    end
    return here
  end

  -- The positions of a list that the history may still have: `most` messages up to the position `head` and the number `accepted`.
  local function in_history(list, most, head, accepted)
    local left = {}
    for at in string.gmatch(list, '%-?%d+') do
      local position = tonumber(at)
      local is_known = position < 0 and -position > accepted - most or position > 0 and position > head - most
      if is_known then left[#left + 1] = at end
    end
    return table.concat(left, ',')
  end

  -- These members, user -> epoch, have read the message at this position on arrival. `history`: what in_history takes, if what is
  -- older may be forgotten. The slots of a direct room's or group's members know it as holes; only supergroups ask for it here.
  function o.arrive(users, at, history)
    local names = {}
    for user in pairs(users) do names[#names + 1] = user end
    for from = 1, #names, 1000 do
      local part, set = {unpack(names, from, math.min(from + 999, #names))}, {}
      for i, entry in ipairs(redis.call('HMGET', arrived, unpack(part))) do
        local epoch = users[part[i]]
        local of, list = string.match(entry or '', '^(%w+)|([%d,%-]*)$')
        list = of == epoch and list ~= '' and list .. ',' .. at or at
        if history and #list > 20 * history[1] + 200 then list = in_history(list, unpack(history)) end
        set[2 * i - 1], set[2 * i] = part[i], epoch .. '|' .. list
      end
      redis.call('HSET', arrived, unpack(set))
    end
    if #names > 0 then o.late = tonumber(at) > 0 and at or o.late or '0' end
  end

  -- Everybody has whose membership began before one of these revs.
  function o.all_arrive(at, revs)
    local list = {redis.call('HGET', arrived, '*') or nil}
    for _, rev in ipairs(revs) do list[#list + 1] = at .. ':' .. rev end
    redis.call('HSET', arrived, '*', table.concat(list, ','))
    o.late = tonumber(at) > 0 and at or o.late or '0'
  end

  -- The list of a set of positions.
  local function listed(set)
    local list = {}
    for at in pairs(set) do list[#list + 1] = at end
    table.sort(list)
    for i, at in ipairs(list) do list[i] = int(at) end
    return table.concat(list, ',')
  end

  -- Whether the read position was set in the last ten minutes as of that moment, or of a later one.
  function o.was_set_since(user, epoch, moment)
    local _, set = lists(user, epoch)
    if latest(set, moment) then return true end
    local _, all = lists('*', '')
    for entry in string.gmatch(all, '[^,]+') do
      local of, accepted, rev = string.match(entry, '^(%-?%d+):(%d+):(%d+)$')
      if of and holds(accepted) and tonumber(of) >= moment and tonumber(epoch, 36) < tonumber(rev) then return true end
    end
    return false
  end

  -- The read position is reset as of `moment`. `back`: the time from which on nothing was read on arrival any more; `bound`: a
  -- read bound; `left`: the positions that stay read on arrival; `reset` and `as_of`: the times of the last by-time reset and of
  -- the last by-time counts.set, or nil. From now on nothing of everybody's that is older than `rev` holds for this member.
  function o.reset(user, epoch, moment, back, bound, left, reset, as_of, rev)
    local read, set = lists(user, epoch)
    local _, _, _, up_to, exempt = read_on_arrival(arrived, user, tonumber(epoch, 36))
    local all, kept_bounds = lists('*', ''), {}
    for entry in string.gmatch(read .. ',' .. all, '[^,]+') do
      local of, accepted, before = string.match(entry, '^(%-?%d+):(%d+):?(%d*)$')
      local applies = of and holds(accepted)
      if applies and before ~= '' then
        applies = math.max(tonumber(epoch, 36), up_to) < tonumber(before) and not string.find(exempt, ',' .. before .. ',', 1, true)
      end
      if applies then
        local time = back and math.min(tonumber(of), back - 1) or tonumber(of)
        if time >= 0 then kept_bounds[#kept_bounds + 1] = {time, accepted} end
      end
    end
    table.sort(kept_bounds, function(one, two) return one[1] > two[1] or (one[1] == two[1] and one[2] > two[2]) end)
    local texts, newest = {}, 0
    for _, one in ipairs(kept_bounds) do
      if tonumber(one[2]) > newest and #texts < most then
        texts[#texts + 1] = int(one[1]) .. ':' .. one[2]
        newest = tonumber(one[2])
      end
    end
    write('u|' .. user, epoch .. '|' .. table.concat(texts, ',') .. '|' .. set)
    redis.call('ZREM', bounds, user)
    if texts[1] then redis.call('ZADD', bounds, string.match(texts[1], '^%d+'), user) end
    o.has_read(user, epoch, bound, moment)
    local text = listed(left)
    if text ~= '' then redis.call('HSET', arrived, user, epoch .. '|' .. text) else redis.call('HDEL', arrived, user) end
    redis.call('HSET', arrived, 'r|' .. user,
      epoch .. '|' .. (reset and int(reset) or '') .. '|' .. (as_of and int(as_of) or '') .. '|' .. int(rev) .. '|')
    o.late = o.late or '0'
  end

  -- The users who have read any on arrival, all those positions, and whether everybody has read any.
  function o.all_arrived()
    local users, set, all = {}, {}, redis.call('HGETALL', arrived)
    for i = 1, #all, 2 do
      local is_reset = string.find(all[i], '|', 1, true)
      if all[i] ~= '*' and not is_reset then users[#users + 1] = all[i] end
      local positions = is_reset and '' or string.match(all[i + 1], '|(.*)$') or string.gsub(all[i + 1], ':%d+', '')
      for at in string.gmatch(positions, '%-?%d+') do set[tonumber(at)] = true end
    end
    return users, set, redis.call('HEXISTS', arrived, '*') == 1
  end

  -- A membership has ended.
  function o.leave(user) redis.call('HDEL', arrived, user, 'r|' .. user) end

  -- A clearing is too old for this member.
  function o.exempt(user, epoch, rev)
    local _, reset, as_of, up_to, exempt = read_on_arrival(arrived, user, tonumber(epoch, 36))
    local revs = {}
    for one in string.gmatch(exempt, '%d+') do revs[#revs + 1] = one end
    if #revs >= most then table.remove(revs, 1) end
    revs[#revs + 1] = rev
    redis.call('HSET', arrived, 'r|' .. user, epoch .. '|' .. (reset and int(reset) or '') .. '|' .. (as_of and int(as_of) or '')
      .. '|' .. int(up_to) .. '|' .. table.concat(revs, ','))
  end

  -- The members who were reset by time as of that moment or later: user -> epoch of the membership.
  function o.resets_since(moment)
    local found, all = {}, redis.call('HGETALL', arrived)
    for i = 1, #all, 2 do
      local user = string.match(all[i], '^r|(.+)$')
      local epoch, reset = string.match(all[i + 1], '^(%w+)|(%d+)|')
      if user and reset and tonumber(reset) >= moment then found[user] = epoch end
    end
    return found
  end

  -- Whether the state of this user's membership was made by an event of a later time.
  function o.is_overtaken(user, time)
    local made, accepted = string.match(redis.call('HGET', timed, 's|' .. user) or '', '^(%-?%d+):(%d+)$')
    return made and holds(accepted) and time < tonumber(made)
  end

  -- An event of that time has made the state of this user's membership; nil: one that came by arrival.
  function o.state_made(user, time)
    if time then
      write('s|' .. user, int(time) .. ':' .. int(now))
    else
      redis.call('HDEL', timed, 's|' .. user)
    end
  end

  -- What an event says of a message waits until the message comes; of recalls the last one, of edits what no later one replaces.
  function o.wait(id, ...)
    local new, list = {...}, {}
    table.insert(new, 2, int(now))
    for _, one in ipairs(o.waiting({id})[id] or {}) do
      local waits_on = not (one[1] == 'c' and new[1] == 'c')
      if one[1] == 'e' and new[1] == 'e' then
        waits_on = false
        for part = 3, 6 do
          if new[part] ~= '' then one[part] = '' end
          waits_on = waits_on or one[part] ~= ''
        end
      end
      if waits_on then list[#list + 1] = one end
    end
    if #list >= 1000 then table.remove(list, 1) end
    list[#list + 1] = new
    write('w|' .. id, cjson.encode(list))
  end

  -- A reset by arrival cancels the user's reads that wait, and whether one did so after the revision `since`.
  function o.cancel_reads(user, rev) write('c|' .. user, rev) end
  function o.is_cancelled(user, since)
    local rev = redis.call('HGET', timed, 'c|' .. user)
    return rev and since and tonumber(rev) > tonumber(since)
  end

  -- What waits for these messages: id -> list.
  function o.waiting(ids)
    local fields, found = {}, {}
    for i, id in ipairs(ids) do fields[i] = 'w|' .. id end
    for i, text in ipairs(redis.call('HMGET', timed, unpack(fields))) do
      local read, all = pcall(cjson.decode, text or '[]')
      local list = {}
      for _, one in ipairs(read and all or {}) do
        if holds(one[2]) then list[#list + 1] = one end
      end
      if #list > 0 then found[ids[i]] = list end
    end
    return found
  end

  -- The message has come, and what waited for it has taken effect. Only a room.unread waits on, until its ten minutes are over: the
  -- caller carries it out. If that caller dies, the next call with the same message carries it out.
  function o.taken(id, list)
    local left = {}
    for _, act in ipairs(list) do
      if act[1] == 'u' then left[#left + 1] = act end
    end
    if #left > 0 then write('w|' .. id, cjson.encode(left)) else redis.call('HDEL', timed, 'w|' .. id) end
  end

  -- Writes to the meta when the two keys were written last. `m`, if it is given, has the fields of the meta: an event may be about
  -- a message between two users who have no room yet.
  function o.finish(meta, m)
    local set = {}
    if o.written then
      for _, key in ipairs({timed, bounds}) do redis.call('PEXPIRE', key, 2 * hold / 1000) end
      set[1], set[2] = 'timed', int(now)
    end
    if o.late == '0' then redis.call('HSETNX', meta, 'late', '0') elseif o.late then
      set[#set + 1] = 'late'
      set[#set + 1] = o.late
    end
    if #set > 0 then redis.call('HSET', meta, unpack(set)) end
    if m and not m[1] then redis.call('PEXPIRE', meta, 2 * hold / 1000) end
  end
  return o
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
