"""Watches: the transitions of one job as an asynchronous iterator, and waiting for one of them."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Collection, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

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
    NotFoundError,
    WatchTimeoutError,
)
from vizwatch._values.models import Job, Transition
from vizwatch._values.statuses import JobStatus
from vizwatch._world.line import to_its_end

if TYPE_CHECKING:
    from vizwatch._flows.delivering import Delivery


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
    iteration, so that it may be broken off and forgotten at any time; after a cancelled step it can go on,
    and nothing is lost. A status that comes and goes between two reads is not seen, and nothing is read while
    the consumer is busy. With a backlog, the watch goes on reading meanwhile, in a task of its own, and has
    to be entered::

        async with client.watch(197, backlog=64) as watch:
            async for transition in watch:
                await slow(transition)

    An error then comes once, after all that was seen before it. Either way a watch is for one task at a time.
    """

    follower: Follower
    poller: Poller
    _timeout: float | None
    _backlog: Mailbox | None = None
    """Where transitions wait that are read ahead of the consumer; ``None`` to read when asked."""
    _delivery: Delivery | None = None
    """Keeps the consumer's place; ``None`` where nobody asked for that."""
    _has_resumed: bool = attrs.field(default=False, init=False)
    """Whether it goes on with what was kept."""
    _resuming: bool = attrs.field(default=False, init=False)
    _prepared: Transition | None = attrs.field(default=None, init=False)
    """What is given once it is written that it was."""
    _given_before: Transition | None = attrs.field(default=None, init=False)
    """What was given last by another process, if it was not delivered."""
    _was_gone: bool = attrs.field(default=False, init=False)
    """Whether the job's deletion was told before."""
    _deadline: float = attrs.field(default=math.inf, init=False)
    _ageing: Ageing | None = attrs.field(default=None, init=False)
    _waiting: asyncio.Future[None] | None = attrs.field(default=None, init=False)
    """What the step under way waits for."""
    _arrived: Transition | BaseException | None = attrs.field(default=None, init=False)
    """What the poller said, until a step takes it: the one under way may be cancelled at the same moment."""
    _has_begun: bool = attrs.field(default=False, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _reader: asyncio.Task[None] | None = attrs.field(default=None, init=False)
    """Fills the backlog; ends as the watch does, with its error if there is one."""
    _has_told: bool = attrs.field(default=False, init=False)
    """Whether how the reader ended was told."""
    _came: asyncio.Event | None = attrs.field(default=None, init=False)
    """What the step under way waits for, if it is one from the backlog."""

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
        return self._step() if self._delivery is None else self._delivered(self._delivery)

    def _step(self) -> Coroutine[Any, Any, Transition]:
        return self._read_now() if self._backlog is None else self._from_backlog(self._backlog)

    async def _delivered(self, delivery: Delivery) -> Transition:
        await delivery.asks()
        if self._prepared is None:
            self._prepared = await self._step()
            delivery.prepares([self._prepared])
        await delivery.settled()
        transition, self._prepared = self._prepared, None
        delivery.gives(transition)
        return transition

    async def _read_now(self) -> Transition:
        if self._delivery is None or self._closed:
            return await self._read()
        if not self._has_resumed:
            given_before = await self._resume(self._delivery)
            if given_before is not None:
                return given_before
        try:
            return await self._read()
        except NotFoundError:
            if not self._was_gone:
                raise
        raise StopAsyncIteration

    async def _resume(self, delivery: Delivery) -> Transition | None:
        """Goes on with what the checkpoint has of the job: what was given last, if it was not delivered."""
        follower = self.follower
        self._begin(anyio.current_time())
        _check_alone(self._resuming)
        self._resuming = True
        try:
            kept = (await delivery.begin([follower.job_id])).get(follower.job_id)
        finally:
            self._resuming = False
        self._has_resumed = True
        if kept is None:
            return None
        follower.clock = self.poller.clock()
        follower.resume_after(kept.transition, anyio.current_time())
        self._was_gone = kept.transition.current is None
        if kept.is_delivered:
            return None
        follower.tracker.ended = self._was_gone or follower.tracker.ended_before
        self._given_before = kept.transition
        return kept.transition

    async def _read(self) -> Transition:
        _check_alone(self._waiting)
        if self._closed:
            raise StopAsyncIteration
        if self._arrived is None and not self.follower.is_over:
            loop = asyncio.get_running_loop()
            self._begin(loop.time())
            self.poller.join(self)
            self._waiting = loop.create_future()
            alarm = None if self._timeout is None else loop.call_at(self._deadline, self._answer)
            try:
                with self._ageing or contextlib.nullcontext():
                    await self._waiting
            except asyncio.CancelledError:
                await self._leave()
                raise
            finally:
                self._waiting = None
                if alarm is not None:
                    alarm.cancel()
            if self._arrived is None:
                await self._leave()
        arrived, self._arrived = self._arrived, None
        if isinstance(arrived, Transition):
            return arrived
        if arrived is not None:
            raise arrived
        if self._closed or self.follower.is_over:
            raise StopAsyncIteration
        raise self._late()

    async def _leave(self) -> None:
        self.poller.leave(self)
        await self.poller.abandon({self.follower.job_id})

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
        self._arrived = transition
        self._answer()

    def ended(self, error: BaseException) -> None:
        """The poller says that there will be no more."""
        if not isinstance(error, asyncio.CancelledError):
            self._arrived = error
        elif self._waiting is not None:
            self._waiting.cancel()
        self._answer()

    def _answer(self) -> None:
        """Something has arrived, or nothing will: the deadline has passed, or the watch is closed."""
        self.poller.leave(self)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _from_backlog(self, backlog: Mailbox) -> Transition:
        if self._reader is None:
            raise ConfigError("a watch with a backlog reads in a task of its own: enter it by `async with`")
        _check_alone(self._came)
        while not self._closed:
            transition = backlog.take()
            if transition is not None:
                return transition
            if self._reader.done():
                break
            self._came = asyncio.Event()
            try:
                await self._came.wait()
            finally:
                self._came = None
        if not self._closed and not self._has_told:
            self._has_told = True
            self._reader.result()
        raise StopAsyncIteration

    async def _fill(self, backlog: Mailbox) -> None:
        with contextlib.suppress(StopAsyncIteration):
            while True:
                transition = await self._read_now()
                # What another process was given already comes again as it was.
                backlog.put(transition, stays=transition is self._given_before)
                self._wake()

    def _filled(self, reader: asyncio.Task[None]) -> None:
        if not reader.cancelled():
            reader.exception()  # it is heard of, whether anybody asks or not
        self._wake()

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
        self._answer()
        if self._delivery is not None:
            self._delivery.end()
        if self._reader is not None:
            self._wake()
            self._reader.cancel()
            await to_its_end(asyncio.wait([self._reader]))

    async def __aenter__(self) -> Self:
        if self._backlog is not None and self._reader is None:
            self._reader = asyncio.create_task(self._fill(self._backlog))
            self._reader.add_done_callback(self._filled)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _check_alone(step: object) -> None:
    """Raises :class:`ConfigError` if a step of the iteration is under way already."""
    if step:
        raise ConfigError("this watch is being iterated already: make one watch for each task")


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
