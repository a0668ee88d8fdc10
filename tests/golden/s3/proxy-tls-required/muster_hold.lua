-- Holds a request while fewer servers are there than it needs, for a while: servers that are changed together are no error of a client's.
local LONGEST_MS, STEP_MS = 8000, 50

core.register_action("hold", { "http-req" }, function(request, listener, need)
  local held = 0
  while tonumber(request.f:nbsrv(listener)) < tonumber(need) and held < LONGEST_MS do
    core.msleep(STEP_MS)
    held = held + STEP_MS
  end
end, 2)
