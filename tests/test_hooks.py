"""`Settings.on_request`: each request is told once, whatever became of it, and the hook ends nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import re
from collections import Counter
from contextvars import ContextVar
from typing import Any

import pytest
from counting import reads
from servers import RawServer, http
from taking import taken
from virtual import elapse

import vizwatch
from vizwatch import Attempt, Client, Fleet, PasswordAuth, Settings, Target
from vizwatch._rules import wire
from vizwatch._values.exchange import Operation
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


@pytest.fixture
def told() -> list[Attempt]:
    """What the hook is told."""
    return []


def client_of(cloud: Emulator, told: list[Attempt], **settings: Any) -> Client:
    chosen = Settings(on_request=told.append, **settings)
    return Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=chosen)


def password_of(cloud: Emulator, settings: Settings) -> PasswordAuth:
    return PasswordAuth(
        cloud.endpoint,
        username="emulator",
        password=cloud.password,
        domain_name="emulator",
        project_id=cloud.project_id,
        settings=settings,
    )


def became(told: list[Attempt]) -> list[tuple[int, int | None, type[BaseException] | None]]:
    """Which attempt each was, its HTTP status, and the class of its error."""
    return [(one.attempt, one.http_status, None if one.error is None else type(one.error)) for one in told]


# --- what is told ---------------------------------------------------------------------------------------


async def test_each_attempt_of_a_call_is_told_with_what_it_came_to(
    cloud: Emulator, told: list[Attempt]
) -> None:
    cloud.fault("status", status=503, retry_after=7, count=1)
    cloud.fault("drop", count=1, after=1)
    async with client_of(cloud, told) as client:
        await client.list_jobs().collect()
        await client.list_jobs().collect()
    assert became(told) == [
        (1, 503, vizwatch.ServerError),
        (2, None, vizwatch.TransportError),
        (3, 200, None),
        (1, 200, None),
    ]
    assert all(one.seconds < 1 for one in told)


async def test_an_attempt_says_when_it_was_how_long_it_took_and_what_it_received(
    told: list[Attempt],
) -> None:
    body = {"job_id": 7, "status": 8, "job_name": "n" * 1000}

    async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await elapse(3)
        writer.write(http(body))

    async with RawServer(late) as server:
        settings = Settings(on_request=told.append)
        async with Client(server.endpoint, "p", auth="t", settings=settings) as client:
            begun = dt.datetime.now(dt.UTC)
            await client.get_job(7)
            ended = dt.datetime.now(dt.UTC)
        (one,) = told
        assert (one.operation, one.method, one.endpoint) == ("get job", "GET", server.endpoint)
        assert one.seconds == pytest.approx(3, abs=0.1)
        assert begun <= one.started_at + dt.timedelta(seconds=one.seconds) <= ended
        assert one.started_at.tzinfo is dt.UTC
        assert one.received == int(re.findall(rb"Content-Length: (\d+)", http(body))[0])


async def test_every_request_is_told_once_with_its_path_without_its_ids(
    cloud: Emulator, told: list[Attempt]
) -> None:
    settings = Settings(on_request=told.append)
    auth = password_of(cloud, settings)
    async with Client(cloud.endpoint, cloud.project_id, auth=auth, settings=settings) as client:
        job = await client.create_job("board", "/obs/logs/")
        await client.update_job(job.job_id, "text")
        await client.list_jobs().collect()
        await client.wait(job.job_id, until=8, timeout=600)
        await client.stop_job(job.job_id)
        await client.wait(job.job_id, timeout=600)
        await client.restart_job(job.job_id)
        await client.wait(job.job_id, until=8, timeout=600)
        await client.delete_job(job.job_id)
    assert {one.operation for one in told} == {operation.value for operation in Operation}
    assert [(one.method, one.http_status) for one in told] == [
        (one.method, one.status) for one in cloud.requests
    ]
    for one, request in zip(told, cloud.requests, strict=True):
        assert re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", one.route), request.path)
        assert not re.search(rf"{cloud.project_id}|\d\d", one.route)
    assert wire.ROUTES.keys() == set(Operation)


async def test_a_timeout_is_told(cloud: Emulator, told: list[Attempt]) -> None:
    cloud.fault("latency", seconds=60.0)
    async with client_of(cloud, told, attempts=1, connect_timeout=1, attempt_timeout=2) as client:
        with pytest.raises(vizwatch.RequestTimeoutError) as caught:
            await client.get_job(1)
    assert became(told) == [(1, None, vizwatch.RequestTimeoutError)]
    assert told[0].error is caught.value
    assert told[0].seconds == pytest.approx(2, abs=0.1)
    assert told[0].received == 0


@pytest.mark.fault("C1")
async def test_a_cancelled_request_is_told_and_stays_cancelled(cloud: Emulator, told: list[Attempt]) -> None:
    cloud.fault("latency", seconds=60.0)
    async with client_of(cloud, told) as client:
        call = asyncio.create_task(client.get_job(1))
        await elapse(1)
        call.cancel()
        await asyncio.wait([call])
    assert call.cancelled()
    assert became(told) == [(1, None, asyncio.CancelledError)]


@pytest.mark.fault("C4")
async def test_a_request_that_closing_ends_is_told(cloud: Emulator, told: list[Attempt]) -> None:
    cloud.fault("latency", seconds=60.0)
    async with client_of(cloud, told) as client:
        call = asyncio.create_task(client.get_job(1))
        await elapse(1)
        await client.aclose()
        with pytest.raises(vizwatch.ClientClosedError):
            await call
    assert became(told) == [(1, None, asyncio.CancelledError)]


async def test_a_refusal_in_the_body_alone_is_told_as_one(told: list[Attempt]) -> None:
    refusal = {"is_success": False, "error_code": "ModelArts.0105", "error_msg": "no"}
    async with RawServer(http(refusal)) as server:
        settings = Settings(on_request=told.append)
        async with Client(server.endpoint, "p", auth="t", settings=settings) as client:
            with pytest.raises(vizwatch.ConflictError):
                await client.stop_job(1)
    assert became(told) == [(1, 200, vizwatch.ConflictError)]


async def test_an_answer_that_is_too_large_is_told_with_its_status(told: list[Attempt]) -> None:
    async with RawServer(http(raw=b" " * 5000, status="404 Not Found")) as server:
        settings = Settings(on_request=told.append, max_body=1024, attempts=1)
        async with Client(server.endpoint, "p", auth="t", settings=settings) as client:
            with pytest.raises(vizwatch.ProtocolError):
                await client.get_job(1)
    assert became(told) == [(1, 404, vizwatch.ProtocolError)]
    assert told[0].received == 0


async def test_what_the_transport_never_got_is_not_told(cloud: Emulator, told: list[Attempt]) -> None:
    """A connection that is refused was tried; a turn, a place or credentials that never came were not."""

    class Failing:
        async def headers(self, request: vizwatch.Outgoing, /) -> dict[str, str]:
            raise OSError

    settings = Settings(on_request=told.append, attempts=1)
    async with Client(cloud.endpoint, "p", auth=Failing(), settings=settings) as client:
        with pytest.raises(vizwatch.ConnectError):
            await client.get_job(1)
    cloud.fault("latency", seconds=1e6)
    async with client_of(cloud, told, attempts=1, pool_size=1) as client:
        calls = [asyncio.create_task(client.get_job(1)) for _ in range(2)]
        await asyncio.wait(calls)
    assert [type(call.exception()) for call in calls] == [
        vizwatch.RequestTimeoutError,
        vizwatch.ConnectError,
    ]
    assert became(told) == [(1, None, vizwatch.RequestTimeoutError)]
    async with RawServer(http({})) as server:
        gone = server.endpoint
    async with Client(gone, "p", auth="t", settings=settings) as client:
        with pytest.raises(vizwatch.ConnectError):
            await client.get_job(1)
    assert became(told)[1:] == [(1, None, vizwatch.ConnectError)]


async def test_the_requests_of_a_recording_are_told(
    cloud: Emulator, told: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.add_jobs(1)
    monkeypatch.setenv("VIZWATCH_TOKEN", cloud.token)
    settings = Settings(on_request=told.append)
    await vizwatch.doctor.record(endpoint=cloud.endpoint, project_id=cloud.project_id, settings=settings)
    assert [one.http_status for one in told] == [request.status for request in cloud.requests]


async def test_a_token_that_is_renewed_makes_two_attempts(cloud: Emulator, told: list[Attempt]) -> None:
    (job_id,) = cloud.add_jobs(1)
    settings = Settings(on_request=told.append)
    auth = password_of(cloud, Settings())
    async with Client(cloud.endpoint, cloud.project_id, auth=auth, settings=settings) as client:
        await client.get_job(job_id)
        cloud.fault("token_expiry")
        await client.get_job(job_id)
    assert became(told) == [(1, 200, None), (1, 401, vizwatch.AuthenticationError), (2, 200, None)]


# --- watches and fleets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
async def test_each_poll_of_a_watch_is_told_once(cloud: Emulator, told: list[Attempt], shared: bool) -> None:
    job_ids = cloud.add_jobs(3, status=8)
    async with client_of(cloud, told, shared_reads=shared) as client:
        async with asyncio.TaskGroup() as tasks:
            for job_id in job_ids:
                tasks.create_task(_seen_for(client, job_id, 100))
    operations = Counter("list" if one.operation == "list jobs" else "details" for one in told)
    assert operations == reads(cloud)
    assert operations["details" if not shared else "list"] > 3
    assert {one.attempt for one in told} == {1}


async def _seen_for(client: Client, job_id: int, seconds: float) -> None:
    with pytest.raises(vizwatch.WatchTimeoutError):
        async for _ in client.watch(job_id, timeout=seconds):
            pass


async def test_a_request_that_gives_way_to_another_project_is_told_and_so_is_its_next(
    cloud: Emulator, told: list[Attempt]
) -> None:
    cloud.fault("latency", seconds=20.0, match={"project_id": "slow"})
    targets = [Target(cloud.endpoint, name, auth=cloud.token) for name in ("slow", "quick")]
    settings = Settings(on_request=told.append, pool_size=1)
    async with Fleet(targets, settings=settings) as fleet, taken(fleet.watch_jobs(), lambda _: None):
        await elapse(60)
    assert became(told)[:3] == [(1, None, asyncio.CancelledError), (1, 200, None), (2, 200, None)]


async def test_what_watches_share_is_read_in_the_context_of_none_of_them(
    cloud: Emulator, told: list[Attempt]
) -> None:
    """Nor of one that ends, whose place among the reads the next one takes."""
    who, seen = ContextVar("who", default="nobody"), Counter[str]()
    job_ids = cloud.add_jobs(40, status=8)
    cloud.fault("status", status=500, match={"operation": "list"})
    cloud.fault("latency", seconds=25.0, match={"operation": "details"})
    settings = Settings(on_request=lambda _: seen.update([who.get()]))

    async def watched(client: Client, job_id: int) -> None:
        who.set(f"watch {job_id}")
        await _seen_for(client, job_id, 300)

    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        watches = [asyncio.create_task(watched(client, job_id)) for job_id in job_ids]
        await elapse(5)
        for watch in watches:
            watch.cancel()
            await elapse(1)
        await asyncio.wait(watches)
    assert seen.keys() == {"nobody"}


# --- the hook -------------------------------------------------------------------------------------------


@pytest.mark.fault("C8")
@pytest.mark.parametrize("error", [KeyError("of the user's"), asyncio.CancelledError()])
async def test_a_hook_that_raises_is_logged_and_ends_nothing(
    cloud: Emulator, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def fails(_: Attempt) -> None:
        raise error

    (job_id,) = cloud.add_jobs(1)
    cloud.fault("status", status=503, count=1)
    settings = Settings(on_request=fails)
    with caplog.at_level(logging.ERROR, "vizwatch"):
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
            assert (await client.get_job(job_id)).job_id == job_id
            cloud.fault("latency", seconds=60.0)
            call = asyncio.create_task(client.get_job(job_id))
            await elapse(1)
            call.cancel()
            await asyncio.wait([call])
    assert call.cancelled()
    assert [record.message for record in caplog.records] == ["Settings.on_request failed"] * 3


async def test_without_a_hook_no_attempt_is_made(
    cloud: Emulator, here: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("vizwatch._world.session.Attempt")
    (job_id,) = cloud.add_jobs(1)
    cloud.fault("status", status=503, count=1)
    assert (await here.get_job(job_id)).job_id == job_id


async def a_coroutine_function(_: Attempt) -> None: ...


@pytest.mark.parametrize("given", [7, "print", dict, a_coroutine_function])
def test_a_hook_that_cannot_be_called_is_refused(given: Any) -> None:
    with pytest.raises(vizwatch.ConfigError, match=r"Settings\.on_request must be None or a function"):
        Settings(on_request=given)
