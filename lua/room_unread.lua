#!lua flags=no-writes
-- Purpose: work out what one user has unread in a supergroup, from the room's head; writes nothing.
-- KEYS: 1 meta (hash), 2 recalled (sorted set of positions), 3 allmentions (sorted set of positions),
--   4 pending (hash: job -> record; `Job::parse` reads these records too, and the golden jobs in records.txt hold both together),
--   5 arrived (hash): lib/arrived
-- ARGV: 1 state of the user j|i, 2 epoch, 3 read position, 4 holes (comma list of positions), 5 mentions by name (comma list
--   of positions), 6 user; then, if the user has been reset: 7 the stamp of the last reset, 8 a position up to which each counts,
--   recalled or not, or 0, 9 positions that are no mentions of the user, although the room counts them as mentions of everybody
--   (comma list)
-- Reply: {kind, status, type, tags, unread, mentions, created, last_at, last_time (these two '' without a message), head, read
--   position}, or {} if the room is gone for that user, or the error UNREADABLE
local meta, recalled, allmentions, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local state, epoch, read, holes, mentions = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local unset = ARGV[9] or ''
local since, unknown = epoch, tonumber(ARGV[8] or 0)
if ARGV[7] and tonumber(ARGV[7]) > since then since = tonumber(ARGV[7]) end

local m = redis.call('HMGET', meta, 'born', 'head', 'kind', 'status', 'type', 'tags', 'created', 'last_at', 'last_time', 'late')
if not (m[1] or m[2] or m[3] or m[7]) then return {} end
-- Whole numbers below 2^53, which are exact in a script.
local digits = (m[1] or '') .. ',' .. (m[2] or '') .. ',' .. (m[7] or '')
if not string.find(digits, '^%d+,%d+,%d+$') or #digits > 50 or math.max(m[1], m[2], m[7]) >= 9007199254740992 then
  return redis.error_reply('-UNREADABLE a number of a room')
end
if m[4] ~= '1' and m[4] ~= '0' then return redis.error_reply('-UNREADABLE the status of a room') end
if epoch < tonumber(m[1]) then return {} end
local unread, mentioned = 0, 0
if state == 'j' then
  -- Only a room that keeps something of it has the field `late`.
  if m[10] then
    -- Lib: arrived, bound
    -- What the user read on arrival does not count.
    local arrived, _, _, _, exempt = read_on_arrival(KEYS[5], ARGV[6], epoch)
    local no_count = {holes}
    for at in pairs(arrived) do
      if at > 0 then no_count[#no_count + 1] = string.format('%.0f', at) end
    end
    holes = table.concat(no_count, ',')
    -- Who has been a member since before a clearing, and has not been reset since, has read up to there.
    local cleared = redis.call('HGET', meta, 'cleared')
    read = math.max(read, cleared_up_to(cleared, since, function(at) return arrived[at] end, exempt) or read)
  end
  -- The head is the current one, so the script also takes this user's marks of pending jobs: own messages, reads and mentions
  -- that the room has accepted and that have not been delivered yet. If there are more than 5,000 jobs, it skips them all, so
  -- that a read takes a few milliseconds at most.
  local open = redis.call('HLEN', pending)
  if open > 0 and open <= 5000 then
    local user, edits = ARGV[6], {}
    local all = redis.call('HGETALL', pending)
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
        holes, mentions = holes .. ',' .. own, mentions .. ',' .. named
      end
      if act and tonumber(all[i]) > since then
        local at, own, sender, named, except = string.match(act, '^m|(%d+)|(%a)|([^|]*)|([^|]*)|?[^|]*|?%d*|?([^|]*)$')
        local function is_in(list) return string.find(',' .. list .. ',', ',' .. user .. ',', 1, true) end
        local to = names == user and string.match(act, '^r|(%d+)$') or own == 'r' and sender == user and at
        if to then read = math.max(read, tonumber(to)) end
        if (own == 'h' and sender == user) or (except and is_in(except)) then holes = holes .. ',' .. at end
        if named and is_in(named) then mentions = mentions .. ',' .. at end
        local about, on, off = string.match(act, '^e|(%d+)|([^|]*)|([^|]*)$')
        for _, list in ipairs({on, off}) do
          for _, name in ipairs({user, '+' .. user}) do
            if string.find(',' .. list .. ',', ',' .. name .. ',', 1, true) then
              edits[#edits + 1] = {stamp = tonumber(all[i]), at = about, is_on = list == on, still = name ~= user}
            end
          end
        end
      end
    end
    table.sort(edits, function(one, two) return one.stamp < two.stamp end)
    -- Between commas, so that no other position is taken for one.
    local function with(list, at) return list .. ',' .. at end
    local function without(list, at) return (string.gsub(',' .. list .. ',', ',0*' .. at .. '%f[,]', '')) end
    local function has(list, at) return string.find(',' .. list .. ',', ',0*' .. at .. ',') end
    for _, edit in ipairs(edits) do
      -- As `edit` in deliver.lua has it.
      local is_mention
      if edit.still and edit.is_on then
        is_mention = not has(unset, edit.at)
      elseif edit.still then
        unset = without(unset, edit.at)
        if not has(mentions, edit.at) then unset = with(unset, edit.at) end
      else
        is_mention, unset = edit.is_on, without(unset, edit.at)
      end
      if is_mention ~= nil then
        mentions = without(mentions, edit.at)
        if is_mention then mentions = with(mentions, edit.at) end
      end
    end
  end
  local head, least = tonumber(m[2]), unknown > read and unknown or read
  if head > read then unread = head - read end
  if head > least then
    local from = string.format('(%d', least)
    unread = unread - redis.call('ZCOUNT', recalled, from, '+inf')
    mentioned = redis.call('ZCOUNT', allmentions, from, '+inf')
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
return {m[3], m[4], m[5], m[6], unread > 0 and unread or 0, mentioned > 0 and mentioned or 0, m[7], m[8] or '', m[9] or '', m[2],
  tonumber(ARGV[3]) == read and ARGV[3] or string.format('%d', read)}
