"""A listing that is wrong while the details are right: rows, pages and totals that nobody can believe."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from counting import operations
from taking import taken
from virtual import elapse

from vizwatch import Client, Fleet, Job, JobStatus, Settings, Target, Transition
from vizwatch._rules import codec
from vizwatch._values.exchange import Failure
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime

OF_THE_LISTING = {"operation": "list"}


def listing(*rows: dict[str, Any], total: int | None = None) -> str:
    return json.dumps({"jobs": rows, "job_total_count": len(rows) if total is None else total})


def row(job_id: int, status: int = 8, **fields: Any) -> dict[str, Any]:
    return {"job_id": job_id, "job_name": f"n{job_id}", "status": status, "duration": 1000, **fields}


def lists(cloud: Emulator, *answers: tuple[str, int | None]) -> None:
    """What the listing says from now on, one answer after the other, each so often."""
    after = 0
    for text, count in answers:
        cloud.fault("body", text=text, match=OF_THE_LISTING, count=count, after=after)
        after += count or 0


def of_how(client: Client, how: str, job_ids: Sequence[int]) -> list[AsyncIterator[Transition]]:
    match how:
        case "each":
            return [client.watch(job_id, follow_restarts=True) for job_id in job_ids]
        case "ids":
            return [client.watch_jobs(job_ids=job_ids)]
        case _:
            return [client.watch_jobs()]


hows = pytest.mark.parametrize("how", ["each", "ids", "all"])


async def found_in(
    watches: Sequence[AsyncIterator[Transition]], seconds: float
) -> dict[int, list[int | None]]:
    """The statuses of each job that come within so many seconds."""
    found: dict[int, list[int | None]] = {}

    def note(transition: Transition) -> None:
        current = transition.current
        found.setdefault(transition.job_id, []).append(None if current is None else int(current))

    async with AsyncExitStack() as stack:
        for watch in watches:
            await stack.enter_async_context(taken(watch, note))
        await elapse(seconds)
    return found


@hows
@pytest.mark.parametrize("late", [False, True])
async def test_rows_that_cannot_be_decoded_are_read_by_their_details(
    cloud: Emulator, here: Client, how: str, late: bool
) -> None:
    """As often as details are: not again and again, without a pause, through the listing."""
    job_ids = cloud.add_jobs(5, status=8)
    bad = listing(*(row(one, 7, remaining_duration="abc" if one < 4 else 5) for one in job_ids))
    lists(cloud, *([(listing(*map(row, job_ids)), 3)] if late else []), (bad, None))
    found = await found_in(of_how(here, how, job_ids), 300)
    assert {job_id: statuses[-1] for job_id, statuses in found.items()} == {1: 8, 2: 8, 3: 8, 4: 7, 5: 7}
    assert operations(cloud)["list"] <= 300
    assert operations(cloud)["details"] <= 5 * 300


@hows
async def test_a_job_that_cannot_be_decoded_anywhere_costs_no_more_than_a_failing_one(
    cloud: Emulator, here: Client, how: str
) -> None:
    """One that can be is as seen as ever."""
    good, *bad = cloud.add_jobs(4, status=8)
    text = listing(row(good), *(row(one, schedule="x") for one in bad))
    cloud.fault("body", text=text, match=OF_THE_LISTING)
    for job_id in bad:
        body = json.dumps({**row(job_id, schedule="x"), "is_success": True})
        cloud.fault("body", text=body, match={"operation": "details", "job_id": job_id})
    found = await found_in(of_how(here, how, [good, *bad]), 3600)
    assert found == {good: [8]}
    assert operations(cloud)["list"] <= 3600 / 12 + 150, "a job that runs for a second is looked at soon"
    assert operations(cloud)["details"] <= 3 * 3600 / 10


@hows
@pytest.mark.parametrize("text", ['{"jobs":', "{}", "[]", "null", '{"jobs": {}}', "<html>"])
async def test_where_the_listing_is_garbage_the_details_are_read(
    cloud: Emulator, here: Client, how: str, text: str
) -> None:
    """As where it fails with 500; who wants all jobs has to wait for it."""
    job_ids = cloud.add_jobs(3, plan=[[0, 8], [100, 10]])
    cloud.fault("body", text=text, match=OF_THE_LISTING)
    found = await found_in(of_how(here, how, job_ids), 200)
    assert found == ({} if how == "all" else {job_id: [8, 10] for job_id in job_ids})
    assert operations(cloud)["list"] <= 30


@pytest.mark.parametrize("how", ["each", "ids"])
@pytest.mark.parametrize("down", ["504", "503", "no answer", "nothing for long"])
async def test_where_the_listing_alone_is_down_the_details_are_read(
    cloud: Emulator, here: Client, how: str, down: str
) -> None:
    """An answer to a read of details tells that not all is down; the listing is asked again now and then."""
    job_ids = cloud.add_jobs(5, plan=[[0, 8], [300, 10], [1300, 8]])
    match down:
        case "no answer":
            cloud.fault("drop", match=OF_THE_LISTING, ttl=1000)
        case "nothing for long":
            cloud.fault("latency", seconds=900, match=OF_THE_LISTING, ttl=1000)
        case status:
            cloud.fault("status", status=int(status), match=OF_THE_LISTING, ttl=1000)
    watches = of_how(here, how, job_ids)
    found = await found_in(watches, 800)
    assert found == {job_id: [8, 10] for job_id in job_ids}
    assert operations(cloud)["list"] <= 20
    again = await found_in(of_how(here, how, job_ids), 1200)
    assert again == {job_id: [10, 8] for job_id in job_ids}
    before = operations(cloud)
    assert set(before) == {"list", "details"}


async def test_newcomers_do_not_hurry_a_listing_that_asked_for_a_rest(cloud: Emulator, here: Client) -> None:
    job_ids = cloud.add_jobs(30, status=8)
    cloud.fault("status", status=503, retry_after=90, match=OF_THE_LISTING, count=1)
    async with AsyncExitStack() as stack:
        for job_id in job_ids:
            await stack.enter_async_context(taken(here.watch(job_id), lambda _: None))
            await elapse(2)
        assert operations(cloud)["list"] <= 1
        await elapse(60)
        assert operations(cloud)["list"] > 1


async def test_garbage_for_details_is_no_outage(cloud: Emulator, here: Client) -> None:
    """It may be one job's alone: the others are read as ever."""
    good, *bad = cloud.add_jobs(3, status=8)
    for job_id in bad:
        cloud.fault("body", text="{", match={"operation": "details", "job_id": job_id})
    settings = Settings(shared_reads=False)
    async with Client(cloud.endpoint, here.project_id, auth=cloud.token, settings=settings) as client:
        watches = [client.watch(job_id, interval=5) for job_id in (good, *bad)]
        async with AsyncExitStack() as stack:
            for watch in watches:
                await stack.enter_async_context(taken(watch, lambda _: None))
            for _ in range(100):
                await elapse(1)
                assert (watches[0].age or 0.0) <= 6


@pytest.mark.parametrize(("before", "once"), [((8, 90_000), (7, 1)), ((10, 90_000), (8, 20_000))])
@hows
async def test_one_reading_alone_takes_no_job_back(
    cloud: Emulator, here: Client, how: str, before: tuple[int, int], once: tuple[int, int]
) -> None:
    """A step back is held until a later read says so, too: also for those who watch all jobs."""
    cloud.add_jobs(3, status=before[0])

    def said(status: int, duration: int) -> str:
        return listing(*(row(one, status, duration=duration) for one in (1, 2, 3)))

    lists(cloud, (said(*before), 3), (said(*once), 1), (said(*before), None))
    found = await found_in(of_how(here, how, [1, 2, 3]), 120)
    assert found == {job_id: [before[0]] for job_id in (1, 2, 3)}


async def test_a_job_that_comes_back_after_its_deletion_has_ids_of_its_own(
    cloud: Emulator, here: Client
) -> None:
    """Who drops what has the id of something before would drop it."""
    cloud.add_jobs(1, status=8)
    found: list[Transition] = []
    async with taken(here.watch_jobs(), found.append):
        for _ in range(2):
            cloud.clear_faults()
            await elapse(60)
            cloud.fault("body", text=listing(), match=OF_THE_LISTING)
            cloud.fault("status", status=404, code="ModelArts.0015", match={"operation": "details"})
            await elapse(120)
    ends = [one.id.split("/", 1)[1] for one in found]
    assert ends == ["1/1/1/none-8", "1/1/2/8-none", "1/2/3/none-8", "1/2/4/8-none"]


async def test_a_job_that_this_client_deletes_is_told_once(cloud: Emulator, here: Client) -> None:
    """However soon its details confirm it, the listing's rows are of before."""
    first, *others = cloud.add_jobs(5, status=8)
    cloud.advance(3600)
    found: list[Transition] = []
    async with taken(here.watch_jobs(), found.append):
        await elapse(45)
        await here.delete_job(first)
        await elapse(200)
    told = [one.current for one in found if one.job_id == first]
    assert told[-1] is None
    assert told.count(None) == told.count(JobStatus.RUNNING) == 1
    assert [one.current for one in found if one.job_id in others] == [8] * 4


async def test_a_job_whose_details_are_refused_is_told_of_by_the_listing(
    cloud: Emulator, here: Client
) -> None:
    """Nor does a listing that lacks it once begin its story anew, as nothing tells that it was deleted."""
    job_ids = cloud.add_jobs(3, status=8)
    cloud.advance(3600)
    details = {"operation": "details", "job_id": job_ids[0]}
    cloud.fault("status", status=403, code="ModelArts.0108", match=details)
    found: list[Transition] = []
    async with taken(here.watch_jobs(), found.append):
        for status in (8, 10, 8):
            cloud.set_status(job_ids[0], status)
            await elapse(100)
            cloud.fault("body", text=listing(*map(row, job_ids[1:])), match=OF_THE_LISTING, count=1)
            await elapse(100)
    told = [one for one in found if one.job_id == job_ids[0]]
    assert [(one.previous, one.current) for one in told] == [(None, 8), (8, 10), (10, 8)]
    assert len({one.id for one in told}) == 3


async def test_rows_that_are_no_jobs_are_counted_and_told(
    cloud: Emulator, here: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "vizwatch")
    cloud.add_jobs(2, status=8)
    text = listing(row(1), {"job_id": None, "status": 8}, row(2), {"job_id": 3, "status": "odd"})
    cloud.fault("body", text=listing(row(1), row(2)), match=OF_THE_LISTING, every=2)
    cloud.fault("body", text=text, match=OF_THE_LISTING)
    watch = here.watch_jobs()
    async with taken(watch, lambda _: None):
        counts = set()
        for _ in range(20):
            await elapse(5)
            counts.add(watch.skipped)
        assert counts == {0, 2}
    assert [record.getMessage() for record in caplog.records] == [
        f"2 rows of the listing of project {here.project_id} are no jobs: they are not watched"
    ]
    async with Fleet([Target(cloud.endpoint, here.project_id, auth=cloud.token, name="x")]) as fleet:
        async with taken(fleet.watch_jobs(), lambda _: None):
            complete = set()
            for _ in range(20):
                await elapse(5)
                complete.add(fleet.outcomes["x"].complete)
            assert complete == {False, True}


async def test_who_has_gone_away_and_keeps_the_watch_costs_nothing(cloud: Emulator, here: Client) -> None:
    """Half of the transitions are taken; the jobs of these are left alone, too, until the rest is."""
    job_ids = cloud.add_jobs(20, plan=[[0, 1], [30, 7], [5000, 8]])
    watch = here.watch_jobs()
    for _ in range(30):
        await anext(watch)
    before = operations(cloud)
    await elapse(3600)
    assert not operations(cloud) - before
    rest = [await anext(watch) for _ in range(30)]
    assert Counter(one.current for one in rest) == {7: 10, 8: 20}
    assert {one.job_id for one in rest} == set(job_ids)


async def test_a_job_that_the_client_makes_is_seen_at_once(cloud: Emulator, here: Client) -> None:
    cloud.add_jobs(30, status=8)
    found: list[Transition] = []
    async with taken(here.watch_jobs(interval=60), found.append):
        await elapse(100)
        job = await here.create_job("mine", "/obs/mine/")
        await elapse(1)
        assert found[-1].job_id == job.job_id
        await elapse(200)
    statuses = [one.current for one in found if one.job_id == job.job_id]
    assert (statuses[0], statuses[-1]) == (1, 8)
    assert len({one.id for one in found}) == len(found)


# --- one job of many is refused, or fails ----------------------------------------------------------------


@pytest.mark.parametrize("back", [True, False])
async def test_a_change_after_refused_details_is_told_by_the_listing(
    cloud: Emulator, here: Client, back: bool
) -> None:
    """Neither is the chain broken, nor does the job stay as it was last told."""
    job_id, *_ = cloud.add_jobs(3, status=8)
    cloud.advance(36_000)
    found: list[Transition] = []
    async with taken(here.watch_jobs(interval=60), found.append):
        await elapse(5)
        cloud.fault(
            "status", status=403, code="ModelArts.0108", match={"operation": "details"}, after=2, count=1
        )
        await here.stop_job(job_id)
        await elapse(4)
        if back:
            cloud.set_status(job_id, 8)
        await elapse(600)
    told = [(one.previous, one.current) for one in found if one.job_id == job_id]
    assert told[-1][1] == (8 if back else 12)
    assert [current for _, current in told[:-1]] == [previous for previous, _ in told[1:]]


async def test_a_job_of_some_that_is_refused_for_good_is_logged(
    cloud: Emulator, here: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "vizwatch")
    good, bad = cloud.add_jobs(2, status=8)
    cloud.fault("status", status=403, code="ModelArts.0108", match=OF_THE_LISTING)
    cloud.fault("status", status=403, code="ModelArts.0108", match={"operation": "details", "job_id": bad})
    found = await found_in([here.watch_jobs(job_ids=[good, bad])], 100)
    assert found == {good: [8]}
    assert any(f"job {bad}" in record.getMessage() for record in caplog.records)


async def test_an_error_of_ours_in_one_job_of_many_ends_their_watch(
    cloud: Emulator, here: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = cloud.add_jobs(2, status=8)
    cloud.fault("status", status=403, code="ModelArts.0108", match=OF_THE_LISTING)
    decode = codec.decode_job

    def broken(body: bytes) -> Job | Failure:
        job = decode(body)
        if isinstance(job, Job) and job.job_id == bad:
            raise RuntimeError("a mistake")
        return job

    monkeypatch.setattr(codec, "decode_job", broken)
    with pytest.raises(RuntimeError, match="a mistake"):
        await found_in([here.watch_jobs(job_ids=[good, bad])], 100)


@pytest.mark.parametrize("list_fails", ["status", "latency"])
@pytest.mark.parametrize("details_fail", [500, 503, None])
async def test_where_the_listing_fails_one_job_that_fails_too_blinds_no_other(
    cloud: Emulator, here: Client, list_fails: str, details_fail: int | None
) -> None:
    """Whichever it is: its details alone do not tell that all is down."""
    bad, *good = cloud.add_jobs(10, plan=[[0, 8], [600, 10]])
    given = {"status": 503} if list_fails == "status" else {"seconds": 1000}
    cloud.fault(list_fails, match=OF_THE_LISTING, **given)
    of_bad = {"operation": "details", "job_id": bad}
    if details_fail is None:
        cloud.fault("latency", seconds=1000, match=of_bad)
    else:
        cloud.fault("status", status=details_fail, match=of_bad)
    found = await found_in(of_how(here, "each", [bad, *good]), 900)
    assert found == {job_id: [8, 10] for job_id in good}
