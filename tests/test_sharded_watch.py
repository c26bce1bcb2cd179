"""A fleet in shards, on a cluster in memory and in virtual time."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Generator, Mapping
from typing import Any

import attrs
import pytest
from keeping import Memory
from virtual import elapse

from vizwatch import JobStatus, Settings, Stream, Target, Transition, TransportError
from vizwatch._rules import records
from vizwatch._rules.records import Given
from vizwatch._world.journal import Journal
from vizwatch.dask import ShardedWatch
from vizwatch.dask._commanding import Commands
from vizwatch.dask._deliveries import Deliveries
from vizwatch.dask._plan import plans, streams_of
from vizwatch.dask._shard import watch_shard
from vizwatch.emulator import Emulator
from vizwatch.fleet import WatchOptions

pytestmark = pytest.mark.looptime


@attrs.define(eq=False)
class Future:
    """That of a task."""

    task: asyncio.Task[None]
    status: str = "pending"

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.shield(self.task).__await__()


@attrs.define(eq=False)
class Cluster:
    """The scheduler, its client, and a worker: one object, which loses nothing."""

    status: str = "running"
    address: str = "inproc://scheduler"
    takes: dict[str, float] = attrs.field(factory=dict)
    """How long what the scheduler is asked for takes, in seconds."""
    queues: dict[str, asyncio.Queue[Any]] = attrs.field(factory=dict)
    reports: Counter[str] = attrs.field(factory=Counter)
    """How often what was reported or commanded."""
    is_refusing: bool = False
    """Whether no queue can be made."""
    futures: list[Future] = attrs.field(factory=list)

    @property
    def scheduler(self) -> Cluster:
        return self

    async def nthreads(self) -> dict[str, int]:
        return {"worker": 1}

    def submit(self, _function: Any, *arguments: Any, **_options: Any) -> Future:
        self.futures.append(Future(asyncio.create_task(watch_shard(*arguments))))
        return self.futures[-1]

    async def cancel(self, futures: list[Future]) -> None:
        await asyncio.sleep(self.takes.get("cancel", 0))
        for future in futures:
            future.status = "cancelled"

    async def queue_create(self, name: str, maxsize: int) -> None:
        await asyncio.sleep(self.takes.get("create", 0))
        if self.is_refusing:
            raise OSError("refused")
        self.queues.setdefault(name, asyncio.Queue(maxsize))

    async def queue_put(self, name: str, data: Any, timeout: None) -> None:  # noqa: ASYNC109 - as distributed's
        await asyncio.sleep(self.takes.get("put", 0))
        self.reports[data[0]] += 1
        self.queues[name].put_nowait(data)

    async def queue_get(self, name: str, timeout: float, batch: bool) -> dict[str, Any]:  # noqa: ASYNC109 - as above
        assert not batch
        async with asyncio.timeout(timeout):
            return {"value": await self.queues[name].get()}

    async def queue_qsize(self, name: str) -> int:
        return self.queues[name].qsize()

    def _send_to_scheduler(self, message: dict[str, str]) -> None:
        self.queues.pop(message["name"], None)


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    running = Cluster()

    async def here() -> tuple[Cluster, str]:
        return running, "worker"

    monkeypatch.setattr("vizwatch.dask._shard.here", here)
    monkeypatch.setattr("vizwatch.dask._shard.secede", lambda _key: None)
    monkeypatch.setattr("vizwatch.dask._shard.is_wanted", lambda _key: True)
    yield running
    tasks = [future.task for future in running.futures]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


Watched = Callable[..., ShardedWatch]


@pytest.fixture
def watched(cloud: Emulator, cluster: Any) -> Watched:
    """A watch of these projects."""

    def of(*projects: str, checkpoint: Any, shards: int = 1, status: JobStatus | None = None) -> ShardedWatch:
        targets = [Target(cloud.endpoint, project, auth=cloud.token) for project in projects]
        streams = streams_of(targets, Settings(), None)
        plans_of = functools.partial(plans, targets, settings=Settings(), options=WatchOptions(status=status))
        return ShardedWatch(cluster, targets, streams, checkpoint, shards, plans_of)

    return of


async def some(watch: ShardedWatch, count: int) -> list[Transition]:
    async with asyncio.timeout(300):
        return [await anext(watch) for _ in range(count)]


# --- what is sent ---------------------------------------------------------------------------------------


async def test_a_shard_gathers_transitions_as_messages_cost_more(
    cloud: Emulator, cluster: Cluster, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vizwatch.dask._shard.GATHERS", 3.0)
    projects = [f"p{number}" for number in range(60)]
    for project in projects:
        cloud.add_jobs(1, status=8, project_id=project)
    async with watched(*projects, checkpoint=Memory()) as watch:
        began = asyncio.get_running_loop().time()
        await some(watch, 1)
        assert asyncio.get_running_loop().time() - began < 1  # the first one does not wait
        await some(watch, 59)
        assert cluster.reports["transitions"] <= 2 + (asyncio.get_running_loop().time() - began) / 3


# --- what is kept ---------------------------------------------------------------------------------------


async def test_no_deletion_is_lost_with_a_consumer_that_is_killed_before_it_has_taken_them(
    cloud: Emulator, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vizwatch._flows.surveying._REMEMBERED", 2)
    kept, ids = Memory(), cloud.add_jobs(20, status=8, project_id="p")
    async with watched("p", checkpoint=kept) as watch:
        await some(watch, 20)
        for job_id in ids:
            cloud.set_status(job_id, None, project_id="p")
        found = await some(watch, 1)
        await elapse(100)
        left = kept.as_it_is()
    async with watched("p", checkpoint=left) as watch:
        found += await some(watch, 20)
        assert {(one.job_id, one.current) for one in found} == {(job_id, None) for job_id in ids}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 100)
    (records,) = left.records.values()
    assert len(records) == 2, "those of the others are of no use any more"


async def test_a_deleted_job_is_forgotten_whose_deletion_nobody_wants_to_hear_of(
    cloud: Emulator, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vizwatch._flows.surveying._REMEMBERED", 2)
    kept, ids = Memory(), cloud.add_jobs(6, status=8, project_id="p")
    async with watched("p", checkpoint=kept, status=JobStatus.RUNNING) as watch:
        await some(watch, 6)
        for status in (12, None):
            for job_id in ids:
                cloud.set_status(job_id, status, project_id="p")
            if status is not None:
                await some(watch, 6)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 100)
    (records,) = kept.records.values()
    assert len(records) == 2


async def test_a_job_is_forgotten_once_its_deletion_is_delivered_and_not_with_it(
    cloud: Emulator, cluster: Cluster, watched: Watched
) -> None:
    kept, (job_id,) = Memory(), cloud.add_jobs(1, status=8, project_id="p")
    async with watched("p", checkpoint=kept) as watch:
        (found,) = await some(watch, 1)
        deleted = attrs.evolve(found, id=f"{found.id}-none", previous=found.current, current=None)
        reported = records.encode(Given(deleted, is_delivered=False)), None
        cluster.queues[watch._commands.run].put_nowait(
            ["transitions", 0, watch._shards[0].incarnation, [(0, job_id, record) for record in reported]]
        )
        assert await some(watch, 1) == [deleted]
        assert [*kept.records.values()] == [{job_id: reported[0]}]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 10)
        assert [*kept.records.values()] == [{}]


class Slow(Memory):
    """Takes a minute and a half to load what it has of all jobs."""

    loads = loading = 0

    async def load(self, stream: Stream, job_ids: Collection[int] | None) -> Mapping[int, bytes]:
        if job_ids is None:
            self.loads += 1
            self.loading += 1
            try:
                await asyncio.sleep(90)
            finally:
                self.loading -= 1
        return await super().load(stream, job_ids)


async def test_a_checkpoint_that_loads_for_minutes_ends_no_shard(cloud: Emulator, watched: Watched) -> None:
    kept, projects = Slow(), ("p", "q")
    for project in projects:
        cloud.add_jobs(1, status=8, project_id=project)
    async with watched(*projects, checkpoint=kept) as watch:
        assert {one.project_id for one in await some(watch, 2)} == {*projects}
    assert kept.loads == 2


async def test_a_shard_that_begins_elsewhere_ends_what_was_loaded_for_it_before(
    cluster: Cluster, watched: Watched
) -> None:
    kept = Slow()
    async with watched("p", checkpoint=kept) as watch:
        step = asyncio.create_task(anext(watch, None))
        await elapse(1)
        for incarnation in ("second", "third"):
            cluster.queues[watch._commands.run].put_nowait(["begin", 0, incarnation, "worker"])
        await elapse(10)
        assert (kept.loads, kept.loading) == (3, 1)
    assert await step is None
    assert kept.loading == 0


async def test_what_a_shard_goes_on_after_is_encoded_by_the_page(
    cloud: Emulator, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vizwatch.dask._deliveries.AT_ONCE", 2)
    kept, encode = Memory(), records.encode
    encoded: list[Given] = []

    def counted(given: Given) -> bytes:
        encoded.append(given)
        return encode(given)

    cloud.add_jobs(5, status=8, project_id="p")
    async with watched("p", checkpoint=kept) as watch:
        await some(watch, 5)
    journal, (stream,) = Journal(kept), kept.records
    pages = await Deliveries(journal, [stream]).kept(0, {})
    monkeypatch.setattr(records, "encode", counted)
    assert [(len(page), len(encoded)) for page in pages] == [(2, 2), (2, 4), (1, 5)]
    await journal.aclose()


# --- the beginning --------------------------------------------------------------------------------------


async def test_a_first_step_that_the_scheduler_did_not_answer_can_be_made_once_more(
    cloud: Emulator, cluster: Cluster, watched: Watched
) -> None:
    cloud.add_jobs(1, status=8, project_id="p")
    async with watched("p", checkpoint=Memory()) as watch:
        cluster.is_refusing = True
        with pytest.raises(TransportError):
            await some(watch, 1)
        cluster.is_refusing = False
        assert await some(watch, 1)


# --- the end --------------------------------------------------------------------------------------------


async def test_what_is_not_written_yet_when_a_watch_is_closed_is_not_given_and_comes_again(
    cloud: Emulator, cluster: Cluster, watched: Watched
) -> None:
    cloud.add_jobs(1, status=8, project_id="p")
    kept = Memory(takes=(10, 1))
    async with watched("p", checkpoint=kept) as watch:
        step = asyncio.create_task(anext(watch, None))
        await elapse(9.5)
        cluster.takes["put"] = 1.0  # it is written while the shards are told to stop
    assert await step is None
    async with watched("p", checkpoint=kept) as watch:
        assert await some(watch, 1)


@pytest.mark.parametrize("step", ["create", "cancel"])
async def test_a_watch_is_closed_while_its_shards_are_to_begin_again(
    cloud: Emulator, cluster: Cluster, watched: Watched, step: str
) -> None:
    cloud.add_jobs(1, status=8, project_id="p")
    async with watched("p", checkpoint=Memory()) as watch:
        await some(watch, 1)
        del cluster.queues[watch._commands.run]  # as a shard does that takes this process for dead
        cluster.takes[step] = 1.5
        await elapse(2)
        submitted = len(cluster.futures)
    assert len(cluster.futures) == submitted
    assert not cluster.queues


async def test_many_shards_are_told_to_stop_at_once(
    cloud: Emulator, cluster: Cluster, watched: Watched
) -> None:
    projects = [f"p{number}" for number in range(40)]
    for project in projects:
        cloud.add_jobs(1, status=8, project_id=project)
    async with watched(*projects, checkpoint=Memory(), shards=40) as watch:
        await some(watch, 40)
        cluster.takes["put"] = 0.1
        stopping = asyncio.create_task(watch.aclose())
        await elapse(0.9)
        assert stopping.done()
    assert not cluster.queues


async def test_an_incarnation_is_dismissed_once(cluster: Cluster) -> None:
    begun: list[asyncio.Task[None]] = []
    client: Any = cluster
    commands = Commands(client, lambda work: begun.append(asyncio.create_task(work)))
    commands.run = "run"
    commands.open("first")
    for _ in range(2):
        commands.retire("first")
        commands.send("first", "acknowledged")
    (dismissing,) = begun
    await dismissing
    assert not cluster.queues
    assert not commands.channels
