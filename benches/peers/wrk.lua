-- METHOD with BODY bytes. The last line of output is "requests microseconds errors".
wrk.method = os.getenv("METHOD")
local body = tonumber(os.getenv("BODY"))
if body > 0 then
  wrk.body = string.rep("x", body)
end

function done(summary)
  local e = summary.errors
  print(summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout)
end
