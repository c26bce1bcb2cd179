"""Delivering: a transition counts as delivered once its consumer asks for the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import attrs

from vizwatch._rules.records import Given
from vizwatch._values.errors import ConfigError
from vizwatch._values.models import Transition
from vizwatch._world.checkpoint import Stream
from vizwatch._world.journal import Journal

T = TypeVar("T")


@attrs.define(eq=False)
class Delivery:
    """Deliveries to one consumer, whose place in a stream a checkpoint keeps.

    What it is given is written before, so that it comes again after a crash, as it was, whatever the job has
    become meanwhile; and once more when it asks for the next one. Much of it is one write.

    Once it is ended nothing is written any more, as another consumer may have the place; whoever waits for
    the checkpoint then comes to the end of the iteration.
    """

    _journal: Journal
    stream: Stream
    _given: Transition | None = attrs.field(default=None, init=False)
    """What the consumer deals with."""
    _places: Sequence[int | None] = attrs.field(default=(), init=False)
    """Of which jobs it has the consumer's place."""
    _has_ended: bool = attrs.field(default=False, init=False)
    _waits: set[asyncio.Task[Any]] = attrs.field(factory=set, init=False)
    """For the checkpoint."""

    async def begin(self, job_ids: Collection[int] | None) -> dict[int, Given]:
        """What the consumer was given last of these jobs, or for ``None`` of all.

        Raises:
            CheckpointError: The checkpoint cannot be used.
            ConfigError: Another consumer's place is kept in it just now, of one of these jobs.
        """
        places = [None] if job_ids is None else [*job_ids]
        if self._taken(places):
            await asyncio.sleep(0)  # one that is forgotten just now gives its place up
        for job_id in self._taken(places):
            what = "its jobs are" if job_id is None else f"job {job_id} is"
            raise ConfigError(
                f"{self.stream}: {what} watched with this checkpoint already: close that watch, or give this "
                "one another checkpoint"
            )
        for job_id in places:
            self._journal.consumers[self.stream, job_id] = self
        self._places = places
        return await self._unless_ended(self._journal.load(self.stream, job_ids))

    def _taken(self, places: Iterable[int | None]) -> list[int | None]:
        """Those of the places that another consumer has."""
        consumers = self._journal.consumers
        return [job_id for job_id in places if consumers.get((self.stream, job_id), self) is not self]

    def prepares(self, transitions: Iterable[Transition]) -> None:
        """The consumer will get them, of no job more than one."""
        for one in transitions:
            self._put(one.job_id, Given(one, is_delivered=False))

    async def settled(self) -> None:
        """Waits until all that was prepared is written, unless nothing can be written just now."""
        if self._journal.is_unsettled:
            await self._unless_ended(self._journal.settled())

    def gives(self, transition: Transition) -> None:
        """The consumer gets a transition."""
        self._given = transition

    async def asks(self) -> None:
        """The consumer wants the next one; waits while too much is still to be written."""
        given, self._given = self._given, None
        if given is not None:
            self.passes(given)
        if self._journal.is_full:
            await self._unless_ended(self._journal.room())

    def passes(self, transition: Transition) -> None:
        """A transition is over: it was delivered, or the consumer does not want such ones."""
        self._put(transition.job_id, Given(transition, is_delivered=True))

    def forgets(self, job_id: int) -> None:
        """What was given of a job does not matter any more."""
        self._put(job_id, None)

    def _put(self, job_id: int, given: Given | None) -> None:
        if not self._has_ended:
            self._journal.put(self.stream, job_id, given)

    async def _unless_ended(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for the checkpoint; raises :class:`StopAsyncIteration` if this is ended meanwhile."""
        task = asyncio.create_task(work)
        self._waits.add(task)
        if self._has_ended:
            task.cancel()
        try:
            await asyncio.wait([task])
        finally:
            self._waits.discard(task)
            task.cancel()
        if task.cancelled():
            raise StopAsyncIteration
        return task.result()

    def end(self) -> None:
        """Another consumer may come."""
        self._has_ended = True
        for task in self._waits:
            task.cancel()
        consumers, places, self._places = self._journal.consumers, self._places, ()
        for job_id in places:
            if consumers.get((self.stream, job_id)) is self:
                del consumers[self.stream, job_id]
