"""Writes that are waited for, and a create that is found again."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import RawServer

import vizwatch
from vizwatch import Client, JobStatus
from vizwatch._flows.watching import Watch
from vizwatch._rules import reconciling
from vizwatch._values.models import Job
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime

LOGS = "/obs/logs/"


def now() -> float:
    return asyncio.get_running_loop().time()


def writes(cloud: Emulator) -> int:
    return sum(request.method != "GET" for request in cloud.requests)


# --- wait= -----------------------------------------------------------------------------------------------


async def test_without_wait_a_write_gives_nothing_and_reads_nothing(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    calls: list[Any] = [here.stop_job(job_id), here.restart_job(job_id, wait=None), here.delete_job(job_id)]
    for call in calls:
        assert await call is None
        cloud.set_status(job_id, 12)
    assert {request.method for request in cloud.requests} == {"POST", "DELETE"}


async def test_a_job_that_is_stopped_is_given_once_it_has_ended(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    job = await here.stop_job(job_id, wait=60)
    assert (job.job_id, job.status) == (job_id, JobStatus.KILLED)


async def test_a_job_that_is_restarted_is_given_once_it_runs() -> None:
    async with Emulator(life=[[0, 8]]) as cloud:
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            (job_id,) = cloud.add_jobs(1, status=12)
            began = now()
            job = await client.restart_job(job_id, wait=dt.timedelta(minutes=2))
            assert job.status is JobStatus.RUNNING
            assert now() - began < 1, "its running is not taken for something old"


@pytest.mark.parametrize("lost", [False, True])
async def test_the_end_before_a_restart_is_not_taken_for_the_jobs_end(lost: bool) -> None:
    async with Emulator(life=[[0, 8]]) as cloud:
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            (job_id,) = cloud.add_jobs(1, status=12)
            if lost:
                cloud.fault("drop", match={"method": "POST"}, count=1, performed=True)
            await asyncio.sleep(31)
            cloud.fault("stale", seconds=30, ttl=30)
            assert (await client.restart_job(job_id, wait=120)).status is JobStatus.RUNNING


async def test_a_job_that_ends_instead_of_running_is_told() -> None:
    async with Emulator(life=[[0, 1], [5, 3]]) as cloud:
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            (job_id,) = cloud.add_jobs(1, status=12)
            with pytest.raises(vizwatch.JobEndedError, match="ended as IMAGE_FAILED") as caught:
                await client.restart_job(job_id, wait=300)
    assert caught.value.job is not None


async def test_a_job_that_is_stopped_just_after_its_restart_has_ended_when_it_says_so(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, status=12)
    await here.restart_job(job_id)
    cloud.set_status(job_id, 8)
    await here.stop_job(job_id)
    cloud.set_status(job_id, 12)
    began = now()
    await here.wait(job_id, timeout=300)
    assert now() - began < 1


async def test_a_job_that_is_deleted_is_given_as_it_was_last_seen(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8, job_desc="mine")
    job = await here.delete_job(job_id, wait=120)
    assert (job.job_id, job.job_desc) == (job_id, "mine")
    with pytest.raises(vizwatch.NotFoundError):
        await here.get_job(job_id)


async def test_a_deletion_is_confirmed_within_seconds(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=12)
    began = now()
    await here.delete_job(job_id, wait=120)
    assert now() - began < 30
    missed = [request for request in cloud.requests if request.status == 404]
    assert len(missed) == 3


async def test_a_job_that_is_gone_at_once_is_given_as_it_was_before() -> None:
    async with Emulator(kill_seconds=0) as cloud:
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            (job_id,) = cloud.add_jobs(1, status=8, job_desc="mine")
            job = await client.delete_job(job_id, wait=120)
        assert (job.status, job.job_desc) == (JobStatus.RUNNING, "mine")
        assert [request.status for request in cloud.requests[2:]] == [404] * 3


@pytest.mark.fault("W15")
async def test_a_deletion_that_is_waited_for_goes_by_no_clock_but_the_watches(
    cloud: Emulator, here: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock is stepped back by years between the job's first read and the next one."""
    (job_id,) = cloud.add_jobs(1, status=8)
    transitions = list[vizwatch.Transition]()

    class Stepped(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Stepped:
            return cls(1970, 1, 1, tzinfo=tz)

    async def gone(watch: Watch, wanted: Collection[JobStatus | None]) -> Job:
        monkeypatch.setattr(
            "vizwatch._flows.following.dt", SimpleNamespace(**{**vars(dt), "datetime": Stepped})
        )
        transitions.extend([transition async for transition in watch])
        return transitions[-1].job

    monkeypatch.setattr("vizwatch.client.wait_until", gone)
    await here.delete_job(job_id, wait=120)
    stopping, deleted = transitions
    assert stopping.not_before is not None
    assert stopping.not_before <= stopping.not_after < deleted.not_after
    assert deleted.not_after - stopping.not_before < dt.timedelta(minutes=2)


async def test_a_404_that_flaps_is_no_deletion(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 9], [200, None]])
    cloud.fault("body", status=200, text='{"is_success": true}', match={"method": "DELETE"})
    cloud.fault("status", status=404, code="ModelArts.0015", match={"method": "GET"}, after=1, count=2)
    began = now()
    await here.delete_job(job_id, wait=600)
    assert now() - began > 200


async def test_a_deletion_that_fails_is_told(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [10, 9], [30, 6]])
    cloud.fault("body", status=200, text='{"is_success": true}', match={"method": "DELETE"})
    with pytest.raises(vizwatch.JobEndedError, match="ended as DELETE_FAILED"):
        await here.delete_job(job_id, wait=120)


async def test_a_job_that_does_not_arrive_in_time_is_told_with_its_last_status(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8]])
    cloud.fault("body", status=200, text='{"is_success": true}', match={"method": "POST"})
    began = now()
    with pytest.raises(vizwatch.WatchTimeoutError, match="last seen RUNNING") as caught:
        await here.stop_job(job_id, wait=50)
    assert now() - began == pytest.approx(50, abs=0.1)
    assert caught.value.job is not None


@pytest.mark.fault("S5")
@pytest.mark.parametrize(("call", "before"), [("stop_job", 8), ("restart_job", 12), ("delete_job", 12)])
@pytest.mark.parametrize("fault", ["drop", "truncate"])
async def test_a_write_whose_answer_is_lost_is_settled_by_the_job(call: str, before: int, fault: str) -> None:
    """S5, S6: the write is sent once, and what it asked for came about."""
    async with Emulator(life=[[0, 8]]) as cloud:
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            (job_id,) = cloud.add_jobs(1, status=before)
            options = {"performed": True} if fault == "drop" else {}
            match = {"path": f"*/{job_id}/*"} if call != "delete_job" else {"method": "DELETE"}
            cloud.fault(fault, match=match, count=1, **options)
            job = await getattr(client, call)(job_id, wait=120)
            assert job.job_id == job_id
        assert writes(cloud) == 1


@pytest.mark.parametrize(("call", "before"), [("stop_job", 8), ("restart_job", 12), ("delete_job", 12)])
async def test_a_write_that_never_shows_stays_unknown(
    cloud: Emulator, here: Client, call: str, before: int
) -> None:
    (job_id,) = cloud.add_jobs(1, status=before)
    cloud.fault("drop", match={"method": "DELETE" if call == "delete_job" else "POST"}, performed=False)
    with pytest.raises(vizwatch.OutcomeUnknownError, match="it may have happened, so read the job"):
        await getattr(here, call)(job_id, wait=120)
    # Twice is the same as once for a stop and a delete, and the details say that they are still needed.
    assert writes(cloud) == (1 if call == "restart_job" else here.settings.attempts)


async def test_a_refused_write_is_not_waited_for(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=10)
    with pytest.raises(vizwatch.ConflictError):
        await here.stop_job(job_id, wait=60)
    assert len(cloud.requests) == 1
    with pytest.raises(vizwatch.NotFoundError):
        await here.delete_job(4711, wait=60)
    assert [request.method for request in cloud.requests[1:]] == ["GET", "DELETE"]


@pytest.mark.parametrize("wait", [0, -1, float("nan"), float("inf"), "60", True])
@pytest.mark.parametrize("call", ["stop_job", "restart_job", "delete_job"])
async def test_a_wrong_wait_is_refused_before_any_request(
    cloud: Emulator, here: Client, call: str, wait: Any
) -> None:
    with pytest.raises(vizwatch.ConfigError, match="wait must be a number of seconds"):
        await getattr(here, call)(1, wait=wait)
    assert not cloud.requests


async def test_closing_the_client_ends_a_write_that_waits(cloud: Emulator) -> None:
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
        (job_id,) = cloud.add_jobs(1, status=8)
        cloud.fault("body", status=200, text='{"is_success": true}', match={"method": "POST"})
        stopping = asyncio.create_task(client.stop_job(job_id, wait=3600))
        await asyncio.sleep(100)
        await client.aclose()
        with pytest.raises(vizwatch.ClientClosedError):
            await stopping


# --- settled by the details, without wait= ---------------------------------------------------------------


@pytest.mark.fault("S5", "S6")
@pytest.mark.parametrize(
    ("call", "before", "method"),
    [("stop_job", 8, "POST"), ("restart_job", 12, "POST"), ("delete_job", 12, "DELETE")],
)
@pytest.mark.parametrize("fault", ["drop", "500", "502", "504", "408"])
async def test_a_write_that_was_carried_out_is_known_by_the_details(
    cloud: Emulator, here: Client, call: str, before: int, method: str, fault: str
) -> None:
    (job_id,) = cloud.add_jobs(1, status=before)
    kind: dict[str, Any] = {} if fault == "drop" else {"status": int(fault)}
    cloud.fault(
        "drop" if fault == "drop" else "status", match={"method": method}, count=1, performed=True, **kind
    )
    await getattr(here, call)(job_id)
    assert [request.method for request in cloud.requests] == [method, "GET"]


@pytest.mark.fault("S5", "S6")
@pytest.mark.parametrize(("call", "method"), [("stop_job", "POST"), ("delete_job", "DELETE")])
async def test_a_write_that_was_not_carried_out_is_sent_again_if_the_details_say_so(
    cloud: Emulator, here: Client, call: str, method: str
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.fault("status", status=502, match={"method": method}, count=2)
    await getattr(here, call)(job_id)
    assert [request.method for request in cloud.requests] == [method, "GET", method, "GET", method]
    assert (await here.get_job(job_id)).status is JobStatus.KILLING


@pytest.mark.parametrize("call", ["stop_job", "delete_job"])
async def test_a_write_is_not_sent_again_after_its_deadline(cloud: Emulator, call: str) -> None:
    settings = vizwatch.Settings(attempts=50, attempt_timeout=20, write_timeout=60)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        (job_id,) = cloud.add_jobs(1, status=8)
        method = "POST" if call == "stop_job" else "DELETE"
        cloud.fault("latency", seconds=30, match={"method": method})
        cloud.fault("drop", match={"method": method})
        began = now()
        with pytest.raises(vizwatch.OutcomeUnknownError):
            await getattr(client, call)(job_id)
        assert now() - began < 60 + 20 + 20
    assert writes(cloud) <= 4


@pytest.mark.fault("S5", "S6")
@pytest.mark.parametrize("wait", [None, 60])
@pytest.mark.parametrize(("call", "method"), [("stop_job", "POST"), ("delete_job", "DELETE")])
async def test_a_refusal_that_an_own_lost_write_caused_is_settled_by_the_details(
    cloud: Emulator, here: Client, call: str, method: str, wait: float | None
) -> None:
    """Details that lag say that the write is still needed, and the second one is refused for the first."""
    (job_id,) = cloud.add_jobs(1, status=8)
    await asyncio.sleep(10)
    cloud.fault("drop", match={"method": method}, count=1, performed=True)
    cloud.fault("stale", seconds=3, ttl=3)
    await getattr(here, call)(job_id, wait=wait)
    assert 2 <= writes(cloud) <= 4


@pytest.mark.parametrize("call", ["stop_job", "restart_job", "delete_job"])
async def test_closing_while_a_lost_write_is_settled_says_that_it_may_have_happened(call: str) -> None:
    async def hang(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1000)

    async with RawServer(hang) as server:
        async with Client(server.endpoint, "p1", auth="t") as client:
            writing = asyncio.create_task(getattr(client, call)(7))
            await asyncio.sleep(1)
        with pytest.raises(vizwatch.OutcomeUnknownError):
            await writing
        assert len(server.requests) == 1


async def test_each_resending_is_told_and_taken_from_the_quota(cloud: Emulator) -> None:
    told: list[vizwatch.Retry] = []
    settings = vizwatch.Settings(on_retry=told.append, retry_quota=10)
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.fault("drop", match={"method": "POST"}, count=2)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        with pytest.raises(vizwatch.OutcomeUnknownError, match="quota"):
            await client.stop_job(job_id)
    assert [(one.operation, one.was_sent) for one in told] == [("stop job", True)]


async def test_a_job_whose_details_fail_is_deleted_all_the_same(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.fault("status", status=500, match={"method": "GET"}, count=4)
    assert (await here.delete_job(job_id, wait=60)).job_id == job_id


@pytest.mark.fault("S6")
async def test_a_deletion_lost_and_then_not_found_is_done(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=12)
    cloud.fault("status", status=503, match={"method": "DELETE"}, count=1, performed=True)
    cloud.fault("latency", seconds=5, match={"method": "DELETE"}, after=1)
    await here.delete_job(job_id)
    with pytest.raises(vizwatch.NotFoundError):
        await here.delete_job(job_id)


@pytest.mark.fault("S5")
async def test_a_stop_refused_after_one_that_may_have_happened_is_done_if_the_job_is_ending(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.fault("status", status=503, match={"method": "POST"}, count=1, performed=True)
    await here.stop_job(job_id)
    assert [request.status for request in cloud.requests] == [503, 400], "the refusal says the status"


async def test_a_restart_is_never_sent_again_though_the_old_end_still_shows(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, status=12)
    cloud.fault("drop", match={"method": "POST"})
    with pytest.raises(vizwatch.OutcomeUnknownError, match="so read the job"):
        await here.restart_job(job_id)
    assert writes(cloud) == 1


async def test_that_a_write_may_have_happened_is_said_whatever_the_reads_come_to(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.fault("drop", match={"method": "POST"})
    cloud.fault("status", status=403, code="ModelArts.0108", match={"method": "GET"})
    for wait in (None, 20):
        with pytest.raises(vizwatch.OutcomeUnknownError):
            await here.stop_job(job_id, wait=wait)


# --- waiting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [3, 6, 10, 60])
async def test_a_job_that_arrives_in_time_is_given_however_short_the_wait(
    cloud: Emulator, here: Client, wait: float
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    began = now()
    assert (await here.stop_job(job_id, wait=wait)).status is JobStatus.KILLED
    assert now() - began <= wait
    await here.restart_job(job_id)
    assert (await here.wait(job_id, until=8, timeout=12)).status is JobStatus.RUNNING


async def test_a_failed_deletion_can_be_tried_again(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=6)
    assert (await here.delete_job(job_id, wait=60)).status in {JobStatus.DELETE_FAILED, JobStatus.KILLING}
    with pytest.raises(vizwatch.NotFoundError):
        await here.get_job(job_id)


async def test_a_job_that_a_replica_does_not_show_yet_is_deleted_all_the_same(
    cloud: Emulator, here: Client
) -> None:
    job = await here.create_job("board", LOGS)
    cloud.fault("status", status=404, code="ModelArts.0015", match={"method": "GET"}, count=1)
    deleted = await here.delete_job(job.job_id, wait=60)
    assert deleted.job_id == job.job_id


async def test_a_job_that_nobody_saw_before_it_was_deleted_is_gone(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.fault("status", status=404, code="ModelArts.0015", match={"method": "GET"})
    with pytest.raises(vizwatch.JobGoneError, match="is deleted, and was never seen"):
        await here.delete_job(job_id, wait=60)


async def test_a_restart_that_fails_at_once_is_told_with_what_was_last_read(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, status=12)
    cloud.fault("body", status=200, text='{"is_success": true}', match={"method": "POST"})
    with pytest.raises(
        vizwatch.WatchTimeoutError, match="last seen KILLED, which may be of the run"
    ) as caught:
        await here.restart_job(job_id, wait=30)
    assert caught.value.job is not None
    assert len(cloud.requests) < 25, "a wait takes some twenty looks, however long it is"


# --- a create that is found again: S7 --------------------------------------------------------------------


async def lost_create(client: Client, job_name: str = "board", train_url: str = LOGS) -> dt.datetime:
    with pytest.raises(vizwatch.OutcomeUnknownError, match="look for it with find_created before") as caught:
        await client.create_job(job_name, train_url)
    assert caught.value.sent_at is not None
    assert abs(caught.value.sent_at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)
    return caught.value.sent_at


@pytest.mark.fault("S7")
@pytest.mark.parametrize("performed", [True, False])
async def test_a_create_whose_answer_is_lost_is_found_by_name_logs_and_time(
    cloud: Emulator, here: Client, performed: bool
) -> None:
    await here.create_job("board", "/obs/other/")
    await here.create_job("boards", LOGS)
    cloud.fault("drop", match={"method": "POST"}, performed=performed)
    since = await lost_create(here)
    found = await here.find_created("board", LOGS, since=since)
    assert [(job.job_name, job.train_url) for job in found] == [("board", LOGS)] * performed


@pytest.mark.fault("S7")
async def test_a_job_made_long_before_is_not_taken_for_the_new_one(cloud: Emulator, here: Client) -> None:
    await here.create_job("board", LOGS)
    cloud.advance(3600)
    cloud.fault("drop", match={"method": "POST"}, performed=True)
    await lost_create(here)
    hour = dt.timedelta(hours=1)
    for since, count in ((hour, 1), (dt.timedelta(), 2)):
        found = await here.find_created("board", LOGS, since=dt.datetime.now(dt.UTC) + since)
        assert len(found) == count
        assert [job.job_id for job in found] == sorted((job.job_id for job in found), reverse=True)


@pytest.mark.fault("S8")
@pytest.mark.parametrize("http_status", [None, 200, 400, 409])
async def test_a_second_create_of_one_name_is_another_job_or_refused_and_sent_once(
    cloud: Emulator, here: Client, http_status: int | None
) -> None:
    """No document says which: after a create whose answer was lost, either way the first job is found."""
    cloud.fault("drop", match={"method": "POST"}, performed=True, count=1)
    since = await lost_create(here)
    if http_status is None:
        second = [(await here.create_job("board", LOGS)).job_id]
    else:
        said = "The job name exists already."
        match = {"method": "POST"}
        cloud.fault("status", status=http_status, code="ModelArts.0104", message=said, match=match)
        with pytest.raises(vizwatch.ApiError, match=said) as caught:
            await here.create_job("board", LOGS)
        assert caught.value.attempts == 1
        second = []
    assert writes(cloud) == 2
    *newer, first = [job.job_id for job in await here.find_created("board", LOGS, since=since)]
    assert newer == second
    assert (await here.get_job(first)).job_name == "board"


async def test_only_as_many_pages_are_read_as_there_are_new_jobs(cloud: Emulator, here: Client) -> None:
    cloud.add_jobs(2500, status=8, job_name="board", train_url="/obs/other/")
    cloud.advance(3600)
    job = await here.create_job("board", LOGS)
    count = len(cloud.requests)
    since = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert [one.job_id for one in await here.find_created("board", LOGS, since=since)] == [job.job_id]
    assert len(cloud.requests) == count + 1


async def test_a_created_job_is_found_though_the_service_sorts_otherwise(
    cloud: Emulator, here: Client
) -> None:
    jobs = [
        {"job_id": n, "status": 8, "job_name": "board", "train_url": "/obs/logs", "create_time": time}
        for n, time in ((1, 1_565_149_736_000), (2, round(dt.datetime.now(dt.UTC).timestamp() * 1000)))
    ]
    listed = json.dumps({"jobs": jobs, "is_success": True, "job_total_count": 2})
    cloud.fault("body", text=listed, match={"operation": "list"})
    found = await here.find_created("board", LOGS, since=dt.datetime.now(dt.UTC))
    assert [job.job_id for job in found] == [2]


@pytest.mark.parametrize("arguments", [(5, LOGS), ("board", None), ("no spaces", LOGS)])
async def test_what_no_create_would_take_is_refused(
    cloud: Emulator, here: Client, arguments: tuple[Any, Any]
) -> None:
    with pytest.raises(vizwatch.ConfigError, match=r"(job_name|train_url) must be"):
        await here.find_created(*arguments, since=dt.datetime.now(dt.UTC))
    assert not cloud.requests


@pytest.mark.parametrize("since", [None, "2026-01-01", 0, dt.datetime(2026, 1, 1)])  # noqa: DTZ001
async def test_a_time_without_zone_is_refused(cloud: Emulator, here: Client, since: Any) -> None:
    with pytest.raises(vizwatch.ConfigError, match="since must be a datetime with a time zone"):
        await here.find_created("board", LOGS, since=since)
    assert not cloud.requests


@given(st.integers(-100_000, 100_000), st.none() | st.integers(0, 2**53))
def test_no_job_of_the_right_time_is_left_out_whatever_its_raw_time(offset: int, raw: int | None) -> None:
    since = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    created = int(since.timestamp() * 1000) + offset * 1000
    job = Job(job_id=1, status=JobStatus.INIT, create_time=created)
    assert reconciling.is_earlier(job, since) == (offset < -900)
    odd = Job(job_id=1, status=JobStatus.INIT, create_time=raw)
    assert not (odd.created_at is None and reconciling.is_earlier(odd, since))
