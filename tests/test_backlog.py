"""Watches that read ahead of a slow consumer."""

from __future__ import annotations

import asyncio
import datetime as dt
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual import elapse

import vizwatch
from vizwatch import Client, Job, JobStatus, Transition
from vizwatch._rules.mailbox import Mailbox
from vizwatch._rules.transitions import Tracker
from vizwatch._values.statuses import TERMINAL
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
codes = st.sampled_from([0, 7, 8, 12, 15])


def changes(script: list[int]) -> list[Transition]:
    """The transitions of a job that goes through these statuses, each of them confirmed."""
    tracker, seen = Tracker("p", 7, TERMINAL, follow_restarts=True), []
    for number, code in enumerate(code for code in script for _ in range(2)):
        at = NOW + dt.timedelta(seconds=number)
        transition = tracker.saw(Job(7, JobStatus(code)), at, at)
        if transition is not None:
            seen.append(transition)
    return seen


@pytest.mark.fault("R1", "no echo", "bounded")
@given(st.lists(st.tuples(codes, st.integers(0, 2)), max_size=60), st.integers(1, 5))
def test_whatever_a_consumer_takes_chains_counts_and_ends_with_the_newest(
    script: list[tuple[int, int]], bound: int
) -> None:
    """Between two changes the consumer takes none, one or two."""
    mailbox, taken = Mailbox(bound), list[Transition]()
    put = changes([code for code, _ in script])
    for number, transition in enumerate(put):
        mailbox.put(transition)
        assert len(mailbox._waiting) <= bound
        for _ in range(script[number][1]):
            one = mailbox.take()
            if one is not None:
                taken.append(one)
    while (one := mailbox.take()) is not None:
        taken.append(one)
    for before, after in pairwise(taken):
        assert after.previous == before.current
        assert (before.run, before.current) != (after.run, after.current)
        assert before.not_after < after.not_after
    if put:
        assert taken[0].previous is None
        assert (taken[-1].run, taken[-1].current) == (put[-1].run, put[-1].current)
        assert len(taken) + sum(one.skipped for one in taken) + mailbox._vanished == len(put)


def test_up_to_the_bound_nothing_is_left_out() -> None:
    mailbox, put = Mailbox(4), changes([1, 7, 8, 12])
    for transition in put:
        mailbox.put(transition)
    assert [mailbox.take() for _ in range(5)] == [*put, None]


def test_beyond_the_bound_the_newest_become_one_that_says_how_many_it_left_out() -> None:
    mailbox = Mailbox(2)
    put = changes([1, 4, 7, 8])
    for transition in put:
        mailbox.put(transition)
    first, merged = mailbox.take(), mailbox.take()
    assert first == put[0]
    assert merged is not None
    assert (merged.previous, merged.current, merged.skipped, merged.id) == (1, 8, 2, put[-1].id)
    assert (merged.not_before, merged.not_after) == (put[1].not_before, put[-1].not_after)


@pytest.mark.repeats
@pytest.mark.fault("R1", "R7")
def test_a_million_changes_that_nobody_takes_are_kept_in_nothing() -> None:
    forth, back = (changes([8, 15])[1], changes([8, 15, 8])[2])
    mailbox = Mailbox(64)
    mailbox.put(changes([8])[0])
    tracemalloc.start()
    try:
        for _ in range(500_000):
            mailbox.put(forth)
            mailbox.put(back)
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert size < 2**20
    assert len(mailbox._waiting) <= 64


# --- over HTTP ------------------------------------------------------------------------------------------


def flapping(seconds: int, until: int) -> list[list[int]]:
    return [[n * seconds, (8, 15)[n % 2]] for n in range(until)] + [[until * seconds, 12]]


@pytest.mark.fault("R1", "C8", "W9")
@pytest.mark.parametrize(("backlog", "skipped"), [(1, 20), (4, 17), (64, 0)])
async def test_a_job_is_read_on_while_its_consumer_is_busy(
    cloud: Emulator, here: Client, backlog: int, skipped: int
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=flapping(4, 20))
    async with here.watch(job_id, interval=1, backlog=backlog) as watch:
        await elapse(3600)
        assert (watch.job and watch.job.status) is JobStatus.KILLED
        seen = [transition async for transition in watch]
    assert sum(one.skipped for one in seen) == skipped
    assert len(seen) + skipped == 21
    assert seen[-1].current is JobStatus.KILLED
    assert [one.previous for one in seen[1:]] == [one.current for one in seen[:-1]]


@pytest.mark.fault("C8")
async def test_a_slow_consumer_holds_back_nobody_but_itself(cloud: Emulator, here: Client) -> None:
    slow_id, *ids = cloud.add_jobs(10, plan=[[0, 8], [100, 12]])
    lags: list[float] = []
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def follow(job_id: int, pause: float) -> None:
        async with here.watch(job_id, interval=5, backlog=8) as watch:
            async for transition in watch:
                if transition.is_terminal and job_id != slow_id:
                    lags.append(loop.time() - began - 100)
                await elapse(pause)

    await asyncio.gather(follow(slow_id, 10_000), *(follow(job_id, 0) for job_id in ids))
    assert len(lags) == 9
    assert max(lags) <= 6.1


async def test_a_failure_comes_after_what_was_seen_before_it(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [5, 8]])
    cloud.fault("status", status=403, code="ModelArts.0108", after=20)
    async with here.watch(job_id, interval=1, backlog=8) as watch:
        await elapse(100)
        seen = [(await anext(watch)).current for _ in range(2)]
        assert seen == [1, 8]
        with pytest.raises(vizwatch.PermissionDeniedError):
            await anext(watch)
        assert [transition async for transition in watch] == []


async def test_a_deadline_passes_though_the_consumer_is_away(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    async with here.watch(job_id, timeout=30, backlog=8) as watch:
        await elapse(100)
        assert (await anext(watch)).current is JobStatus.RUNNING
        with pytest.raises(vizwatch.WatchTimeoutError):
            await anext(watch)


@pytest.mark.parametrize("how", ["break", "close", "client", "cancel"])
async def test_leaving_ends_the_reading(cloud: Emulator, how: str) -> None:
    """The test's own check for tasks left running is the assertion."""
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
        (job_id,) = cloud.add_jobs(1, status=8)
        async with client.watch(job_id, backlog=8) as watch:
            await anext(watch)
            if how == "client":
                await client.aclose()
            if how == "close":
                await watch.aclose()
                await watch.aclose()
            if how == "cancel":
                step = asyncio.create_task(anext(watch))
                await elapse(1)
                step.cancel()
            if how in {"client", "close"}:
                with pytest.raises(StopAsyncIteration):
                    await anext(watch)
        count = len(cloud.requests)
        await elapse(100)
        assert len(cloud.requests) == count


@pytest.mark.fault("C1", "C11")
async def test_a_close_that_is_cancelled_by_asyncio_closes_all_the_same(cloud: Emulator) -> None:
    job_ids = cloud.add_jobs(20, status=8)
    for steps in range(12):
        ready = asyncio.Event()

        async def body(ready: asyncio.Event = ready) -> None:
            async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
                for job_id in job_ids:
                    await anext(await client.watch(job_id, backlog=4).__aenter__())
                ready.set()

        task = asyncio.create_task(body())
        await ready.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        left = [one for one in asyncio.all_tasks() if "_fill" in repr(one.get_coro())]
        assert left == []


async def test_credentials_that_are_cancelled_end_no_watch_as_if_it_were_over(cloud: Emulator) -> None:
    class Cancelled:
        async def headers(self, request: vizwatch.Outgoing, /) -> dict[str, str]:
            if request.url.endswith("visualization-jobs/1") and self.looks:
                raise asyncio.CancelledError
            self.looks += 1
            return {"X-Auth-Token": cloud.token}

        looks = 0

    cloud.add_jobs(1, status=8)
    async with Client(cloud.endpoint, cloud.project_id, auth=Cancelled()) as client:
        async with client.watch(1, interval=1, backlog=4) as watch:
            assert (await anext(watch)).current is JobStatus.RUNNING
            with pytest.raises(asyncio.CancelledError):
                await anext(watch)


@pytest.mark.fault("C10")
async def test_a_watch_with_a_backlog_is_iterated_by_one_task_at_a_time(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [100, 12]])
    async with here.watch(job_id, backlog=8) as watch:
        await anext(watch)
        other = asyncio.create_task(anext(watch))
        await elapse(1)
        with pytest.raises(vizwatch.ConfigError, match="being iterated already"):
            await anext(watch)
        assert (await other).current is JobStatus.KILLED
        assert [transition async for transition in watch] == []


@pytest.mark.fault("C10")
async def test_a_cancelled_step_leaves_the_next_one_to_whoever_comes(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [100, 12]])
    async with here.watch(job_id, backlog=8) as watch:
        await anext(watch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 5)
        assert (await anext(watch)).current is JobStatus.KILLED


async def test_a_watch_with_a_backlog_has_to_be_entered(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    with pytest.raises(vizwatch.ConfigError, match="enter it by `async with`"):
        await anext(here.watch(job_id, backlog=8))
    for wrong in (0, -1, True, "8", 2.0):
        with pytest.raises(vizwatch.ConfigError, match="backlog must be a whole number"):
            here.watch(job_id, backlog=wrong)  # type: ignore[arg-type] # that is the point
