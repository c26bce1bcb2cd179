"""Fencing: what a Redis does in one step for whoever holds streams, and for nobody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final
from urllib.parse import quote

import attrs

FORMAT: Final = 1
"""What stands in the head, where an older version of this package has to stop."""
_SCRIPT: Final = r"""
-- KEYS: the head, and of each stream its lease and its jobs' records. All is checked before any is written.
local at = 0
local function argument()
    at = at + 1
    return ARGV[at]
end

-- Tokens are compared as text: the time of the taking in microseconds, and something random.
local function after(token)
    return string.format('%016.0f', tonumber(string.sub(token, 1, 16)) + 1)
end

local head, format, lease, step = KEYS[1], argument(), argument(), argument()
local found = redis.call('HGET', head, 'format')
if found and found ~= format then
    local is_newer = string.match(found, '^%d+$') and tonumber(found) > tonumber(format)
    return {is_newer and 'newer' or 'damaged', found}
end
if not found and redis.call('EXISTS', head) == 1 then
    return {'damaged'}
end

local streams, lost = {}, {}
for number = 1, (#KEYS - 1) / 2 do
    local one = {lease = KEYS[2 * number], jobs = KEYS[2 * number + 1]}
    one.holder, one.endpoint = 'holder ' .. argument(), 'endpoint ' .. argument()
    one.at, one.token = argument(), argument()
    local endpoint = redis.call('HGET', head, one.endpoint)
    local holder = redis.call('HGET', head, one.holder)
    local held = redis.call('GET', one.lease)
    local records = redis.call('HLEN', one.jobs)
    if endpoint and endpoint ~= one.at then
        return {'elsewhere', {number, endpoint}}
    end
    if holder and not string.match(holder, '^' .. string.rep('%d', 16) .. ':%x+$') then
        return {'damaged'}
    end
    if step == 'take' then
        if not endpoint and records > 0 then
            return {'damaged'}
        end
        if held then
            return {'held', redis.call('PTTL', one.lease)}
        end
        -- Later than all before it, also where this Redis has come back with what it had some time ago.
        local time = redis.call('TIME')
        local now = string.format('%010d%06d', time[1], time[2])
        if holder and after(holder) > now then
            now = after(holder)
        end
        one.token = now .. ':' .. one.token
    elseif (held and held ~= one.token) or (holder and holder > one.token) then
        lost[#lost + 1] = number
        one.is_lost = true
    end
    one.is_known = found and endpoint and holder == one.token
    streams[number] = one
end
if #lost > 0 and step == 'save' then
    return {'lost', lost}
end

for _, one in ipairs(streams) do
    if step == 'release' and not one.is_lost then
        -- What its holder sent before, and comes late, is to find it lost.
        redis.call('HSET', head, one.holder, after(one.token) .. string.sub(one.token, 17))
        redis.call('DEL', one.lease)
    elseif not one.is_lost then
        redis.call('SET', one.lease, one.token, 'PX', lease)
        if not one.is_known then
            redis.call('HSET', head, 'format', format, one.endpoint, one.at, one.holder, one.token)
        end
    end
    if step == 'save' then
        for _ = 1, tonumber(argument()) do
            redis.call('HSET', one.jobs, argument(), argument())
        end
        for _ = 1, tonumber(argument()) do
            redis.call('HDEL', one.jobs, argument())
        end
    end
end
if step == 'take' then
    return {'done', streams[1].token}
end
return {'done', lost}
"""


class Step(StrEnum):
    """What is done to streams."""

    TAKE = "take"
    """One that nobody holds is taken, and gets its token."""
    RENEW = "renew"
    """Those that are still held are held for longer."""
    SAVE = "save"
    """As renewed, and records are kept and forgotten; nothing at all if a stream is lost."""
    RELEASE = "release"


@attrs.frozen
class Claim:
    """That a stream is this process's, as long as its token is the last one of the stream."""

    endpoint: str
    project_id: str
    workspace_id: str | None
    token: str

    @property
    def name(self) -> str:
        """The stream's, without its endpoint, of which a project has only one."""
        parts = [self.project_id] if self.workspace_id is None else [self.project_id, self.workspace_id]
        return ":".join(quote(part, safe="") for part in parts)


def jobs_key(prefix: str, claim: Claim) -> str:
    """Where the records of the stream's jobs are: a hash, by the jobs' ids."""
    return f"{{{prefix}}}:jobs:{claim.name}"


def command(
    step: Step,
    prefix: str,
    lease: float,
    claims: Sequence[Claim],
    records: Mapping[Claim, Mapping[int, bytes | None]],
) -> list[str | bytes | int]:
    """What a Redis is asked for one step; of one claim alone where a stream is taken.

    It answers with a word, and what that is about: ``done`` and the token of what was taken, or else the
    numbers of the claims that were lost, from 1; ``lost`` and these, ``held`` and for how many milliseconds
    yet, ``elsewhere`` with the number of a claim and the endpoint of its project, ``newer`` and the format,
    or ``damaged``.
    """
    # The braces put all keys into one slot of a Redis Cluster.
    keys, arguments = [f"{{{prefix}}}:head"], [FORMAT, round(lease * 1000), step.value]
    values: list[str | bytes | int] = []
    for claim in claims:
        keys += [f"{{{prefix}}}:lease:{claim.name}", jobs_key(prefix, claim)]
        arguments += [claim.name, claim.project_id, claim.endpoint, claim.token]
        of_jobs = records.get(claim, {})
        kept = {job_id: record for job_id, record in of_jobs.items() if record is not None}
        values.append(len(kept))
        for job_id, record in kept.items():
            values += [job_id, record]
        values += [len(of_jobs) - len(kept), *(job_id for job_id in of_jobs if job_id not in kept)]
    return ["EVAL", _SCRIPT, len(keys), *keys, *arguments, *values]
