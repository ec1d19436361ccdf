#!lua
-- Purpose: put right or remove what can't be read, all of it or nothing: if anything is not as it was seen any more, nothing
--   is written.
-- KEYS: of one slot, those that are concerned
-- ARGV: five per change: number of the key, what to do, field, what was seen there, what to put there. What to do:
--   drop (the key is not what `field` says: hash, list, zset or string; nothing: whatever it is), set and del (a field of a
--   hash that holds what was seen), new (a field that is not there), rem and add (a member of a sorted set), lset and ldel
--   (elements of a list that are what was seen), push (onto a list), ttl (milliseconds from now)
-- Reply: 1, or 0 if something has changed
local call, pcall = redis.call, redis.pcall
local function fails(...)
  local answer = pcall(...)
  return type(answer) == 'table' and answer.err ~= nil
end
local function is_other(key, kind)
  if kind == 'hash' then return fails('HLEN', key) end
  if kind == 'list' then return fails('LLEN', key) end
  if kind == 'zset' then return fails('ZCOUNT', key, 0, 0) end
  if kind == 'string' then return fails('GET', key) end
  return true
end
local kinds = {set = 'hash', del = 'hash', new = 'hash', rem = 'zset', add = 'zset', lset = 'list', ldel = 'list', push = 'list'}

-- First only looks.
local dropped, lists = {}, {}
for i = 1, #ARGV, 5 do
  local key, what, field, seen = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if what == 'drop' then
    if not is_other(key, field) then return 0 end
    dropped[key] = true
  elseif not dropped[key] and what ~= 'ttl' then
    if is_other(key, kinds[what]) then return 0 end
    if what == 'set' or what == 'del' then
      if call('HGET', key, field) ~= seen then return 0 end
    elseif what == 'lset' or what == 'ldel' then
      lists[key] = lists[key] or {}
      lists[key][seen] = what == 'lset' and ARGV[i + 4] or false
    end
  end
end

-- Then writes.
for key, changed in pairs(lists) do
  local all = call('LRANGE', key, 0, -1)
  call('DEL', key)
  for i = 1, #all do
    local put = changed[all[i]]
    if put == nil then put = all[i] end
    if put then call('RPUSH', key, put) end
  end
end
for i = 1, #ARGV, 5 do
  local key, what, field, put = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2], ARGV[i + 4]
  if what == 'drop' then
    call('DEL', key)
  elseif what == 'set' then
    call('HSET', key, field, put)
  elseif what == 'new' then
    call('HSETNX', key, field, put)
  elseif what == 'del' then
    call('HDEL', key, field)
  elseif what == 'rem' then
    call('ZREM', key, field)
  elseif what == 'add' then
    call('ZADD', key, put, field)
  elseif what == 'push' then
    call('RPUSH', key, put)
  elseif what == 'ttl' then
    call('PEXPIRE', key, put)
  end
end
return 1
