-- Keys of events: an event whose key was taken is a duplicate. Two hashes take turns, so that a key is known for one period
-- at least (a day, if not configured otherwise) and for two at most. When the newer hash is one period old, the script empties
-- the older one, which becomes the newer one.

-- Arguments: the two hashes, '' or lines (key, type of event, microseconds of a period), and the time. Returns what is stored
-- for the key, or nil, and a function that stores a job for it.
local function keyed(one, two, lines, now)
  if lines == '' then return nil, function() end end
  local key, event, keep = string.match(lines, '^([^\n]+)\n([^\n]+)\n(%d+)$')
  keep = tonumber(keep)
  local began, clamped = {}, {}
  for i, hash in ipairs({one, two}) do
    local since = tonumber(redis.call('HGET', hash, '#') or '') or 0
    -- The clock has stepped back: the hash begins now.
    if since > now then
      since = now
      clamped[#clamped + 1] = hash
    end
    began[i] = since
  end
  local newer, older, since = one, two, began[1]
  if began[2] > began[1] then newer, older, since = two, one, began[2] end
  local found = redis.call('HGET', newer, key) or redis.call('HGET', older, key)
  if found then
    local of, job = string.match(found, '^([^|]*)|(%d*)$')
    return {same = of == event, job = job or ''}
  end
  return nil, function(job)
    for _, hash in ipairs(clamped) do redis.call('HSET', hash, '#', string.format('%.0f', now)) end
    local into = newer
    if now - since >= keep then
      into = older
      redis.call('UNLINK', into)
      redis.call('HSET', into, '#', string.format('%.0f', now))
    end
    redis.call('HSET', into, key, event .. '|' .. job)
    redis.call('PEXPIRE', into, string.format('%.0f', keep / 500))
  end
end
