"""A fleet in shards, on a real cluster of two processes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
import sys
import traceback
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
import pytest
from distributed import Client as Cluster
from distributed import LocalCluster
from distributed.core import Status
from hypothesis import given
from hypothesis import strategies as st
from keeping import Memory
from virtual import elapse

import vizwatch
import vizwatch.dask
from vizwatch import (
    AuthenticationError,
    CheckpointError,
    ConfigError,
    JobStatus,
    PasswordAuth,
    Settings,
    SqliteCheckpoint,
    Target,
    TokenAuth,
    Transition,
)
from vizwatch.cli import main
from vizwatch.dask import ShardedWatch, watch_fleet
from vizwatch.dask._health import Health
from vizwatch.dask._plan import Plan, plans, streams_of
from vizwatch.dask._shard import _Shard
from vizwatch.emulator import Emulator
from vizwatch.service.options import Configuration, Filter, PythonCall, SinkOptions, Watching
from vizwatch.service.serving import serve

SETTINGS = Settings(poll_interval=0.3, poll_interval_min=0.05, watch_backoff_base=0.05, watch_backoff_max=0.3)
PROJECTS = [f"project-{number}" for number in range(8)]
SOON = 15.0
CALLER = """
import asyncio, sys
from distributed import Client
from vizwatch import Target
from vizwatch.dask import watch_fleet

async def main(scheduler, endpoint, token, *projects):
    async with Client(scheduler, asynchronous=True) as cluster:
        of = [Target(endpoint, project, auth=token) for project in projects]
        async with watch_fleet(cluster, of, shards=2) as watch:
            async for _ in watch:
                print("found", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def workers() -> Iterator[LocalCluster]:
    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0", "silence_logs": 50}
    attentive = "import vizwatch.dask._shard as shard; shard.PULSE, shard.LOOKS = 0.3, 0.1"
    # Else it gives up a worker that was killed a quarter of a minute ago and happens to be away once more.
    patient = dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})
    with patient, LocalCluster(n_workers=2, preload=[attentive], **options) as running:
        yield running


@pytest.fixture(autouse=True)
def _attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vizwatch.dask._watching._LOOKS_AFTER", 0.2)
    monkeypatch.setattr("vizwatch.dask._watching.PATIENCE", 1.0)


@pytest.fixture
async def cluster(workers: LocalCluster) -> AsyncIterator[Cluster]:
    connected = Cluster(workers.scheduler_address, asynchronous=True)
    async with connected as client:
        await client.wait_for_workers(2, timeout=SOON)
        yield client
        await nothing_is_left(client)


@pytest.fixture
def jobs(cloud: Emulator) -> Mapping[str, list[int]]:
    """Three running jobs in each project."""
    return {project: cloud.add_jobs(3, status=8, project_id=project) for project in PROJECTS}


def targets(cloud: Emulator, projects: Sequence[str] = PROJECTS) -> list[Target]:
    return [Target(cloud.endpoint, project, auth=cloud.token) for project in projects]


async def some(watch: ShardedWatch, count: int) -> list[Transition]:
    async with asyncio.timeout(SOON):
        return [await anext(watch) for _ in range(count)]


async def until(holds: Callable[[], bool]) -> None:
    """In real time, as other processes live in it."""
    async with asyncio.timeout(SOON):
        while not holds():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.02)


def told(found: Sequence[Transition]) -> set[tuple[str, int, int | None]]:
    return {(one.project_id, one.job_id, one.current) for one in found}


async def nothing_is_left(cluster: Any) -> None:
    """On the scheduler, of any watch that has ended, however it did; or soon will not be."""

    def left(dask_scheduler: Any) -> list[str]:
        queues, variables, semaphores = (
            dask_scheduler.extensions[name] for name in ("queues", "variables", "semaphores")
        )
        named = [
            *(queues.queues, queues.client_refcount, queues.future_refcount),
            *(variables.variables, semaphores.max_leases, dask_scheduler._broker._topics),
            *(dask_scheduler.tasks, dask_scheduler.task_groups),
        ]
        waiting = [op for op in dask_scheduler._comms.values() if op == "queue_get"]
        return [name for names in named for name in map(str, names) if "vizwatch" in name] + waiting

    async with asyncio.timeout(SOON):
        while await cluster.run_on_scheduler(left):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)


async def all_may_be_killed(workers: LocalCluster) -> None:
    """A nanny brings none back that is killed before it has heard that it runs."""
    await until(lambda: all(one.process.status is Status.running for one in workers.workers.values()))


def lives(workers: LocalCluster, address: str | None) -> bool:
    """Whether the scheduler knows of no end of the worker's."""
    assert workers.scheduler is not None
    return address in workers.scheduler.workers


# --- what comes -----------------------------------------------------------------------------------------


async def test_all_jobs_of_all_targets_come_and_then_their_changes(
    cloud: Emulator, cluster: Cluster, jobs: Mapping[str, list[int]]
) -> None:
    async with watch_fleet(cluster, targets(cloud), shards=4, settings=SETTINGS) as watch:
        found = await some(watch, 24)
        assert told(found) == {(project, job_id, 8) for project, ids in jobs.items() for job_id in ids}
        assert len(set(watch.workers.values())) == 2
        for project in PROJECTS:
            cloud.set_status(jobs[project][0], 12, project_id=project)
        found = await some(watch, 8)
        assert told(found) == {(project, jobs[project][0], 12) for project in PROJECTS}
        assert {one.previous for one in found} == {JobStatus.RUNNING}


@pytest.mark.fault("D1", "D3")
async def test_a_killed_workers_shards_go_on_elsewhere_and_nothing_is_lost(
    cloud: Emulator,
    cluster: Cluster,
    workers: LocalCluster,
    jobs: Mapping[str, list[int]],
    tmp_path: Path,
) -> None:
    found: list[Transition] = []
    checkpoint = SqliteCheckpoint(tmp_path / "fleet.sqlite", window=0.02)
    async with watch_fleet(
        cluster, targets(cloud), shards=4, checkpoint=checkpoint, settings=SETTINGS
    ) as watch:
        found += await some(watch, 24)
        for round_, status in enumerate((9, 12, 11, 10)):
            for project in PROJECTS:
                cloud.set_status(jobs[project][round_ % 3], status, project_id=project)
            found += await some(watch, 2)
            await all_may_be_killed(workers)
            # What it gave before may have come first, while it is still on the one killed before.
            await until(lambda: lives(workers, watch.workers[round_ % 4]))  # noqa: B023 - it is called at once
            victim = watch.workers[round_ % 4] or ""
            (process,) = (await cluster.run(os.getpid, workers=[victim])).values()
            os.kill(process, signal.SIGKILL)
            found += await some(watch, 6)
    by_job: dict[tuple[str, int], list[Transition]] = {}
    for one in found:
        by_job.setdefault((one.project_id, one.job_id), []).append(one)
    assert len({one.id for one in found}) == len(found) == 24 + 4 * 8
    for ones in by_job.values():
        assert all(before.current == after.previous for before, after in pairwise(ones))
    last = {key: ones[-1].current for key, ones in by_job.items()}
    assert last == {
        (project, job_id): status
        for project, ids in jobs.items()
        for job_id, status in zip(ids, (10, 12, 11), strict=True)
    }


@pytest.mark.fault("D1")
async def test_a_caller_goes_on_where_the_last_one_ended(
    cloud: Emulator, cluster: Cluster, jobs: Mapping[str, list[int]], tmp_path: Path
) -> None:
    checkpoint = SqliteCheckpoint(tmp_path / "fleet.sqlite")
    (project, *_), changed = PROJECTS, jobs[PROJECTS[0]][0]
    async with watch_fleet(cluster, targets(cloud), checkpoint=checkpoint, settings=SETTINGS) as watch:
        await some(watch, 24)
        cloud.set_status(changed, 12, project_id=project)
        (held,) = await some(watch, 1)
    cloud.set_status(changed, 8, project_id=project)
    async with watch_fleet(cluster, targets(cloud), checkpoint=checkpoint, settings=SETTINGS) as watch:
        again, after = await some(watch, 2)
    assert again == held
    assert (after.previous, after.current, after.run) == (12, 8, 2)


async def test_one_fleet_goes_on_where_shards_ended(
    cloud: Emulator, cluster: Cluster, jobs: Mapping[str, list[int]]
) -> None:
    kept, projects = Memory(), PROJECTS[:2]
    async with watch_fleet(cluster, targets(cloud, projects), checkpoint=kept, settings=SETTINGS) as watch:
        await some(watch, 6)
        cloud.set_status(jobs[projects[1]][2], 12, project_id=projects[1])
        (held,) = await some(watch, 1)
    async with vizwatch.Fleet(targets(cloud, projects), settings=SETTINGS) as fleet:
        assert await anext(fleet.watch_jobs(checkpoint=kept)) == held


async def test_a_job_that_changes_twice_while_the_consumer_is_busy_comes_in_order(
    cloud: Emulator, cluster: Cluster, jobs: Mapping[str, list[int]]
) -> None:
    kept, (project, *_) = Memory(), PROJECTS
    job_id = jobs[project][0]
    async with watch_fleet(cluster, targets(cloud, [project]), checkpoint=kept, settings=SETTINGS) as watch:
        await some(watch, 3)
        for status in (9, 12):
            cloud.set_status(job_id, status, project_id=project)
            read = len(cloud.requests) + 8
            await until(functools.partial(lambda read: len(cloud.requests) >= read, read))
        first = (await some(watch, 1))[0]
        left = kept.as_it_is()
        second = (await some(watch, 1))[0]
    assert [first.current, second.current] == [9, 12]
    async with watch_fleet(cluster, targets(cloud, [project]), checkpoint=left, settings=SETTINGS) as watch:
        again = await some(watch, 2)
    assert [(one.id, one.previous, one.current) for one in again] == [
        (one.id, one.previous, one.current) for one in (first, second)
    ]


async def test_a_target_that_fails_is_in_the_outcomes_and_ends_no_other(
    cloud: Emulator, cluster: Cluster, jobs: Mapping[str, list[int]]
) -> None:
    wrong = Target(cloud.endpoint, "wrong", auth="not-a-token")
    some_of = [*targets(cloud, PROJECTS[:2]), wrong]
    async with watch_fleet(cluster, some_of, shards=1, settings=SETTINGS) as watch:
        await some(watch, 6)
        await until(
            lambda: watch.outcomes["wrong"].error is not None and watch.outcomes["project-0"].complete
        )
        assert isinstance(watch.outcomes["wrong"].error, AuthenticationError)
        assert watch.outcomes["project-1"].jobs == len(jobs["project-1"])
        age = watch.outcomes["project-1"].age
        assert age is not None
        assert age < 10
        watch._health._reported = {
            place: (outcome, at - 100) for place, (outcome, at) in watch._health._reported.items()
        }
        assert not watch.outcomes["project-1"].complete, "nobody knows, after such a silence"
        assert (watch.outcomes["project-1"].age or 0) > 100
    async with watch_fleet(cluster, [wrong], settings=SETTINGS) as watch:
        async with asyncio.timeout(SOON):
            assert [one async for one in watch] == [], "with nothing left to watch it ends"
        assert isinstance(watch.outcomes["wrong"].error, AuthenticationError)


async def test_a_caller_that_stood_still_for_long_has_its_shards_begin_again(
    cloud: Emulator, cluster: Cluster, jobs: Mapping[str, list[int]]
) -> None:
    async with watch_fleet(cluster, targets(cloud), shards=2, settings=SETTINGS) as watch:
        await some(watch, 24)
        old = {shard.number: shard.incarnation for shard in watch._shards}
        for shard in watch._shards:  # as if each had heard nothing for half a minute
            watch._commands.send(shard.incarnation, "stop")
        await until(
            lambda: all(shard.incarnation not in {None, old[shard.number]} for shard in watch._shards)
        )
        cloud.set_status(jobs[PROJECTS[3]][1], 12, project_id=PROJECTS[3])
        assert told(await some(watch, 1)) == {(PROJECTS[3], jobs[PROJECTS[3]][1], 12)}


@pytest.mark.usefixtures("jobs")
async def test_a_first_step_that_is_cancelled_loses_nothing(cloud: Emulator, cluster: Cluster) -> None:
    class Slow(Memory):
        async def open(self, stream: vizwatch.Stream) -> None:
            await asyncio.sleep(0.3)
            await super().open(stream)

    async with watch_fleet(cluster, targets(cloud), checkpoint=Slow(), shards=2, settings=SETTINGS) as watch:
        for within in (0.0, 0.001, 0.01, 0.1, 0.2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), within)
        assert len({one.id for one in await some(watch, 24)}) == 24


async def test_a_cluster_whose_client_is_closed_first_is_told(cloud: Emulator, workers: LocalCluster) -> None:
    connected = await vizwatch.dask.connected(workers.scheduler_address)
    watch = watch_fleet(connected, targets(cloud, PROJECTS[:1]), settings=SETTINGS)
    not_begun = watch_fleet(connected, targets(cloud), settings=SETTINGS)
    waiting = asyncio.create_task(anext(watch))
    await until(lambda: watch._has_begun)
    await connected.close()
    with pytest.raises(vizwatch.TransportError):
        async with asyncio.timeout(SOON):
            await waiting
    await watch.aclose()
    with pytest.raises(vizwatch.TransportError):
        await anext(not_begun)
    await not_begun.aclose()


# --- what it does to a cluster --------------------------------------------------------------------------


@pytest.mark.usefixtures("jobs")
async def test_shards_take_no_thread_from_others_and_leave_nothing(cloud: Emulator, cluster: Cluster) -> None:
    async with watch_fleet(cluster, targets(cloud), shards=8, settings=SETTINGS) as watch:
        await some(watch, 24)
        others: Any = cluster
        assert await others.gather(others.map(abs, range(-50, 0))) == [*range(50, 0, -1)]
    before = len(cloud.requests)
    await nothing_is_left(cluster)
    assert len(cloud.requests) == before


@pytest.mark.usefixtures("jobs")
async def test_a_killed_caller_leaves_nothing_on_the_scheduler(
    cloud: Emulator, cluster: Cluster, workers: LocalCluster
) -> None:
    where = workers.scheduler_address, cloud.endpoint, cloud.token, *PROJECTS[:4]
    caller = await asyncio.create_subprocess_exec(sys.executable, "-c", CALLER, *where, stdout=PIPE)
    assert caller.stdout is not None
    assert await caller.stdout.readline() == b"found\n"
    caller.kill()
    await caller.communicate()
    await nothing_is_left(cluster)
    before = len(cloud.requests)
    assert len(cloud.requests) == before


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("step", ["report", "run"])
async def test_a_worker_that_dies_as_its_shard_begins_leaves_nothing(
    cloud: Emulator, cluster: Cluster, workers: LocalCluster, step: str
) -> None:
    def dies_at_that() -> None:
        setattr(_Shard, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))

    await all_may_be_killed(workers)
    victim = [*await cluster.nthreads()][:1]
    await cluster.run(dies_at_that, workers=victim)
    async with watch_fleet(cluster, targets(cloud), shards=2, settings=SETTINGS) as watch:
        await some(watch, 24)
        assert victim[0] not in watch.workers.values()
    await nothing_is_left(cluster)


async def test_a_watch_that_is_closed_while_no_shard_answers_leaves_nothing(
    cloud: Emulator, cluster: Cluster, jobs: Mapping[str, list[int]]
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with watch_fleet(cluster, targets(cloud), shards=2, settings=SETTINGS) as watch:
            await some(watch, 24)
            for process in (await cluster.run(os.getpid)).values():
                os.kill(process, signal.SIGSTOP)
                stack.callback(os.kill, process, signal.SIGCONT)
        await nothing_is_left(cluster)


async def test_all_shards_begin_again_where_one_took_a_living_caller_for_dead(
    cloud: Emulator, cluster: Cluster, jobs: Mapping[str, list[int]]
) -> None:
    async with watch_fleet(cluster, targets(cloud), shards=2, settings=SETTINGS) as watch:
        await some(watch, 24)
        run = watch._commands.run
        assert watch._reports is not None
        watch._reports.close()
        for project in PROJECTS:
            cloud.set_status(jobs[project][0], 12, project_id=project)
        found = await some(watch, 8)
        assert told(found) == {(project, jobs[project][0], 12) for project in PROJECTS}
        assert watch._commands.run != run


async def test_a_shard_that_is_refused_begins_again_as_long_as_others_watch(
    cloud: Emulator,
    cluster: Cluster,
    jobs: Mapping[str, list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vizwatch.dask._watching.COMES_BACK_AFTER", 0.3)
    refused = PROJECTS[0]
    async with watch_fleet(cluster, targets(cloud, PROJECTS[:2]), shards=2, settings=SETTINGS) as watch:
        await some(watch, 6)
        cloud.fault("status", match={"project_id": refused}, status=403, code="ModelArts.0108")
        await until(lambda: any(shard.is_over for shard in watch._shards))
        cloud.set_status(jobs[refused][1], 12, project_id=refused)
        await until(lambda: not any(shard.is_over for shard in watch._shards))
        await until(lambda: any(shard.is_over for shard in watch._shards))
        assert isinstance(watch.outcomes[refused].error, vizwatch.PermissionDeniedError)
        cloud.clear_faults()
        assert told(await some(watch, 1)) == {(refused, jobs[refused][1], 12)}, "nothing was told again"
        await until(lambda: watch.outcomes[refused].complete)
        cloud.fault("status", status=403, code="ModelArts.0108")
        await until(lambda: all(shard.is_over for shard in watch._shards))
        would_be_back = asyncio.get_running_loop().time() + 0.6
        await until(lambda: asyncio.get_running_loop().time() > would_be_back)
        async with asyncio.timeout(SOON):
            assert [one async for one in watch] == [], "with nothing left to watch it ends"


async def test_a_target_whose_worker_says_nothing_has_an_error_until_it_does(
    cloud: Emulator,
    cluster: Cluster,
    jobs: Mapping[str, list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vizwatch.dask._health._SILENT", 1.0)
    async with watch_fleet(cluster, targets(cloud), shards=2, settings=SETTINGS) as watch:
        await some(watch, 24)
        await until(lambda: all(one.complete for one in watch.outcomes.values()))
        processes = (await cluster.run(os.getpid)).values()
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            await until(lambda: all(one.error is not None for one in watch.outcomes.values()))
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)
        error = watch.outcomes[PROJECTS[0]].error
        assert isinstance(error, vizwatch.TransportError)
        assert "see what the 2 workers of the cluster are busy with" in str(error)
        await until(lambda: all(one.complete for one in watch.outcomes.values()))


@pytest.mark.looptime
async def test_a_silent_cluster_is_told_by_its_reason_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    of = [Target("https://example.com", name, auth="token") for name in "abc"]
    health = Health(of, "tls://scheduler:8786")
    watching = asyncio.create_task(health.watch())
    health.expects(range(3))

    def logged() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.name == "vizwatch"]

    async def errors(seconds: int, *, workers: int | None) -> list[str]:
        for _ in range(seconds):
            await elapse(1)
            if workers is not None:
                health.answered(workers)
        return [str(one.error) for one in health.outcomes().values()]

    assert await errors(14, workers=0) == ["None"] * 3
    health.ended([2])
    nothing = "nothing was heard of its shard for 19 s: "
    no_worker = f"{nothing}the cluster has no worker: start one that has vizwatch as the caller has it"
    assert await errors(5, workers=0) == [no_worker, no_worker, "None"]
    assert logged() == []
    unanswered = (
        "the scheduler at tls://scheduler:8786 does not answer: see whether it runs and can be reached"
    )
    assert (await errors(21, workers=None))[0] == nothing.replace("19", "40") + unanswered
    health.expects([0])
    busy = "see what the 2 workers of the cluster are busy with, and their logs"
    assert await errors(1, workers=2) == ["None", f"{nothing.replace('19', '41')}{busy}", "None"]
    await errors(590, workers=2)
    (line,) = logged()
    assert line.startswith("nothing is heard of 2 of 3 targets: the cluster has no worker")
    for _ in range(61):
        health.expects([0, 1])
        await errors(10, workers=2)
    await errors(30, workers=2)
    assert len(logged()) == 2, "after all was well for long"
    watching.cancel()
    await asyncio.wait([watching])


@pytest.mark.usefixtures("jobs")
async def test_shards_move_to_a_worker_that_joins(
    cloud: Emulator, cluster: Cluster, workers: LocalCluster
) -> None:
    async with watch_fleet(cluster, targets(cloud), shards=6, settings=SETTINGS) as watch:
        await some(watch, 24)
        workers.scale(3)
        try:
            await until(lambda: [*Counter(watch.workers.values()).values()] == [2, 2, 2])
            cloud.set_status(1, 12, project_id=PROJECTS[0])
            assert told(await some(watch, 1)) == {(PROJECTS[0], 1, 12)}, "nothing was told again"
        finally:
            workers.scale(2)


class Silent:
    """A channel for both directions, of which a shard hears nothing."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def make(self) -> None:
        self.seen.append("make")

    async def get(self, within: float) -> None:
        assert within > 10
        self.seen.append("get")
        raise TimeoutError

    async def put(self, message: list[str]) -> None:
        self.seen.append(message[0])

    def close(self) -> None:
        self.seen.append("close")


async def test_a_shard_that_hears_no_more_of_its_caller_stops_and_closes_the_reports() -> None:
    silent: Any = Silent()
    await _Shard(0, silent, silent, "incarnation").attend("worker")
    assert silent.seen == ["begin", "make", "get", "end", "close"]


async def test_a_shard_that_nobody_wants_before_it_begins_waits_for_no_command() -> None:
    silent: Any = Silent()
    shard = _Shard(0, silent, silent, "incarnation")
    await shard.stop_once_unwanted(lambda: False)
    await shard.attend("worker")
    assert silent.seen == ["stop", "begin", "make", "end", "close"]


async def test_without_a_worker_there_is_nothing_on_the_scheduler_but_tasks(
    cloud: Emulator, cluster: Any, jobs: Mapping[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a caller that were killed then would leave it for ever."""
    from vizwatch.dask import _watching

    async def none(_cluster: Cluster) -> list[str]:
        return []

    def queues(dask_scheduler: Any) -> int:
        return len(dask_scheduler.extensions["queues"].queues)

    async def is_tidy() -> None:
        async with asyncio.timeout(SOON):
            while await cluster.run_on_scheduler(queues):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)

    with monkeypatch.context() as patched:
        patched.setattr(_watching, "workers_of", none)
        watch = watch_fleet(cluster, targets(cloud), shards=2, settings=SETTINGS)
        first = asyncio.create_task(some(watch, 24))
        await until(lambda: watch._has_begun)
        await is_tidy()
    async with watch:
        await first
        with monkeypatch.context() as patched:
            patched.setattr(_watching, "workers_of", none)
            await is_tidy()
        cloud.set_status(jobs[PROJECTS[0]][0], 12, project_id=PROJECTS[0])
        assert told(await some(watch, 1)) == {(PROJECTS[0], jobs[PROJECTS[0]][0], 12)}


async def test_a_service_has_the_workers_watch(
    cloud: Emulator, workers: LocalCluster, jobs: Mapping[str, list[int]], tmp_path: Path
) -> None:
    came: list[dict[str, Any]] = []
    sink = SinkOptions(
        name="noted", destination=PythonCall("noted", came.append), filter=Filter(), backlog=100, timeout=5
    )
    configuration = Configuration(
        state=tmp_path,
        settings=SETTINGS,
        watch=Watching(),
        listen=("127.0.0.1", 0),
        targets=tuple(targets(cloud)),
        sinks=(sink,),
    )
    for number, count in enumerate((24, 8)):
        serving = asyncio.create_task(serve(configuration, dask=workers.scheduler_address))
        await until(
            functools.partial(lambda serving, count: len(came) >= count or serving.done(), serving, count)
        )
        serving.cancel()
        await asyncio.wait([serving])
        assert serving.cancelled(), serving.exception()
        assert {one["current"] for one in came} == {8 + 4 * number}
        came.clear()
        for project in PROJECTS:
            cloud.set_status(jobs[project][0], 12, project_id=project)


async def test_a_service_says_that_there_is_no_scheduler(
    cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens there, or a server that speaks HTTP, or one that says nothing."""
    monkeypatch.setattr("vizwatch.service.watching._CONNECTED_WITHIN", 0.5)
    configuration = Configuration(
        state=tmp_path,
        settings=SETTINGS,
        watch=Watching(),
        listen=("127.0.0.1", 0),
        targets=tuple(targets(cloud)),
        sinks=(),
    )
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        for port, reason in (
            (1, "Timed out trying to connect"),
            (urlsplit(cloud.endpoint).port, r"what is there does not answer as one \(MemoryError\)"),
            (silent.getsockname()[1], r"what is there does not answer as one \(TimeoutError\)"),
        ):
            with dask.config.set({"distributed.comm.timeouts.connect": 0.2}):
                with pytest.raises(
                    vizwatch.VizwatchError, match=f"no scheduler at tcp:.*: {reason}"
                ) as ended:
                    await serve(configuration, dask=f"tcp://127.0.0.1:{port}")
            assert not isinstance(ended.value, ConfigError)


# --- what is refused ------------------------------------------------------------------------------------


async def test_what_is_wrong_is_refused_before_any_request(
    cloud: Emulator, cluster: Cluster, tmp_path: Path
) -> None:
    one = Target(cloud.endpoint, "a", auth="token")
    for wrong, reason in (
        ([], "one at least"),
        (one, "targets must be several"),
        (["a"], "must be Targets"),
        ([one, one], "two targets are called 'a'"),
        ([one, Target(cloud.endpoint, "a", auth="token", name="b")], "two targets are the same"),
        ([Target(None, "a", auth="token")], "endpoint and project_id must be given"),
        ([Target(cloud.endpoint, "a", auth="token", account=vizwatch.Account())], "no account"),
        ([Target("http://example.com", "a", auth="token")], "target 'a'"),
    ):
        with pytest.raises(ConfigError, match=reason):
            watch_fleet(cluster, wrong)  # type: ignore[arg-type]
    for options, reason in (
        ({"shards": 0}, "shards"),
        ({"status": "running"}, "status"),
        ({"interval": -1}, "interval"),
        ({"workspace_id": "../"}, "workspace_id"),
        ({"checkpoint": "file"}, "checkpoint"),
    ):
        with pytest.raises(ConfigError, match=reason):
            watch_fleet(cluster, [one], **options)
    with pytest.raises(ConfigError, match="asynchronous=True"):
        watch_fleet(object(), [one])  # type: ignore[arg-type]
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"damaged")
    async with watch_fleet(cluster, [one], checkpoint=SqliteCheckpoint(damaged)) as watch:
        with pytest.raises(CheckpointError, match="damaged"):
            await anext(watch)
    assert not cloud.requests


async def test_without_its_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("vizwatch.dask.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("_asking", "_cluster", "_watching"):
        monkeypatch.delattr(vizwatch.dask, name)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'vizwatch\[dask\]'"):
        _ = vizwatch.dask.watch_fleet
    with pytest.raises(AttributeError, match="no attribute 'watch'"):
        _ = vizwatch.dask.watch


async def test_credentials_do_not_travel_in_the_clear(
    cloud: Emulator, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(address: str) -> None:
        monkeypatch.setattr("vizwatch.dask._asking.address_of", lambda _client: address)
        watch_fleet(cluster, targets(cloud))

    for address in ("tcp://10.0.0.7:8786", "ws://scheduler:80", "tcp://scheduler:8786", ""):
        with pytest.raises(ConfigError, match="in the clear"):
            at(address)
    for address in ("tls://10.0.0.7:8786", "inproc://x", "tcp://127.0.0.1:8786", "tcp://[::1]:8786"):
        at(address)


async def test_credentials_that_cannot_be_made_on_a_worker_show_no_secret(
    cloud: Emulator, cluster: Cluster
) -> None:
    def made(secret: str) -> None:
        raise RuntimeError(f"no credentials can be made of {secret}")

    class Made:
        async def headers(self, request: vizwatch.Outgoing) -> dict[str, str]:
            return {}

        def __reduce__(self) -> Any:
            return made, ("canary-token",)

    (plan,) = planned([Target(cloud.endpoint, "p", auth=Made())], 1)
    with pytest.raises(ConfigError, match="made on a worker: RuntimeError") as refused:
        Plan.opened(plan.sealed())
    assert refused.value.__context__ is None
    async with watch_fleet(cluster, [Target(cloud.endpoint, "p", auth=Made())], settings=SETTINGS) as watch:
        with pytest.raises(ConfigError, match="made on a worker: RuntimeError") as refused:
            await some(watch, 1)
    shown = "".join(traceback.format_exception(refused.value))
    logs = await cluster.get_worker_logs(), await cluster.get_scheduler_logs()
    assert "canary" not in f"{shown} {refused.value.__context__!r} {logs}"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        *((one, "must be such as tls://") for one in ("foo", "tcp://h", "http://h:1", "inproc://h/1/2", "")),
        *(
            (one, "must be such as tls://")
            for one in ("tls://h:0", "tls://h:65536", "tls://a b:1", "tls://u@h:1")
        ),
        *((one, "in the clear") for one in ("tcp://10.0.0.7:8786", "scheduler:8786")),
        *((one, None) for one in ("tls://scheduler:8786", "tcp://127.0.0.1:1", "[::1]:1", "ucx://h:1")),
    ],
)
def test_the_address_of_a_scheduler_is_checked_before_anything_is_asked(
    address: str,
    said: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TOKEN", "canary-token")
    file = tmp_path / "c.toml"
    file.write_text(
        f'state = {{ path = "{tmp_path}" }}\nsinks = [{{ name = "s", type = "stdout" }}]\n'
        'targets = [{ region = "eu-de", project_id = "p", auth = { token_env = "TOKEN" } }]\n'
    )
    code = main(["run", str(file), "--check", "--dask", address])
    lines = capsys.readouterr().err.splitlines()
    assert (code, len(lines)) == ((2, 1) if said else (0, 0)), lines
    assert said is None or said in lines[0]


class Own:
    """Credentials that cannot be sent."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.secret = "canary-token"

    async def headers(self, request: vizwatch.Outgoing) -> dict[str, str]:
        return {"X-Auth-Token": self.secret}

    def __reduce__(self) -> Any:
        raise TypeError(f"cannot pickle {self.secret}")


def planned(of: Sequence[Target], shards: int, settings: Settings = SETTINGS) -> list[Plan]:
    return plans(of, streams_of(of, settings, None), shards, settings, {})


async def test_a_plan_arrives_with_its_credentials_and_shows_none() -> None:
    endpoint = "https://modelarts.eu-de.otc.t-systems.com"
    auths: list[Any] = [
        TokenAuth("canary-token"),
        vizwatch.AkSkAuth("key", "canary-token", "canary-token"),
        PasswordAuth(
            "https://iam.eu-de.otc.t-systems.com",
            username="user",
            password="canary-token",
            domain_name="domain",
            project_name="eu-de",
        ),
        vizwatch.CloudsAuth("otc"),
    ]
    of = [Target(endpoint, f"p{number}", auth=auth) for number, auth in enumerate(auths)]
    (plan,) = planned(of, 1)
    assert "canary" not in repr(plan)
    arrived: list[Any] = [target.auth for target in Plan.opened(plan.sealed()).targets()]
    assert [type(auth) for auth in arrived] == [type(auth) for auth in auths]
    assert [auth.arguments() for auth in arrived] == [auth.arguments() for auth in auths]
    (plan,) = planned([Target(endpoint, "p", auth=Own())], 1)
    with pytest.raises(ConfigError, match="TypeError") as refused:
        plan.sealed()
    assert "canary" not in str(refused.value)
    assert refused.value.__context__ is None


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=30),
    st.integers(1, 12),
    st.none() | st.floats(0.01, 100),
)
def test_each_target_is_in_one_shard_and_budgets_are_divided(
    users: list[int], shards: int, budget: float | None
) -> None:
    auths = [TokenAuth(f"token-{user}") for user in users]  # equal for one user, and not the same
    of = [
        Target("https://modelarts.eu-de.otc.t-systems.com", f"p{number}", auth=auth)
        for number, auth in enumerate(auths)
    ]
    made = planned(of, min(shards, len(of)), Settings(requests_per_second=budget))
    assert sorted(one.index for plan in made for one in plan.projects) == [*range(len(of))]
    assert max(len(plan.projects) for plan in made) - min(len(plan.projects) for plan in made) <= 1
    spent: Counter[int] = Counter()
    for plan in made:
        rates = {users[one.index]: plan.rates[one.account] for one in plan.projects}
        for user, rate in rates.items():
            assert (rate is None) == (budget is None)
            spent[user] += rate or 0  # type: ignore[assignment]
        for one, target in zip(plan.projects, plan.targets(), strict=True):
            assert (target.project_id, target.name) == (f"p{one.index}", str(one.index))
            assert target.auth.identity == f"token-{users[one.index]}"  # type: ignore[attr-defined]
    assert all(rate == pytest.approx(budget or 0) for rate in spent.values())
