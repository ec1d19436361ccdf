#!lua flags=no-writes
-- Purpose: work out what users have unread in a supergroup, from the room's head; writes nothing.
-- KEYS: 1 meta (hash), 2 recalled (sorted set of positions), 3 allmentions (sorted set of positions),
--   4 pending (hash: job -> record; `Job::parse` reads these records too, and the golden jobs in records.txt hold both together),
--   5 arrived (hash): lib/arrived
-- ARGV: ten per user: 1 state j|i, 2 epoch, 3 read position, 4 holes (comma list of positions), 5 mentions by name (comma list of
--   positions), 6 user; then, if the user has been reset, else three times '': 7 the stamp of the last reset, 8 a position up to
--   which each counts, recalled or not, or 0, 9 positions that are no mentions of the user, although the room counts them as
--   mentions of everybody (comma list); 10 edits of messages that have been delivered to the user (comma list of position:stamp)
-- Reply: {kind, status, type, tags, created, last_at, last_time (these two '' without a message), head, then three per user: unread,
--   mentions, read position; each '' if the room is gone for that user}, or {} if there is no room, or {'MANY'} if more than one user
--   is asked for, and more than 64 jobs are pending or all of them together are long; or the error UNREADABLE
local meta, recalled, allmentions, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local m = redis.call('HMGET', meta, 'born', 'head', 'kind', 'status', 'type', 'tags', 'created', 'last_at', 'last_time', 'late')
if not (m[1] or m[2] or m[3] or m[7]) then return {} end
-- Whole numbers below 2^53, which are exact in a script.
local digits = (m[1] or '') .. ',' .. (m[2] or '') .. ',' .. (m[7] or '')
if not string.find(digits, '^%d+,%d+,%d+$') or #digits > 50 or math.max(m[1], m[2], m[7]) >= 9007199254740992 then
  return redis.error_reply('-UNREADABLE a number of a room')
end
if m[4] ~= '1' and m[4] ~= '0' then return redis.error_reply('-UNREADABLE the status of a room') end
local born, head = tonumber(m[1]), tonumber(m[2])
local open = redis.call('HLEN', pending)
if open > 64 and #ARGV > 10 then return {'MANY'} end

-- Of more than 5,000 jobs it takes none, so that a read takes a few milliseconds at most.
local with_jobs
if open > 0 and open <= 5000 then
  local all, bytes, edits = redis.call('HGETALL', pending), 0, {}
  for i = 1, #all, 2 do
    bytes = bytes + #all[i + 1]
    local audience, at, on, off = string.match(all[i + 1], '^%d+\n(%a+)\n[^\n]*\ne|(%d+)|([^|]*)|([^|]*)$')
    if at then
      edits[#edits + 1] = {stamp = tonumber(all[i]), audience = audience, at = at, on = ',' .. on .. ',', off = ',' .. off .. ','}
    end
  end
  -- The jobs are searched for each user: in three megabytes for ten milliseconds or so.
  if bytes * #ARGV > 10 * 3000000 and #ARGV > 10 then return {'MANY'} end
  table.sort(edits, function(one, two) return one.stamp < two.stamp end)

  -- What an edit says of a user; nil: nothing. Whether the user is in the list `on`; and the sign: + if the message mentioned the
  -- user before as well, * if the supergroup counts the mention from now on, else an empty text.
  local function said(edit, user, is_reset)
    for _, sign in ipairs({'', '+', '!'}) do
      local name = ',' .. sign .. user .. ','
      local is_on = string.find(edit.on, name, 1, true)
      if is_on or string.find(edit.off, name, 1, true) then
        if sign == '!' then return nil end
        return is_on ~= nil, sign
      end
    end
    if edit.audience == 'all' or (edit.audience == 'reset' and is_reset) then
      if string.find(edit.off, ',*,', 1, true) then return false, '' end
      if string.find(edit.on, ',*,', 1, true) then return true, edit.audience == 'reset' and '*' or '' end
    end
  end

  -- What a user has by the room's pending jobs as well: own messages, reads, mentions and edits that the room has accepted and that
  -- have not been delivered yet.
  with_jobs = function(user, since, read, holes, mentions, unset, is_reset, unknown, delivered)
    -- Of each message the stamp of the last edit that has been delivered: what came before it has no effect any more.
    local edited = {}
    for at, stamp in string.gmatch(delivered, '(%d+):(%d+)') do edited[at] = tonumber(stamp) end
    local function add_mention(at)
      if not edited[at] then mentions = mentions .. ',' .. at end
    end
    for i = 1, #all, 2 do
      local names, act
      -- The room was cleared before it became a supergroup.
      local to_all, but = string.match(all[i + 1], '^%d+\nall\n\nr|(%d+)|?([^|]*)$')
      if to_all and tonumber(all[i]) > since then
        local _, from = string.find(',' .. but, ',' .. user .. ':', 1, true)
        if from then to_all = string.match(',' .. but, '^%d+', from + 1) or read end
        read = math.max(read, tonumber(to_all))
      end
      if string.find(all[i + 1], user, 1, true) then
        names, act = string.match(all[i + 1], '^%d+\n%a+\n([^\n]*)\n(.*)$')
      end
      local joined = act and string.sub(act, 1, 2) == 'j|' and tonumber(all[i]) >= since
      local from = joined and select(2, string.find(act, '|' .. user .. ':', 1, true))
      if from then
        -- A membership that was placed by its time brings the marks of what was sent since.
        local own, named = string.match(string.sub(act, from + 1), '^([%d,]*):([%d,]*)')
        holes = holes .. ',' .. own
        for at in string.gmatch(named, '%d+') do add_mention(at) end
      end
      if act and tonumber(all[i]) > since then
        local at, own, sender, named, except = string.match(act, '^m|(%d+)|(%a)|([^|]*)|([^|]*)|?[^|]*|?%d*|?([^|]*)$')
        local function is_in(list) return string.find(',' .. list .. ',', ',' .. user .. ',', 1, true) end
        local to = names == user and string.match(act, '^r|(%d+)$') or own == 'r' and sender == user and at
        if to then read = math.max(read, tonumber(to)) end
        if (own == 'h' and sender == user) or (except and is_in(except)) then holes = holes .. ',' .. at end
        if named and is_in(named) then add_mention(at) end
      end
    end
    -- Between commas, so that no other position is taken for one.
    local function with(list, at) return list .. ',' .. at end
    local function without(list, at) return (string.gsub(',' .. list .. ',', ',0*' .. at .. '%f[,]', '')) end
    local function has(list, at) return string.find(',' .. list .. ',', ',0*' .. at .. ',') end
    for _, edit in ipairs(edits) do
      local is_on, sign, is_mention
      if edit.stamp > since and edit.stamp > (edited[edit.at] or 0) then is_on, sign = said(edit, user, is_reset) end
      -- As `edit` in deliver.lua has it.
      local is_unknown = tonumber(edit.at) <= unknown
      if sign == '+' then
        if is_unknown then
          -- A reset has said what it is.
        elseif is_on then
          if not has(unset, edit.at) then is_mention = true end
        else
          unset = without(unset, edit.at)
          if not has(mentions, edit.at) then unset = with(unset, edit.at) end
        end
      elseif sign then
        is_mention, unset = is_on, without(unset, edit.at)
        if sign == '*' then is_mention = is_unknown end
      end
      if is_mention ~= nil then
        mentions = without(mentions, edit.at)
        if is_mention then mentions = with(mentions, edit.at) end
      end
    end
    return read, holes, mentions, unset
  end
end

local reply = {m[3], m[4], m[5], m[6], m[7], m[8] or '', m[9] or '', m[2]}
for i = 1, #ARGV, 10 do
  local state, began, from, holes, mentions, user, reset, last_unknown, unset, delivered = unpack(ARGV, i, i + 9)
  local epoch, read_to, unknown, n = tonumber(began), tonumber(from), 0, #reply
  local since, read = epoch, read_to
  if reset ~= '' then since, unknown = math.max(epoch, reset), tonumber(last_unknown) end
  if epoch < born then
    reply[n + 1], reply[n + 2], reply[n + 3] = '', '', ''
  else
    local unread, mentioned = 0, 0
    if state == 'j' then
      -- Only a room that keeps something of it has the field `late`.
      if m[10] then
        -- Lib: arrived, cleared
        -- What the user read on arrival does not count.
        local arrived, _, _, _, exempt = read_on_arrival(KEYS[5], user, epoch)
        local no_count = {holes}
        for at in pairs(arrived) do
          if at > 0 then no_count[#no_count + 1] = string.format('%.0f', at) end
        end
        holes = table.concat(no_count, ',')
        -- Who has been a member since before a clearing, and has not been reset since, has read up to there.
        local cleared = redis.call('HGET', meta, 'cleared')
        read = math.max(read, cleared_up_to(cleared, since, function(at) return arrived[at] end, exempt) or read)
      end
      -- The head is the current one, so the script also takes this user's marks of pending jobs.
      if with_jobs then
        read, holes, mentions, unset = with_jobs(user, since, read, holes, mentions, unset, reset ~= '', unknown, delivered)
      end
      local least = unknown > read and unknown or read
      if head > read then unread = head - read end
      if head > least then
        local above = string.format('(%d', least)
        unread = unread - redis.call('ZCOUNT', recalled, above, '+inf')
        mentioned = redis.call('ZCOUNT', allmentions, above, '+inf')
      end
      local own = {}
      if holes ~= '' then
        for position in string.gmatch(holes, '%d+') do
          if tonumber(position) > least and not own[position] then
            own[position] = true
            if not redis.call('ZSCORE', recalled, position) then unread = unread - 1 end
            if redis.call('ZSCORE', allmentions, position) then mentioned = mentioned - 1 end
          end
        end
      end
      if unset ~= '' then
        for position in string.gmatch(unset, '%d+') do
          if tonumber(position) > least and not own[position] and redis.call('ZSCORE', allmentions, position) then
            mentioned = mentioned - 1
          end
        end
      end
      if mentions ~= '' then
        local named = {}
        for position in string.gmatch(mentions, '%-?%d+') do
          local at = tonumber(position)
          if at > read and not own[position] and not named[position] and (at <= unknown
            or not (redis.call('ZSCORE', recalled, position) or redis.call('ZSCORE', allmentions, position))) then
            named[position] = true
            mentioned = mentioned + 1
          end
        end
      end
    end
    -- An inactive room counts nothing, but it has been read as far as it was.
    if m[4] == '0' then unread, mentioned = 0, 0 end
    reply[n + 1], reply[n + 2] = unread > 0 and unread or 0, mentioned > 0 and mentioned or 0
    reply[n + 3] = read == read_to and from or string.format('%d', read)
  end
end
return reply
