-- What wrk sends: photos in turn, as fast as they are answered or at a steady rate.
-- usage: wrk -t 1 ... -s benchmarks/serve.lua URL -- RATE PHOTO...   (RATE 0: as fast as answered)

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } moment;
  int clock_gettime(int clock, moment *result);
]]
local MONOTONIC = 1

local requests, number = {}, 0
local rate, due = 0, nil

local function now()
  local result = ffi.new("moment")
  ffi.C.clock_gettime(MONOTONIC, result)
  return tonumber(result.seconds) + tonumber(result.nanoseconds) / 1e9
end

function init(arguments)
  rate = tonumber(arguments[1])
  local headers = { ["Content-Type"] = "application/octet-stream" }
  for place = 2, #arguments do
    local file = assert(io.open(arguments[place], "rb"))
    requests[place - 1] = wrk.format("POST", "/v1/predict", headers, file:read("*a"))
    file:close()
  end
end

-- Milliseconds before the next request of whichever connection is free.
function delay()
  if rate == 0 then return 0 end
  due = math.max(due and due + 1 / rate or now(), 0)
  return math.max(0, math.floor(1000 * (due - now())))
end

function request()
  number = number % #requests + 1
  return requests[number]
end

function done(summary, latency)
  local errors = summary.errors
  -- Not errors.timeout: wrk counts connections that wait for their turn among them.
  local failed = errors.connect + errors.read + errors.write + errors.status
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "failed": %d, "p50": %.6f, "p95": %.6f, "p99": %.6f}\n',
    summary.requests, summary.duration / 1e6, failed, latency:percentile(50) / 1e6,
    latency:percentile(95) / 1e6, latency:percentile(99) / 1e6
  ))
end
