"""What a write comes to: carried out once at most, told truly, and over in time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from unittest import mock

import attrs
import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import RawServer, client_of, http
from virtual import elapse

import vizwatch
from vizwatch import Client
from vizwatch.emulator import Emulator
from vizwatch.emulator._operations import perform

JOB = {"job_id": 197, "status": 8, "is_success": True}


def now() -> float:
    return asyncio.get_running_loop().time()


# --- the promise: whatever happens to which attempt -----------------------------------------------------

BEFORE = {"create": 8, "update": 8, "stop": 8, "restart": 12, "delete": 12}


@attrs.frozen
class Fault:
    """What becomes of one attempt."""

    kind: str
    options: dict[str, Any]

    @property
    def is_sent(self) -> bool:
        return self.kind != "not sent"


# What tells nothing: the operation is carried out, or it is not.
AMBIGUOUS = [
    *(
        fault
        for performed in (False, True)
        for fault in (
            Fault("drop", {"performed": performed}),
            *(Fault("status", {"status": n, "performed": performed}) for n in (408, 500, 502, 503, 504)),
            Fault("body", {"text": "<html>", "content_type": "text/html", "performed": performed}),
            Fault("body", {"text": "{", "performed": performed}),
            Fault("latency", {"seconds": 40, "performed": performed}),
        )
    ),
    *(Fault("truncate", {"bytes": count}) for count in (0, 1, 20)),
]
NOT_CARRIED_OUT = [
    Fault("not sent", {}),
    Fault("status", {"status": 429}),
    Fault("status", {"status": 429, "retry_after": 1}),
    Fault("status", {"status": 503, "retry_after": 1}),
    Fault("status", {"status": 401, "code": "ModelArts.0202"}),
    Fault("status", {"status": 403, "code": "ModelArts.0108"}),
    Fault("status", {"status": 500, "code": "ModelArts.0109"}),
    Fault("status", {"status": 302, "headers": {"Location": "https://example.com/"}}),
]
FAULTS = AMBIGUOUS + NOT_CARRIED_OUT


class Script:
    """Credentials that can be renewed, and that keep each attempt of a write from being sent as told."""

    def __init__(self, token: str, faults: list[Fault]) -> None:
        self._token = token
        self._faults = iter(faults)

    async def headers(self, request: vizwatch.Outgoing, /) -> dict[str, str]:
        if request.method != "GET":
            fault = next(self._faults, None)
            if fault is not None and not fault.is_sent:
                raise ConnectionRefusedError
        return {"X-Auth-Token": self._token}

    async def renew(self, refused: Any, /) -> bool:
        return True


async def write(client: Client, operation: str, job_id: int) -> str:
    try:
        match operation:
            case "create":
                await client.create_job("new", "/obs/name/")
            case "update":
                await client.update_job(job_id, "new")
            case _:
                await getattr(client, f"{operation}_job")(job_id)
    except vizwatch.OutcomeUnknownError:
        return "unknown"
    except vizwatch.VizwatchError:
        return "failed"
    return "done"


async def played(operation: str, faults: list[Fault]) -> tuple[str, int, int]:
    """What a write tells under these faults, how many times it was sent, and how many carried out."""
    carried_out: Counter[str] = Counter()

    def counted(world: Any, call: Any) -> Any:
        answer = perform(world, call)
        carried_out[call.operation] += answer.status == 200
        return answer

    with mock.patch("vizwatch.emulator._server.perform", counted):
        async with Emulator() as cloud:
            (job_id,) = cloud.add_jobs(1, status=BEFORE[operation])
            for after, fault in enumerate(fault for fault in faults if fault.is_sent):
                match = {"operation": operation}
                cloud.fault(fault.kind, match=match, after=after, count=1, **fault.options)
            async with Client(cloud.endpoint, cloud.project_id, auth=Script(cloud.token, faults)) as client:
                outcome = await write(client, operation, job_id)
                await elapse(120)  # what is still under way comes to its end
            sent = sum(request.method != "GET" for request in cloud.requests)
    return outcome, sent, carried_out[operation]


def check(operation: str, faults: list[Fault]) -> None:
    """Done is done, failed is not done, and unknown is said of what may be either, and of nothing else."""
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        outcome, sent, carried_out = runner.run(played(operation, faults))
    if operation in {"create", "restart"}:
        earlier = [fault for fault in faults if fault.is_sent][: max(sent - 1, 0)]
        assert not any(fault in AMBIGUOUS for fault in earlier), "it was sent again"
    if operation == "update":
        carried_out = min(carried_out, 1)  # twice is the same as once
    assert carried_out in {"done": {1}, "failed": {0}, "unknown": {0, 1}}[outcome]
    doubtful = [fault for fault in faults if fault in AMBIGUOUS or fault.options.get("status") == 503]
    assert outcome != "unknown" or doubtful


@pytest.mark.fault("write once")
@pytest.mark.parametrize("operation", BEFORE)
def test_a_write_is_carried_out_once_at_most_whatever_becomes_of_its_first_attempt(operation: str) -> None:
    for fault in FAULTS:
        check(operation, [fault])


@pytest.mark.fault("write once")
@settings(max_examples=250)
@given(st.sampled_from(sorted(BEFORE)), st.lists(st.sampled_from(FAULTS), min_size=2, max_size=6))
def test_a_write_is_carried_out_once_at_most_whatever_becomes_of_its_attempts(
    operation: str, faults: list[Fault]
) -> None:
    check(operation, faults)


# --- create: H2, S11 ------------------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.fault("H2", "write once")
@pytest.mark.parametrize("status", [408, 500, 502, 504])
@pytest.mark.parametrize("performed", [True, False])
async def test_a_create_that_failed_on_the_way_is_not_sent_again(
    cloud: Emulator, here: Client, status: int, performed: bool
) -> None:
    cloud.fault("status", status=status, performed=performed, match={"operation": "create"})
    with pytest.raises(vizwatch.OutcomeUnknownError, match="find_created") as caught:
        await here.create_job("board", "/obs/name/")
    assert isinstance(caught.value.__cause__, vizwatch.ServerError)
    assert caught.value.__cause__.http_status == status
    assert [request.method for request in cloud.requests] == ["POST"]
    assert caught.value.sent_at is not None
    found = await here.find_created("board", "/obs/name/", since=caught.value.sent_at)
    assert len(found) == performed


@pytest.mark.looptime
@pytest.mark.fault("S11")
async def test_a_quota_that_is_reached_is_told_at_once() -> None:
    async with Emulator(quota=1) as cloud:
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            job = await client.create_job("first", "/obs/name/")
            started = now()
            with pytest.raises(vizwatch.BadRequestError) as caught:
                await client.create_job("second", "/obs/name/")
            assert (caught.value.error_code, caught.value.http_status) == ("ModelArts.0118", 400)
            assert now() == started
            assert [request.method for request in cloud.requests] == ["POST", "POST"]
            assert [one.job_id for one in await client.list_jobs().collect()] == [job.job_id]


# --- update: S10 ----------------------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.fault("S10")
async def test_an_update_that_is_sent_again_overwrites_a_newer_one(cloud: Emulator) -> None:
    """The last writer wins, as documented, and that may be an attempt that was sent again."""
    (job_id,) = cloud.add_jobs(1, status=8)
    match = {"operation": "update"}
    cloud.fault("drop", performed=True, match=match, count=1)
    cloud.fault("latency", seconds=20, match=match, after=1, count=1)
    async with client_of(cloud.endpoint, project_id=cloud.project_id, auth=cloud.token) as ours:
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as theirs:
            update = asyncio.create_task(ours.update_job(job_id, "ours"))
            await elapse(5)
            assert (await theirs.get_job(job_id)).job_desc == "ours"
            await theirs.update_job(job_id, "theirs")
            assert (await theirs.get_job(job_id)).job_desc == "theirs"
            await update
            assert (await theirs.get_job(job_id)).job_desc == "ours"
    assert sum(request.method == "PUT" for request in cloud.requests) == 3


@pytest.mark.looptime
@pytest.mark.fault("S10", "bounded")
@pytest.mark.parametrize("hangs", [True, False])
async def test_nothing_is_sent_again_after_the_time_for_a_write(hangs: bool) -> None:
    times: list[float] = []

    async def lose(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        times.append(now())
        await elapse(3600 if hangs else 1)

    async with RawServer(lose) as server:
        async with client_of(server, attempts=100, write_timeout=40, backoff_max=5, backoff_base=5) as client:
            started = now()
            with pytest.raises(vizwatch.OutcomeUnknownError):
                await client.update_job(197, "text")
            assert now() - started <= 40.01
            await elapse(600)
        assert len(times) >= 2
        assert times[-1] - started <= 40


@pytest.mark.looptime
@pytest.mark.fault("write once")
@pytest.mark.parametrize("call", ["create", "restart"])
async def test_a_write_under_way_that_is_cancelled_is_not_sent_again(call: str) -> None:
    """Nor does anything of it go on in the background."""
    replies = http({}, status="429 Busy", headers=("Retry-After: 30",)), http(JOB)
    async with RawServer(*replies) as server, client_of(server) as client:
        writing = asyncio.create_task(write(client, call, 197))
        await elapse(10)
        assert len(server.requests) == 1
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await elapse(600)
    assert len(server.requests) == 1
