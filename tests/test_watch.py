"""Watching and waiting: transitions in virtual time, over real HTTP where a server can play the part."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import anyio
import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import elapse

import vizwatch
from vizwatch import Client, Job, JobStatus
from vizwatch._flows.following import Follower, Terms
from vizwatch._flows.polling import Poller
from vizwatch._flows.watching import Watch
from vizwatch._rules.cadence import Cadence, OwnWrites
from vizwatch._rules.outage import Outage
from vizwatch._rules.transitions import Tracker
from vizwatch._values.statuses import TERMINAL
from vizwatch._world.gate import Gate
from vizwatch._world.line import Due
from vizwatch._world.report import Report
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


async def statuses(watch: Watch) -> list[JobStatus | None]:
    return [transition.current async for transition in watch]


# --- from INIT to the end -------------------------------------------------------------------------------


async def test_a_watch_gives_the_status_found_then_each_change_and_ends(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [30, 7], [60, 8], [300, 10]])
    seen = [transition async for transition in here.watch(job_id)]
    assert [t.current for t in seen] == [1, 7, 8, 10]
    assert [t.previous for t in seen] == [None, 1, 7, 8]
    assert [t.is_terminal for t in seen] == [False, False, False, True]
    assert {(t.project_id, t.job_id, t.run, t.gap) for t in seen} == {(cloud.project_id, job_id, 1, False)}
    assert all(t.job.status == t.current for t in seen)


async def test_the_time_of_a_change_lies_between_its_two_reads(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [100, 10]])
    wall = dt.datetime.now(dt.UTC)
    first, last = [transition async for transition in here.watch(job_id)]
    assert first.not_before is None
    assert abs(first.not_after - wall) < dt.timedelta(seconds=5)
    assert last.not_before is not None
    since = (
        (last.not_before - first.not_after).total_seconds(),
        (last.not_after - first.not_after).total_seconds(),
    )
    assert since[0] <= 100 <= since[1] <= since[0] + 18.1


async def test_a_watch_reads_at_its_interval_and_no_oftener(cloud: Emulator, here: Client) -> None:
    """Of a run that is not in its first moments."""
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [3700, 10]])
    cloud.advance(100)
    await statuses(here.watch(job_id, interval=15))
    assert 3600 / 18 <= len(cloud.requests) <= 3600 / 12 + 2


async def test_the_pauses_of_a_watch_vary(cloud: Emulator, here: Client) -> None:
    """So that many watches started together do not stay together."""
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.advance(100)
    watch = here.watch(job_id, interval=dt.timedelta(seconds=10), timeout=200)
    moments = []
    poller = watch.poller
    read = poller._read_job

    async def noted(job_id: int, due: Due) -> tuple[Job, float]:
        moments.append(now())
        return await read(job_id, due)

    poller._read_job = noted
    with pytest.raises(vizwatch.WatchTimeoutError):
        await statuses(watch)
    pauses = [round(b - a, 3) for a, b in pairwise(moments)]
    assert len(set(pauses)) > len(pauses) / 2
    assert all(7.9 <= pause <= 12.1 for pause in pauses[:-1])
    assert moments[-1] - moments[0] == pytest.approx(199), "one last look before the deadline"


@pytest.mark.fault("W14")
async def test_a_job_that_has_ended_gives_one_transition(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=12)
    assert await statuses(here.watch(job_id)) == [JobStatus.KILLED]
    assert len(cloud.requests) == 1


async def test_an_unknown_status_is_passed_on_and_ends_nothing(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [60, 99], [120, 22]])
    assert await statuses(here.watch(job_id)) == [8, 99, 22]


@pytest.mark.fault("W12")
async def test_the_terminal_statuses_are_the_callers_choice(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [60, 11], [120, 20]])
    assert await statuses(here.watch(job_id, terminal=20)) == [1, 11, 20]


@pytest.mark.fault("W5")
async def test_restarts_are_followed_on_request(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [60, 12], [120, 1], [180, 8], [240, None]])
    assert await statuses(here.watch(job_id)) == [8, 12]
    cloud.advance(1)
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [60, 12], [120, 1], [180, 8], [240, None]])
    seen = [t async for t in here.watch(job_id, follow_restarts=True)]
    assert [(t.current, t.run) for t in seen] == [(8, 1), (12, 1), (1, 2), (8, 2), (None, 2)]


# --- deletion -------------------------------------------------------------------------------------------


@pytest.mark.fault("W1")
async def test_deletion_ends_a_watch_once_it_is_confirmed(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [60, None]])
    seen = [t async for t in here.watch(job_id)]
    assert [(t.current, t.is_terminal) for t in seen] == [(8, False), (None, True)]
    assert seen[-1].job.status is JobStatus.RUNNING
    assert [request.status for request in cloud.requests][-4:] == [200, 404, 404, 404]


@pytest.mark.fault("W4")
async def test_a_job_that_is_missed_now_and_then_is_not_deleted(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [1000, 10]])
    cloud.fault("status", status=404, code="ModelArts.0015", every=3)
    assert await statuses(here.watch(job_id)) == [8, 10]


async def test_a_job_never_seen_is_not_found_within_seconds(cloud: Emulator, here: Client) -> None:
    started = now()
    with pytest.raises(vizwatch.NotFoundError):
        await statuses(here.watch(4711))
    assert now() - started < 4
    assert len(cloud.requests) == 3


@pytest.mark.fault("W2")
async def test_a_job_just_created_is_waited_for(cloud: Emulator, here: Client) -> None:
    job = await here.create_job("tb", "/obs/name/")
    cloud.fault("status", status=404, code="ModelArts.0015", ttl=30)
    assert (await here.wait(job.job_id, until=8, timeout=120)).status is JobStatus.RUNNING


@pytest.mark.fault("A14", "W3")
@pytest.mark.parametrize("code", ["ModelArts.2786", "APIGW.0101"])
async def test_a_404_of_the_wrong_project_or_endpoint_is_no_deletion(
    cloud: Emulator, here: Client, code: str
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.fault("status", status=404, code=code, after=1)
    with pytest.raises(vizwatch.WrongEndpointError, match=code):
        await statuses(here.watch(job_id))
    assert len(cloud.requests) == 2


@pytest.mark.parametrize(
    ("text", "content_type"),
    [
        ("<html>not found</html>", "text/html"),
        ("default backend - 404", "text/plain"),
        ("", "text/plain"),
        ('{"message": "no Route matched"}', "application/json"),
    ],
)
async def test_a_404_that_is_not_the_services_own_is_no_deletion(
    cloud: Emulator, here: Client, text: str, content_type: str
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [300, 10]])
    cloud.fault("body", status=404, text=text, content_type=content_type, after=1, ttl=200)
    assert await statuses(here.watch(job_id)) == [8, 10]


@pytest.mark.fault("W6")
async def test_the_end_before_an_own_restart_is_not_taken_for_the_jobs_end(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    await here.stop_job(job_id)
    await here.wait(job_id, timeout=60)
    await here.restart_job(job_id)
    cloud.fault("stale", seconds=1, ttl=30)
    assert (await here.wait(job_id, until=8, timeout=120)).status is JobStatus.RUNNING


# --- failures -------------------------------------------------------------------------------------------

FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("status", {"status": 500}),
    ("status", {"status": 503}),
    ("status", {"status": 429, "code": "APIGW.0308"}),
    ("status", {"status": 408}),
    ("drop", {}),
    ("truncate", {"bytes": 40}),
    ("latency", {"seconds": 50}),
    ("body", {"text": "{"}),
    ("body", {"text": "<html>", "content_type": "text/html"}),
    ("body", {"text": '{"job_id": 1, "status": null}'}),
]


@pytest.mark.fault("J1", "W17")
@pytest.mark.parametrize(("kind", "options"), FAULTS)
async def test_half_an_hour_of_failures_is_survived(
    cloud: Emulator, here: Client, kind: str, options: dict[str, Any]
) -> None:
    """A failed read never ends a watch, and what was missed meanwhile is one transition."""
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [300, 7], [600, 8], [2400, 10]])
    watch = here.watch(job_id)
    assert (await anext(watch)).current == JobStatus.INIT
    cloud.fault(kind, ttl=1800, **options)
    transition = await anext(watch)
    assert (transition.previous, transition.current) == (JobStatus.INIT, JobStatus.RUNNING)
    assert await statuses(watch) == [JobStatus.COMPLETED]


async def test_failures_are_asked_about_less_and_less(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.fault("status", status=503)
    with pytest.raises(vizwatch.WatchTimeoutError, match="no read succeeded") as caught:
        await statuses(here.watch(job_id, timeout=3600))
    assert caught.value.job is None
    assert 120 <= len(cloud.requests) <= 420


@pytest.mark.fault("A9", "W18")
@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "ModelArts.0108", vizwatch.PermissionDeniedError),
        (401, "ModelArts.0203", vizwatch.AuthenticationError),
        (400, "ModelArts.0104", vizwatch.BadRequestError),
        (500, "ModelArts.0109", vizwatch.PermissionDeniedError),
    ],
)
async def test_a_refusal_that_will_not_change_ends_a_watch_at_once(
    cloud: Emulator, here: Client, status: int, code: str, error: type[vizwatch.ApiError]
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.fault("status", status=status, code=code)
    watch = here.watch(job_id)
    with pytest.raises(error):
        await statuses(watch)
    assert await statuses(watch) == []
    assert len(cloud.requests) == 1


@pytest.mark.parametrize("status", [409, 410, 425, 499])
async def test_a_refusal_that_is_not_the_services_own_ends_nothing(
    cloud: Emulator, here: Client, status: int
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [300, 10]])
    cloud.fault("body", status=status, text="gateway", content_type="text/plain", after=1, ttl=200)
    assert await statuses(here.watch(job_id)) == [8, 10]


async def test_what_the_service_asks_for_is_waited(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=10)
    cloud.fault("status", status=429, retry_after=50, count=1)
    started = now()
    await statuses(here.watch(job_id))
    assert 50 <= now() - started <= 51


async def test_a_watch_does_not_wait_out_what_takes_longer_than_ten_minutes(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, status=10)
    cloud.fault("status", status=429, retry_after=86_400, count=1)
    started = now()
    await statuses(here.watch(job_id))
    assert 600 <= now() - started <= 601


@pytest.mark.fault("W17")
async def test_a_watch_tells_how_old_its_data_are(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [1000, 10]])
    async with here.watch(job_id) as watch:
        ages, stale = [watch.age], [watch.stale]
        await anext(watch)
        ages.append(watch.age)
        stale.append(watch.stale)
        cloud.fault("drop")
        with anyio.move_on_after(200):
            await anext(watch)
        ages.append(watch.age)
        stale.append(watch.stale)
        assert ages == [None, pytest.approx(0, abs=1), pytest.approx(200, abs=1)]
        assert stale == [True, False, True]
        assert watch.job is not None
        assert watch.job.status is JobStatus.RUNNING


# --- deadlines, breaking off, cancelling, closing -------------------------------------------------------


@pytest.mark.fault("W13")
async def test_a_deadline_ends_a_watch_with_the_job_as_last_read(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=9)
    started = now()
    with pytest.raises(
        vizwatch.WatchTimeoutError, match=r"did not end within 100 s; last seen KILLING"
    ) as caught:
        await statuses(here.watch(job_id, timeout=dt.timedelta(seconds=100)))
    assert now() - started == pytest.approx(100, abs=0.05)
    assert caught.value.job is not None
    assert caught.value.job.status is JobStatus.KILLING


@pytest.mark.fault("N8")
async def test_a_deadline_interrupts_a_read_that_hangs(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.fault("latency", seconds=25)
    started = now()
    with pytest.raises(TimeoutError):
        await statuses(here.watch(job_id, timeout=7))
    assert now() - started == pytest.approx(7, abs=0.05)


async def test_a_consumers_time_counts_towards_the_deadline(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [30, 8]])
    watch = here.watch(job_id, timeout=20)
    await anext(watch)
    cloud.advance(60)
    await elapse(25)
    with pytest.raises(vizwatch.WatchTimeoutError):
        await anext(watch)


@pytest.mark.fault("C3")
async def test_breaking_off_leaves_nothing_behind(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    async for transition in here.watch(job_id):
        assert transition.current is JobStatus.RUNNING
        break
    await elapse(600)
    assert len(cloud.requests) == 1


@pytest.mark.fault("C10")
async def test_a_cancelled_step_can_be_taken_again(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [100, 8], [200, 10]])
    watch = here.watch(job_id)
    assert (await anext(watch)).current is JobStatus.INIT
    for give_up in (5.0, 40.0):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(give_up):
                await anext(watch)
    step = asyncio.ensure_future(watch.__anext__())
    await elapse(1)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert await statuses(watch) == [JobStatus.RUNNING, JobStatus.COMPLETED]


@pytest.mark.fault("C3")
@pytest.mark.parametrize("latency", [0, 25])
async def test_closing_a_watch_ends_its_iteration_from_any_task(
    cloud: Emulator, here: Client, latency: float
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    if latency:
        cloud.fault("latency", seconds=latency)
    watch = here.watch(job_id)
    consumer = asyncio.create_task(statuses(watch))
    await elapse(3)
    started = now()
    await asyncio.gather(*(watch.aclose() for _ in range(3)))
    assert await consumer == ([] if latency else [JobStatus.RUNNING])
    assert now() - started < 1
    assert await statuses(watch) == []


@pytest.mark.fault("C5")
async def test_closing_the_client_ends_its_watches_and_fails_its_waits(cloud: Emulator) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
        watching = [asyncio.create_task(statuses(client.watch(job_id))) for _ in range(5)]
        waiting = asyncio.create_task(client.wait(job_id, timeout=None))
        await elapse(1)
        started = now()
    assert now() - started < 5
    assert await asyncio.gather(*watching) == [[JobStatus.RUNNING]] * 5
    with pytest.raises(vizwatch.ClientClosedError):
        await waiting


@pytest.mark.fault("C3")
async def test_leaving_a_watchs_block_ends_it(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    async with here.watch(job_id) as watch:
        await anext(watch)
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_a_watch_is_iterated_by_one_task_at_a_time(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    watch = here.watch(job_id)
    await anext(watch)
    other = asyncio.create_task(statuses(watch))
    await elapse(1)
    with pytest.raises(vizwatch.ConfigError, match="being iterated already"):
        await anext(watch)
    await watch.aclose()
    await other


async def test_one_failed_watch_of_a_group_ends_the_others_cleanly(cloud: Emulator, here: Client) -> None:
    good, bad = cloud.add_jobs(2, status=8)
    cloud.fault("status", status=403, code="ModelArts.0108", match={"job_id": bad}, after=1)
    cloud.fault("status", status=403, code="ModelArts.0108", match={"operation": "list"})
    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            for job_id in (good, bad):
                group.create_task(statuses(here.watch(job_id)))
    assert [type(error) for error in caught.value.exceptions] == [vizwatch.PermissionDeniedError]


@pytest.mark.fault("U4")
@pytest.mark.parametrize(
    "arguments",
    [
        {"interval": 0},
        {"interval": 0.5},
        {"interval": -1},
        {"interval": float("nan")},
        {"interval": "5s"},
        {"interval": 1e9},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": "60"},
        {"terminal": "10"},
        {"terminal": []},
        {"follow_restarts": 1},
    ],
)
async def test_a_wrong_argument_of_a_watch_is_named_before_any_request(
    cloud: Emulator, here: Client, arguments: dict[str, Any]
) -> None:
    (name,) = arguments
    with pytest.raises(vizwatch.ConfigError, match=f"{name} must be"):
        here.watch(1, **arguments)
    assert not cloud.requests


# --- waiting --------------------------------------------------------------------------------------------


async def test_waiting_gives_the_job_once_it_has_arrived(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [30, 7], [60, 8], [600, 11]])
    assert (await here.wait(job_id, until=JobStatus.RUNNING, timeout=300)).status is JobStatus.RUNNING
    assert (await here.wait(job_id, until=[7, 8], timeout=300)).status is JobStatus.RUNNING
    assert (await here.wait(job_id, timeout=None)).status is JobStatus.FAILED


async def test_waiting_fails_when_the_job_ended_otherwise(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [60, 5]])
    with pytest.raises(vizwatch.JobEndedError, match=r"ended as SUBMIT_FAILED") as caught:
        await here.wait(job_id, until=JobStatus.RUNNING, timeout=300)
    assert caught.value.job is not None
    assert caught.value.job.status is JobStatus.SUBMIT_FAILED


async def test_waiting_fails_when_the_job_is_deleted(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [60, None]])
    with pytest.raises(vizwatch.JobGoneError, match=r"was deleted; last seen RUNNING"):
        await here.wait(job_id, timeout=300)


async def test_waiting_fails_at_its_deadline(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=7)
    with pytest.raises(vizwatch.WatchTimeoutError) as caught:
        await here.wait(job_id, until=8, timeout=50)
    assert caught.value.job is not None


@pytest.mark.parametrize("until", [[], "8", [None], True])
async def test_a_wrong_until_is_named(here: Client, until: Any) -> None:
    with pytest.raises(vizwatch.ConfigError, match="until must be"):
        await here.wait(1, until=until, timeout=1)


@pytest.mark.fault("W15")
async def test_the_wall_clock_may_jump(
    cloud: Emulator, here: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [60, 8], [120, 10]])
    watch = here.watch(job_id)
    seen = [await anext(watch)]

    class Jumped(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Jumped:
            return cls(1970, 1, 1, tzinfo=tz)

    clock = SimpleNamespace(datetime=Jumped, timedelta=dt.timedelta, UTC=dt.UTC)
    monkeypatch.setattr("vizwatch._flows.following.dt", clock)
    seen += [t async for t in watch]
    assert [t.current for t in seen] == [1, 8, 10]
    assert all(a.not_after < b.not_after for a, b in pairwise(seen))


async def test_a_step_that_is_cancelled_again_and_again_still_comes_to_the_last_look(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [10, 10]])
    watch, seen = here.watch(job_id, timeout=20, interval=60), list[int | None]()
    while not seen or seen[-1] != 10:
        try:
            seen.append((await asyncio.wait_for(anext(watch), 5)).current)
        except TimeoutError as error:
            assert not isinstance(error, vizwatch.WatchTimeoutError)
    assert seen == [8, 10]


# --- for any script of reads ----------------------------------------------------------------------------

GONE, BUSY, LOST = "gone", "busy", "lost"
FAILED: dict[str, Callable[[], vizwatch.VizwatchError]] = {
    GONE: lambda: vizwatch.NotFoundError(http_status=404),
    BUSY: lambda: vizwatch.ServerError(http_status=503),
    LOST: lambda: vizwatch.TransportError("lost"),
}
reads = st.lists(st.integers(0, 25) | st.sampled_from([GONE, BUSY, LOST]), max_size=30)


async def watched(script: Iterator[object]) -> list[vizwatch.Transition]:
    async def read(_job_id: int, _due: Due) -> tuple[Job, float]:
        said, asked = next(script), now()
        await elapse(0.01)
        if isinstance(said, int):
            return Job(197, JobStatus(said)), asked
        error = FAILED[str(said)]
        raise error()

    cadence = Cadence(15.0, 1.0, 0.2, 0.8, 30.0)
    tracker = Tracker("p", 197, TERMINAL)
    gate = Gate(Outage(0.8, 30.0), 100)
    poller = Poller(gate, Report(), lambda: 0.5, cadence, read)
    follower = Follower(tracker, Terms(cadence, OwnWrites(), Report(), lambda: 0.5, request_time=30.0))
    watch = Watch(follower, poller, None)
    return [transition async for transition in watch]


@pytest.mark.fault("no invention", "no echo", "ordered")
@settings(max_examples=300)
@given(reads)
def test_any_script_of_reads_gives_transitions_that_chain(script: list[Any]) -> None:
    """Transitions chain, without echo, each status was read, and the first terminal one is the last."""
    statuses = [said for said in script if isinstance(said, int)]
    end = next((code for code in statuses if JobStatus(code).is_terminal), None)
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        seen = runner.run(watched(iter([1, *script, 8, 10])))
    assert seen[0].previous is None
    assert all(a.current == b.previous for a, b in pairwise(seen))
    assert all(t.current != t.previous for t in seen)
    assert {int(t.current) for t in seen if t.current is not None} <= {1, *statuses, 8, 10}
    assert [t.is_terminal for t in seen] == [False] * (len(seen) - 1) + [True]
    last = seen[-1].current
    if last is None:
        misses = "".join("x" if said is GONE else "." for said in script if said not in (BUSY, LOST))
        assert "xxx" in misses
    else:
        assert int(last) == (10 if end is None else end)
