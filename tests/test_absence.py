"""Jobs that a listing lacks: one that was deleted, and a thousand that were not."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from counting import operations
from hypothesis import given
from hypothesis import strategies as st
from taking import taken
from test_listing_is_wrong import OF_THE_LISTING, found_in, hows, listing, lists, of_how
from test_listing_is_wrong import row as row_of
from virtual import elapse

from vizwatch import Account, Client, Transition
from vizwatch._rules.listing import Absence
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime

MANY = 300


def rows(job_ids: Sequence[int]) -> str:
    """A listing with these jobs, that have run for long."""
    return listing(*(row_of(job_id, duration=10_000_000) for job_id in job_ids))


# --- the rule --------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 10)), max_size=20))
def test_many_are_absent_only_if_two_sweeps_lack_them(sweeps: list[tuple[int, int]]) -> None:
    absence, before = Absence(), True
    for number, (lacking, pages) in enumerate(sweeps, start=1):
        since = absence.since(number)
        assert since == (number if before else number - 1)
        believed = absence.is_believed(number, lacking, pages)
        assert believed or (before and lacking > max(3, pages))
        assert believed is not absence.is_doubted
        assert believed or lacking
        before = believed


# --- deletions -------------------------------------------------------------------------------------------


@hows
@pytest.mark.fault("W1")
@pytest.mark.parametrize("deleted", [1, 30])
async def test_a_deletion_costs_one_read_of_details(
    cloud: Emulator, here: Client, how: str, deleted: int
) -> None:
    """Two sweeps that lack the job, too, an interval apart, are as good as two more."""
    job_ids = cloud.add_jobs(deleted, plan=[[0, 8], [3660, None]]) + cloud.add_jobs(10, status=8)
    cloud.advance(3600)
    found = await found_in(of_how(here, how, job_ids), 110)
    assert found == {job_id: [8, None] if job_id in job_ids[:deleted] else [8] for job_id in job_ids}
    assert operations(cloud)["details"] == deleted
    assert operations(cloud)["list"] <= 1 + 110 / 8 + 2, "and another one where many are lacking"


@hows
async def test_a_deletion_takes_two_intervals(cloud: Emulator, here: Client, how: str) -> None:
    """The service answers from replicas that lag: a job that is not there for a while is not deleted."""
    job_ids = cloud.add_jobs(5, status=8)
    cloud.advance(3600)
    lacking = rows(job_ids[1:])
    lists(cloud, (rows(job_ids), 3), (lacking, 2), (rows(job_ids), None))
    details = {"operation": "details", "job_id": job_ids[0]}
    cloud.fault("status", status=404, code="ModelArts.0015", match=details, count=1)
    found = await found_in(of_how(here, how, job_ids), 200)
    assert found == {job_id: [8] for job_id in job_ids}


# --- listings that are wrong -----------------------------------------------------------------------------


@hows
@pytest.mark.parametrize("sweeps", [1, 2, 3])
async def test_all_rows_that_were_lost_for_a_while_cost_next_to_nothing(
    cloud: Emulator, here: Client, how: str, sweeps: int
) -> None:
    """Their details are asked for, a few at once, and no more of them once the listing shows the jobs."""
    job_ids = cloud.add_jobs(MANY, status=8)
    cloud.advance(3600)
    all_rows = rows(job_ids)
    cloud.fault("latency", seconds=0.5)
    lists(cloud, (all_rows, 4), (listing(), sweeps), (all_rows, None))
    found = await found_in(of_how(here, how, job_ids), 300)
    assert found == {job_id: [8] for job_id in job_ids}
    assert operations(cloud)["details"] <= (0 if sweeps == 1 else 40)
    assert operations(cloud)["list"] <= 300 / 8 + 5


@hows
async def test_some_rows_that_are_lost_here_and_there_cost_sweeps_and_no_details(
    cloud: Emulator, here: Client, how: str
) -> None:
    """Each sweep lacks a twentieth of the jobs, and the next one others."""
    job_ids, chance = cloud.add_jobs(MANY, status=8), random.Random(8)
    cloud.advance(3600)
    shown = set(job_ids)
    answers: list[tuple[str, int | None]] = []
    for _ in range(100):
        lost = set(chance.sample(sorted(shown), MANY // 20))
        shown = set(job_ids) - lost
        answers.append((rows(sorted(shown)), 1))
    lists(cloud, *answers)
    found = await found_in(of_how(here, how, job_ids), 300)
    assert found == {job_id: [8] for job_id in job_ids}
    assert operations(cloud)["details"] <= 3
    assert operations(cloud)["list"] <= 2 * 300 / 8


@pytest.mark.parametrize("how", ["each", "ids"])
async def test_a_listing_that_stays_wrong_is_done_without_until_it_is_right(
    cloud: Emulator, here: Client, how: str
) -> None:
    """Each job is read by its details, and as ever once the listing shows them again."""
    job_ids = cloud.add_jobs(50, plan=[[0, 8], [300, 10]])
    cloud.fault("body", text=listing(), match=OF_THE_LISTING, ttl=500)
    found = await found_in(of_how(here, how, job_ids), 400)
    assert found == {job_id: [8, 10] for job_id in job_ids}
    again = cloud.add_jobs(50, status=8)
    async with taken(here.watch_jobs(job_ids=again), lambda _: None):
        await elapse(500)
        before = operations(cloud)
        await elapse(100)
        assert operations(cloud) - before == Counter(list=(operations(cloud) - before)["list"])


async def test_who_shares_the_budget_does_not_pay_for_many_that_are_gone(cloud: Emulator) -> None:
    """Each of them is confirmed in time, and in the requests that are left."""
    account, max_age = Account(2), 10.0
    async with (
        Client(cloud.endpoint, "many", auth=cloud.token, account=account) as many,
        Client(cloud.endpoint, "one", auth=cloud.token, account=account) as one,
    ):
        job_ids = cloud.add_jobs(300, status=8, project_id="many")
        (job_id,) = cloud.add_jobs(1, status=8, project_id="one")
        cloud.advance(3600)
        gone: list[Transition] = []
        watch = one.watch(job_id, max_age=max_age)
        async with taken(watch, lambda _: None), taken(many.watch_jobs(max_age=30), gone.append):
            await elapse(60)
            for deleted in job_ids[1:]:
                cloud.set_status(deleted, None, project_id="many")
            for _ in range(1200):
                await elapse(0.5)
                assert (watch.age or 0.0) <= max_age + 0.5
    assert Counter(one.current for one in gone) == {8: 300, None: 299}


# --- jobs that the listing does not show -----------------------------------------------------------------


async def test_a_listing_that_never_showed_a_job_says_nothing_of_its_deletion(
    cloud: Emulator, here: Client
) -> None:
    """A single read that does not find it, of a replica that lags, is not confirmed by that."""
    (elsewhere,) = cloud.add_jobs(1, status=8, workspace_id="7")
    job_ids = [elsewhere, *cloud.add_jobs(5, status=8)]
    cloud.advance(3600)
    details = {"operation": "details", "job_id": elsewhere}
    cloud.fault("status", status=404, code="ModelArts.0015", match=details, after=5, count=1)
    found = await found_in(of_how(here, "each", job_ids), 300)
    assert found == {job_id: [8] for job_id in job_ids}


async def test_jobs_of_another_workspace_are_no_proof_that_totals_lie(cloud: Emulator, here: Client) -> None:
    """A full last page is the last one as ever."""
    job_ids = cloud.add_jobs(5, status=8, workspace_id="7") + cloud.add_jobs(100, status=8)
    cloud.advance(3600)
    await found_in([here.watch_jobs(), *of_how(here, "each", job_ids[:5])], 1000)
    assert operations(cloud)["list"] <= 1000 / 12 + 3 * (1000 / 300) + 10


@pytest.mark.parametrize("later", [2, 4, 6, 8, 10, 14, 20, 30])
async def test_a_job_of_another_workspace_is_read_again_only_when_it_is_time(
    cloud: Emulator, here: Client, later: int
) -> None:
    """Even if a sweep lacks it at the very moment at which its details were answered."""
    (elsewhere,), (job_id,) = cloud.add_jobs(1, status=8, workspace_id="7"), cloud.add_jobs(1, status=8)
    cloud.advance(3600)
    async with taken(here.watch(elsewhere), lambda _: None):
        for _ in range(later):
            await asyncio.sleep(0)
        async with taken(here.watch(job_id), lambda _: None):
            await elapse(60)
    assert len(cloud.requests) <= 4 + 2 * 60 / 12
