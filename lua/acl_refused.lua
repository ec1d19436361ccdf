#!lua flags=no-writes
-- Purpose: find the commands that the user of this connection may not run. The script runs none of them and writes nothing.
-- KEYS: 1 a key of ours (the cluster sends the call to the node of its slot)
-- ARGV: commands, with a line feed between the words of each; '@' stands for the key
-- Reply: the commands that are refused
local refused = {}
for _, line in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(line, '[^\n]+') do words[#words + 1] = word == '@' and KEYS[1] or word end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if not known or not allowed then refused[#refused + 1] = line end
end
return refused
