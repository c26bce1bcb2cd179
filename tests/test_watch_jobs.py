"""The transitions of a whole workspace, or of many jobs, through one iterator."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from counting import reads
from taking import taken
from virtual import elapse

import vizwatch
from vizwatch import Client, JobStatus, Transition
from vizwatch._values.rows import Rows
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


def told(found: list[Transition]) -> dict[int, list[int | None]]:
    """The statuses of each job, ``None`` for deleted."""
    statuses = defaultdict(list)
    for transition in found:
        statuses[transition.job_id].append(None if transition.current is None else int(transition.current))
    return dict(statuses)


# --- what comes -----------------------------------------------------------------------------------------


async def test_all_jobs_come_as_found_and_then_each_of_their_changes(cloud: Emulator, here: Client) -> None:
    plan = [[0, 1], [40, 8], [100, 10]]
    job_ids = cloud.add_jobs(25, plan=plan)
    found: list[Transition] = []
    async with taken(here.watch_jobs(), found.append):
        await elapse(200)
    assert told(found) == {job_id: [1, 8, 10] for job_id in job_ids}


async def test_they_are_what_watches_of_each_job_say(cloud: Emulator, here: Client) -> None:
    plan: list[list[float | None]] = [[0, 1], [40, 8], [100, 10], [160, 8], [220, 12], [280, None]]
    job_ids = cloud.add_jobs(5, plan=plan)

    async def seen(job_id: int) -> list[Transition]:
        return [transition async for transition in here.watch(job_id, follow_restarts=True)]

    found: list[Transition] = []
    async with taken(here.watch_jobs(), found.append):
        alone = await asyncio.gather(*map(seen, job_ids))
        await elapse(60)
    for job_id, one in zip(job_ids, alone, strict=True):
        assert [(t.id, t.previous, t.current, t.run, t.gap) for t in found if t.job_id == job_id] == [
            (t.id, t.previous, t.current, t.run, t.gap) for t in one
        ]
        assert len(one) == len(plan)


async def test_a_job_that_appears_and_one_that_is_deleted_come_too(cloud: Emulator, here: Client) -> None:
    first, *_ = cloud.add_jobs(3, status=8)
    found: list[Transition] = []
    async with taken(here.watch_jobs(), found.append):
        await elapse(60)
        (new,) = cloud.add_jobs(1, plan=[[0, 1], [40, 8]])
        await elapse(100)
        cloud.set_status(first, None)
        await elapse(100)
    assert told(found)[new] == [1, 8]
    assert told(found)[first] == [8, None]
    assert found[-1].job.job_id == first
    assert found[-1].job.job_name is not None, "the job as it was last read"


async def test_the_bounds_of_a_change_are_the_reads_around_it(cloud: Emulator, here: Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=7)
    found: list[Transition] = []
    async with taken(here.watch_jobs(interval=10), found.append):
        await elapse(300)
        cloud.set_status(job_id, 8)
        await elapse(30)
    change = found[-1]
    assert (change.previous, change.current) == (7, 8)
    assert change.not_before is not None
    assert 0 < (change.not_after - change.not_before).total_seconds() < 14
    assert (change.not_before - found[0].not_after).total_seconds() > 250


# --- what it costs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("jobs", "pages"), [(1, 1), (1000, 1), (1001, 2), (2000, 2)])
async def test_a_workspace_costs_a_request_an_interval_for_each_page(
    cloud: Emulator, here: Client, jobs: int, pages: int
) -> None:
    cloud.add_jobs(jobs, status=8)
    found: list[Transition] = []
    async with taken(here.watch_jobs(interval=10), found.append):
        await elapse(5)
        assert reads(cloud) == {"list": pages + (jobs % 1000 == 0)}, "once beyond a full last page"
        before = reads(cloud)
        await elapse(1000)
    assert len(found) == jobs
    assert reads(cloud)["details"] == 0
    assert (reads(cloud) - before)["list"] == pytest.approx(pages * 100, rel=0.1)


async def test_watches_of_single_jobs_share_its_reads(cloud: Emulator, here: Client) -> None:
    job_ids = cloud.add_jobs(10, status=8)

    async def seen(job_id: int) -> list[Transition]:
        return [transition async for transition in here.watch(job_id)]

    async with taken(here.watch_jobs(), lambda _: None):
        alone = [asyncio.create_task(seen(job_id)) for job_id in job_ids]
        await elapse(1500)
        for task in alone:
            task.cancel()
        await asyncio.wait(alone)
    assert reads(cloud)["details"] == 0
    assert reads(cloud)["list"] == pytest.approx(1500 / 15, rel=0.2)


async def test_only_what_changed_is_decoded(
    cloud: Emulator, here: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    at_once: list[int] = []
    original, all_at_once = Rows.job, Rows.jobs

    def job(self: Rows, index: int) -> vizwatch.Job:
        decoded.append(self.ids[index])
        return original(self, index)

    def jobs(self: Rows) -> Sequence[vizwatch.Job] | None:
        at_once.extend(self.ids)
        return all_at_once(self)

    monkeypatch.setattr(Rows, "job", job)
    monkeypatch.setattr(Rows, "jobs", jobs)
    job_ids = cloud.add_jobs(100, status=8)
    async with taken(here.watch_jobs(), lambda _: None):
        await elapse(100)
        assert (at_once, decoded) == (job_ids, [])
        cloud.set_status(job_ids[7], 10)
        await elapse(100)
    assert at_once == job_ids
    assert set(decoded) == {job_ids[7]}
    assert len(decoded) < 5


# --- slow consumers, and those that go away ---------------------------------------------------------------


async def test_while_something_is_not_taken_the_listing_is_not_read(cloud: Emulator, here: Client) -> None:
    job_ids = cloud.add_jobs(3, status=8)
    watch = here.watch_jobs()
    assert (await anext(watch)).job_id == job_ids[0]
    await elapse(1000)
    assert len(cloud.requests) == 1
    for job_id in job_ids:
        cloud.set_status(job_id, 10)
    rest = [await anext(watch) for _ in range(5)]
    assert [transition.current for transition in rest] == [8, 8, 10, 10, 10]
    assert len(cloud.requests) == 2
    await watch.aclose()


async def test_one_that_is_broken_off_and_forgotten_reads_no_more(cloud: Emulator, here: Client) -> None:
    cloud.add_jobs(3, plan=[[0, 1], [1000, 8]])
    async for _ in here.watch_jobs():
        break
    gc.collect()
    await elapse(1000)
    assert len(cloud.requests) == 1


@pytest.mark.parametrize("some", [False, True])
async def test_while_nobody_waits_nothing_is_read(cloud: Emulator, here: Client, some: bool) -> None:
    """A task that was cancelled keeps what it watched by, as long as somebody keeps the task."""
    job_ids = cloud.add_jobs(5, plan=[[0, 1], [2000, 8]])
    watch = here.watch_jobs(job_ids=job_ids if some else None)
    for _ in job_ids:
        await anext(watch)
    task = asyncio.ensure_future(anext(watch))
    await elapse(100)
    task.cancel()
    await elapse(30)
    before = reads(cloud)
    await elapse(1800)
    assert reads(cloud) == before
    async with asyncio.timeout(100):
        found = [await anext(watch) for _ in job_ids]
    assert [one.current for one in found] == [8] * 5


async def test_a_cancelled_step_loses_nothing(cloud: Emulator, here: Client) -> None:
    job_ids = cloud.add_jobs(3, plan=[[0, 1], [50, 8]])
    watch, found = here.watch_jobs(), []
    for seconds in [0.001, 0.002, 0.005, 5, 7, 40, 3, 20, 20, 20, 20, 20]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                found.append(await anext(watch))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            while True:
                found.append(await anext(watch))
    assert told(found) == {job_id: [1, 8] for job_id in job_ids}
    await watch.aclose()


async def test_of_several_tasks_one_takes_each_transition_and_one_the_error(
    cloud: Emulator, here: Client
) -> None:
    """However often their steps are cancelled, or come to nothing, and however slow they are."""
    job_ids = cloud.add_jobs(12, plan=[[0, 1], [50, 8]])
    watch, found = here.watch_jobs(), list[Transition]()

    async def take(patience: float, pause: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    found.append(await anext(watch))
                await elapse(pause)

    tasks = [asyncio.create_task(take(*how)) for how in [(0.3, 0), (3, 1), (7, 20), (1000, 0), (1000, 5)]]
    await elapse(100)
    assert told(found) == {job_id: [1, 8] for job_id in job_ids}
    cloud.fault("status", status=403, code="ModelArts.0108")
    await asyncio.wait(tasks, timeout=100)
    ends = sorted(type(task.exception()).__name__ for task in tasks)
    assert ends == ["PermissionDeniedError"] + ["StopAsyncIteration"] * 4


@pytest.mark.parametrize("closes_client", [True, False])
async def test_closing_it_or_its_client_ends_the_iteration(
    cloud: Emulator, here: Client, *, closes_client: bool
) -> None:
    cloud.add_jobs(2, status=8)
    watch = here.watch_jobs()

    async def take() -> list[Transition]:
        return [transition async for transition in watch]

    task = asyncio.create_task(take())
    await elapse(20)
    await (here.aclose() if closes_client else watch.aclose())
    assert len(await asyncio.wait_for(task, 1)) == 2
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_two_of_them_share_each_reading_and_a_slow_one_holds_back_nobody(
    cloud: Emulator, here: Client
) -> None:
    job_ids = cloud.add_jobs(3, status=8)
    slow = here.watch_jobs()
    await anext(slow)
    found: list[Transition] = []
    async with taken(here.watch_jobs(), found.append):
        await elapse(60)
        cloud.set_status(job_ids[0], 10)
        await elapse(60)
    assert told(found) == {job_ids[0]: [8, 10], job_ids[1]: [8], job_ids[2]: [8]}
    await slow.aclose()


@pytest.mark.parametrize(("other", "listings"), [("0", 1), ("research", 2)])
async def test_the_workspace_0_is_the_default_one_and_both_are_read_at_once(
    cloud: Emulator, here: Client, other: str, listings: int
) -> None:
    job_ids, theirs = cloud.add_jobs(3, status=8), cloud.add_jobs(3, status=8, workspace_id="research")
    found: list[Transition] = []
    async with taken(here.watch_jobs(), lambda _: None), taken(here.watch(job_ids[0]), lambda _: None):
        async with taken(here.watch_jobs(workspace_id=other), found.append):
            await elapse(600)
    assert [one.job_id for one in found] == (job_ids if listings == 1 else theirs)
    assert reads(cloud)["list"] == pytest.approx(listings * 600 / 15, rel=0.2)


async def test_a_job_that_the_client_makes_in_the_default_workspace_is_seen_at_once_in_0(
    cloud: Emulator, here: Client
) -> None:
    found: list[Transition] = []
    async with taken(here.watch_jobs(workspace_id="0", interval=60), found.append):
        await elapse(100)
        job = await here.create_job("mine", "/obs/mine/")
        await elapse(1)
        assert [one.job_id for one in found] == [job.job_id]


# --- a choice of jobs -----------------------------------------------------------------------------------


async def test_only_these_jobs_and_one_that_comes_later(cloud: Emulator, here: Client) -> None:
    one, _, other = cloud.add_jobs(3, plan=[[0, 1], [60, 8]])
    found: list[Transition] = []
    async with taken(here.watch_jobs(job_ids=[one, other, 4]), found.append):
        await elapse(400)
        assert told(found) == {one: [1, 8], other: [1, 8]}
        assert cloud.add_jobs(1, status=8) == [4]
        await elapse(700)
    assert told(found) == {one: [1, 8], other: [1, 8], 4: [8]}


async def test_few_jobs_of_many_pages_are_read_by_their_details(cloud: Emulator, here: Client) -> None:
    job_ids = cloud.add_jobs(3000, status=8)
    async with taken(here.watch_jobs(job_ids=job_ids[:2]), lambda _: None):
        await elapse(300)
    assert reads(cloud)["list"] <= 1
    assert reads(cloud)["details"] > 20


async def test_only_transitions_from_or_to_a_status(cloud: Emulator, here: Client) -> None:
    job_ids = cloud.add_jobs(2, plan=[[0, 1], [40, 7], [80, 8], [120, 9], [160, 12]])
    cloud.add_jobs(5, status=10)
    found: list[Transition] = []
    async with taken(here.watch_jobs(status=JobStatus.RUNNING), found.append):
        await elapse(300)
    assert [(t.previous, t.current) for t in found if t.job_id == job_ids[0]] == [(7, 8), (8, 9)]
    assert {t.job_id for t in found} == set(job_ids)


async def test_only_jobs_of_a_name(cloud: Emulator, here: Client) -> None:
    (wanted,) = cloud.add_jobs(1, status=8, job_name="Night-run")
    cloud.add_jobs(2, status=8, job_name="day-run")
    found: list[Transition] = []
    async with taken(here.watch_jobs(search_content="night"), found.append):
        await elapse(60)
    assert told(found) == {wanted: [8]}


async def test_another_workspace(cloud: Emulator, here: Client) -> None:
    (wanted,) = cloud.add_jobs(1, status=8, workspace_id="7")
    cloud.add_jobs(2, status=8)
    found: list[Transition] = []
    async with taken(here.watch_jobs(workspace_id="7"), found.append):
        await elapse(60)
    assert told(found) == {wanted: [8]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"job_ids": []},
        {"job_ids": "12"},
        {"job_ids": bytearray(b"12")},
        {"job_ids": 3},
        {"status": "RUNNING"},
        {"status": b"8"},
        {"status": []},
        {"search_content": 3},
        {"search_content": "x" * 101},
        {"workspace_id": "a/b"},
        {"interval": 0.1},
    ],
)
async def test_a_wrong_argument_is_refused_before_any_request(
    cloud: Emulator, here: Client, wrong: dict[str, Any]
) -> None:
    with pytest.raises(vizwatch.ConfigError, match=next(iter(wrong))):
        here.watch_jobs(**wrong)
    assert not cloud.requests


# --- when reading fails ----------------------------------------------------------------------------------


async def test_it_goes_on_after_an_outage(cloud: Emulator, here: Client) -> None:
    job_ids = cloud.add_jobs(1500, status=8)
    found: list[Transition] = []
    async with taken(here.watch_jobs(), found.append):
        await elapse(60)
        cloud.fault("status", status=503, ttl=300)
        cloud.set_status(job_ids[3], 10)
        await elapse(600)
    assert told(found)[job_ids[3]] == [8, 10]
    assert len(found) == 1501


async def test_a_refusal_for_good_is_raised(cloud: Emulator, here: Client) -> None:
    cloud.fault("status", status=403, code="ModelArts.0108", match={"operation": "list"})
    with pytest.raises(vizwatch.PermissionDeniedError):
        await anext(here.watch_jobs())


async def test_a_refusal_of_the_credentials_for_one_job_is_one_for_all(cloud: Emulator, here: Client) -> None:
    cloud.add_jobs(4, status=8)
    cloud.advance(3600)
    cloud.add_jobs(1, plan=[[0, 1], [60, 7]])
    cloud.fault("status", status=401, code="ModelArts.0202", match={"operation": "details"})
    with pytest.raises(vizwatch.AuthenticationError):
        async with asyncio.timeout(300):
            async for _ in here.watch_jobs():
                pass


async def test_a_reading_that_is_broken_off_for_its_page_size_begins_anew(
    cloud: Emulator, here: Client
) -> None:
    """What has changed since its first page was read is seen at once; nothing is deleted, and nothing new."""
    job_ids = cloud.add_jobs(1200, status=8)
    cloud.advance(3600)
    found: list[Transition] = []
    listing = {"operation": "list"}
    cloud.fault("latency", seconds=1, match=listing)
    cloud.fault(
        "status", status=400, code="ModelArts.0104", message="per_page", match=listing, after=5, count=1
    )
    async with taken(here.watch_jobs(), found.append):
        while reads(cloud)["list"] < 5:
            await elapse(0.1)
        await elapse(1.1)
        cloud.set_status(job_ids[0], 10)
        await elapse(3)
        assert [one.job_id for one in found if one.current == 10] == [job_ids[0]]
        await elapse(30)
    assert told(found) == {job_id: [8, 10] if job_id == job_ids[0] else [8] for job_id in job_ids}


async def test_one_watch_beside_it_needs_no_reads_of_its_own(cloud: Emulator, here: Client) -> None:
    job_ids = cloud.add_jobs(5, status=8)
    cloud.advance(3600)
    async with taken(here.watch_jobs(), lambda _: None), taken(here.watch(job_ids[0]), lambda _: None):
        await elapse(300)
    assert reads(cloud)["details"] <= 1
    assert reads(cloud)["list"] <= 2 + 2 * 300 / 8


async def test_pages_that_come_back_after_having_been_lost_are_no_deletions(
    cloud: Emulator, here: Client
) -> None:
    """Ten of twenty jobs are absent from one reading of the listing: another one is asked first."""
    cloud.add_jobs(20, status=8)
    found: list[Transition] = []
    async with taken(here.watch_jobs(), found.append):
        await elapse(60)
        cloud.fault("body", text='{"job_total_count": 0, "jobs": []}', match={"operation": "list"}, count=1)
        await elapse(200)
    assert len(found) == 20
    assert reads(cloud)["details"] == 0


# --- how fresh it is -------------------------------------------------------------------------------------


async def test_it_tells_how_old_the_oldest_is_that_it_knows(cloud: Emulator, here: Client) -> None:
    cloud.add_jobs(2, status=8)
    watch = here.watch_jobs(interval=10)
    assert (watch.age, watch.stale) == (None, True)
    async with taken(watch, lambda _: None):
        for _ in range(20):
            await elapse(10)
            assert watch.age is not None
            assert watch.age <= 12
            assert not watch.stale
        cloud.fault("status", status=503, ttl=100)
        await elapse(90)
        assert watch.age is not None
        assert watch.age > 80
        assert watch.stale
        await elapse(200)
        assert not watch.stale


async def test_a_step_that_is_cancelled_as_it_passes_over_what_is_not_wanted_leaves_nobody(
    cloud: Emulator, here: Client
) -> None:
    cloud.add_jobs(3, status=8)
    cloud.advance(3600)
    watch = here.watch_jobs(status=10)
    assert watch.survey is not None
    step = asyncio.ensure_future(anext(watch))
    for has_found in (True, False):
        while watch.survey.has_found is not has_found:  # noqa: ASYNC110 - the very moment is the point
            await asyncio.sleep(0)
    step.cancel()
    await asyncio.wait([step])
    before = len(cloud.requests)
    await elapse(600)
    assert len(cloud.requests) == before


async def test_what_was_watched_is_forgotten_with_the_watch(cloud: Emulator, here: Client) -> None:
    """Also what a slow consumer has not taken of it."""
    cloud.add_jobs(30, status=8)
    cloud.advance(3600)
    watch = here.watch_jobs()
    async for _ in watch:
        break
    assert watch.survey is not None
    kept = weakref.ref(watch.survey)
    del watch
    gc.collect()
    await elapse(1)
    gc.collect()
    assert kept() is None
