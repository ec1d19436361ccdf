-- Up to which position a member of a supergroup has read it by clearings after the revision `since`: that at which the membership
-- began, or that of its last reset. nil: by none. `list` is the field `cleared` of the meta: a comma list of rev|position, or of
-- several positions with ; between them, of which the first one holds that the member does not skip, or the last. Of a silent
-- message it is -number:position: the number says whether the member skips it.
-- `exempt`: commas around revisions of clearings that are too old for the member.
local function cleared_up_to(list, since, skip, exempt)
  local up_to
  for rev, positions in string.gmatch(list or '', '(%d+)|([%d;:%-]+)') do
    if since < tonumber(rev) and not (exempt and string.find(exempt, ',' .. rev .. ',', 1, true)) then
      local holds, of
      for one in string.gmatch(positions, '[^;]+') do
        if not holds or (skip and skip(of)) then
          local silent, at = string.match(one, '^(%-%d+):(%d+)$')
          holds = tonumber(at or one)
          of = tonumber(silent) or holds
        end
      end
      up_to = math.max(up_to or 0, holds)
    end
  end
  return up_to
end
