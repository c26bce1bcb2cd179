"""Reading: whose details are read next, and how many reads are under way at once."""

from __future__ import annotations

import asyncio
import enum
import itertools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

import attrs

from vizwatch._world.line import Due

_AT_ONCE: Final = 16
_IN_TIME: Final = 3


class Turn(enum.IntEnum):
    """Which reads are begun before which."""

    AT_ONCE = 0
    """Somebody waits for it."""
    FIRST = 1
    """So does somebody for this, which was never answered."""
    USUAL = 2
    LAST = 3
    """It failed the last time."""

    @property
    def may_hang(self) -> bool:
        """Whether nothing tells that it will be answered."""
        return self in {Turn.FIRST, Turn.LAST}


@attrs.frozen(eq=False)
class _Read:
    task: asyncio.Task[None]
    due: Due
    turn: Turn


@attrs.define(eq=False)
class Reads:
    """The reads of details for one workspace, by their turns, and in the order in which they are wanted.

    No more are under way than a sweep has pages, or 16: where a listing fails, or lacks many jobs, all may be
    wanted at once. Of these places, a quarter is for what was answered the last time. As many as a sweep
    would cost have a claim on the account's budget, unless they failed; the others go after all that have.
    What waits may turn out to be wanted no more.

    Args:
        read: Reads one job's details, and tells all who follow it.
        wanted_by: By when a job's details are wanted that have waited since a time; ``None`` for no more.
    """

    _read: Callable[[int, Due], Coroutine[Any, Any, None]]
    _wanted_by: Callable[[int, float], float | None]
    pages: int = attrs.field(default=1, init=False)
    """How many requests a sweep costs."""
    _under_way: dict[int, _Read] = attrs.field(factory=dict, init=False)
    _waiting: dict[Turn, dict[int, float]] = attrs.field(
        factory=lambda: {turn: {} for turn in Turn}, init=False
    )
    """What waits, and since when."""
    _from_the_end: bool = attrs.field(default=True, init=False)

    def is_under_way(self, job_id: int) -> bool:
        """Whether a job's details are being read."""
        return job_id in self._under_way

    def want(self, job_id: int, now: float, turn: Turn) -> None:
        """A job's details are wanted, unless they are being read, from the next :meth:`begin` on."""
        if job_id in self._under_way or any(job_id in self._waiting[one] for one in Turn if one <= turn):
            return
        since = [waiting.pop(job_id) for waiting in self._waiting.values() if job_id in waiting]
        self._waiting[turn][job_id] = min([*since, now])

    def begin(self) -> None:
        """Begins as many reads as may be under way."""
        while (turn := self._next_turn()) is not None:
            waiting = self._waiting[turn]
            # Jobs that hang may have come together, before all others: so by turns from both ends.
            self._from_the_end = turn is Turn.FIRST and not self._from_the_end
            job_id = next(reversed(waiting) if self._from_the_end else iter(waiting))
            wanted_by = self._wanted_by(job_id, waiting.pop(job_id))
            if wanted_by is not None:
                self._start(job_id, wanted_by, turn)

    def _next_turn(self) -> Turn | None:
        at_once, reads = max(_AT_ONCE, self.pages), self._under_way.values()
        if len(reads) >= at_once:
            return None
        may_hang = sum(read.turn.may_hang for read in reads) < at_once - at_once // 4
        turns = (
            turn for turn, waiting in self._waiting.items() if waiting and (may_hang or not turn.may_hang)
        )
        return next(turns, None)

    def _start(self, job_id: int, wanted_by: float, turn: Turn) -> None:
        others = sum(read.turn is not Turn.LAST for read in self._under_way.values())
        has_claim = turn is not Turn.LAST and others < max(_IN_TIME, self.pages)
        due = Due(wanted_by) if has_claim else Due()
        task = asyncio.create_task(self._read(job_id, due))
        self._under_way[job_id] = _Read(task, due, turn)

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
        queues = self._waiting.values()
        dropped = [*itertools.chain(*queues), *self._under_way] if job_ids is None else job_ids
        tasks: list[asyncio.Task[None]] = []
        for job_id in dropped:
            for waiting in queues:
                waiting.pop(job_id, None)
            if job_id in self._under_way:
                tasks.append(self._under_way.pop(job_id).task)
        self.begin()
        return tasks
