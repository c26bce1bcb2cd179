"""Freshness within a budget: how old what is known may become, and who is told when that cannot be held."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from taking import taken
from virtual import elapse

from vizwatch import Account, Client, ConfigError, Fleet, Settings, Stale, Target
from vizwatch._flows.arriving import JobsWatch
from vizwatch._flows.watching import Watch
from vizwatch._rules.rhythm import before_stale, interval_of, max_age_of
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime

MAX_AGE = 10.0


def now() -> float:
    return asyncio.get_running_loop().time()


async def oldest(watches: Iterable[Watch | JobsWatch], seconds: float) -> float:
    """How old what is known became at most, meanwhile."""
    most = 0.0
    for _ in range(round(4 * seconds)):
        await elapse(0.25)
        ages = [watch.age for watch in watches]
        most = max(most, *(math.inf if age is None else age for age in ages))
        assert [watch.stale for watch in watches] == [age is None or age > MAX_AGE for age in ages]
    return most


@contextlib.asynccontextmanager
async def client_of(cloud: Emulator, **settings: Any) -> AsyncIterator[Client]:
    async with Client(
        cloud.endpoint, cloud.project_id, auth=cloud.token, settings=Settings(**settings)
    ) as client:
        yield client


@contextlib.asynccontextmanager
async def all_taken(watches: Iterable[Watch | JobsWatch]) -> AsyncIterator[None]:
    """Takes what comes of each."""
    async with contextlib.AsyncExitStack() as stack:
        for watch in watches:
            await stack.enter_async_context(taken(watch, lambda _: None))
        yield


# --- it is held ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("watched", [1, 2, 30])
async def test_what_a_watch_knows_is_never_older_than_asked_for(cloud: Emulator, watched: int) -> None:
    """Of one job by its details, of several by the listing; and it is not read more often than that takes."""
    job_ids = cloud.add_jobs(watched, status=8)
    async with client_of(cloud) as client:
        watches = [client.watch(job_id, max_age=MAX_AGE) for job_id in job_ids]
        async with all_taken(watches):
            await elapse(1)
            assert await oldest(watches, 300) <= MAX_AGE
    assert len(cloud.requests) <= 1 + 300 / (0.6 * MAX_AGE)


@pytest.mark.parametrize("which", ["all", "some"])
async def test_what_a_watch_of_many_jobs_knows_is_never_older_than_asked_for(
    cloud: Emulator, which: str
) -> None:
    """Though the listing has three pages of a second each: what was read first is as old as all of it."""
    job_ids = cloud.add_jobs(2100, status=8)
    cloud.fault("latency", seconds=1, match={"operation": "list"})
    async with client_of(cloud) as client:
        chosen = None if which == "all" else job_ids[::100]
        watch = client.watch_jobs(job_ids=chosen, max_age=MAX_AGE)
        async with all_taken([watch]):
            await elapse(10)
            assert await oldest([watch], 300) <= MAX_AGE


async def test_what_a_fleet_knows_is_never_older_than_asked_for(cloud: Emulator) -> None:
    targets = [Target(cloud.endpoint, f"p{number}", auth=cloud.token) for number in range(20)]
    async with Fleet(targets) as fleet:
        watch = fleet.watch_jobs(max_age=MAX_AGE)
        async with all_taken([watch]):
            await elapse(MAX_AGE)
            assert await oldest([watch], 200) <= MAX_AGE
            assert all(outcome.complete for outcome in fleet.outcomes.values())


@pytest.mark.repeats
async def test_where_requests_have_to_wait_those_that_are_due_first_go_first(cloud: Emulator) -> None:
    """Five that may be 10 seconds old, 45 that may be 200, and 50 that may be of any age: 1 request a second.

    In their order of coming, each would be read every 100 seconds.
    """
    account = Account(1)
    async with contextlib.AsyncExitStack() as stack:
        watches: dict[float, list[JobsWatch]] = {}
        for number in range(100):
            max_age = 10.0 if number % 20 == 0 else 200.0 if number % 2 else math.inf
            client = Client(cloud.endpoint, f"p{number}", auth=cloud.token, account=account)
            await stack.enter_async_context(client)
            watch = client.watch_jobs(max_age=None if math.isinf(max_age) else max_age)
            watches.setdefault(max_age, []).append(watch)
            await stack.enter_async_context(taken(watch, lambda _: None))
        assert {max_age: len(some) for max_age, some in watches.items()} == {10: 5, 200: 50, math.inf: 45}
        await elapse(500)
        for _ in range(1000):
            await elapse(1)
            for max_age, some in watches.items():
                assert max(watch.age or 0.0 for watch in some) <= max_age
    assert len(cloud.requests) <= 1502


# --- it is not held --------------------------------------------------------------------------------------


def told_of(told: list[Stale]) -> Counter[str]:
    return Counter(stale.project_id for stale in told)


async def test_what_cannot_be_held_is_slowed_down_for_all_alike_and_told_once(
    cloud: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Twenty projects that may be 10 seconds old, and 1 request a second: each is read every 20 seconds."""
    caplog.set_level(logging.WARNING, "vizwatch")
    told: list[Stale] = []
    names = [f"p{number}" for number in range(20)]
    targets = [Target(cloud.endpoint, name, auth=cloud.token) for name in names]
    settings = Settings(requests_per_second=1, on_stale=told.append)
    async with Fleet(targets, settings=settings) as fleet:
        watch = fleet.watch_jobs(max_age=MAX_AGE)
        async with all_taken([watch]):
            await elapse(500)
            assert watch.stale
            assert not all(outcome.complete for outcome in fleet.outcomes.values())
    assert told_of(told) == Counter(names)
    for stale in told:
        assert (stale.max_age, stale.job_id) == (MAX_AGE, None)
        assert MAX_AGE < stale.age < MAX_AGE + 0.1, "as soon as it is so"
    (record,) = caplog.records
    assert record.getMessage() == (
        f"what is known of project {told[0].project_id} is 10 s old, and 10 s are allowed: the account's "
        "budget of requests does not suffice, or the service is slow or down"
    )
    reads = Counter(request.path.split("/")[2] for request in cloud.requests)
    assert set(reads) == set(names)
    assert max(reads.values()) - min(reads.values()) <= 2
    assert sum(reads.values()) >= 499


@pytest.mark.parametrize("watched", [1, 3])
async def test_an_outage_is_told_while_it_lasts_and_the_next_one_again(
    cloud: Emulator, caplog: pytest.LogCaptureFixture, watched: int
) -> None:
    caplog.set_level(logging.WARNING, "vizwatch")
    job_ids = cloud.add_jobs(watched, status=8)
    told: list[tuple[float, int | None]] = []
    async with client_of(cloud, on_stale=lambda stale: told.append((now(), stale.job_id))) as client:
        watches = [client.watch(job_id, max_age=MAX_AGE) for job_id in job_ids]
        start = now()
        async with all_taken(watches):
            for begins in (100, 300):
                await elapse(start + begins - now())
                assert not any(watch.stale for watch in watches)
                cloud.fault("status", status=503, ttl=60)
                await elapse(MAX_AGE + 1)
                assert all(watch.stale for watch in watches)
    assert sorted(job_id for _, job_id in told if job_id is not None) == sorted([*job_ids, *job_ids])
    for number, (at, _) in enumerate(told):
        assert 0 < at - start - (100 if number < watched else 300) <= MAX_AGE + 0.01
    assert sum("are allowed" in record.getMessage() for record in caplog.records) == 1


async def test_a_listing_that_hangs_is_told_while_it_does(cloud: Emulator) -> None:
    cloud.add_jobs(3, status=8)
    told: list[float] = []
    async with client_of(cloud, on_stale=lambda _: told.append(now())) as client:
        watch = client.watch_jobs(max_age=MAX_AGE)
        async with all_taken([watch]):
            await elapse(50)
            cloud.fault("latency", seconds=25, count=1)
            begins = now()
            await elapse(20)
            assert watch.stale
            await elapse(40)
            assert (watch.age or math.inf) <= MAX_AGE
    assert len(told) == 1
    assert told[0] - begins <= MAX_AGE


async def test_a_job_that_was_never_read_is_told_too(cloud: Emulator) -> None:
    told: list[Stale] = []
    cloud.fault("status", status=503, ttl=1000)
    async with client_of(cloud, on_stale=told.append) as client:
        async with all_taken([client.watch(1, max_age=MAX_AGE), client.watch_jobs(max_age=20)]):
            await elapse(100)
    assert [(stale.job_id, round(stale.age)) for stale in told] == [(1, 10), (None, 20)]


async def test_a_hook_that_raises_ends_nothing(cloud: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    def fails(_stale: Stale) -> None:
        raise RuntimeError("of the user's")

    job_ids = cloud.add_jobs(2, plan=[[0, 8], [200, 10]])
    cloud.fault("status", status=503, ttl=60)
    async with client_of(cloud, on_stale=fails) as client:
        watches = [client.watch(job_id, max_age=MAX_AGE) for job_id in job_ids]
        statuses = [[one.current async for one in watch] for watch in watches[:1]]
        assert statuses == [[8, 10]]
    assert "Settings.on_stale failed" in caplog.text


@pytest.mark.parametrize("is_of_all", [False, True])
async def test_what_a_slow_consumer_misses_is_not_told(cloud: Emulator, is_of_all: bool) -> None:
    """It is stale, as the watch says, but nobody else's fault."""
    told: list[Stale] = []
    cloud.add_jobs(1, plan=[[0, 8], [30, 10], [60, 11]])
    async with client_of(cloud, on_stale=told.append) as client:
        watch = (
            client.watch_jobs(max_age=MAX_AGE)
            if is_of_all
            else client.watch(1, max_age=MAX_AGE, follow_restarts=True)
        )
        await anext(watch)
        await elapse(50)
        assert watch.stale
        assert (await anext(watch)).current == 10
        async with all_taken([watch]):
            await elapse(60)
            assert (watch.age or math.inf) <= MAX_AGE
    assert told == []


@pytest.mark.parametrize("of", ["its details", "the listing", "all"])
async def test_who_wants_to_know_sooner_hastens_a_read_that_waits(cloud: Emulator, of: str) -> None:
    """A read that was begun for somebody who has time goes forward in the line."""
    account = Account(0.5)
    async with (
        Client(cloud.endpoint, "busy", auth=cloud.token, account=account) as busy,
        Client(cloud.endpoint, "quiet", auth=cloud.token, account=account) as quiet,
    ):
        ours = cloud.add_jobs(1 if of == "its details" else 3, status=8, project_id="quiet")
        async with contextlib.AsyncExitStack() as stack:
            for number in range(20):
                theirs = cloud.add_jobs(1, status=8, project_id="busy", workspace_id=f"{number}")
                busy_watch = busy.watch_jobs(workspace_id=f"{number}", job_ids=theirs, max_age=100)
                await stack.enter_async_context(taken(busy_watch, lambda _: None))
            for job_id in ours:
                await stack.enter_async_context(taken(quiet.watch(job_id), lambda _: None))
            await elapse(4)
            watches: list[Watch | JobsWatch] = [quiet.watch(job_id, max_age=15) for job_id in ours]
            if of == "all":
                watches = [quiet.watch_jobs(max_age=15)]
            for watch in watches:
                await stack.enter_async_context(taken(watch, lambda _: None))
            await elapse(15)
            assert None not in [watch.age for watch in watches]


@pytest.mark.parametrize("watched", [1, 3])
async def test_the_age_asked_for_holds_whatever_the_settings_interval_is(
    cloud: Emulator, watched: int
) -> None:
    """The pauses of a poller are those of who follows, and not of who might."""
    job_ids = cloud.add_jobs(watched, status=8)
    cloud.fault("latency", seconds=1)
    async with client_of(cloud, poll_interval=600) as client:
        watches = [client.watch(job_id, max_age=MAX_AGE) for job_id in job_ids]
        async with all_taken(watches):
            await elapse(5)
            assert await oldest(watches, 300) <= MAX_AGE


async def test_a_job_that_may_come_some_day_makes_nothing_stale(cloud: Emulator) -> None:
    """That it does not exist is an answer, too."""
    (job_id,) = cloud.add_jobs(1, status=8)
    told: list[Stale] = []
    async with client_of(cloud, on_stale=told.append) as client:
        watch = client.watch_jobs(job_ids=[job_id, 999], max_age=100)
        async with all_taken([watch]):
            await elapse(5)
            for _ in range(100):
                await elapse(3)
                assert not watch.stale
                assert (watch.age or 0.0) <= 100
    assert not told


async def test_a_fleet_at_a_long_interval_is_not_stale_while_it_is_well(cloud: Emulator) -> None:
    targets = [Target(cloud.endpoint, f"p{number}", auth=cloud.token) for number in range(20)]
    async with Fleet(targets) as fleet:
        watch = fleet.watch_jobs(interval=600)
        async with all_taken([watch]):
            await elapse(601)
            for _ in range(300):
                await elapse(10)
                assert not watch.stale


async def test_where_all_jobs_are_deleted_nothing_is_too_old(cloud: Emulator) -> None:
    told: list[Stale] = []
    job_ids = cloud.add_jobs(2, plan=[[0, 8], [30, None]])
    async with client_of(cloud, on_stale=told.append) as client:
        watch = client.watch_jobs(job_ids=job_ids, max_age=MAX_AGE)
        found: list[int | None] = []
        async with taken(watch, lambda one: found.append(one.current)):
            await elapse(200)
            assert not watch.stale
    assert found == [8, 8, None, None]
    assert told == []


async def test_a_watch_that_is_given_up_tells_nothing(cloud: Emulator) -> None:
    told: list[Stale] = []
    cloud.add_jobs(1, status=8)
    async with client_of(cloud, on_stale=told.append) as client:
        async with all_taken([client.watch(1, max_age=MAX_AGE), client.watch_jobs(max_age=MAX_AGE)]):
            await elapse(20)
        forgotten = client.watch_jobs(max_age=MAX_AGE)
        await anext(forgotten)
        del forgotten
        await elapse(100)
    assert told == []


# --- what may be asked for -------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, -1, 1.3, math.nan, math.inf, True, "10", [10]])
@pytest.mark.parametrize("how", ["watch", "watch_jobs", "fleet"])
async def test_a_wrong_age_is_refused_before_any_request(cloud: Emulator, wrong: Any, how: str) -> None:
    fleet = Fleet([Target(cloud.endpoint, "p", auth=cloud.token)])
    async with client_of(cloud) as client, fleet:
        calls: dict[str, Callable[[], object]] = {
            "watch": lambda: client.watch(1, max_age=wrong),
            "watch_jobs": lambda: client.watch_jobs(max_age=wrong),
            "fleet": lambda: fleet.watch_jobs(max_age=wrong),
        }
        with pytest.raises(ConfigError, match=r"max_age must be a number of seconds from 1\.34 to 86400"):
            calls[how]()
    assert not cloud.requests


ages = st.floats(1.34, 86_400)


@given(ages, st.none() | st.floats(1, 86_400))
def test_no_pause_alone_makes_anything_too_old(max_age: float, interval: float | None) -> None:
    settings = Settings()
    assert max_age_of(settings, max_age) == max_age
    longest = interval_of(settings, interval, max_age) * (1 + settings.poll_jitter)
    assert longest < max_age
    assert interval is None or longest <= interval * (1 + settings.poll_jitter)


@given(st.floats(0, 1000), st.floats(0, 100), st.floats(0, 1000), ages)
def test_the_next_reading_ends_before_the_last_is_too_old(
    begun: float, took: float, pause: float, max_age: float
) -> None:
    """Unless it takes so long that it would have to begin at once."""
    over = begun + took
    at = before_stale(over + pause, over, begun=begun, max_age=max_age, shortest=1.0)
    assert at <= over + pause
    assert at >= min(over + pause, over + 1.0)
    assert at + took <= begun + max_age or at <= over + 1.0
