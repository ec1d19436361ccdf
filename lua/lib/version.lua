-- The version of a list of members after the change `what`. Its digest covers all changes so far, so two different lists never
-- have the same version, even if a clock steps back or data is restored from a backup.
local function version(rev, before, what)
  return int(rev) .. '.' .. string.sub(redis.sha1hex((before or '') .. '\n' .. what), 1, 8)
end
