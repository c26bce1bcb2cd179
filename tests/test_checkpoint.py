"""Watches that go on where another process, however it died, left off."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest
from counting import reads
from hypothesis import given
from hypothesis import strategies as st
from keeping import Memory, altered
from taking import taken
from virtual import elapse

import vizwatch
from vizwatch import Client, ConfigError, Job, JobStatus, Transition
from vizwatch._flows.following import Clock
from vizwatch._rules import records, transitions
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime

RUNNING, COMPLETED, KILLED = JobStatus.RUNNING, JobStatus.COMPLETED, JobStatus.KILLED


@pytest.fixture
def kept() -> Memory:
    return Memory()


@pytest.fixture(autouse=True)
def _wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall's clock goes as virtual time does, over the lives of several clients."""
    began = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def started(now: float) -> Clock:
        return Clock(began + dt.timedelta(seconds=now), now)

    monkeypatch.setattr(Clock, "started", started)


@contextlib.asynccontextmanager
async def process(cloud: Emulator, **options: Any) -> AsyncIterator[Client]:
    """A client of its own, as another process has."""
    settings = vizwatch.Settings(**options)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        yield client


async def restart(cloud: Emulator, job_id: int) -> None:
    """Somebody else stops the job, and has it run again."""
    cloud.set_status(job_id, 12)
    async with process(cloud) as client:
        await client.restart_job(job_id)
    await elapse(60)
    cloud.set_status(job_id, 8)


def changes(found: list[Transition]) -> list[tuple[int | None, int | None]]:
    return [
        (
            None if one.previous is None else int(one.previous),
            None if one.current is None else int(one.current),
        )
        for one in found
    ]


async def first_run(cloud: Emulator, kept: Memory, job_id: int, until: JobStatus) -> list[Transition]:
    """Watches a job until it has dealt with this status, asks for the next one, and is closed."""
    found: list[Transition] = []
    async with process(cloud) as client:
        async with taken(client.watch(job_id, checkpoint=kept), found.append):
            while not found or found[-1].current is not until:
                await elapse(1)
    return found


# --- one job --------------------------------------------------------------------------------------------


async def test_what_was_delivered_does_not_come_again(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [40, 8], [400, 10]])
    before = await first_run(cloud, kept, job_id, RUNNING)
    await elapse(3600)
    async with process(cloud) as client:
        after = [one async for one in client.watch(job_id, checkpoint=kept)]
    assert changes(before) == [(None, 1), (1, 8)]
    assert changes(after) == [(8, 10)]


async def test_the_old_status_was_last_read_when_it_was_delivered(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [100, 10]])
    (found,) = await first_run(cloud, kept, job_id, RUNNING)
    await elapse(3600)
    async with process(cloud) as client:
        (ended,) = [one async for one in client.watch(job_id, checkpoint=kept)]
    assert found.read_at is not None
    assert ended.not_before is not None
    assert abs(ended.not_before - found.read_at) < dt.timedelta(milliseconds=1)
    assert ended.not_after - ended.not_before > dt.timedelta(hours=1)


async def test_ends_of_two_runs_have_two_ids_even_where_the_first_was_not_kept(
    cloud: Emulator, kept: Memory
) -> None:
    """The checkpoint cannot be written while the first run ends; then the process is killed."""
    (job_id,) = cloud.add_jobs(status=8)
    await first_run(cloud, kept, job_id, RUNNING)
    left = kept.as_it_is()
    kept.fails = True
    before: list[Transition] = []
    async with process(cloud) as client:
        async with taken(client.watch(job_id, checkpoint=kept, follow_restarts=True), before.append):
            await elapse(60)
            cloud.set_status(job_id, 12)
            await elapse(60)
            await client.restart_job(job_id)
            await elapse(60)
            cloud.set_status(job_id, 8)
            await elapse(60)
    cloud.set_status(job_id, 12)
    after = []
    for _ in range(2):
        async with process(cloud) as client:
            after.append(await anext(client.watch(job_id, checkpoint=left.as_it_is())))
    assert changes(before)[0] == (8, 12)
    assert changes(before)[-1][1] == 8
    assert changes(after) == [(8, 12)] * 2
    assert before[0].id != after[0].id == after[1].id


@pytest.mark.fault("D1")
async def test_what_was_not_delivered_comes_again_as_it_was(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [40, 8], [400, 10]])
    async with process(cloud) as client:
        watch = client.watch(job_id, checkpoint=kept)
        await anext(watch)
        held = await anext(watch)
        await elapse(1)
        left = kept.as_it_is()
    async with process(cloud) as client:
        after = [one async for one in client.watch(job_id, checkpoint=left)]
    assert held == after[0]
    assert changes(after) == [(1, 8), (8, 10)]


@pytest.mark.fault("D1")
async def test_what_was_not_even_written_comes_again_with_its_id(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [40, 8], [400, 10]])
    async with process(cloud) as client:
        watch = client.watch(job_id, checkpoint=kept)
        await anext(watch)
        await elapse(1)
        left = kept.as_it_is()
        held = await anext(watch)
    async with process(cloud) as client:
        async with client.watch(job_id, checkpoint=left) as watch:
            assert (await anext(watch)).current is JobStatus.INIT, "which was not asked after"
            again = await anext(watch)
    assert (again.id, again.previous, again.current) == (held.id, held.previous, held.current)


@pytest.mark.fault("D1", "D3")
async def test_a_change_that_was_told_and_undone_since_comes_again_before_that(
    cloud: Emulator, kept: Memory
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 12], [100, 8]])
    async with process(cloud) as client:
        watch = client.watch_jobs(checkpoint=kept)
        await anext(watch)
        held = await anext(watch)
        left = kept.as_it_is()
    cloud.set_status(job_id, 12)
    after = await survey(cloud, left)
    assert after[0] == held
    assert changes(after) == [(12, 8), (8, 12)]


@pytest.mark.fault("D3")
async def test_what_changed_while_nobody_watched_is_one_transition(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [40, 8], [400, 9], [500, 10]])
    await first_run(cloud, kept, job_id, RUNNING)
    await elapse(3600)
    async with process(cloud) as client:
        after = [one async for one in client.watch(job_id, checkpoint=kept)]
    assert changes(after) == [(8, 10)]


@pytest.mark.fault("D3")
async def test_a_job_that_vanished_comes_as_deleted_and_then_no_more(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [40, 8], [400, 10], [500, None]])
    before = await first_run(cloud, kept, job_id, RUNNING)
    await elapse(3600)
    async with process(cloud) as client:
        (gone,) = [one async for one in client.watch(job_id, checkpoint=kept)]
        assert [one async for one in client.watch(job_id, checkpoint=kept)] == []
    assert (gone.previous, gone.current, gone.job) == (RUNNING, None, before[-1].job)
    async with process(cloud) as client:
        assert [one async for one in client.watch(job_id, checkpoint=kept)] == []


@pytest.mark.fault("D4")
async def test_a_restart_while_nobody_watched_is_a_run_of_its_own(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8]])
    cloud.advance(3600)
    await first_run(cloud, kept, job_id, RUNNING)
    await restart(cloud, job_id)
    await elapse(60)
    async with process(cloud) as client, client.watch(job_id, checkpoint=kept) as watch:
        again = await anext(watch)
    assert (again.previous, again.current, again.run, again.gap) == (RUNNING, RUNNING, 2, True)


async def test_an_end_that_was_delivered_is_not_told_again(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [40, 10]])
    await first_run(cloud, kept, job_id, COMPLETED)
    async with process(cloud) as client:
        assert [one async for one in client.watch(job_id, checkpoint=kept)] == []
        assert reads(cloud)["details"] < 40


async def test_a_job_that_was_restarted_after_its_end_goes_on(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [40, 12], [80, 8], [200, 10]])
    await first_run(cloud, kept, job_id, KILLED)
    await elapse(60)
    async with process(cloud) as client:
        after = [one async for one in client.watch(job_id, checkpoint=kept)]
    assert changes(after) == [(12, 8), (8, 10)]
    assert [one.run for one in after] == [2, 2]


async def test_an_end_that_was_not_delivered_comes_again_and_ends_the_watch(
    cloud: Emulator, kept: Memory
) -> None:
    (job_id,) = cloud.add_jobs(1, status=10)
    async with process(cloud) as client:
        held = await anext(client.watch(job_id, checkpoint=kept))
        await elapse(1)
        left = kept.as_it_is()
    async with process(cloud) as client:
        assert [one async for one in client.watch(job_id, checkpoint=left)] == [held]


async def test_with_a_backlog_what_was_taken_is_delivered(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [40, 8], [100, 9], [150, 12]])
    async with process(cloud) as client, client.watch(job_id, backlog=8, checkpoint=kept) as watch:
        await anext(watch)
        await elapse(200)
        held = await anext(watch)
        await elapse(1)
        left = kept.as_it_is()
    async with process(cloud) as client, client.watch(job_id, backlog=8, checkpoint=left) as watch:
        after = [one async for one in watch]
    assert held == after[0]
    assert changes(after) == [(1, 8), (8, 12)]


@pytest.mark.parametrize("backlog", [1, 2, 8])
async def test_with_a_backlog_what_was_given_and_not_delivered_comes_again_as_it_was(
    cloud: Emulator, kept: Memory, backlog: int
) -> None:
    """Whatever the job becomes before the consumer comes for it."""
    (job_id,) = cloud.add_jobs(1, status=8)
    async with process(cloud) as client, client.watch(job_id, follow_restarts=True, checkpoint=kept) as watch:
        await anext(watch)
        cloud.set_status(job_id, 10)
        given_before = await anext(watch)
        await elapse(1)
        left = kept.as_it_is()
    async with (
        process(cloud) as client,
        client.watch(job_id, follow_restarts=True, backlog=backlog, checkpoint=left) as watch,
    ):
        for status in (8, 10, 8):
            await elapse(200)
            cloud.set_status(job_id, status)
        await elapse(200)
        after = [await anext(watch) for _ in range(min(max(backlog, 2), 4))]
    assert after[0] == given_before
    assert all(one.current == two.previous for one, two in pairwise(after))
    assert (after[-1].current, sum(1 + one.skipped for one in after)) == (RUNNING, 4)


async def test_two_watches_of_one_job_do_not_share_a_place(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    async with process(cloud) as client:
        first = client.watch(job_id, checkpoint=kept)
        await anext(first)
        with pytest.raises(ConfigError, match=f"job {job_id} is watched with this checkpoint already"):
            await anext(client.watch(job_id, checkpoint=kept))
        await first.aclose()
        assert (await anext(client.watch(job_id, checkpoint=kept))).current is RUNNING


async def test_a_watch_that_was_forgotten_gives_its_place_up(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    async with process(cloud) as client:
        async for _ in client.watch(job_id, checkpoint=kept):
            break
        assert (await anext(client.watch(job_id, checkpoint=kept))).current is RUNNING


# --- all jobs -------------------------------------------------------------------------------------------


async def survey(
    cloud: Emulator, kept: Memory, meanwhile: Callable[[], object] = bool, seconds: float = 100
) -> list[Transition]:
    """What a process sees of the workspace in some time."""
    found: list[Transition] = []
    async with process(cloud) as client:
        async with taken(client.watch_jobs(checkpoint=kept), found.append):
            await elapse(seconds)
            meanwhile()
            await elapse(seconds)
    return found


async def test_of_all_jobs_only_what_has_changed_comes_after_a_restart(cloud: Emulator, kept: Memory) -> None:
    same, ended, gone, again = cloud.add_jobs(4, status=8)
    cloud.advance(3600)
    assert len(await survey(cloud, kept)) == 4
    cloud.set_status(ended, 10)
    cloud.set_status(gone, None)
    await restart(cloud, again)
    (new,) = cloud.add_jobs(1, status=1)
    await elapse(60)
    found = {one.job_id: one for one in await survey(cloud, kept)}
    assert same not in found
    assert changes([found[ended], found[gone], found[again], found[new]]) == [
        (8, 10),
        (8, None),
        (8, 8),
        (None, 1),
    ]
    assert (found[again].run, found[again].gap) == (2, True)
    assert await survey(cloud, kept) == []


@pytest.mark.parametrize("then", [8, None])
async def test_what_a_job_becomes_while_its_last_change_is_written_comes_next(
    cloud: Emulator, kept: Memory, then: int | None
) -> None:
    """Also where another job is looked at meanwhile: no reading shows a job to nobody."""
    job_id, other = cloud.add_jobs(2, status=8)
    found: list[Transition] = []

    def note(transition: Transition) -> None:
        found.append(transition)
        if transition.job_id == job_id and transition.previous is not None:
            kept.takes = [60.0]  # it is written; that it was delivered takes long

    async with process(cloud) as client, taken(client.watch_jobs(checkpoint=kept), note):
        await elapse(100)
        cloud.set_status(other, 4)
        await elapse(20)
        cloud.set_status(job_id, 12)
        while len(found) < 4:
            await elapse(0.1)
        cloud.set_status(job_id, then)
        await elapse(300)
    assert changes(found)[3:] == [(8, 12), (12, then)]


async def test_ids_go_on_over_restarts(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    found: list[Transition] = []
    for status in (12, 8, 9, 12, 8):
        await elapse(600)
        found += await survey(cloud, kept, functools.partial(cloud.set_status, job_id, status))
    assert changes(found) == [(None, 8), (8, 12), (12, 8), (8, 9), (9, 12), (12, 8)]
    assert [one.run for one in found] == [1, 1, 2, 2, 2, 3]
    assert len({one.id for one in found}) == len(found)


@pytest.mark.fault("D1")
async def test_of_all_jobs_the_one_that_was_not_delivered_comes_again(cloud: Emulator, kept: Memory) -> None:
    job_ids = cloud.add_jobs(3, status=8)
    async with process(cloud) as client:
        watch = client.watch_jobs(checkpoint=kept)
        before = [await anext(watch) for _ in range(2)]
        await elapse(1)
        left = kept.as_it_is()
    after = await survey(cloud, left)
    assert after[0] == before[1]
    assert [one.job_id for one in before[:1] + after] == job_ids


async def test_jobs_by_their_ids_go_on_too(cloud: Emulator, kept: Memory) -> None:
    first, second, third = cloud.add_jobs(3, status=8)

    async def watched() -> list[Transition]:
        found: list[Transition] = []
        async with process(cloud) as client:
            jobs = client.watch_jobs(job_ids=[first, second, third], checkpoint=kept)
            async with taken(jobs, found.append):
                await elapse(150)
        return found

    assert len(await watched()) == 3
    cloud.set_status(second, 10)
    cloud.set_status(third, None)
    assert sorted(changes(await watched()), key=str) == [(8, 10), (8, None)]
    before = len(cloud.requests)
    assert await watched() == []
    assert len(cloud.requests) - before < 40, "a job that is gone is not asked for again"


async def test_transitions_that_are_not_wanted_count_as_delivered(cloud: Emulator, kept: Memory) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [100, 9], [200, 12], [300, 1], [400, 8]])

    async def ends(seconds: float) -> list[Transition]:
        found: list[Transition] = []
        async with process(cloud) as client:
            async with taken(client.watch_jobs(status=12, checkpoint=kept), found.append):
                await elapse(seconds)
        return found

    assert changes(await ends(250)) == [(9, 12)]
    assert changes(await ends(100)) == [(12, 1)]
    assert changes(await ends(100)) == []
    cloud.set_status(job_id, 12)
    assert changes(await ends(50)) == [(8, 12)]


async def test_a_fleet_keeps_the_places_of_all_its_projects(cloud: Emulator, kept: Memory) -> None:
    projects = [f"project-{number}" for number in range(5)]
    job_ids = [cloud.add_jobs(3, status=8, project_id=project)[0] for project in projects]

    async def watched() -> list[Transition]:
        found: list[Transition] = []
        targets = [vizwatch.Target(cloud.endpoint, project, auth=cloud.token) for project in projects]
        async with vizwatch.Fleet(targets) as fleet:
            async with taken(fleet.watch_jobs(checkpoint=kept), found.append):
                await elapse(60)
        return found

    assert len(await watched()) == 15
    cloud.set_status(job_ids[3], 10, project_id=projects[3])
    (ended,) = await watched()
    assert (ended.project_id, ended.job_id, ended.current) == (projects[3], job_ids[3], COMPLETED)


@pytest.mark.parametrize("is_single", [False, True])
async def test_a_cancelled_step_loses_nothing_and_gives_nothing_that_is_not_written(
    cloud: Emulator, is_single: bool
) -> None:
    kept = Memory(takes=[10.0])
    (job_id,) = cloud.add_jobs(1, plan=[[0, 1], [40, 8]])
    async with process(cloud) as client:
        watch: AsyncIterator[Transition] = client.watch_jobs(checkpoint=kept)
        if is_single:
            watch = client.watch(job_id, checkpoint=kept)
        found: list[Transition] = []
        while len(found) < 2:
            with contextlib.suppress(TimeoutError):
                found.append(await asyncio.wait_for(anext(watch), 0.7))
                assert found[-1] in [given_in(record, client) for record in of_all(kept)]
    assert changes(found) == [(None, 1), (1, 8)]


def of_all(kept: Memory) -> list[bytes]:
    return [record for by_job in kept.records.values() for record in by_job.values()]


def given_in(record: bytes, client: Client) -> Transition:
    return records.decode(record, client.project_id, 1).transition


async def test_more_deletions_than_are_remembered_are_all_told(cloud: Emulator, kept: Memory) -> None:
    job_ids = cloud.add_jobs(1_100, status=8)
    assert len(await survey(cloud, kept)) == 1_100
    for job_id in job_ids[:1_050]:
        cloud.set_status(job_id, None)
    before = kept.as_it_is()
    assert len(await survey(cloud, kept)) == 1_050
    (records_before,), (records_after,) = before.records.values(), kept.records.values()
    for job_id in job_ids[:1_050]:
        # Of the first ones nothing is kept any more, as of jobs that are gone for long.
        gone = records_after.get(job_id, records_after[job_ids[1_049]])
        records_before[job_id] = altered(gone, b"[true", b"[false")
    left = before
    cloud.add_jobs(1, status=8, project_id="busy")
    names = ("busy", cloud.project_id)
    async with vizwatch.Fleet(
        [vizwatch.Target(cloud.endpoint, name, auth=cloud.token) for name in names]
    ) as fleet:
        watch = fleet.watch_jobs(checkpoint=left)
        assert (await anext(watch)).project_id == "busy"
        await elapse(10)  # while it deals with that, the other project is read
        left = left.as_it_is()
    found = await survey(cloud, left)
    assert {one.job_id for one in found if one.current is None} == set(job_ids[:1_050])


async def test_watch_jobs_that_is_broken_off_and_forgotten_gives_its_place_up(
    cloud: Emulator, kept: Memory
) -> None:
    cloud.add_jobs(3, status=8)
    target = vizwatch.Target(cloud.endpoint, cloud.project_id, auth=cloud.token)
    async with process(cloud) as client:
        for _ in range(2):
            async for _transition in client.watch_jobs(checkpoint=kept):
                break
    async with vizwatch.Fleet([target]) as fleet:
        for _ in range(2):
            async for _transition in fleet.watch_jobs(checkpoint=kept):
                break


async def test_a_watch_that_could_not_begin_gives_its_places_up(cloud: Emulator, kept: Memory) -> None:
    first, second, third = cloud.add_jobs(3, status=8)
    async with process(cloud) as client:
        holder = client.watch(third, checkpoint=kept)
        await anext(holder)
        refused = client.watch_jobs(job_ids=[first, second, third], checkpoint=kept)
        with pytest.raises(ConfigError, match=f"job {third} is watched"):
            await anext(refused)
        assert (await anext(client.watch(first, checkpoint=kept))).current is RUNNING
        kept.loads_in = 5.0
        late = client.watch_jobs(job_ids=[second], checkpoint=kept)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(late), 1)
        await late.aclose()
        assert (await anext(client.watch(second, checkpoint=kept))).current is RUNNING


@pytest.mark.parametrize("is_single", [False, True])
async def test_what_is_asked_for_after_the_end_is_not_written(
    cloud: Emulator, kept: Memory, is_single: bool
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [100, 9], [200, 12]])

    def begun(client: Client) -> vizwatch.Watch | vizwatch.JobsWatch:
        return client.watch(job_id, checkpoint=kept) if is_single else client.watch_jobs(checkpoint=kept)

    async with process(cloud) as client:
        first = begun(client)
        await anext(first)
        await first.aclose()
        second = begun(client)
        told = [await anext(second) for _ in range(3)]
        with pytest.raises(StopAsyncIteration):
            await anext(first)
        await elapse(10)
        left = kept.as_it_is()
    with pytest.raises(StopAsyncIteration):
        await anext(second)
    assert await survey_or_watch(cloud, left, job_id, is_single=is_single) == [told[-1]]


async def survey_or_watch(cloud: Emulator, kept: Memory, job_id: int, *, is_single: bool) -> list[Transition]:
    if not is_single:
        return await survey(cloud, kept)
    async with process(cloud) as client:
        return [one async for one in client.watch(job_id, checkpoint=kept)]


@pytest.mark.parametrize("hangs", ["open", "load", "save"])
@pytest.mark.parametrize("is_single", [False, True])
async def test_closing_ends_a_step_that_waits_for_the_checkpoint(
    cloud: Emulator, hangs: str, is_single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    kept, loop = Memory(), asyncio.get_running_loop()
    monkeypatch.setattr(Memory, hangs, hang)
    (job_id,) = cloud.add_jobs(1, status=8)
    async with process(cloud) as client:
        watch = client.watch(job_id, checkpoint=kept) if is_single else client.watch_jobs(checkpoint=kept)

        async def all_of_it() -> list[Transition]:
            return [one async for one in watch]

        step = asyncio.create_task(all_of_it())
        await elapse(100)
        assert not step.done()
        await watch.aclose()
        await elapse(1)
        assert step.result() == []
        closing = loop.time()
    assert loop.time() - closing < 4


async def test_what_a_service_says_at_length_makes_no_record_that_cannot_be_read(
    cloud: Emulator, kept: Memory
) -> None:
    schedules = tuple(vizwatch.Schedule("\x00" * 3_000, "\x00" * 3_000, 1) for _ in range(40_000))
    text = "\x00" * 4_096
    names = ("job_name", "job_desc", "job_type", "service_url", "train_url", "resource_id")
    texts: dict[str, Any] = dict.fromkeys(names, text)
    job = vizwatch.Job(1, RUNNING, **texts, schedule=schedules)
    given = records.Given(found_in("project", job), is_delivered=True)
    record = records.encode(given)
    assert len(record) <= records.LONGEST
    assert records.decode(record, "project", 1).transition.job.job_desc == text


def found_in(project_id: str, job: vizwatch.Job) -> Transition:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return transitions.found(project_id, job, now, now)


@pytest.mark.parametrize("garbage", [None, "text", 7])
async def test_what_one_s_own_checkpoint_gives_that_is_no_record_is_told(
    cloud: Emulator, kept: Memory, garbage: Any
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    await first_run(cloud, kept, job_id, RUNNING)
    (by_job,) = kept.records.values()
    by_job[job_id] = garbage
    async with process(cloud) as client:
        with pytest.raises(vizwatch.CheckpointError, match="damaged"):
            await anext(client.watch(job_id, checkpoint=kept))


# --- cost and trouble -----------------------------------------------------------------------------------


@pytest.mark.repeats
@pytest.mark.fault("D7")
async def test_writes_are_gathered_and_cost_grows_with_changes_alone(cloud: Emulator) -> None:
    kept = Memory(takes=[0.2])
    job_ids = cloud.add_jobs(1_000, status=8)
    async with process(cloud) as client:
        async with taken(client.watch_jobs(checkpoint=kept), lambda _: None):
            await elapse(30)
            assert kept.writes <= 3
            before = kept.rows
            await elapse(3_600)
            assert kept.rows == before, "an hour in which nothing changes"
            for job_id in job_ids[:10]:
                cloud.set_status(job_id, 10)
            await elapse(60)
            assert kept.rows - before <= 20
    of_one = [len(record) for by_job in kept.records.values() for record in by_job.values()]
    assert sum(of_one) / len(of_one) < 500, "10,000 are less than 5 MB"


async def test_a_checkpoint_that_cannot_be_written_holds_nothing_up_and_loses_nothing(
    cloud: Emulator, kept: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.add_jobs(1, plan=[[0, 1], [100, 8], [200, 9], [2000, 12]])
    found: list[Transition] = []
    async with process(cloud) as client:
        kept.fails = True
        async with taken(client.watch_jobs(checkpoint=kept), found.append):
            await elapse(1_000)
            assert changes(found) == [(None, 1), (1, 8), (8, 9)]
            assert not kept.records
            kept.fails = False
            await elapse(40)
            assert kept.writes == 1
    told = [record.message for record in caplog.records if "checkpoint" in record.message]
    assert len(told) == 2
    assert "No space left on device" in told[0]
    assert "is written again" in told[1]
    assert changes(await survey(cloud, kept)) == []


async def test_a_client_that_closes_while_it_cannot_write_ends_soon_and_says_what_is_lost(
    cloud: Emulator, kept: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.add_jobs(2, status=8)
    kept.fails = True
    loop = asyncio.get_running_loop()
    async with process(cloud) as client:
        async with taken(client.watch_jobs(checkpoint=kept), lambda _: None):
            await elapse(300)
        closing = loop.time()
    assert loop.time() - closing <= 3.5
    assert "2 jobs" in caplog.messages[-1]


@pytest.mark.fault("D5")
async def test_a_checkpoint_that_another_process_took_over_ends_what_is_watched_with_it(
    cloud: Emulator, kept: Memory
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [100, 9], [200, 12]])
    async with process(cloud) as client:
        watches: list[AsyncIterator[Transition]] = [
            client.watch_jobs(checkpoint=kept),
            client.watch(job_id, checkpoint=kept),
        ]
        for watch in watches:
            await anext(watch)
        await elapse(1)
        before = kept.as_it_is()
        kept.refusal = vizwatch.CheckpointError("another process has taken it over")
        for watch in watches:
            with pytest.raises(vizwatch.CheckpointError, match="taken it over"):
                while True:
                    await anext(watch)
    assert kept.records == before.records


async def test_a_checkpoint_that_does_not_open_or_close_holds_up_no_client_that_closes(
    cloud: Emulator, kept: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    loop = asyncio.get_running_loop()

    class Slow(Memory):
        async def open(self, stream: vizwatch.Stream) -> None:
            await elapse(100)
            await super().open(stream)

        async def close(self, stream: vizwatch.Stream) -> None:
            raise OSError(5, f"cannot close {stream.workspace_id}")

    slow = Slow()
    async with process(cloud) as client:
        async with taken(client.watch(job_id, checkpoint=slow), lambda _: None):
            await elapse(10)
        closing = loop.time()
    assert loop.time() - closing < 1
    async with process(cloud) as client:
        async with (
            taken(client.watch(job_id, checkpoint=slow), lambda _: None),
            taken(client.watch_jobs(checkpoint=slow), lambda _: None),
        ):
            await elapse(300)
    told = [message for message in caplog.messages if "could not be closed" in message]
    assert [message[-4:] for message in told] == ["None", "se 0"]


async def test_a_write_that_failed_is_not_written_after_what_came_since(
    cloud: Emulator, kept: Memory
) -> None:
    cloud.add_jobs(1, plan=[[0, 1], [10, 8], [20, 9], [30, 12]])
    kept.takes, kept.fails = [8.0], True
    async with process(cloud) as client:
        async with taken(client.watch_jobs(checkpoint=kept), lambda _: None):
            await elapse(60)
            kept.fails = False
            await elapse(300)
    assert await survey(cloud, kept) == []


async def test_a_deleted_job_that_a_replica_shows_once_more_after_a_restart_is_of_another_run(
    cloud: Emulator, kept: Memory
) -> None:
    job_id, _ = cloud.add_jobs(2, status=8)
    cloud.advance(3600)
    found = await survey(cloud, kept, functools.partial(cloud.set_status, job_id, None))
    cloud.fault("stale", seconds=3600, match={"operation": "list"}, count=1)
    found += await survey(cloud, kept)
    assert changes([one for one in found if one.job_id == job_id]) == [
        (None, 8),
        (8, None),
        (None, 8),
        (8, None),
    ]
    assert len({one.id for one in found}) == len(found)


async def test_what_waits_is_written_when_the_client_closes(cloud: Emulator) -> None:
    kept = Memory(takes=[2.0])
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [60, 12]])
    await first_run(cloud, kept, job_id, KILLED)
    async with process(cloud) as client:
        assert [one async for one in client.watch(job_id, checkpoint=kept)] == []


async def test_a_record_that_is_no_record_is_refused_before_any_request(
    cloud: Emulator, kept: Memory
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    await first_run(cloud, kept, job_id, RUNNING)
    (records,) = kept.records.values()
    sound, requests = records[job_id], len(cloud.requests)
    for broken in (
        b"",
        sound[:-1],
        altered(sound, sound[8:], b"[" * 100_000),
        b"\x80\x04K\x01.",
        altered(sound, b'"1/1/none-8",1', b'"1/1/none-8","1"'),
        altered(sound, b"none-8", b"none-9"),
        altered(sound, b'"1/1/', b'"1/x/'),
        altered(sound, b",17", b",99917"),
        b" " * 300_000 + sound,
    ):
        assert broken != sound
        records[job_id] = broken
        async with process(cloud) as client:
            with pytest.raises(
                vizwatch.CheckpointError, match=f"damaged: what it has of job {job_id}"
            ) as told:
                await anext(client.watch(job_id, checkpoint=kept))
        assert len(str(told.value)) < 600
        assert records[job_id] == broken, "it is left as it is"
    assert len(cloud.requests) == requests


@given(st.integers(0), st.integers(1, 255), st.integers(1 - 2**63, 2**63 - 1) | st.none())
def test_a_record_is_read_as_it_was_written_or_not_at_all(place: int, mask: int, status: int | None) -> None:
    """Whatever the status was, and whichever byte a disk has changed."""
    known = None if status is None else JobStatus(status)
    tracker = transitions.Tracker("project", 1, frozenset())
    now = dt.datetime.now(dt.UTC)
    tracker.saw(Job(1, JobStatus(8)), now, now)
    told = tracker.gone(now) if known is None else tracker.saw(Job(1, known), now, now)
    if told is None:
        return  # it was as before
    record = records.encode(records.Given(told, is_delivered=True))
    found = records.decode(record, "project", 1).transition
    assert found == told
    assert transitions.counts_of(found) == (1, 2)
    place %= len(record)
    changed = record[:place] + bytes([record[place] ^ mask]) + record[place + 1 :]
    with pytest.raises(ValueError, match="checksum"):
        records.decode(changed, "project", 1)


@pytest.mark.parametrize("error", [OSError("away"), asyncio.CancelledError()])
async def test_whatever_a_checkpoint_raises_it_is_written_again(
    cloud: Emulator, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Raising(Memory):
        async def save(self, records: Any) -> None:
            if not self.rows:
                self.rows += 1
                raise error
            await super().save(records)

    kept = Raising()
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [60, 12]])
    assert changes(await first_run(cloud, kept, job_id, KILLED)) == [(None, 8), (8, 12)]
    async with process(cloud) as client:
        assert [one async for one in client.watch(job_id, checkpoint=kept)] == []
    assert [one.split(":")[0] for one in caplog.messages] == [
        "A checkpoint could not be written",
        "A checkpoint is written again, after 1 failures.",
    ]


@pytest.mark.parametrize("wrong", ["jobs.sqlite", 1, object(), Memory])
async def test_what_is_no_checkpoint_is_refused_at_once(here: Client, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="checkpoint must be a Checkpoint"):
        here.watch(1, checkpoint=wrong)
    with pytest.raises(ConfigError, match="checkpoint must be a Checkpoint"):
        here.watch_jobs(checkpoint=wrong)
