#!lua
-- Purpose: mend or remove stored data that can't be read. The script makes all changes or none: it writes nothing if anything is
--   no longer as the caller saw it.
-- KEYS: the keys to change, all of one slot
-- ARGV: five per change: number of the key, what to do, field, value that the caller saw there, new value. What to do:
--   drop (delete the key if it is not of the type that `field` names: hash, list, zset or string; '': delete it in any case),
--   set and del (a field of a hash that holds the value seen), new (a field, if it is not there), rem and add (a member of a
--   sorted set), lset and ldel (elements of a list that equal the value seen), push (onto a list), ttl (milliseconds from now)
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

-- First the script only reads.
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

-- Then it writes.
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
