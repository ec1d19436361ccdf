-- Replays requests that were written down beforehand, so that wrk itself has next to nothing to do per request.
-- wrk ... -s replay.lua URL -- FILE, where FILE holds, again and again: the length in bytes, a newline, the request.

local threads = 0

function setup(thread)
   thread:set("number", threads)
   threads = threads + 1
end

function init(args)
   requests = {}
   local file = assert(io.open(args[1], "rb"))
   while true do
      local length = file:read("*l")
      if not length then
         break
      end
      requests[#requests + 1] = file:read(tonumber(length))
   end
   file:close()
   -- Each thread begins somewhere else, so that they don't ask for the same user at the same time.
   at = number * 7919 % #requests
end

function request()
   at = at % #requests + 1
   return requests[at]
end
