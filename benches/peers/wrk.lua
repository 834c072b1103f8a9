-- Requests with the headers that an API client sends. BODY bytes make a POST; the last line of output is "requests microseconds errors".
wrk.headers["User-Agent"] = "bench/1"
wrk.headers["Accept"] = "application/json, */*;q=0.8"
wrk.headers["Accept-Language"] = "en-GB, en;q=0.8"
wrk.headers["Authorization"] = "Bearer 0123456789abcdef0123456789abcdef0123456789abcdef"

local body = tonumber(os.getenv("BODY"))
if body > 0 then
  wrk.method = "POST"
  wrk.body = string.rep("x", body)
  wrk.headers["Content-Type"] = "application/octet-stream"
end

function done(summary)
  local e = summary.errors
  print(summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout)
end
