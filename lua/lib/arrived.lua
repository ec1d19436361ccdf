-- The positions that a member read on arrival (lib/time), as a set. `arrived` is the hash: USER -> epoch|positions, * ->
-- position:rev, read by everybody whose membership began before rev.
local function read_on_arrival(arrived, user, epoch)
  local set, entries = {}, redis.call('HMGET', arrived, user, '*')
  local of, list = string.match(entries[1] or '', '^(%w+)|([%d,]*)$')
  if of and tonumber(of, 36) == epoch then
    for at in string.gmatch(list, '%d+') do set[tonumber(at)] = true end
  end
  for at, rev in string.gmatch(entries[2] or '', '(%d+):(%d+)') do
    if epoch < tonumber(rev) then set[tonumber(at)] = true end
  end
  return set
end
