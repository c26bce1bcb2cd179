"""Deliveries: what shards have told, on its way to the consumer and into the checkpoint."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from vizwatch._flows.delivering import Delivery
from vizwatch._rules import records
from vizwatch._rules.records import Given
from vizwatch._values.models import Transition
from vizwatch._world.batching import parts
from vizwatch._world.checkpoint import Stream
from vizwatch._world.journal import Journal
from vizwatch.dask._shard import AT_ONCE

_AHEAD: Final = 10_000


@attrs.define(eq=False)
class Deliveries:
    """Those of all targets, each of which is known by its place among all."""

    _journal: Journal
    _streams: Sequence[Stream]
    _each: Sequence[Delivery] = attrs.field(init=False)
    _loaded: set[int] = attrs.field(factory=set, init=False)
    """The targets whose undelivered transitions have come again."""
    _ahead: deque[tuple[Delivery, Transition]] = attrs.field(factory=deque, init=False)
    """What is given next: it is written, once that is settled, that it was."""
    _is_settled: bool = attrs.field(default=True, init=False)
    _given: Delivery | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._each = [Delivery(self._journal, stream) for stream in self._streams]

    async def check(self) -> None:
        """Opens the checkpoint, before any request; raises :class:`CheckpointError` if it is refused."""
        await self._journal.load(self._streams[0], ())

    async def asks(self) -> None:
        """The consumer has dealt with what it was given, and wants the next one."""
        given, self._given = self._given, None
        if given is not None:
            await given.asks()

    async def take(self) -> Transition | None:
        """The next transition, once it is written that it will be given; ``None`` if none is ready."""
        if not self._ahead:
            return None
        if not self._is_settled:
            await self._ahead[0][0].settled()
            self._is_settled = True
        self._given, transition = self._ahead.popleft()
        self._given.gives(transition)
        return transition

    @property
    def are_ahead(self) -> bool:
        """Whether there is something to be taken."""
        return bool(self._ahead)

    @property
    def has_room(self) -> bool:
        """Whether more should be prepared."""
        return len(self._ahead) < _AHEAD

    def prepare(self, place: int, job_id: int, record: bytes | None) -> None:
        """Has a transition written down that is to be given, or what was given forgotten.

        Of no job is there more than one of these before all that was prepared is delivered.
        """
        delivery = self._each[place]
        if record is None:
            delivery.forgets(job_id)
            return
        transition = records.decode(record, delivery.stream.project_id, job_id).transition
        delivery.prepares([transition])
        self._ahead.append((delivery, transition))
        self._is_settled = False

    async def kept(self, place: int, told: Mapping[int, bytes | None]) -> Iterator[dict[int, bytes]]:
        """What the consumer was given last of each of a target's jobs, or will be, as records, by the page.

        A page is encoded when it is asked for, so that others get their turn in between.

        Args:
            place: The target's.
            told: What is not prepared yet.
        """
        delivery = self._each[place]
        kept = await delivery.begin(None)
        if place not in self._loaded:
            self._loaded.add(place)
            again = sorted(
                (one.transition for one in kept.values() if not one.is_delivered),
                key=lambda one: one.not_after,
            )
            self._ahead.extend((delivery, one) for one in again)
        known = {job_id: given.transition for job_id, given in kept.items()}
        for job_id, record in told.items():
            if record is None:
                known.pop(job_id, None)
            else:
                known[job_id] = records.decode(record, delivery.stream.project_id, job_id).transition
        return _pages(known.values())

    def end(self) -> None:
        """Nobody will take any more; another consumer may come."""
        for delivery in self._each:
            delivery.end()


def _pages(transitions: Iterable[Transition]) -> Iterator[dict[int, bytes]]:
    """All of them as delivered."""
    for page in parts(transitions, AT_ONCE):
        yield {one.job_id: records.encode(Given(one, is_delivered=True)) for one in page}
