"""Watches of one workspace share their reads: the listing serves them all."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from virtual import elapse

import vizwatch
from vizwatch import Client, Transition
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


async def seen(client: Client, job_id: int, interval: float = 10) -> list[Transition]:
    return [transition async for transition in client.watch(job_id, interval=interval)]


def operations(cloud: Emulator) -> Counter[str]:
    """How often the listing was read, and how often details."""
    kinds = (
        "list" if request.path.endswith("visualization-jobs") else "details" for request in cloud.requests
    )
    return Counter(kinds)


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
    for task in watches:
        task.cancel()
    await asyncio.wait(watches)


async def test_one_watch_reads_the_details(cloud: Emulator, here: Client) -> None:
    job_id, *_others = cloud.add_jobs(5, plan=[[0, 8], [60, 10]])
    assert [one.current for one in await seen(here, job_id)] == [8, 10]
    assert set(operations(cloud)) == {"details"}


async def test_fewer_watches_than_pages_read_the_details(cloud: Emulator, here: Client) -> None:
    first, *_, last = cloud.add_jobs(3000, plan=[[0, 8], [60, 10]])
    both = await asyncio.gather(seen(here, first), seen(here, last))
    assert [[one.current for one in transitions] for transitions in both] == [[8, 10], [8, 10]]
    assert operations(cloud)["list"] <= 1, "which told how many pages there are"


@pytest.mark.fault("W19")
async def test_two_watches_of_one_job_share_a_poll_stream_and_both_see_all(
    cloud: Emulator, here: Client
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [60, 8], [120, 10]])
    one, other = await asyncio.gather(seen(here, job_id), seen(here, job_id))
    assert [t.current for t in one] == [1, 8, 10]
    assert one == other
    assert len(cloud.requests) <= 2 + 120 / 8


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
    for task in watches.values():
        task.cancel()
    await asyncio.wait(watches.values())


async def test_a_service_that_refuses_the_listing_is_asked_for_details(cloud: Emulator, here: Client) -> None:
    cloud.fault("status", status=403, code="ModelArts.0108", match={"operation": "list"})
    job_ids = cloud.add_jobs(4, plan=[[0, 8], [60, 10]])
    all_seen = await asyncio.gather(*(seen(here, job_id) for job_id in job_ids))
    assert all([one.current for one in transitions] == [8, 10] for transitions in all_seen)
    assert operations(cloud)["list"] == 1


async def test_both_sources_show_the_same_changes(cloud: Emulator) -> None:
    plan = [[0, 1], [25, 4], [50, 7], [75, 8], [150, 15], [200, 8], [260, 9], [300, 12]]
    job_ids = cloud.add_jobs(6, plan=plan)

    async def watched(*, shared: bool) -> list[list[tuple[object, ...]]]:
        settings = vizwatch.Settings(shared_reads=shared)
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
            found = await asyncio.gather(*(seen(client, job_id) for job_id in job_ids))
        return [[(t.id, t.previous, t.current, t.run, t.gap, t.is_terminal) for t in one] for one in found]

    alone, shared = await asyncio.gather(watched(shared=False), watched(shared=True))
    assert alone == shared
    assert all(len(one) == len(plan) for one in shared)


async def test_unshared_watches_read_details_alone(cloud: Emulator) -> None:
    job_ids = cloud.add_jobs(5, plan=[[0, 8], [60, 10]])
    settings = vizwatch.Settings(shared_reads=False)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        await asyncio.gather(*(seen(client, job_id) for job_id in job_ids))
    assert set(operations(cloud)) == {"details"}
