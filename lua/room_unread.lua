#!lua flags=no-writes
-- Purpose: work out what one user has unread in a supergroup, from the room's head; writes nothing.
-- KEYS: 1 meta (hash), 2 recalled (sorted set of positions), 3 allmentions (sorted set of positions), 4 pending (hash: job -> record)
-- ARGV: 1 state of the user j|i, 2 epoch, 3 read position, 4 holes (comma list of positions), 5 mentions by name (comma list
--   of positions), 6 user
-- Reply: {kind, status, type, tags, unread, mentions, created, last_at, last_time (these two '' without a message), head, read
--   position}, or {} if the room is gone for that user, or the error UNREADABLE
local meta, recalled, allmentions, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local state, epoch, read, holes, mentions = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]

local m = redis.call('HMGET', meta, 'born', 'head', 'kind', 'status', 'type', 'tags', 'created', 'last_at', 'last_time')
if not (m[1] or m[2] or m[3] or m[7]) then return {} end
-- Whole numbers below 2^53, which are exact in a script.
for _, at in ipairs({1, 2, 7}) do
  local digits = m[at] or ''
  if not string.match(digits, '^%d+$') or #digits > 16 or (#digits == 16 and digits > '9007199254740991') then
    return redis.error_reply('-UNREADABLE a number of a room')
  end
end
if m[4] ~= '1' and m[4] ~= '0' then return redis.error_reply('-UNREADABLE the status of a room') end
if epoch < tonumber(m[1]) then return {} end
local unread, mentioned = 0, 0
if state == 'j' and m[4] == '1' then
  -- The head is the one of now, so the script also takes the marks of pending jobs for this user: own messages, reads and
  -- mentions that the room has accepted and that have not been delivered yet. Above 5,000 jobs it skips them, so that a read
  -- takes a few milliseconds at most.
  local open = redis.call('HLEN', pending)
  if open > 0 and open <= 5000 then
    local user = ARGV[6]
    local all = redis.call('HGETALL', pending)
    for i = 1, #all, 2 do
      local names, act
      if string.find(all[i + 1], user, 1, true) then
        names, act = string.match(all[i + 1], '^%d+\n%a+\n([^\n]*)\n(.*)$')
      end
      if act and tonumber(all[i]) > epoch then
        local at, own, sender, named = string.match(act, '^m|(%d+)|(%a)|([^|]*)|([^|]*)')
        local to = names == user and string.match(act, '^r|(%d+)$') or own == 'r' and sender == user and at
        if to then read = math.max(read, tonumber(to)) end
        if own == 'h' and sender == user then holes = holes .. ',' .. at end
        if named and string.find(',' .. named .. ',', ',' .. user .. ',', 1, true) then mentions = mentions .. ',' .. at end
      end
    end
  end
  local from = '(' .. string.format('%.0f', read)
  unread = math.max(tonumber(m[2]) - read, 0) - redis.call('ZCOUNT', recalled, from, '+inf')
  mentioned = redis.call('ZCOUNT', allmentions, from, '+inf')
  local own = {}
  for position in string.gmatch(holes, '%d+') do
    if tonumber(position) > read and not own[position] then
      own[position] = true
      if not redis.call('ZSCORE', recalled, position) then unread = unread - 1 end
      if redis.call('ZSCORE', allmentions, position) then mentioned = mentioned - 1 end
    end
  end
  local named = {}
  for position in string.gmatch(mentions, '%d+') do
    if tonumber(position) > read and not own[position] and not named[position] and not redis.call('ZSCORE', recalled, position)
      and not redis.call('ZSCORE', allmentions, position) then
      named[position] = true
      mentioned = mentioned + 1
    end
  end
end
return {m[3], m[4], m[5], m[6], math.max(unread, 0), math.max(mentioned, 0), m[7], m[8] or '', m[9] or '', m[2],
  string.format('%.0f', read)}
