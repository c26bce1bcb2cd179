"""Watches: the transitions of one job as an asynchronous iterator, and waiting for one of them."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections.abc import Awaitable, Callable, Collection
from types import TracebackType
from typing import Self

import anyio
import attrs

from vizwatch._rules import retrying
from vizwatch._rules.cadence import CONFIRMS_AFTER, Cadence, Doubt
from vizwatch._rules.mailbox import Mailbox
from vizwatch._rules.transitions import Tracker
from vizwatch._values.errors import (
    AuthenticationError,
    CallError,
    ClientClosedError,
    ConfigError,
    JobEndedError,
    JobGoneError,
    NotFoundError,
    VizwatchError,
    WatchTimeoutError,
)
from vizwatch._values.models import Job, Transition
from vizwatch._values.statuses import JobStatus
from vizwatch._world.gate import Gate
from vizwatch._world.line import to_its_end
from vizwatch._world.report import Report


@attrs.define(eq=False)
class Watch:
    """The transitions of one job, as they are seen.

    ::

        async for transition in client.watch(197):
            print(transition.current)

    The first item is the status found, with `previous` ``None``; then comes each change. The iteration ends
    after a terminal status or the job's deletion, or when the watch or its client is closed. A failed read
    is tried again, however often, until the deadline; a refusal that no later read will change is raised.

    Nothing runs between two steps of the iteration, so that a watch may be broken off and forgotten at any
    time; after a cancelled step it can go on. A status that comes and goes between two reads is not seen,
    and nothing is read while the consumer is busy. With a backlog, the watch goes on reading meanwhile, in a
    task of its own, and has to be entered::

        async with client.watch(197, backlog=64) as watch:
            async for transition in watch:
                await slow(transition)
    """

    _read: Callable[[], Awaitable[Job]]
    _gate: Gate
    _report: Report
    _tracker: Tracker
    _cadence: Cadence
    _doubt: Doubt
    _timeout: float | None
    _request_time: float
    """How long one read may take, in seconds."""
    _chance: Callable[[], float]
    """A random number from [0, 1)."""
    _backlog: Mailbox | None = None
    """Where transitions wait that are read ahead of the consumer; ``None`` to read when asked."""
    _clock: _Clock | None = attrs.field(default=None, init=False)
    _deadline: float = attrs.field(default=math.inf, init=False)
    _look_at: float = attrs.field(default=-math.inf, init=False)
    _read_at: float | None = attrs.field(default=None, init=False)
    """When the last good read was begun."""
    _latest: Job | None = attrs.field(default=None, init=False)
    """The job as last read, believed or not."""
    _step: anyio.CancelScope | None = attrs.field(default=None, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _failed: bool = attrs.field(default=False, init=False)
    _refused: bool = attrs.field(default=False, init=False)
    """Whether the last read was refused for its credentials."""
    _looked_last: bool = attrs.field(default=False, init=False)
    """Whether the last look before the deadline is settled."""
    _reader: asyncio.Task[None] | None = attrs.field(default=None, init=False)
    _came: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _failure: VizwatchError | None = attrs.field(default=None, init=False)

    @property
    def job(self) -> Job | None:
        """The job as last read, a read that is still doubted left out if there was a better one."""
        return self._tracker.job or self._latest

    @property
    def age(self) -> float | None:
        """Seconds since the last good read was begun; ``None`` before the first.

        A read that says `UNKNOWN` is not good: the service itself does not know.
        """
        return None if self._read_at is None else anyio.current_time() - self._read_at

    @property
    def stale(self) -> bool:
        """Whether the last good read is longer ago than a healthy watch ever waits."""
        age = self.age
        return age is None or age > self._cadence.longest + self._request_time

    def __aiter__(self) -> Self:
        return self

    def __iter__(self) -> None:
        raise ConfigError("a watch is asynchronous: use `async for transition in client.watch(…)`")

    def __await__(self) -> None:
        raise ConfigError(
            "a watch is iterated, not awaited: `async for transition in client.watch(…)`, or "
            "`await client.wait(…)` for the job's end"
        )

    async def __anext__(self) -> Transition:
        return await (self._read_now() if self._backlog is None else self._from_backlog(self._backlog))

    async def _read_now(self) -> Transition:
        if self._is_over:
            raise StopAsyncIteration
        if self._step is not None:
            raise ConfigError("this watch is being iterated already: make one watch for each task")
        clock = self._started()
        transition: Transition | None = None
        self._step = anyio.CancelScope(deadline=self._deadline)
        try:
            with self._step:
                transition = await self._next(clock)
        finally:
            self._step = None
        if transition is not None:
            return transition
        if self._is_over:
            raise StopAsyncIteration
        raise self._late()

    @property
    def _is_over(self) -> bool:
        return self._closed or self._failed or self._tracker.ended

    async def _from_backlog(self, backlog: Mailbox) -> Transition:
        if self._reader is None:
            raise ConfigError("a watch with a backlog reads in a task of its own: enter it by `async with`")
        while not self._closed:
            transition = backlog.take()
            if transition is not None:
                return transition
            if self._reader.done():
                break
            self._came.clear()
            await self._came.wait()
        if self._reader.cancelled() and not self._closed:
            raise asyncio.CancelledError
        failure, self._failure = self._failure, None
        if failure is not None and not self._closed:
            raise failure
        raise StopAsyncIteration

    async def _fill(self, backlog: Mailbox) -> None:
        try:
            while True:
                backlog.put(await self._read_now())
                self._came.set()
        except StopAsyncIteration:
            pass
        except VizwatchError as error:
            self._failure = error

    def _started(self) -> _Clock:
        """The watch's clock; it and the deadline run from the first step."""
        if self._clock is None:
            now = anyio.current_time()
            self._clock = _Clock(dt.datetime.now(dt.UTC), now)
            if self._timeout is not None:
                self._deadline = now + self._timeout
        return self._clock

    async def _next(self, clock: _Clock) -> Transition | None:
        transition = None
        while transition is None and not self._tracker.ended:
            at = self._next_look()
            await anyio.sleep_until(at)
            # Not told by the time, as timers may be early by what a clock cannot tell.
            self._looked_last = self._looked_last or at == self._last_look()
            transition = await self._look(clock)
        return transition

    def _next_look(self) -> float:
        last = self._last_look()
        if self._looked_last or not anyio.current_time() < last < self._look_at:
            return self._look_at
        return last

    def _last_look(self) -> float:
        """When to look for the last time before the deadline."""
        return math.inf if self._timeout is None else self._cadence.last_look(self._deadline, self._timeout)

    async def _look(self, clock: _Clock) -> Transition | None:
        """Reads the job once, and settles when to look again."""
        asked = anyio.current_time()

        async def read() -> Job:
            nonlocal asked
            asked = anyio.current_time()  # the gate may have kept it waiting
            return await self._read()

        try:
            job = self._latest = await self._gate.read(read, self._cadence.interval)
        except NotFoundError as error:
            return self._missed(error, clock)
        except CallError as error:
            error.job_id = self._tracker.job_id
            # Refused to other watches, a token may have been revoked; refused again later, it is hopeless.
            refused_before, self._refused = self._refused, isinstance(error, AuthenticationError)
            if retrying.is_permanent(error) or (self._refused and refused_before):
                self._failed = True
                raise
            self._report.failed(error)
            pause = self._cadence.after_failure(self._chance(), error.retry_after)
            self._look_at = anyio.current_time() + pause
            return None
        self._refused = False
        self._report.read(job.status)
        return self._saw(job, asked, clock)

    def _saw(self, job: Job, asked: float, clock: _Clock) -> Transition | None:
        now = anyio.current_time()
        pause = self._cadence.after_read(now, self._chance())
        if self._doubt.is_old(job.status.is_terminal, now):
            self._look_at = now + self._doubt.pause(pause)
            return None
        self._doubt.found()
        transition = self._tracker.saw(job, clock.at(asked), clock.at(now))
        if self._tracker.holds:
            self._look_at = now + min(pause, CONFIRMS_AFTER)
            return None
        if job.status is not JobStatus.UNKNOWN or self._read_at is None:
            self._read_at = asked
        self._look_at = now + pause
        return transition

    def _missed(self, error: NotFoundError, clock: _Clock) -> Transition | None:
        now = anyio.current_time()
        if not self._doubt.missed(now):
            self._look_at = now + self._doubt.pause(self._cadence.after_read(now, self._chance()))
            return None
        transition = self._tracker.gone(clock.at(now))
        if transition is None:
            self._failed = True
            error.job_id = self._tracker.job_id
            raise error
        return transition

    def _late(self) -> WatchTimeoutError:
        job, seen = self.job, self._tracker.job
        last = "no read succeeded" if job is None else f"last seen {job.status.name}"
        if job is not None and seen is None:
            last += ", which may be of the run before it was restarted"
        return WatchTimeoutError(
            f"job {self._tracker.job_id} did not end within {self._timeout:g} s; {last}", job=job
        )

    async def aclose(self) -> None:
        """Ends the iteration, from any task, cancelling a read under way. Idempotent."""
        self._closed = True
        if self._step is not None:
            self._step.cancel()
        if self._reader is not None:
            self._came.set()
            self._reader.cancel()
            await to_its_end(asyncio.wait([self._reader]))

    async def __aenter__(self) -> Self:
        if self._backlog is not None and self._reader is None:
            self._reader = asyncio.create_task(self._fill(self._backlog))
            self._reader.add_done_callback(lambda _: self._came.set())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


@attrs.frozen
class _Clock:
    """The time in UTC by the event loop's clock, so that a step of the wall clock reorders nothing."""

    _wall: dt.datetime
    _loop: float

    def at(self, now: float) -> dt.datetime:
        return self._wall + dt.timedelta(seconds=now - self._loop)


async def wait_until(watch: Watch, wanted: Collection[JobStatus | None]) -> Job:
    """The job, once its status is in `wanted`, where ``None`` stands for deleted."""
    async with watch:
        async for transition in watch:
            job = transition.job
            if transition.current in wanted:
                return job
            if transition.current is None:
                raise JobGoneError(f"job {job.job_id} was deleted; last seen {job.status.name}", job=job)
            if transition.is_terminal:
                raise JobEndedError(f"job {job.job_id} ended as {job.status.name}", job=job)
    raise ClientClosedError("the client was closed while it waited for a job")
