"""Arriving: what surveys have found, one transition after the other, for one who iterates."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

import anyio
import attrs

from vizwatch._values.errors import ConfigError, VizwatchError
from vizwatch._values.models import Transition

if TYPE_CHECKING:
    from vizwatch._flows.delivering import Delivery
    from vizwatch._world.checkpoint import Stream


_AHEAD: Final = 10_000
"""How many transitions are written to a checkpoint at once."""
COMES_BACK_AFTER: Final = 300.0
"""How long a survey rests that can read nothing, beside others that can, in seconds."""
COMES_BACK_SOON: Final = 30.0
"""The same at first, as a token may be renewed somewhat late; more often, its user may be locked out."""


class Finder(Protocol):
    """A survey, as who iterates knows it."""

    arrivals: Arrivals
    phase: float | None
    delivery: Delivery | None
    error: BaseException | None
    has_ended: bool
    skipped: int
    prepared: int

    @property
    def has_found(self) -> bool:
        """Whether something was not taken yet."""
        ...

    @property
    def size(self) -> int:
        """How many jobs are known."""
        ...

    async def begin(self) -> None:
        """Reads from now on."""
        ...

    def end(self) -> None:
        """Nobody will take anything any more."""
        ...

    def go_on(self) -> None:
        """Somebody waits again."""
        ...

    def take(self) -> Transition | None:
        """The next transition; ``None`` now and then, and once all that was found is taken."""
        ...

    def prepare(self, limit: int) -> int:
        """Keeps the next ones that were found, so many at most, before they are taken; says how many are."""
        ...

    def age(self, now: float) -> float | None:
        """Seconds since the oldest of what is known was read; ``None`` before all is."""
        ...

    def is_stale(self, now: float) -> bool:
        """Whether that is too old."""
        ...

    async def aclose(self) -> None:
        """Reads no more."""
        ...


@attrs.define(eq=False)
class Arrivals:
    """Where surveys stand that have found something, until whoever iterates takes it."""

    raises: bool = True
    """Whether the error of a survey ends the iteration of all."""
    ready: deque[Finder] = attrs.field(factory=deque, init=False)
    came: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    surveys: list[Finder] = attrs.field(factory=list, init=False)
    expected: int = attrs.field(default=1, init=False)
    """How many surveys are still to be begun."""
    closed: bool = attrs.field(default=False, init=False)
    """Whether nobody will take anything any more."""
    is_left: bool = attrs.field(default=False, init=False)
    """Whether the last step of the iteration was cancelled, and nobody may come back."""
    _waiting: int = attrs.field(default=0, init=False)

    async def wait(self) -> None:
        """Waits until something is ready. While nobody does, nothing new is read."""
        if self.is_left:
            self.is_left = False
            for survey in self.surveys:
                survey.go_on()
        self.came.clear()
        await self.within_step(self.came.wait())

    async def within_step(self, work: Awaitable[object]) -> None:
        """Waits for something within a step, which may be cancelled."""
        self._waiting += 1
        try:
            await work
        except asyncio.CancelledError:
            self.is_left = self._waiting == 1
            raise
        finally:
            self._waiting -= 1

    def forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """Whoever iterated is gone; from any thread, at any time."""
        self.closed = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            for survey in self.surveys:
                loop.call_soon_threadsafe(survey.end)

    def end(self, survey: Finder) -> None:
        """A survey has ended, and all that it found is taken; may raise its error."""
        if survey.error is not None and (self.raises or not isinstance(survey.error, VizwatchError)):
            raise survey.error

    def not_begun(self) -> None:
        """One of those expected cannot be begun, and does not keep the iteration from its end."""
        self.expected -= 1
        self.came.set()

    @property
    def are_over(self) -> bool:
        """Whether nothing can come any more."""
        return self.closed or not (self.expected or any(not survey.has_ended for survey in self.surveys))


class JobsWatch:
    """The transitions of many jobs, as they are seen; it does not end by itself.

    ::

        async for transition in client.watch_jobs():
            print(transition.job_id, transition.current)

    The first items are the jobs found, each with `previous` ``None``; then comes each change of each of
    them, each job that appears and, with `current` ``None``, each that is deleted. Transitions of one job
    are in their order; those of several come as they are found. No reading of a listing is begun while
    something that the one before showed has not been taken, nor after a step that was cancelled, before the
    next one; a cancelled step loses nothing. It may be broken off and forgotten. Several tasks may take from
    it: each transition comes to one of them; so does an error that ends it, and the others come to the end.
    With a checkpoint it is for one task at a time, which by asking for the next one has done with all before.
    """

    def __init__(
        self, arrivals: Arrivals, begin: Callable[[], Awaitable[None]], survey: Finder | None = None
    ) -> None:
        self.survey = survey
        """The only one, where there is only one."""
        self._arrivals = arrivals
        self._begin: Callable[[], Awaitable[None]] | None = begin
        self._given: Delivery | None = None
        """Where it is kept what was given last, until the next one is asked for."""
        self._is_settled = True
        """Whether what was prepared is written, as far as it can be."""
        weakref.finalize(self, arrivals.forget, asyncio.get_running_loop()).atexit = False

    @property
    def age(self) -> float | None:
        """Seconds since the oldest of what is known was read; ``None`` until all was read once.

        Of a whole workspace that is the time since its last whole listing was begun.
        """
        now = anyio.current_time()
        ages = [survey.age(now) for survey in self._arrivals.surveys]
        if self._arrivals.expected or not ages or None in ages:
            return None
        return max(filter(None, ages), default=0.0)

    @property
    def stale(self) -> bool:
        """Whether some of what is known is older than `max_age`, or than a healthy watch lets it become."""
        now = anyio.current_time()
        surveys = self._arrivals.surveys
        return not surveys or self._arrivals.expected > 0 or any(survey.is_stale(now) for survey in surveys)

    @property
    def skipped(self) -> int:
        """How many rows are no jobs in the last whole listing, or listings, and are not watched."""
        return sum(survey.skipped for survey in self._arrivals.surveys)

    @property
    def given_of(self) -> Stream | None:
        """What the last transition is of that was given; only where a checkpoint is kept."""
        return None if self._given is None else self._given.stream

    async def move(self, arrivals: Arrivals, phase: float) -> None:
        """Begins the survey, at its place in the interval, for someone else who iterates over several."""
        if self.survey is not None:
            self.survey.arrivals, self.survey.phase = arrivals, phase
            await self.survey.begin()

    def __aiter__(self) -> Self:
        return self

    def __iter__(self) -> None:
        raise ConfigError("this watch is asynchronous: use `async for transition in client.watch_jobs(…)`")

    def __await__(self) -> None:
        raise ConfigError(
            "this watch is iterated, not awaited: `async for transition in client.watch_jobs(…)`"
        )

    async def __anext__(self) -> Transition:
        arrivals = self._arrivals
        await self._ask()
        while not arrivals.closed:
            if not arrivals.ready:
                if arrivals.are_over:
                    arrivals.forget(asyncio.get_running_loop())
                    break
                await arrivals.wait()
                continue
            survey = arrivals.ready[0]
            if survey.delivery is not None and survey.has_found and not self._is_prepared(survey):
                await arrivals.within_step(self._prepare(survey.delivery))
                continue
            transition = survey.take()
            if survey.has_found:
                arrivals.ready.rotate(-1)
            else:
                arrivals.ready.popleft()
            if transition is not None:
                self._given = survey.delivery
                if self._given is not None:
                    self._given.gives(transition)
                return transition
            if survey.has_ended and not survey.has_found:
                arrivals.end(survey)
            # A page of what is not wanted, or of what is taken without waiting.
            await arrivals.within_step(asyncio.sleep(0))
        raise StopAsyncIteration

    def _is_prepared(self, survey: Finder) -> bool:
        return survey.prepared > 0 and self._is_settled

    async def _prepare(self, delivery: Delivery) -> None:
        """Has all that is at hand written down, of all surveys in one write, before any of it is given."""
        room, self._is_settled = _AHEAD, False
        for survey in self._arrivals.ready:
            room -= survey.prepare(room)
            if not room:
                break
        await delivery.settled()
        self._is_settled = True

    async def _ask(self) -> None:
        """The consumer has dealt with what it was given, and wants the next one; at first, all begins."""
        arrivals, given, self._given = self._arrivals, self._given, None
        if given is not None:
            await arrivals.within_step(given.asks())
        if self._begin is None or arrivals.closed:
            return
        begin, self._begin = self._begin, None
        try:
            await arrivals.within_step(begin())
        except BaseException:
            self._begin = begin
            raise

    async def aclose(self) -> None:
        """Ends the iteration, from any task, and the reads under way. Idempotent."""
        self._arrivals.closed = True
        self._arrivals.came.set()
        surveys = dict.fromkeys(self._arrivals.surveys)
        if self.survey is not None:
            surveys[self.survey] = None  # which may not have begun
        for survey in surveys:
            await survey.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
