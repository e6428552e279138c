-- Token buckets: several limits judged and charged in one step, all or none.
--
-- A bucket is stored as the one number that says everything about it: the instant, in
-- microseconds of this server's own clock, at which it will be full again. What is missing until
-- then is its debt. A key that is not there is a full bucket, so each key expires by itself at the
-- instant it stores, and a flushed or restarted server begins with full buckets.
--
-- KEYS[i]         the i-th bucket. All keys of a call share one hash tag, such as {sf:7}, so that
--                 a Redis Cluster keeps them in one slot.
-- ARGV[3*i-2]     its interval: the microseconds in which one token comes back
-- ARGV[3*i-1]     its size: the tokens that it holds when it is full
-- ARGV[3*i]       what is taken from it: tokens; 0 only looks; a negative number gives back and is
--                 never refused
--
-- Returns {1 or 0, debt, debt, ...}: whether everything was taken, and the debt of each bucket in
-- microseconds afterwards. When one bucket has too few tokens, none is touched.

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local stored = redis.call('MGET', unpack(KEYS))
local answer = {1}

for i = 1, #KEYS do
    local interval_us, size = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1])
    local cost, room_us = tonumber(ARGV[3 * i]), interval_us * size
    local debt_us = (tonumber(stored[i] or 0) or 0) - now_us
    -- A clock that went back, or a limit that was lowered, makes nobody wait longer than the time
    -- in which an empty bucket fills.
    debt_us = math.max(0, math.min(debt_us, room_us))
    answer[i + 1] = debt_us
    if cost > 0 and debt_us + cost * interval_us > room_us then
        answer[1] = 0
    end
end

if answer[1] == 0 then
    return answer
end

for i = 1, #KEYS do
    local interval_us, cost = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i])
    if cost ~= 0 then
        local debt_us = math.max(0, answer[i + 1] + cost * interval_us)
        answer[i + 1] = debt_us
        if debt_us > 0 then
            local full_at_us = string.format('%.0f', now_us + debt_us)
            redis.call('SET', KEYS[i], full_at_us, 'PX', math.ceil(debt_us / 1000))
        else
            redis.call('DEL', KEYS[i])
        end
    end
end

return answer
