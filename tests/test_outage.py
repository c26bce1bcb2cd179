"""Watches while the service is down, slow, or does not know: what they cost, and what they say."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from taking import taken
from virtual import elapse

import vizwatch
from vizwatch import Client, Job, JobStatus
from vizwatch._flows.following import Follower, Terms
from vizwatch._flows.polling import Poller
from vizwatch._flows.watching import Watch
from vizwatch._rules.cadence import Cadence, OwnWrites
from vizwatch._rules.outage import FAILURES_TO_BE_DOWN, Outage, RetryRate
from vizwatch._rules.transitions import Tracker
from vizwatch._values.statuses import TERMINAL
from vizwatch._world.gate import Gate, Retries
from vizwatch._world.line import Due
from vizwatch._world.report import Report
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime

INTERVAL = 15.0
_MANY = 2_000


def now() -> float:
    return asyncio.get_running_loop().time()


# --- the rule -------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=60), st.floats(0, 0.999))
def test_five_failures_in_a_row_are_an_outage_and_any_answer_ends_it(
    outcomes: list[bool], chance: float
) -> None:
    outage, row, at = Outage(0.8, 30.0), 0, 0.0
    for answered in outcomes:
        at += 1.0
        if answered:
            outage.answered(at)
            row = 0
        else:
            outage.failed(at, at, chance, is_probe=outage.is_down())
            row += 1
        assert outage.is_down() == (row >= FAILURES_TO_BE_DOWN)
        if outage.is_down():
            assert at + 0.4 <= outage.probe_at <= at + 30.0


def test_probes_are_less_and_less_frequent() -> None:
    outage = Outage(0.8, 30.0)
    for _ in range(FAILURES_TO_BE_DOWN):
        outage.failed(0.0, 0.0, 0.999)
    pauses = [outage.probe_at]
    for _ in range(10):
        outage.failed(0.0, 0.0, 0.999)  # of a read that was under way
        outage.failed(0.0, 0.0, 0.999, is_probe=True)
        pauses.append(outage.probe_at)
    assert pauses[0] == pytest.approx(0.8, rel=0.01)
    assert pauses[-1] == pytest.approx(30.0, rel=0.01)
    assert pauses == sorted(pauses)


def test_a_read_that_others_were_answered_before_the_end_of_tells_of_no_outage() -> None:
    outage = Outage(0.8, 30.0)
    outage.answered(10.0)
    for _ in range(FAILURES_TO_BE_DOWN):
        outage.failed(9.9, 39.9, 0.5)
    assert not outage.is_down()
    for _ in range(FAILURES_TO_BE_DOWN):
        outage.failed(10.0, 40.0, 0.5)
    assert outage.is_down()


@pytest.fixture
async def alone(cloud: Emulator) -> AsyncIterator[Client]:
    """A client each of whose watches reads by itself."""
    settings = vizwatch.Settings(shared_reads=False)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        yield client


# --- many watches ---------------------------------------------------------------------------------------


class Service:
    """Reads of many jobs, counted by second; down when it is told to be."""

    def __init__(self) -> None:
        self.reads: Counter[int] = Counter()
        self.by_job: Counter[int] = Counter()
        self.down = False
        self.status = JobStatus.RUNNING
        self.gate, self.report = Gate(Outage(0.8, 30.0), 100), Report()

    async def read(self, job_id: int, _due: Due) -> tuple[Job, float]:
        asked = now()
        self.reads[int(asked)] += 1
        self.by_job[job_id] += 1
        await elapse(0.01)
        if self.down:
            raise vizwatch.ConnectError("the service is down")
        return Job(job_id, self.status), asked

    def watch(self, job_id: int, chance: Callable[[], float]) -> Watch:
        cadence = Cadence(INTERVAL, 1.0, 0.2, 0.8, 30.0)
        poller = Poller(self.gate, self.report, chance, cadence, self.read)
        tracker = Tracker("p", job_id, TERMINAL)
        follower = Follower(tracker, Terms(cadence, OwnWrites(), self.report, chance, request_time=30.0))
        return Watch(follower, poller, None)

    async def follow(self, job_id: int) -> None:
        async for _ in self.watch(job_id, lambda: 0.5):
            pass

    def rate(self, begin: float, end: float) -> float:
        return sum(self.reads[second] for second in range(int(begin), int(end))) / (int(end) - int(begin))


@pytest.mark.repeats
@pytest.mark.fault("N18")
async def test_an_outage_costs_next_to_nothing_and_watches_come_back_spread() -> None:
    """Two hours of outage; benchmarks/soak.py does it with more watches."""
    import random

    chance = random.Random(7).random
    service, ended = Service(), list[int]()

    async def follow(job_id: int) -> None:
        await elapse(chance() * INTERVAL)
        async for transition in service.watch(job_id, chance):
            if transition.is_terminal:
                ended.append(job_id)

    async with anyio.create_task_group() as tasks:
        for job_id in range(_MANY):
            tasks.start_soon(follow, job_id)
        await elapse(60)
        began = now()
        healthy = service.rate(began - 30, began)
        service.down = True
        await elapse(7200)
        assert service.rate(began, began + 7200) <= 0.02 * healthy
        service.down, up = False, now()
        await elapse(60)
        service.status = JobStatus.COMPLETED
    # From the first probe that was answered on; a second's rate is a matter of chance, ten seconds' is not.
    rates = [service.rate(second, second + 10) for second in range(int(up), int(up) + 55)]
    assert max(rates) <= 2 * healthy
    assert max(service.reads[second] for second in range(int(up), int(up) + 55)) <= 2 * healthy
    assert len(ended) == _MANY


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=120), st.floats(0, 2000))
def test_reads_that_failed_are_sent_at_a_rate_within_its_bounds(
    asked: list[tuple[float, bool]], spread: float
) -> None:
    rate, at = RetryRate(), 0.0
    quickest, slowest = 1 / max(10, spread), 1 / max(0.5, 0.015 * spread)
    for idle, is_answered in asked:
        at += idle + max(rate.wait(at + idle, spread), 0.0)
        rate.sent(at)
        pause = rate.wait(at, spread)
        assert quickest == pytest.approx(pause) or quickest < pause
        assert slowest == pytest.approx(pause) or pause < slowest
        (rate.answered if is_answered else rate.failed)()
    same = {is_answered for _, is_answered in asked[-48:]} if len(asked) >= 48 else set()
    if len(same) == 1:
        assert rate.wait(at, spread) == pytest.approx(quickest if same.pop() else slowest)


async def test_jobs_that_fail_for_ever_beside_sound_ones_hold_up_no_other_client() -> None:
    """Their client's reads are answered time and again, so that in a row they fail seldom."""
    retries = Retries()
    of_jobs, other = (Gate(Outage(0.8, 30.0), 100, retries=retries) for _ in range(2))

    async def answers() -> None:
        await asyncio.sleep(0.01)

    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise vizwatch.ServerError("broken", http_status=500)

    async def is_sound() -> None:
        while True:
            await of_jobs.read(answers, INTERVAL)
            await asyncio.sleep(0.05)

    async def is_broken() -> None:
        for failures in itertools.count():
            with contextlib.suppress(vizwatch.ServerError):
                await of_jobs.read(fails, INTERVAL, failures=failures)
            await asyncio.sleep(1)

    tasks = [asyncio.create_task(is_broken()) for _ in range(100)]
    tasks += [asyncio.create_task(is_sound()) for _ in range(10)]
    await elapse(60)
    async with asyncio.timeout(3):
        await other.read(answers, INTERVAL, failures=1)
    for task in tasks:
        assert not task.done()
        task.cancel()
    await asyncio.wait(tasks)


@pytest.mark.fault("R3")
async def test_whoever_waits_longest_probes() -> None:
    service = Service()
    service.down = True
    async with anyio.create_task_group() as tasks:
        for job_id in range(20):
            tasks.start_soon(service.follow, job_id)
        await elapse(3600)
        assert max(service.by_job.values()) - min(service.by_job.values()) <= 3
        service.down, service.status = False, JobStatus.COMPLETED


async def test_a_probe_that_is_cancelled_lets_another_one_probe() -> None:
    service = Service()
    service.down = True

    watches = [asyncio.create_task(service.follow(job_id)) for job_id in range(5)]
    await elapse(100)
    for watch in watches[:4]:
        watch.cancel()
    service.down, service.status = False, JobStatus.COMPLETED
    await asyncio.wait_for(watches[4], 60)
    assert all(watch.cancelled() for watch in await asyncio.gather(*map(_settle, watches[:4])))


async def _settle(task: asyncio.Task[None]) -> asyncio.Task[None]:
    await asyncio.wait([task])
    return task


async def test_answers_that_no_job_comes_of_are_no_outage(cloud: Emulator, alone: Client) -> None:
    """Details that are broken, or a 500, may be one job's alone, however many there are."""
    *bad, good = cloud.add_jobs(41, status=8)
    for job_id in bad[::2]:
        cloud.fault("body", text=f'{{"job_id": {job_id}, "status": null}}', match={"job_id": job_id})
    for job_id in bad[1::2]:
        cloud.fault("status", status=500, code="ModelArts.0010", match={"job_id": job_id})
    tasks = [asyncio.create_task(_all(alone.watch(job_id, interval=10))) for job_id in (*bad, good)]
    await elapse(600)
    assert sum(request.path.endswith(f"/{good}") for request in cloud.requests) >= 40
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_many_reads_that_fail_together_are_one_short_outage(cloud: Emulator, alone: Client) -> None:
    job_ids = cloud.add_jobs(100, status=8)
    cloud.fault("drop", count=100)
    began = now()
    watches = [alone.watch(job_id) for job_id in job_ids]
    await asyncio.gather(*map(anext, watches))
    assert now() - began <= INTERVAL + 5


async def test_failures_of_one_job_do_not_hold_the_others(cloud: Emulator, alone: Client) -> None:
    broken, sound = cloud.add_jobs(2, status=8)
    cloud.fault("status", status=500, match={"job_id": broken})
    tasks = [asyncio.create_task(_all(alone.watch(job_id, interval=10))) for job_id in (broken, sound)]
    await elapse(600)
    reads = sum(request.path.endswith(f"/{sound}") for request in cloud.requests)
    assert reads >= 40
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# --- time -----------------------------------------------------------------------------------------------


@pytest.mark.fault("N12", "freshness", "bounded")
@pytest.mark.parametrize("latency", [0.0, 5.0, 14.0, 29.0])
async def test_a_change_lies_between_its_two_reads_however_slow_they_are(latency: float) -> None:
    """The answer is formed as soon as the request comes in, and takes its time on the way back."""
    truth: list[tuple[float, JobStatus]] = [(0.0, JobStatus.WAITING)]
    under_way, most = 0, 0

    async def read(_job_id: int, _due: Due) -> tuple[Job, float]:
        nonlocal under_way, most
        asked = now()
        under_way += 1
        most = max(most, under_way)
        status = truth[-1][1]
        await elapse(latency)
        under_way -= 1
        return Job(7, status), asked

    cadence = Cadence(INTERVAL, 1.0, 0.2, 0.8, 30.0)
    poller = Poller(Gate(Outage(0.8, 30), 100), Report(), lambda: 0.5, cadence, read)
    tracker = Tracker("p", 7, TERMINAL)
    watch = Watch(
        Follower(tracker, Terms(cadence, OwnWrites(), Report(), lambda: 0.5, request_time=30.0)), poller, None
    )
    start = now()
    first = await anext(watch)
    stepping = asyncio.create_task(anext(watch))
    await elapse(3 * INTERVAL + 1)
    truth.append((now(), JobStatus.RUNNING))
    changed, second = now(), await stepping
    zero = first.not_after.timestamp() - latency - start
    assert second.not_before is not None
    assert second.not_before.timestamp() - zero <= changed <= second.not_after.timestamp() - zero
    lag = now() - changed
    assert lag <= INTERVAL * 1.2 + 2 * latency
    assert watch.age is not None
    assert watch.age == pytest.approx(latency), "what was read is as old as the request"
    assert not watch.stale
    assert most == 1, "no two reads of one job overlap"


# --- what is said ---------------------------------------------------------------------------------------


@pytest.mark.fault("W11")
async def test_a_service_that_does_not_know_for_hours_is_stale_and_asked_no_more_often(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [60, 0], [7260, 12]])
    watch = here.watch(job_id)
    assert [(await anext(watch)).current for _ in range(2)] == [8, 0]
    assert watch.age == pytest.approx(15, abs=4)
    step = asyncio.create_task(anext(watch))
    await elapse(7000)
    assert watch.stale
    assert watch.age is not None
    assert watch.age > 6900
    assert len(cloud.requests) <= 7060 / (INTERVAL * 0.8)
    assert (await step).current is JobStatus.KILLED
    assert not watch.stale


@pytest.mark.fault("W10")
async def test_a_status_that_no_document_names_is_told_once(
    cloud: Emulator, here: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "vizwatch")
    job_ids = cloud.add_jobs(5, plan=[[0, 8], [20, 99], [60, 98], [100, 99], [140, 12]])
    seen = await asyncio.gather(*(_all(here.watch(job_id)) for job_id in job_ids))
    assert seen == [[8, 99, 98, 99, 12]] * 5
    assert sorted(record.getMessage() for record in caplog.records) == [
        "a job has the status 98, which no document names: it ends no watch",
        "a job has the status 99, which no document names: it ends no watch",
    ]


async def _all(watch: Watch) -> list[Any]:
    return [transition.current async for transition in watch]


@pytest.mark.repeats
@pytest.mark.fault("R8")
async def test_thousands_of_failing_watches_are_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "vizwatch")
    service = Service()
    service.down = True
    async with anyio.create_task_group() as tasks:
        for job_id in range(2_000):
            tasks.start_soon(service.follow, job_id)
        await elapse(600)
        service.down, service.status = False, JobStatus.COMPLETED
    assert 1 <= len(caplog.records) <= 11
    assert caplog.records[1].getMessage().endswith("the service is down")
    told = sum(int(record.getMessage().split()[0]) for record in caplog.records)
    assert told <= service.reads.total()


@pytest.mark.fault("C4")
async def test_the_error_of_a_watch_names_its_job(cloud: Emulator, here: Client) -> None:
    ids = cloud.add_jobs(3, status=8)
    cloud.fault("status", status=403, code="ModelArts.0108", match={"job_id": ids[1]}, after=1)
    cloud.fault("status", status=403, code="ModelArts.0108", match={"operation": "list"})
    failed: list[vizwatch.ApiError] = []

    async def follow(job_id: int) -> None:
        async for _ in here.watch(job_id):
            pass

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tasks:
            for job_id in ids:
                tasks.start_soon(follow, job_id)
    for error in caught.value.exceptions:
        assert isinstance(error, vizwatch.PermissionDeniedError)
        failed.append(error)
    assert [error.job_id for error in failed] == [ids[1]]
    assert str(failed[0]).startswith(f"job {ids[1]}: get job: HTTP 403")
    missing = here.watch(4711)
    with pytest.raises(vizwatch.NotFoundError, match="job 4711: get job: HTTP 404"):
        await anext(missing)


async def test_who_looks_once_an_hour_does_not_wait_for_another_one_after_an_outage(
    cloud: Emulator, alone: Client
) -> None:
    """Nor does a watch that has read nothing yet: a few that come back need not be spread."""
    job_ids = cloud.add_jobs(5, status=8)
    cloud.fault("status", status=503)
    watches = [alone.watch(job_id, interval=3600) for job_id in job_ids]
    async with AsyncExitStack() as stack:
        for watch in watches:
            await stack.enter_async_context(taken(watch, lambda _: None))
        await elapse(600)
        cloud.clear_faults()
        await elapse(30 + 30 + 5)
        assert None not in [watch.age for watch in watches]


# --- some jobs hang -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_shared", [True, False])
async def test_jobs_whose_details_hang_hold_up_the_others_for_one_timeout_at_most(
    cloud: Emulator, is_shared: bool
) -> None:
    """Nor are they taken for an outage. Where the listing is refused, details are all there is."""
    cloud.advance(3600)
    *hanging, one, two, three, four = cloud.add_jobs(24, status=8)
    for job_id in hanging:
        cloud.fault("latency", seconds=1e6, match={"path": f"*/visualization-jobs/{job_id}"})
    cloud.fault("status", status=403, match={"operation": "list"})
    settings = vizwatch.Settings(shared_reads=is_shared)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        good = [client.watch(job_id, max_age=20) for job_id in (one, two, three, four)]
        watches = [*(client.watch(job_id, max_age=20) for job_id in hanging), *good]
        async with AsyncExitStack() as stack:
            for watch in watches:
                await stack.enter_async_context(taken(watch, lambda _: None))
            ages: list[float] = []
            for second in range(600):
                await elapse(1)
                if second >= 60:
                    ages += [watch.age or 0.0 for watch in good]
            assert all(watch.age is not None for watch in good)
            assert max(ages) <= 20


@pytest.mark.parametrize("hanging", [20, 30])
async def test_jobs_that_hang_from_the_beginning_do_not_stand_before_the_others(
    cloud: Emulator, here: Client, hanging: int
) -> None:
    """Of another workspace than the client's, they are read by their details, the hanging ones first."""
    job_ids = cloud.add_jobs(100, status=8, workspace_id="7")
    for job_id in job_ids[:hanging]:
        cloud.fault("latency", seconds=1e6, match={"job_id": job_id})
    found: set[int] = set()
    async with AsyncExitStack() as stack:
        for job_id in job_ids:
            await stack.enter_async_context(taken(here.watch(job_id), lambda one: found.add(one.job_id)))
        await elapse(240)
        assert found == set(job_ids[hanging:])


async def test_what_waited_for_the_budget_was_begun_when_it_was_sent() -> None:
    """Else whoever stood in line while others were answered would tell of no outage."""
    outage = Outage(0.8, 30.0)
    gate, line = Gate(outage, 100), asyncio.Lock()
    sent: list[float] = []

    async def read() -> None:
        async with line:
            await elapse(2)
        sent.append(now())
        if len(sent) > 1:
            error = vizwatch.ConnectError("the service is down")
            error.elapsed = 0.0
            raise error

    reads = [asyncio.create_task(gate.read(read, INTERVAL)) for _ in range(40)]
    await elapse(2 * FAILURES_TO_BE_DOWN + 3)
    assert outage.is_down()
    for task in reads:
        task.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
