"""Shards: what a worker does, told by the caller what to watch, until the caller tells it to stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

import attrs

from vizwatch._rules import records
from vizwatch._rules.records import Given
from vizwatch._values.errors import VizwatchError
from vizwatch._world.checkpoint import Stream
from vizwatch._world.line import to_its_end
from vizwatch.dask._cluster import Channel, Gone, Released, here, is_wanted, pickled, secede
from vizwatch.dask._plan import Plan
from vizwatch.fleet import Fleet, Outcome

AT_ONCE: Final = 1_000
"""How many transitions a shard sends at once, and has ready while the caller deals with those before."""
GATHERS: Final = 0.1
"""How long it gathers more once it has sent some, in seconds: a message costs as much as many transitions."""
PULSE: Final = 5.0
"""How often a shard reports how it is getting on, in seconds."""
PATIENCE: Final = 30.0
"""How long a shard goes on without a word of the caller's, who may be no more, in seconds."""
LOOKS: Final = 1.0
"""How often a shard looks whether the scheduler has lost the caller, in seconds."""


Reported = tuple[int, int, bytes | None]
"""A transition: of which target, of which job, and the record; or that a deleted job's is of no use any more.

In one line, as the caller must not forget a deletion that its consumer has not taken."""


@attrs.define(eq=False)
class _Kept:
    """The checkpoint of a shard: what the caller has of it. The caller keeps what is delivered."""

    _kept: dict[Stream, dict[int, bytes]]
    _forget: Callable[[Stream, int], Awaitable[object]]

    async def open(self, stream: Stream) -> None:
        """Nobody else has it."""

    async def load(self, stream: Stream, job_ids: Collection[int] | None) -> Mapping[int, bytes]:  # noqa: ARG002
        """What the caller has of all jobs; once."""
        return self._kept.pop(stream, {})

    async def save(self, records: Mapping[Stream, Mapping[int, bytes | None]]) -> None:
        """The caller does that, but for what is to be forgotten."""
        for stream, by_job in records.items():
            for job_id, record in by_job.items():
                if record is None:
                    await self._forget(stream, job_id)

    async def close(self, stream: Stream) -> None:
        """Nobody else wants it."""


@attrs.define(eq=False)
class _Shard:
    """One incarnation of a shard, from the beginning of its task to its end."""

    number: int
    _commands: Channel
    """What the caller commands this incarnation alone."""
    _reports: Channel
    """What all shards report to the caller."""
    incarnation: str
    _kept: dict[Stream, dict[int, bytes]] = attrs.field(factory=dict, init=False)
    _ready: list[Reported] = attrs.field(factory=list, init=False)
    """What was not sent yet."""
    _changed: asyncio.Condition = attrs.field(factory=asyncio.Condition, init=False)
    _is_sent: bool = attrs.field(default=False, init=False)
    """Whether some were sent that the caller has not taken yet."""
    _sealed: bytes = attrs.field(default=b"", init=False, repr=False)
    _is_abandoned: bool = attrs.field(default=False, init=False)
    """Whether it stops since the caller seems to be no more."""

    async def report(self, what: str, *more: Any) -> None:
        """Sends the caller a report."""
        await self._reports.put([what, self.number, self.incarnation, *more])

    async def attend(self, worker: str) -> None:
        """Watches on that worker, and reports when that begins and how it ends."""
        with contextlib.suppress(Released):  # nobody listens
            # First, so that the caller closes the channel should this worker die at any time.
            await self.report("begin", worker)
            await to_its_end(self._commands.make())  # a worker that closes cancels this
            try:
                has_ended, failure = await self.run(), None
            except VizwatchError as error:
                has_ended, failure = True, pickled(error)
            if self._is_abandoned:
                # A caller that was killed leaves them behind; one that was not sees that they are gone. The
                # scheduler would wait for some time on behalf of either, were there no last one.
                await self._reports.put(["end"])
                self._reports.close()
            else:
                await self.report("over", has_ended, failure)

    async def stop_once_unwanted(self, is_wanted: Callable[[], bool]) -> None:
        """Stops the shard once the scheduler wants it no more, as when the caller's connection breaks."""
        while is_wanted():  # noqa: ASYNC110 - a worker sets no event
            await asyncio.sleep(LOOKS)
        self._is_abandoned = True
        with contextlib.suppress(OSError, Gone):
            await self._commands.put(["stop"])

    async def run(self) -> bool:
        """Watches until the caller says stop, or says nothing any more; or else nothing is left to watch.

        Returns:
            Whether that is so.
        """
        if not await self._begin():
            return False
        plan = Plan.opened(self._sealed)
        self._sealed = b""
        async with Fleet(plan.targets(), settings=plan.settings) as fleet:
            obeying = asyncio.create_task(self._obey())
            works = (self._watch(fleet, plan), self._send(), self._beat(fleet))
            tasks = [asyncio.create_task(work) for work in works]
            try:
                # To be told to stop, to have nothing left to watch and to fail is the end of all.
                done, _ = await asyncio.wait([obeying, *tasks], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                return obeying not in done
            finally:
                for task in tasks:
                    task.cancel()
                try:
                    if not obeying.done():
                        await self._commands.put(["stop"])
                except (OSError, Gone):
                    obeying.cancel()  # nobody could end it, which is better where somebody can
                await asyncio.gather(obeying, *tasks, return_exceptions=True)

    async def _begin(self) -> bool:
        """Gets its plan from the caller; tells whether there is one."""
        while not self._is_abandoned:  # maybe before there was a channel through which to be told to stop
            what, *more = await self._commanded()
            if what == "watch":
                (self._sealed,) = more
                return True
            if what == "stop":
                return False
            if what == "kept":  # else it is for the incarnation before, which had sent something
                where, kept = more
                self._kept.setdefault(Stream(*where), {}).update(kept)
        return False

    async def _commanded(self) -> list[Any]:
        """The caller's next command; to stop, where none comes."""
        try:
            # A read that is broken off on this side may take a command with it: the other side ends it.
            return await self._commands.get(PATIENCE)
        except TimeoutError:
            self._is_abandoned = True
            return ["stop"]

    async def _watch(self, fleet: Fleet, plan: Plan) -> None:
        """Takes each transition, a few ahead of the caller."""
        numbers = {one.stream: one.index for one in plan.projects}

        async def forget(stream: Stream, job_id: int) -> None:
            await self._tell((numbers[stream], job_id, None))

        jobs = fleet.watch_jobs(**plan.options, checkpoint=_Kept(self._kept, forget))
        async for transition in jobs:
            assert jobs.given_of is not None  # noqa: S101 - there is a checkpoint
            record = records.encode(Given(transition, is_delivered=False))
            async with self._changed:
                await self._changed.wait_for(lambda: len(self._ready) < AT_ONCE)
            await self._tell((numbers[jobs.given_of], transition.job_id, record))
        async with self._changed:
            await self._changed.wait_for(lambda: not self._ready and not self._is_sent)
        await self.report("heartbeat", _outcomes(fleet.outcomes))

    async def _tell(self, reported: Reported) -> None:
        async with self._changed:
            self._ready.append(reported)
            self._changed.notify_all()

    async def _send(self) -> None:
        """Sends what is ready, and no more before the caller has taken it."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._ready and not self._is_sent)
                sent, self._ready = self._ready, []
                self._is_sent = True
                self._changed.notify_all()
            await self.report("transitions", sent)
            await asyncio.sleep(GATHERS)

    async def _obey(self) -> None:
        """Listens to the caller, until he says stop."""
        while (command := await self._commanded())[0] != "stop":
            if command[0] == "taken":
                async with self._changed:
                    self._is_sent = False
                    self._changed.notify_all()

    async def _beat(self, fleet: Fleet) -> None:
        """Reports now and then how it is getting on, which the caller acknowledges."""
        for pause in itertools.chain((0.2, 0.5, 1.0), itertools.repeat(PULSE)):
            await self.report("heartbeat", _outcomes(fleet.outcomes))
            await asyncio.sleep(pause)


def _outcomes(outcomes: Mapping[str, Outcome]) -> list[tuple[Any, ...]]:
    """Of each target: which it is, whether it is complete, its error, how many jobs it has, and their age."""
    return [
        (int(name), one.complete, None if one.error is None else pickled(one.error), one.jobs, one.age)
        for name, one in outcomes.items()
    ]


async def watch_shard(run: str, number: int, key: str) -> None:
    """The task of a shard: all else that it needs to know the caller tells it, each time that it begins.

    Args:
        run: Names the queue on which the caller listens.
        number: Which shard it is.
        key: The task's key.
    """
    secede(key)
    (client, worker), incarnation = await here(), uuid.uuid4().hex
    commands = Channel(client, f"{run}-{incarnation}")
    shard = _Shard(number, commands, Channel(client, run), incarnation)
    unwanted = asyncio.create_task(shard.stop_once_unwanted(functools.partial(is_wanted, key)))
    try:
        await shard.attend(worker)
    finally:
        unwanted.cancel()
        commands.close()
