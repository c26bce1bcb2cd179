"""Watches of one workspace share their reads: the listing serves them all."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from counting import operations, reads
from taking import taken
from virtual import elapse

import vizwatch
from vizwatch import Client, Transition
from vizwatch._flows.looking import Place
from vizwatch._rules.transitions import Tracker
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


async def seen(client: Client, job_id: int, interval: float = 10) -> list[Transition]:
    return [transition async for transition in client.watch(job_id, interval=interval)]


async def end(watches: Sequence[asyncio.Task[list[Transition]]]) -> None:
    for task in watches:
        task.cancel()
    await asyncio.wait(watches)


def client_of(cloud: Emulator, *, shared: bool = True) -> Client:
    settings = vizwatch.Settings(shared_reads=shared)
    return Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings)


@pytest.mark.parametrize(("jobs", "pages"), [(2, 1), (10, 1), (100, 1), (1000, 1), (1001, 2)])
async def test_many_watches_cost_as_many_requests_as_there_are_pages(
    cloud: Emulator, here: Client, jobs: int, pages: int
) -> None:
    job_ids = cloud.add_jobs(jobs, status=8)
    watches = [asyncio.create_task(seen(here, job_id)) for job_id in job_ids]
    await elapse(5)
    assert operations(cloud).total() == pages
    await elapse(600)
    assert operations(cloud)["details"] <= 1
    assert operations(cloud)["list"] <= pages * (1 + 600 / 8)
    await end(watches)


async def test_one_watch_reads_the_details(cloud: Emulator, here: Client) -> None:
    job_id, *_others = cloud.add_jobs(5, plan=[[0, 8], [60, 10]])
    assert [one.current for one in await seen(here, job_id)] == [8, 10]
    assert set(operations(cloud)) == {"details"}


async def test_fewer_watches_than_pages_read_the_details(cloud: Emulator, here: Client) -> None:
    first, *_, last = cloud.add_jobs(3000, plan=[[0, 8], [60, 10]])
    both = await asyncio.gather(seen(here, first), seen(here, last))
    assert [[one.current for one in transitions] for transitions in both] == [[8, 10], [8, 10]]
    assert operations(cloud)["list"] <= 1, "which told how many pages there are"


@pytest.mark.parametrize(
    ("watched", "pages", "details"),
    [
        ([3, 3, 3, 3, 3], 5, 0),
        ([96, 0, 0, 0, 4], 5, 0),
        ([96, 0, 0, 0, 3], 1, 3),
        ([10, 10, 10, 0, 1], 3, 1),
        ([10, 0, 0, 0, 0], 1, 0),
        ([0, 0, 0, 0, 10], 5, 0),
    ],
)
async def test_a_sweep_goes_on_while_it_has_no_more_pages_left_than_jobs_to_show(
    watched: Sequence[int], pages: int, details: int
) -> None:
    """Those that it has shown may have left meanwhile, since something happened, or wait for the next one."""
    async with Emulator(per_page_limit=100) as cloud, client_of(cloud) as client:
        job_ids = cloud.add_jobs(100 * len(watched), status=8)
        cloud.advance(3600)  # they run for long, and none is looked at sooner than the others
        some = [job_ids[100 * page + at] for page, count in enumerate(watched) for at in range(count)]
        watches = [asyncio.create_task(seen(client, job_id)) for job_id in some]
        await elapse(5)
        assert operations(cloud) == Counter(list=1 + pages, details=details), "one page of 1,000 is refused"
        await elapse(600)
        sweeps = 1 + 605 / 8
        assert operations(cloud)["list"] <= 1 + pages * sweeps
        assert operations(cloud)["details"] <= len(watched) + details * sweeps
        await end(watches)


@pytest.mark.fault("S13")
async def test_pages_that_are_refused_are_asked_for_as_smaller_ones() -> None:
    async with Emulator(per_page_limit=100) as cloud, client_of(cloud) as client:
        watches = [asyncio.create_task(seen(client, job_id)) for job_id in cloud.add_jobs(5, status=8)]
        await elapse(60)
        await client.list_jobs().collect()
        await end(watches)
        sizes = [request.query.get("per_page") for request in cloud.requests]
    assert sizes[0] == "1000"
    assert set(sizes[1:]) == {"100"}


@pytest.mark.fault("S13")
async def test_smaller_pages_are_no_habit_before_one_was_accepted(cloud: Emulator, here: Client) -> None:
    """A service that blames `per_page` for what is not its fault does not spoil the listings to come."""
    job_ids = cloud.add_jobs(5, status=8)
    cloud.fault(
        "status",
        status=400,
        code="ModelArts.0104",
        message="per_page",
        match={"operation": "list"},
        count=2,
    )
    watches = [asyncio.create_task(seen(here, job_id)) for job_id in job_ids]
    await elapse(60)
    assert [job.job_id for job in await here.list_jobs().collect()] == job_ids
    await end(watches)
    sizes = [request.query["per_page"] for request in cloud.requests if "per_page" in request.query]
    assert sizes == ["1000", "100", "1000"]


@pytest.mark.fault("W19")
async def test_two_watches_of_one_job_share_a_poll_stream_and_both_see_all(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [60, 8], [120, 10]])
    one, other = await asyncio.gather(seen(here, job_id), seen(here, job_id))
    assert [t.current for t in one] == [1, 8, 10]
    assert one == other
    # No pause is below 0.8 times 3.3 s while it waits; a run's are so in its first 20 s, for 9 looks at most.
    assert len(cloud.requests) <= 1 + 60 / 2.6 + 9 + 40 / 8, "one alone might need as many"


async def test_a_job_that_the_listing_lacks_is_deleted_only_if_its_details_say_so(
    cloud: Emulator, here: Client
) -> None:
    """One is deleted; another one is of a workspace that the listing does not show."""
    kept, gone, elsewhere = cloud.add_jobs(2, status=8) + cloud.add_jobs(1, status=8, workspace_id="7")
    watches = {job_id: asyncio.create_task(seen(here, job_id)) for job_id in (kept, gone, elsewhere)}
    await elapse(60)
    await here.delete_job(gone)
    transitions = await asyncio.wait_for(watches.pop(gone), 60)
    assert transitions[-1].current is None
    await elapse(300)
    assert not any(task.done() for task in watches.values())
    await end([*watches.values()])


async def test_a_read_that_nobody_waits_for_any_more_is_ended(cloud: Emulator, here: Client) -> None:
    cloud.fault("latency", seconds=20, match={"operation": "details"})
    job_ids = cloud.add_jobs(2, status=8) + cloud.add_jobs(1, status=8, workspace_id="7")
    watches = [asyncio.create_task(seen(here, job_id)) for job_id in job_ids]
    await elapse(1)
    before = asyncio.all_tasks()
    assert operations(cloud) == Counter(list=1, details=1)
    await end(watches[2:])
    assert before - asyncio.all_tasks() > {watches[2]}, "the read of its details, too"
    await end(watches[:2])


@pytest.mark.parametrize("later", range(6))
async def test_who_comes_while_a_read_is_being_ended_gets_one_of_its_own(
    cloud: Emulator, here: Client, later: int
) -> None:
    """However soon: nobody is cancelled for somebody else."""
    cloud.fault("latency", seconds=20, match={"operation": "details"}, count=1)
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [100, 10]])
    first = asyncio.create_task(seen(here, job_id))
    await elapse(1)
    first.cancel()
    for _ in range(later):
        await asyncio.sleep(0)
    second = asyncio.create_task(seen(here, job_id))
    assert [one.current for one in await second] == [8, 10]
    assert first.cancelled()


async def test_a_service_that_refuses_the_listing_is_asked_for_details(cloud: Emulator, here: Client) -> None:
    cloud.fault("status", status=403, code="ModelArts.0108", match={"operation": "list"})
    job_ids = cloud.add_jobs(4, plan=[[0, 8], [60, 10]])
    all_seen = await asyncio.gather(*(seen(here, job_id) for job_id in job_ids))
    assert all([one.current for one in transitions] == [8, 10] for transitions in all_seen)
    assert operations(cloud)["list"] == 1


async def test_a_refusal_of_the_listing_that_passes_is_not_paid_for_ever(
    cloud: Emulator, here: Client
) -> None:
    cloud.fault("status", status=403, code="ModelArts.0108", match={"operation": "list"}, count=1)
    watches = [asyncio.create_task(seen(here, job_id)) for job_id in cloud.add_jobs(20, status=8)]
    await elapse(600)
    before = operations(cloud)
    await elapse(100)
    assert (operations(cloud) - before)["details"] == 0
    assert 100 / 12 - 1 <= (operations(cloud) - before)["list"] <= 100 / 8 + 1
    await end(watches)


@pytest.mark.parametrize("kind", ["a slow listing", "one that asks for a long rest"])
async def test_an_own_write_is_followed_by_details_where_the_listing_is_not_there_in_time(
    cloud: Emulator, here: Client, kind: str
) -> None:
    first, *others = cloud.add_jobs(5, status=8)
    cloud.advance(3600)
    told: list[Transition] = []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(taken(here.watch(first), told.append))
        for job_id in others:
            await stack.enter_async_context(taken(here.watch(job_id), lambda _: None))
        await elapse(60)
        before, of_the_listing = operations(cloud)["list"], {"operation": "list"}
        if kind == "a slow listing":
            cloud.fault("latency", seconds=25, match=of_the_listing)
        else:
            cloud.fault("status", status=503, retry_after=500, match=of_the_listing, count=1)
        while operations(cloud)["list"] == before:
            await elapse(0.5)
        await here.stop_job(first)
        await elapse(4)
        assert [one.current for one in told] == [8, 9, 12]


async def test_a_change_is_seen_though_the_listing_asks_for_a_long_rest(
    cloud: Emulator, here: Client
) -> None:
    job_ids = cloud.add_jobs(5, plan=[[0, 8], [100, 10]])
    cloud.fault("status", status=503, retry_after=500, match={"operation": "list"}, after=3)
    async with asyncio.timeout(120):
        all_seen = await asyncio.gather(*(seen(here, job_id) for job_id in job_ids))
    assert all([one.current for one in transitions] == [8, 10] for transitions in all_seen)


async def test_a_page_that_is_older_than_the_details_tells_nothing(cloud: Emulator, here: Client) -> None:
    """It was asked for before the job was stopped and restarted, and answered 25 seconds later."""
    first, *others = cloud.add_jobs(20, status=8)
    cloud.advance(100)
    told: list[Transition] = []
    async with AsyncExitStack() as stack:
        watch = here.watch(first, interval=40, follow_restarts=True)
        await stack.enter_async_context(taken(watch, told.append))
        for job_id in others:
            await stack.enter_async_context(taken(here.watch(job_id, interval=40), lambda _: None))
        await elapse(200)
        cloud.fault("latency", seconds=25, performed=True, match={"operation": "list"}, ttl=60)
        before = operations(cloud)["list"]
        while operations(cloud)["list"] == before:
            await elapse(0.5)
        await here.stop_job(first)
        await elapse(4)
        await here.restart_job(first)
        await elapse(900)
    assert max(one.run for one in told) == 2


@pytest.mark.parametrize("how", ["forgotten", "cancelled"])
async def test_a_listing_that_nobody_wants_any_more_is_read_to_its_end_by_nobody(how: str) -> None:
    """Of a watch that is forgotten, or after a cancelled step, no more comes than the page under way."""
    async with Emulator(per_page_limit=100) as cloud, client_of(cloud) as here:
        cloud.add_jobs(3000, status=8)
        cloud.fault("latency", seconds=1)
        watch = here.watch_jobs()
        found = [await anext(watch)]
        before = operations(cloud)["list"]
        if how == "forgotten":
            del watch
            gc.collect()
            await elapse(60)
            assert operations(cloud)["list"] <= before + 2
            return
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    found.append(await anext(watch))
        await elapse(60)
        assert operations(cloud)["list"] <= before + 2
        others: list[Transition] = []
        async with taken(here.watch_jobs(), others.append):
            await elapse(40)
        assert sorted(one.job_id for one in others) == [*range(1, 3001)]
        async with taken(watch, found.append):
            await elapse(40)
        assert sorted(one.job_id for one in found) == [*range(1, 3001)]


async def test_a_listing_that_failed_long_ago_is_asked_for_again_at_once(
    cloud: Emulator, here: Client
) -> None:
    watches = [asyncio.create_task(seen(here, job_id)) for job_id in cloud.add_jobs(4, status=8)]
    for _ in range(10):
        await elapse(150)
        cloud.fault("status", status=500, count=1, match={"operation": "list"})
        await elapse(10 * 1.2 + 0.8 + 0.1)
        statuses = [request.status for request in cloud.requests]
        assert 500 in statuses[-3:]
        assert statuses[-1] == 200
    for task in watches:
        task.cancel()
    await asyncio.wait(watches)


def three_slow_pages(cloud: Emulator) -> list[int]:
    """Jobs that have run for long, in a listing that takes a second a page."""
    job_ids = cloud.add_jobs(3000, status=8)
    cloud.advance(3600)
    cloud.fault("latency", seconds=1)
    return job_ids


async def test_a_sweep_that_nobody_waits_for_any_more_is_not_gone_on_with(
    cloud: Emulator, here: Client
) -> None:
    """Whoever comes later is shown all pages."""
    job_ids = three_slow_pages(cloud)
    for _ in range(2):
        watches = [asyncio.create_task(seen(here, job_id)) for job_id in job_ids[::500]]
        await elapse(1.5)
        await end(watches)
    watches = [asyncio.create_task(seen(here, job_id)) for job_id in job_ids[::500]]
    await elapse(5)
    await end(watches)
    pages = [request.query["page"] for request in cloud.requests if "page" in request.query]
    assert pages == ["1", "2", "1", "2", "1", "2", "3"]
    assert operations(cloud)["details"] == 0


async def test_newcomers_are_not_looked_for_on_pages_that_were_read_before_they_came(
    cloud: Emulator, here: Client
) -> None:
    job_ids = three_slow_pages(cloud)
    watches = [asyncio.create_task(seen(here, job_id)) for job_id in job_ids[::500]]
    await elapse(1.5)
    watches += [asyncio.create_task(seen(here, job_id)) for job_id in job_ids[1:6]]
    await elapse(20)
    await end(watches)
    assert operations(cloud)["details"] == 0


async def test_several_watches_of_a_job_count_once_for_what_is_cheaper(cloud: Emulator, here: Client) -> None:
    job_ids = cloud.add_jobs(3000, status=8)
    cloud.advance(3600)
    watches = [asyncio.create_task(seen(here, job_id)) for job_id in (*job_ids[:1] * 5, *job_ids[::500])]
    await elapse(100)
    await end(watches)
    assert operations(cloud)["details"] == 0
    watches = [asyncio.create_task(seen(here, job_id)) for job_id in (*job_ids[:1] * 5, *job_ids[:2])]
    await elapse(100)
    await end(watches)
    assert 2 * 100 / 12 <= operations(cloud)["details"] <= 2 * (1 + 100 / 8)


async def test_what_was_doubted_is_no_concern_of_those_who_come_later(cloud: Emulator, here: Client) -> None:
    job_ids = cloud.add_jobs(10, status=8)
    cloud.advance(3600)
    empty = '{"job_total_count": 0, "jobs": []}'
    cloud.fault("body", text=empty, match={"operation": "list"}, after=1, count=2)
    for sweeps in (2, 3):
        watches = [asyncio.create_task(seen(here, job_id)) for job_id in job_ids]
        while operations(cloud)["list"] < sweeps:
            await elapse(0.5)
        await end(watches)
    assert operations(cloud) == Counter(list=3), "each of the two that showed nothing is doubted"


async def test_both_sources_show_the_same_changes(cloud: Emulator) -> None:
    plan = [[0, 1], [25, 4], [50, 7], [75, 8], [150, 15], [200, 8], [260, 9], [300, 12]]
    job_ids = cloud.add_jobs(6, plan=plan)

    async def watched(*, shared: bool) -> list[list[tuple[object, ...]]]:
        async with client_of(cloud, shared=shared) as client:
            found = await asyncio.gather(*(seen(client, job_id) for job_id in job_ids))
        return [[(t.id, t.previous, t.current, t.run, t.gap, t.is_terminal) for t in one] for one in found]

    alone, shared = await asyncio.gather(watched(shared=False), watched(shared=True))
    assert alone == shared
    assert all(len(one) == len(plan) for one in shared)


async def test_unshared_watches_read_details_alone(cloud: Emulator) -> None:
    job_ids = cloud.add_jobs(5, plan=[[0, 8], [60, 10]])
    async with client_of(cloud, shared=False) as client:
        await asyncio.gather(*(seen(client, job_id) for job_id in job_ids))
    assert set(operations(cloud)) == {"details"}


async def test_one_impatient_watch_costs_its_own_details_and_no_more_sweeps() -> None:
    async with Emulator(per_page_limit=100) as cloud, client_of(cloud) as client:
        job_ids = cloud.add_jobs(1000, status=8)
        cloud.advance(360_000)
        intervals = [15.0, *[3600.0] * 999]
        watches = [
            asyncio.create_task(seen(client, job_id, interval))
            for job_id, interval in zip(job_ids, intervals, strict=True)
        ]
        await elapse(100)
        before = reads(cloud)
        await elapse(3 * 3600)
        asked = reads(cloud) - before
        assert asked["list"] <= 10 * 4
        assert 3 * 200 <= asked["details"] <= 3 * 300
        for job_id in job_ids:
            cloud.set_status(job_id, 10)
        await elapse(2 * 3600)
        assert all(watch.done() for watch in watches)
    assert all([one.current for one in watch.result()] == [8, 10] for watch in watches)


async def test_the_first_sweep_of_many_pages_costs_in_proportion_to_the_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = 0
    is_unseen_since = Place.is_unseen_since

    def counted(place: Place, sweep: int) -> bool:
        nonlocal asked
        asked += 1
        return is_unseen_since(place, sweep)

    monkeypatch.setattr(Place, "is_unseen_since", counted)
    async with Emulator(per_page_limit=100) as cloud, client_of(cloud) as client:
        job_ids = cloud.add_jobs(1990, status=8)
        cloud.advance(36_000)
        watches = [asyncio.create_task(seen(client, job_id)) for job_id in job_ids]
        await elapse(5)
        assert reads(cloud)["list"] == 1 + 20, "a page of 1,000 is refused"
        await end(watches)
    assert asked <= 2 * len(job_ids)


async def test_an_error_of_ours_ends_the_watch_that_it_is_of(
    cloud: Emulator, here: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    saw, calls = Tracker.saw, 0

    def broken(tracker: Tracker, *args: Any) -> Transition | None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("a mistake")
        return saw(tracker, *args)

    monkeypatch.setattr(Tracker, "saw", broken)
    (job_id,) = cloud.add_jobs(1, status=8)
    with pytest.raises(RuntimeError, match="a mistake"):
        await asyncio.wait_for(seen(here, job_id), 600)


async def test_who_comes_after_all_have_left_is_not_due_since_their_last_sweep(
    cloud: Emulator, here: Client
) -> None:
    job_ids = cloud.add_jobs(2, plan=[[0, 8], [50, 10]])
    await asyncio.gather(*(seen(here, job_id) for job_id in job_ids))
    (poller,) = here._pollers.values()
    sweep = poller._sweeps.begin(poller._usual, for_all=False, max_age=5.0)
    assert poller._sweeps._due.at == asyncio.get_running_loop().time() + 5.0
    assert sweep.number > 1
