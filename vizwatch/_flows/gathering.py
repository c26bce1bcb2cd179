"""Gathering: the jobs of many listings as they come, none of which waits for another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Generic, Self, TypeVar

import attrs

from vizwatch._values.errors import ConfigError, VizwatchError
from vizwatch._values.models import Job, JobPage
from vizwatch._world.bulkhead import SLOW_AFTER
from vizwatch._world.line import to_its_end

I = TypeVar("I")  # noqa: E741 - an item

_Step = JobPage | VizwatchError | None
"""What comes of reading on: a page, an error, or nothing, since all is read."""


@attrs.define(eq=False)
class Reading(Generic[I]):
    """One listing among many, and how far it came."""

    _next_page: Callable[[], Awaitable[JobPage | None]]
    """Reads on; ``None`` at the end."""
    item: Callable[[Job], I]
    """What is given for a job."""
    _limit: int | None
    """How many jobs it gives at most."""
    is_whole: bool
    """Whether it left out nothing so far."""
    backwards: list[JobPage] | None
    """Where pages wait that come from the last to the first; ``None`` where they come in order."""
    jobs: int = attrs.field(default=0, init=False)
    """How many jobs were given."""
    complete: bool = attrs.field(default=False, init=False)
    """Whether all were given."""
    error: VizwatchError | None = attrs.field(default=None, init=False)
    """What ended it before."""

    async def step(self) -> _Step:
        """Reads on."""
        try:
            return await self._next_page()
        except VizwatchError as error:
            return error

    def end(self) -> None:
        """It was read to its end, and its jobs were given."""
        was_limited = self._limit is not None and self.jobs >= self._limit
        self.complete = self.is_whole and not was_limited


@attrs.define(eq=False, repr=False)
class Gathering(Generic[I]):
    """The items of many listings, as their pages come; several tasks may take them.

    A task reads one page, and ends. The listing's next one is begun when the consumer takes this one: so
    each is read a page ahead at most, and when the iteration is broken off and forgotten, nothing goes on
    beyond the pages that are under way.

    While others wait to be begun, a listing whose page is not there after 5 seconds makes room for one of
    them, and is begun again after all of them: those that hang delay the others by 5 seconds for each
    `at_once` of them.
    """

    _waiting: deque[Reading[I]]
    """Those to be begun."""
    _late: deque[Reading[I]]
    """Those to be begun after them, since they kept somebody waiting before."""
    _at_once: int
    """How many listings may be begun and not at their end."""
    _start: Callable[[Coroutine[Any, Any, _Step]], asyncio.Task[_Step]]
    """Begins a task, and sees to its end."""
    _check_open: Callable[[], None]
    """Raises once nothing can be read any more."""
    _under_way: dict[asyncio.Task[_Step], tuple[Reading[I], float]] = attrs.field(factory=dict, init=False)
    """The pages that are being read, of which listing and since when, the oldest first."""
    _ready: deque[tuple[Reading[I], asyncio.Task[_Step]]] = attrs.field(factory=deque, init=False)
    """The pages that nobody has taken yet."""
    _came: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _given: Reading[I] | None = attrs.field(default=None, init=False)
    """Whose jobs are being given."""
    _jobs: Iterator[Job] = attrs.field(factory=lambda: iter(()), init=False)
    _left: int = attrs.field(default=0, init=False)
    """How many these are."""
    _closed: bool = attrs.field(default=False, init=False)

    def __aiter__(self) -> Self:
        return self

    def __iter__(self) -> None:
        raise ConfigError("a listing is asynchronous: use `async for item in fleet.list_jobs()`")

    def __await__(self) -> None:
        raise ConfigError("a listing is iterated, not awaited: `async for item in fleet.list_jobs()`")

    def __repr__(self) -> str:
        return f"<listing of {len(self._waiting) + len(self._late) + self._active} projects to go>"

    async def __anext__(self) -> I:
        while not self._left or self._given is None:
            await self._take()
        self._left -= 1
        self._given.jobs += 1
        return self._given.item(next(self._jobs))

    async def _take(self) -> None:
        """Takes the next page that has come, or waits for one."""
        if self._closed:
            raise StopAsyncIteration
        self._check_open()
        while self._active < self._at_once and (queue := self._waiting or self._late):
            self._begin(queue.popleft())
        if not self._active:
            raise StopAsyncIteration
        if not self._ready:
            await self._wait()
            return  # another task may have taken what came
        reading, task = self._ready.popleft()
        if task.cancelled():
            self._late.append(reading)
            return
        match task.result():
            case JobPage() as page:
                self._begin(reading)
                self._turn(reading, page)
            case None if reading.backwards:
                jobs = [job for page in reversed(reading.backwards) for job in reversed(page.jobs)]
                reading.backwards = None
                self._ready.append((reading, task))  # its end comes once more, after them
                self._give(reading, jobs)
            case None:
                reading.end()
            case error:
                reading.error = error

    @property
    def _active(self) -> int:
        """How many listings are begun and not at their end."""
        return len(self._under_way) + len(self._ready)

    async def _wait(self) -> None:
        """Waits until a page comes, or one that is late makes room."""
        self._came.clear()
        task, (_, begun) = next(iter(self._under_way.items()))
        try:
            async with asyncio.timeout_at(begun + SLOW_AFTER if self._waiting else None):
                await self._came.wait()
        except TimeoutError:
            if not task.cancelling():
                task.cancel()
            await self._came.wait()

    def _begin(self, reading: Reading[I]) -> None:
        """Begins to read a listing's next page."""
        task = self._start(reading.step())
        self._under_way[task] = reading, asyncio.get_running_loop().time()
        task.add_done_callback(self._come)

    def _come(self, task: asyncio.Task[_Step]) -> None:
        reading, _ = self._under_way.pop(task)
        self._ready.append((reading, task))
        self._came.set()

    async def aclose(self) -> None:
        """Ends the iteration, from any task, and the reads under way. Idempotent."""
        self._closed, self._left = True, 0
        tasks = [*self._under_way]
        for task in tasks:
            task.cancel()
        if tasks:
            await to_its_end(asyncio.wait(tasks))
        self._ready.clear()

    def _turn(self, reading: Reading[I], page: JobPage) -> None:
        reading.is_whole = reading.is_whole and not page.skipped
        if reading.backwards is None:
            self._give(reading, page.jobs)
        else:
            reading.backwards.append(page)

    def _give(self, reading: Reading[I], jobs: Sequence[Job]) -> None:
        self._given, self._jobs, self._left = reading, iter(jobs), len(jobs)
