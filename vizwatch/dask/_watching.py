"""What the caller does: gives shards to workers, takes what they report, and keeps what was delivered."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from vizwatch._flows.arriving import COMES_BACK_AFTER
from vizwatch._values.errors import TransportError, VizwatchError
from vizwatch._values.models import Transition
from vizwatch._world.checkpoint import Checkpoint, Stream
from vizwatch._world.journal import Journals
from vizwatch._world.line import to_its_end
from vizwatch.dask._cluster import (
    Channel,
    Client,
    Gone,
    Released,
    address_of,
    cancelled,
    workers_of,
)
from vizwatch.dask._commanding import Commands
from vizwatch.dask._deliveries import Deliveries
from vizwatch.dask._health import Health
from vizwatch.dask._placement import Shard
from vizwatch.dask._plan import Plan
from vizwatch.dask._shard import PATIENCE, PULSE
from vizwatch.dask._tending import Tending
from vizwatch.fleet import Outcome, Target

_A_WORKER: Final = 4
"""How many shards there are for each worker, by default: what one loses is spread over the others."""
_LOOKS_AFTER: Final = 1.0
"""How often the caller looks how the workers are getting on, in seconds."""
_STOPS_WITHIN: Final = 1.2
"""How long the shards have to stop, in seconds; and half a second more for the scheduler to hear of it."""


class ShardedWatch:
    """The transitions of all jobs of many projects, which the workers of a cluster watch.

    It is iterated as :meth:`Fleet.watch_jobs` is, by one task at a time, and has to be closed: `async with`
    does that, and :meth:`aclose`. A transition counts as delivered once the next one is asked for. What a
    shard has told is not lost with its worker: it goes on elsewhere, after the last one that came from it.
    """

    def __init__(
        self,
        cluster: Client,
        targets: Sequence[Target],
        streams: Sequence[Stream],
        checkpoint: Checkpoint,
        shards: int | None,
        plans_of: Callable[[Sequence[Stream], int], Sequence[Plan]],
    ) -> None:
        self._cluster = cluster
        self._targets = targets
        self._streams = streams
        self._count = shards
        self._plans_of = plans_of
        self._shards: list[Shard] = []
        self._journals = Journals()
        self._deliveries = Deliveries(self._journals.of(checkpoint), streams)
        self._health = Health(targets, address_of(cluster))
        self._reports: Channel | None = None
        self._commands = Commands(cluster, self._start)
        self._tending = Tending(cluster, self._shards, self._commands, self._health, self._fail)
        self._came = asyncio.Event()
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pumping: asyncio.Task[None] | None = None
        self._looking_after: asyncio.Task[None] | None = None
        self._has_begun = False
        self._closed = False

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """How the watch of each target is getting on, by its name, as far as its shard was heard.

        Where nothing was for 15 seconds, the error says so, and what may be amiss with the cluster.
        """
        return self._health.outcomes()

    @property
    def workers(self) -> Mapping[int, str | None]:
        """The address of the worker that each shard is with, by its number; ``None`` for none yet."""
        return {shard.number: shard.worker for shard in self._shards}

    # --- what comes --------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Transition:
        await self._deliveries.asks()
        if not self._has_begun and not self._closed:
            await self._prepare_to_begin()
        while not self._closed:
            if self._failure is not None:
                raise self._failure
            transition = await self._deliveries.take()
            if transition is not None:
                return transition
            if self._prepare():
                continue
            if all(shard.is_over for shard in self._shards):
                break
            self._came.clear()
            await self._came.wait()
        raise StopAsyncIteration

    def _prepare(self) -> bool:
        """Has what the shards told written down, of no job more than one, once all before is delivered."""
        seen: set[tuple[int, int]] = set()
        for shard in self._shards:
            while shard.ready and self._deliveries.has_room:
                target, job_id, record = shard.ready[0]
                if (target, job_id) in seen:
                    break
                seen.add((target, job_id))
                shard.ready.popleft()
                self._deliveries.prepare(target, job_id, record)
                if not shard.ready:
                    self._commands.send(shard.incarnation, "taken")
        return self._deliveries.are_ahead

    # --- what shards report ------------------------------------------------------------------------------

    async def _prepare_to_begin(self) -> None:
        """Waits for what has to be there first; may be cancelled, and done once more."""
        await self._deliveries.check()
        if self._reports is None:
            self._reports = self._new_reports()
            self._health.expects(range(len(self._targets)))
            self._start(self._health.watch())
        try:
            workers = await workers_of(self._cluster)
            self._health.answered(len(workers))
            if workers:
                await self._reports.make()
        except (Gone, OSError) as error:
            raise _lost(error) from None
        if not self._closed:
            self._begin(workers, self._reports)

    def _new_reports(self) -> Channel:
        self._commands.run = f"vizwatch-{uuid.uuid4().hex}"
        return Channel(self._cluster, self._commands.run)

    def _begin(self, workers: Sequence[str], reports: Channel) -> None:
        self._has_begun = True
        count = min(self._count or _A_WORKER * max(len(workers), 1), len(self._streams))
        self._shards += [Shard(*one) for one in enumerate(self._plans_of(self._streams, count))]
        self._pumping = self._start(self._pump(reports))
        for shard in self._shards:
            self._tending.submit(shard, workers[shard.number % len(workers)] if workers else None)
        self._looking_after = self._start(self._look_after())

    async def _pump(self, reports: Channel) -> None:
        """Listens to all shards."""
        with contextlib.suppress(Released):  # who looks after the shards sees that, too
            while True:
                try:
                    what, *more = await reports.get(PATIENCE)
                except TimeoutError:
                    continue
                if what == "end":
                    return
                number, incarnation, *more = more
                self._heard(self._shards[number], what, incarnation, more)

    def _heard(self, shard: Shard, what: str, incarnation: str, more: Sequence[Any]) -> None:
        if what == "begin":
            self._commands.retire(shard.incarnation)
            commands = self._commands.open(incarnation)
            if self._closed:
                self._commands.retire(incarnation)
                return
            self._health.expects(shard.places)
            shard.incarnation, (shard.worker,) = incarnation, more
            shard.moves_to, shard.missing = None, 0
            self._start(self._instruct(shard, commands))
        elif what == "over":
            self._ended(shard, incarnation, *more)
        elif shard.incarnation != incarnation:
            self._commands.retire(incarnation)
        elif what == "transitions":
            shard.ready.extend(more[0])
            self._came.set()
        elif what == "heartbeat":
            self._commands.send(incarnation, "acknowledged")
            self._health.expects(shard.places)
            self._heard_of(*more)

    def _heard_of(self, outcomes: Sequence[Sequence[Any]]) -> None:
        for place, complete, error, jobs, age in outcomes:
            target = self._targets[place]
            failed = None if error is None else pickle.loads(error)  # noqa: S301 - a worker runs our code
            self._health.reported(place, Outcome(target, complete, failed, jobs, age))

    def _ended(self, shard: Shard, incarnation: str, has_ended: bool, error: bytes | None) -> None:  # noqa: FBT001
        self._commands.retire(incarnation)
        if shard.incarnation != incarnation or self._closed:
            return
        if not has_ended:
            # It was told to move, or has not heard of this process for so long that it took it for dead.
            self._tending.submit(shard, shard.moves_to or shard.worker)
            return
        shard.is_over = True
        shard.comes_back_at = asyncio.get_running_loop().time() + COMES_BACK_AFTER
        self._health.ended(shard.places)
        if error is not None:
            self._fail(pickle.loads(error))  # noqa: S301 - as above
        self._came.set()

    async def _instruct(self, shard: Shard, commands: Channel) -> None:
        """Tells a shard that begins what was told of its jobs, and then to watch them."""
        with contextlib.suppress(Gone):  # another incarnation has begun meanwhile
            await commands.make()
            for project in shard.plan.projects:
                kept = await self._kept(shard, project.index, commands)
                self._came.set()
                of = project.stream
                for page in kept:
                    await commands.put(["kept", [of.endpoint, of.project_id, of.workspace_id], page])
                    self._health.expects(shard.places)
            await commands.put(["watch", shard.plan.sealed()])

    async def _kept(self, shard: Shard, place: int, commands: Channel) -> Iterator[dict[int, bytes]]:
        """What was told of a target's jobs, delivered or not: all of that a shard goes on after."""
        loading = asyncio.create_task(self._deliveries.kept(place, shard.reported_of(place)))
        try:
            while not (await asyncio.wait([loading], timeout=PULSE))[0]:
                # Else the shard would take this process for dead, or this would load for one that is no more.
                await commands.put(["acknowledged"])
                self._health.expects(shard.places)
            return loading.result()
        finally:
            loading.cancel()

    # --- how the workers are getting on ------------------------------------------------------------------

    async def _look_after(self) -> None:
        """Has the shards tended, as far as the cluster is there."""
        while True:
            await asyncio.sleep(_LOOKS_AFTER)
            workers = await workers_of(self._cluster)
            self._health.answered(len(workers))
            await self._look_after_reports(len(workers))
            if workers:
                await self._tending.tend(workers)

    async def _look_after_reports(self, workers: int) -> None:
        """Has all shards begin again, one of which took this process for dead and closed the reports.

        Without a worker there are no reports, since nobody would close them if this process were killed.
        """
        if self._reports is None:
            return
        if not workers:
            self._reports.close()
            for shard in self._shards:
                self._commands.retire(shard.incarnation)
        elif not await self._reports.is_there():
            await self._begin_again()

    async def _begin_again(self) -> None:
        if self._pumping is not None:
            self._pumping.cancel()
        self._reports = self._new_reports()
        await self._reports.make()
        self._pumping = self._start(self._pump(self._reports))
        await self._tending.submit_again()

    # --- what is done meanwhile --------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except VizwatchError as error:
            self._fail(error)
        except (Gone, OSError) as error:
            self._fail(_lost(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, who iterates has to hear of it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._closed:
            self._failure = self._failure or error
            self._came.set()

    # --- the end -----------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Has all shards stop, writes what was delivered, and gives the checkpoint up. Idempotent."""
        if not self._closed:
            self._closed = True
            self._came.set()
            self._deliveries.end()
            await to_its_end(self._close())

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(_STOPS_WITHIN + 0.5):
                await self._stop()
                for channel in self._channels():
                    await channel.made()
        except (OSError, Gone):
            pass  # it may be gone; what is left of it stops by itself when it hears no more
        finally:
            for task in self._tasks:
                task.cancel()
            for channel in self._channels():
                channel.close()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._journals.aclose()

    def _channels(self) -> list[Channel]:
        return [*self._commands.channels, *([] if self._reports is None else [self._reports])]

    async def _stop(self) -> None:
        """Has all shards stop, and waits until they have."""
        if self._looking_after is not None:
            self._looking_after.cancel()  # which would have them begin again
        for shard in self._shards:
            shard.moves_to = None
        begun = [shard for shard in self._shards if shard.future is not None]
        running = [shard.future for shard in begun if shard.incarnation is not None and not shard.is_over]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOPS_WITHIN):
                await self._commands.send_all("stop")
                await asyncio.gather(*running, return_exceptions=True)
        await cancelled(self._cluster, [shard.future for shard in begun])
        if self._reports is not None and self._pumping is not None:
            with contextlib.suppress(Released):
                await self._reports.put(["end"])
                await asyncio.wait([self._pumping])  # which may be cancelled

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _lost(error: Gone | OSError) -> TransportError:
    if isinstance(error, Gone):
        return TransportError("the cluster's client was closed, or its scheduler has gone")
    return TransportError(f"the cluster's scheduler does not answer: {type(error).__name__}")
