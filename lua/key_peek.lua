#!lua flags=no-writes
-- Purpose: read the beginning of a key's unreadable value, to show it to people; writes nothing.
-- KEYS: 1 the key
-- ARGV: 1 most bytes to answer
-- Reply: {its type in words, the beginning of its value}
local key, most = KEYS[1], tonumber(ARGV[1])
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end
local text = try('GET', key)
if text then return {'a string', string.sub(text, 1, most)} end
local found = {{'a list', try('LRANGE', key, 0, 9)}, {'a sorted set', try('ZRANGE', key, 0, 9)}}
local page = try('HSCAN', key, '0', 'COUNT', 10)
found[3] = {'a hash', page and page[2]}
for i = 1, 3 do
  local items = found[i][2]
  if items and #items > 0 then
    local parts = {}
    for n = 1, math.min(#items, 20) do parts[n] = string.sub(items[n], 1, most) end
    return {found[i][1], string.sub(table.concat(parts, ' '), 1, most)}
  end
end
return {'another type', ''}
