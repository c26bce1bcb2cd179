"""Reading: whose details are read next, and how many reads are under way at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

import attrs

from vizwatch._world.line import Due

_AT_ONCE: Final = 16
_IN_TIME: Final = 3


@attrs.frozen(eq=False)
class _Read:
    task: asyncio.Task[None]
    due: Due


@attrs.define(eq=False)
class Reads:
    """The reads of details for one workspace, in the order in which they are wanted, the urgent ones first.

    No more are under way than a sweep has pages, or 16: where a listing fails, or lacks many jobs, all may be
    wanted at once. Those beyond what the sweep would cost have no claim on the account's budget, and come
    after all that do. What waits may turn out to be wanted no more.

    Args:
        read: Reads one job's details, and tells all who follow it.
        wanted_by: By when a job's details are wanted that have waited since a time; ``None`` for no more.
    """

    _read: Callable[[int, Due], Coroutine[Any, Any, None]]
    _wanted_by: Callable[[int, float], float | None]
    pages: int = attrs.field(default=1, init=False)
    """How many requests a sweep costs."""
    _under_way: dict[int, _Read] = attrs.field(factory=dict, init=False)
    _urgent: dict[int, float] = attrs.field(factory=dict, init=False)
    """What waits, and since when."""
    _patient: dict[int, float] = attrs.field(factory=dict, init=False)

    def is_under_way(self, job_id: int) -> bool:
        """Whether a job's details are being read."""
        return job_id in self._under_way

    def want(self, job_id: int, now: float, *, is_urgent: bool) -> None:
        """A job's details are wanted, unless they are being read, from the next :meth:`begin` on."""
        if job_id in self._under_way:
            return
        if is_urgent:
            self._urgent[job_id] = self._urgent.get(job_id, self._patient.pop(job_id, now))
        elif job_id not in self._urgent:
            self._patient.setdefault(job_id, now)

    def begin(self) -> None:
        """Begins as many reads as may be under way."""
        while len(self._under_way) < max(_AT_ONCE, self.pages):
            waiting = self._urgent or self._patient
            if not waiting:
                return
            job_id = next(iter(waiting))
            wanted_by = self._wanted_by(job_id, waiting.pop(job_id))
            if wanted_by is not None:
                self._start(job_id, wanted_by)

    def _start(self, job_id: int, wanted_by: float) -> None:
        has_claim = len(self._under_way) < max(_IN_TIME, self.pages)
        due = Due(wanted_by) if has_claim else Due()
        task = asyncio.create_task(self._read(job_id, due))
        self._under_way[job_id] = _Read(task, due)

        def end(task: asyncio.Task[None]) -> None:
            # One that is cancelled before it began has not said that it is over.
            if self._is_of(job_id, task):
                self._end(job_id)

        task.add_done_callback(end)

    def hasten(self, job_id: int, wanted_by: float) -> None:
        """Somebody else wants the details that are being read."""
        if job_id in self._under_way:
            self._under_way[job_id].due.hasten(wanted_by)

    def ends(self, job_id: int) -> bool:
        """The read that this task is for is over; tells whether it was still wanted of it."""
        is_wanted = self._is_of(job_id, asyncio.current_task())
        if is_wanted:
            self._end(job_id)
        return is_wanted

    def _is_of(self, job_id: int, task: asyncio.Task[Any] | None) -> bool:
        return job_id in self._under_way and self._under_way[job_id].task is task

    def _end(self, job_id: int) -> None:
        del self._under_way[job_id]
        self.begin()

    def drop(self, job_ids: Iterable[int] | None = None) -> list[asyncio.Task[None]]:
        """Nobody wants these jobs' details any more, or anybody's; gives the reads under way, to be ended.

        They are nobody's from now on: whoever comes while they end gets reads of their own.
        """
        dropped = [*self._urgent, *self._patient, *self._under_way] if job_ids is None else job_ids
        tasks: list[asyncio.Task[None]] = []
        for job_id in dropped:
            self._urgent.pop(job_id, None)
            self._patient.pop(job_id, None)
            if job_id in self._under_way:
                tasks.append(self._under_way.pop(job_id).task)
        self.begin()
        return tasks
