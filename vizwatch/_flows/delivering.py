"""Delivering: a transition counts as delivered once its consumer asks for the next one."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import attrs

from vizwatch._rules.records import Given
from vizwatch._values.errors import ConfigError
from vizwatch._values.models import Transition
from vizwatch._world.checkpoint import Stream
from vizwatch._world.journal import Journal


@attrs.define(eq=False)
class Delivery:
    """Deliveries to one consumer, whose place in a stream a checkpoint keeps.

    What it is given is written before, so that it comes again after a crash, as it was, whatever the job has
    become meanwhile; and once more when it asks for the next one. Much of it is one write.
    """

    _journal: Journal
    stream: Stream
    _given: Transition | None = attrs.field(default=None, init=False)
    """What the consumer deals with."""

    async def begin(self, job_ids: Collection[int] | None) -> dict[int, Given]:
        """What the consumer was given last of these jobs, or for ``None`` of all.

        Raises:
            CheckpointError: The checkpoint cannot be used.
            ConfigError: Another consumer's place is kept in it just now, of one of these jobs.
        """
        for job_id in [None] if job_ids is None else job_ids:
            holder = self._journal.consumers.setdefault((self.stream, job_id), self)
            if holder is not self:
                what = "its jobs are" if job_id is None else f"job {job_id} is"
                raise ConfigError(
                    f"{self.stream}: {what} watched with this checkpoint already: close that watch, or give "
                    "this one another checkpoint"
                )
        return await self._journal.load(self.stream, job_ids)

    def prepares(self, transitions: Iterable[Transition]) -> None:
        """The consumer will get them, of no job more than one."""
        for one in transitions:
            self._journal.put(self.stream, one.job_id, Given(one, is_delivered=False))

    async def settled(self) -> None:
        """Waits until all that was prepared is written, unless nothing can be written just now."""
        await self._journal.settled()

    def gives(self, transition: Transition) -> None:
        """The consumer gets a transition."""
        self._given = transition

    async def asks(self) -> None:
        """The consumer wants the next one; waits while too much is still to be written."""
        given, self._given = self._given, None
        if given is not None:
            self.passes(given)
        await self._journal.room()

    def passes(self, transition: Transition) -> None:
        """A transition is over: it was delivered, or the consumer does not want such ones."""
        self._journal.put(self.stream, transition.job_id, Given(transition, is_delivered=True))

    def forgets(self, job_id: int) -> None:
        """What was given of a job does not matter any more."""
        self._journal.put(self.stream, job_id, None)

    def end(self) -> None:
        """Another consumer may come."""
        consumers = self._journal.consumers
        for key in [key for key, holder in consumers.items() if holder is self]:
            del consumers[key]
