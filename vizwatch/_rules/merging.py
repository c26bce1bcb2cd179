"""Several listings in one order, as one listing in that order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from vizwatch._values.models import Job


@attrs.define
class Merge:
    """Takes the jobs of several listings as they come, and gives those whose place is settled.

    A job's place is settled once each listing that may go on has shown a job that does not come before it.
    Where listings tie, the earlier one goes first. Strings are in the order of their code points; a service
    that orders them otherwise is followed as far as that goes, and no job is lost.
    """

    sort_by: str
    descending: bool
    listings: int
    """How many there are."""
    _waiting: list[deque[tuple[Any, Job]]] = attrs.field(init=False)
    _ended: set[int] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._waiting = [deque() for _ in range(self.listings)]

    def needed(self) -> int | None:
        """The number of a listing that has to be read further; ``None`` once all have ended."""
        for number, waiting in enumerate(self._waiting):
            if not waiting and number not in self._ended:
                return number
        return None

    def add(self, number: int, jobs: Iterable[Job]) -> None:
        """The next jobs of a listing."""
        self._waiting[number].extend((self._key(job), job) for job in jobs)

    def end(self, number: int) -> None:
        """The listing has no more jobs."""
        self._ended.add(number)

    def settled(self) -> Sequence[Job]:
        """The jobs whose place is settled by now, in their order."""
        jobs: list[Job] = []
        if self.needed() is not None:
            return jobs
        first = max if self.descending else min
        live = {number: waiting for number, waiting in enumerate(self._waiting) if waiting}
        while live:
            number = first(live, key=lambda one: live[one][0][0])
            jobs.append(live[number].popleft()[1])
            if not live[number]:
                if number not in self._ended:
                    break
                del live[number]
        return jobs

    def _key(self, job: Job) -> Any:
        value = getattr(job, self.sort_by)
        # What is missing comes first, and is never compared with what is there.
        return (value is not None, value if value is not None else 0)
