"""Watches: the transitions of one job as an asynchronous iterator, and waiting for one of them."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Collection, Coroutine
from types import TracebackType
from typing import Any, Self

import anyio
import attrs

from vizwatch._flows.ageing import Ageing
from vizwatch._flows.following import Follower
from vizwatch._flows.polling import Poller
from vizwatch._rules.mailbox import Mailbox
from vizwatch._values.errors import (
    ClientClosedError,
    ConfigError,
    JobEndedError,
    JobGoneError,
    VizwatchError,
    WatchTimeoutError,
)
from vizwatch._values.models import Job, Transition
from vizwatch._values.statuses import JobStatus
from vizwatch._world.line import to_its_end


@attrs.define(eq=False)
class Watch:
    """The transitions of one job, as they are seen.

    ::

        async for transition in client.watch(197):
            print(transition.current)

    The first item is the status found, with `previous` ``None``; then comes each change. The iteration ends
    after a terminal status or the job's deletion, or when the watch or its client is closed. A failed read
    is tried again, however often, until the deadline; a refusal that no later read will change is raised.

    Watches of one workspace share their reads. Nothing is read for a watch between two steps of its
    iteration, so that it may be broken off and forgotten at any time; after a cancelled step it can go on. A
    status that comes and goes between two reads is not seen, and nothing is read while the consumer is busy.
    With a backlog, the watch goes on reading meanwhile, in a task of its own, and has to be entered::

        async with client.watch(197, backlog=64) as watch:
            async for transition in watch:
                await slow(transition)
    """

    follower: Follower
    poller: Poller
    _timeout: float | None
    _backlog: Mailbox | None = None
    """Where transitions wait that are read ahead of the consumer; ``None`` to read when asked."""
    _deadline: float = attrs.field(default=math.inf, init=False)
    _ageing: Ageing | None = attrs.field(default=None, init=False)
    _waiting: asyncio.Future[Transition | None] | None = attrs.field(default=None, init=False)
    """What the step under way waits for; ``None`` comes of closing and of the deadline."""
    _undelivered: Transition | None = attrs.field(default=None, init=False)
    """What came to a step that was cancelled at the same moment."""
    _has_begun: bool = attrs.field(default=False, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _reader: asyncio.Task[None] | None = attrs.field(default=None, init=False)
    _came: asyncio.Event | None = attrs.field(default=None, init=False)
    _failure: VizwatchError | None = attrs.field(default=None, init=False)

    @property
    def job(self) -> Job | None:
        """The job as last read, a read that is still doubted left out if there was a better one."""
        return self.follower.job

    @property
    def age(self) -> float | None:
        """Seconds since the last good read was begun; ``None`` before the first.

        A read that says `UNKNOWN` is not good: the service itself does not know.
        """
        read_at = self.follower.read_at
        return None if read_at is None else anyio.current_time() - read_at

    @property
    def stale(self) -> bool:
        """Whether the last good read is longer ago than `max_age`, or than a healthy watch ever waits."""
        return self.follower.is_stale(anyio.current_time())

    def __aiter__(self) -> Self:
        return self

    def __iter__(self) -> None:
        raise ConfigError("a watch is asynchronous: use `async for transition in client.watch(…)`")

    def __await__(self) -> None:
        raise ConfigError(
            "a watch is iterated, not awaited: `async for transition in client.watch(…)`, or "
            "`await client.wait(…)` for the job's end"
        )

    def __anext__(self) -> Coroutine[Any, Any, Transition]:
        return self._read_now() if self._backlog is None else self._from_backlog(self._backlog)

    async def _read_now(self) -> Transition:
        if self._waiting is not None:
            raise ConfigError("this watch is being iterated already: make one watch for each task")
        undelivered, self._undelivered = self._undelivered, None
        if undelivered is not None and not self._closed:
            return undelivered
        if self._closed or self.follower.is_over:
            raise StopAsyncIteration
        loop = asyncio.get_running_loop()
        self._begin(loop.time())
        self.poller.join(self)
        waiting: asyncio.Future[Transition | None] = loop.create_future()
        self._waiting = waiting
        alarm = None if self._timeout is None else loop.call_at(self._deadline, self._answer, None)
        try:
            with self._ageing or contextlib.nullcontext():
                transition = await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._undelivered = waiting.result()
            self.poller.leave(self)
            await self.poller.abandon({self.follower.job_id})
            raise
        finally:
            self._waiting = None
            if alarm is not None:
                alarm.cancel()
        if transition is not None:
            return transition
        self.poller.leave(self)
        await self.poller.abandon({self.follower.job_id})
        if self._closed or self.follower.is_over:
            raise StopAsyncIteration
        raise self._late()

    def _begin(self, now: float) -> None:
        """The deadline runs from the first step."""
        if self._has_begun:
            return
        self._has_begun = True
        if self._timeout is not None:
            self._deadline = now + self._timeout
            self.follower.last_look = self.follower.cadence.last_look(self._deadline, self._timeout)
        follower = self.follower
        self._ageing = follower.terms.ageing(
            follower.tracker.project_id, follower.job_id, lambda: follower.heard_at
        )

    def took(self, transition: Transition) -> None:
        """The poller says that the job has changed."""
        self._answer(transition)

    def ended(self, error: BaseException) -> None:
        """The poller says that there will be no more."""
        waiting = self._waiting
        if waiting is not None and isinstance(error, asyncio.CancelledError):
            waiting.cancel()
        elif waiting is not None and not waiting.done():
            waiting.set_exception(error)
        self._answer(None)

    def _answer(self, transition: Transition | None) -> None:
        self.poller.leave(self)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(transition)

    async def _from_backlog(self, backlog: Mailbox) -> Transition:
        if self._reader is None:
            raise ConfigError("a watch with a backlog reads in a task of its own: enter it by `async with`")
        while not self._closed:
            transition = backlog.take()
            if transition is not None:
                return transition
            if self._reader.done():
                break
            self._came = asyncio.Event()
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
                self._wake()
        except StopAsyncIteration:
            pass
        except VizwatchError as error:
            self._failure = error

    def _wake(self) -> None:
        if self._came is not None:
            self._came.set()

    def _late(self) -> WatchTimeoutError:
        job, seen = self.job, self.follower.tracker.job
        last = "no read succeeded" if job is None else f"last seen {job.status.name}"
        if job is not None and seen is None:
            last += ", which may be of the run before it was restarted"
        return WatchTimeoutError(
            f"job {self.follower.job_id} did not end within {self._timeout:g} s; {last}", job=job
        )

    async def aclose(self) -> None:
        """Ends the iteration, from any task, cancelling a read under way. Idempotent."""
        self._closed = True
        self._answer(None)
        if self._reader is not None:
            self._wake()
            self._reader.cancel()
            await to_its_end(asyncio.wait([self._reader]))

    async def __aenter__(self) -> Self:
        if self._backlog is not None and self._reader is None:
            self._reader = asyncio.create_task(self._fill(self._backlog))
            self._reader.add_done_callback(lambda _: self._wake())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


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
