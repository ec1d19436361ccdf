-- The positions that a member read on arrival (lib/time), as a set; of a silent message - and its number among all messages.
-- `arrived` is the hash: USER -> epoch|positions, * ->
-- position:rev, read by everybody whose membership began before rev, r|USER -> what by-time resets left: epoch|time of the last
-- one|time of the last counts.set|revision up to which nothing of everybody's holds for this member|revisions of clearings that
-- are too old for this member. Also returns these four.
local function read_on_arrival(arrived, user, epoch)
  local set, entries = {}, redis.call('HMGET', arrived, user, '*', 'r|' .. user)
  local of, list = string.match(entries[1] or '', '^(%w+)|([%d,%-]*)$')
  if of and tonumber(of, 36) == epoch then
    for at in string.gmatch(list, '%-?%d+') do set[tonumber(at)] = true end
  end
  local since, reset, as_of, up_to, exempt = string.match(entries[3] or '', '^(%w+)|(%d*)|(%d*)|(%d*)|([%d,]*)$')
  if not since or tonumber(since, 36) ~= epoch then reset, as_of, up_to, exempt = nil, nil, nil, nil end
  up_to = tonumber(up_to) or 0
  exempt = ',' .. (exempt or '') .. ','
  for at, rev in string.gmatch(entries[2] or '', '(%-?%d+):(%d+)') do
    local holds = math.max(epoch, up_to) < tonumber(rev) and not string.find(exempt, ',' .. rev .. ',', 1, true)
    if holds then set[tonumber(at)] = true end
  end
  return set, tonumber(reset), tonumber(as_of), up_to, exempt
end
