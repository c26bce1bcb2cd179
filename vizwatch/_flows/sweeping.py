"""Sweeping: readings of the whole listing, one after the other, and what to do when they fail."""

from __future__ import annotations

import asyncio
import enum
import functools
import math
from collections.abc import Awaitable, Callable
from typing import Final, cast

import attrs

from vizwatch._rules import retrying, rhythm, wire
from vizwatch._rules.cadence import Cadence, Failures
from vizwatch._rules.listing import Ask, Dialect, Sweep
from vizwatch._values.errors import (
    AuthenticationError,
    BadRequestError,
    CallError,
    NotFoundError,
    PermissionDeniedError,
)
from vizwatch._values.rows import Rows, Sighting
from vizwatch._world.gate import Gate
from vizwatch._world.line import Due

ReadRows = Callable[[int, int, Due], Awaitable[tuple[Rows, float]]]
"""Reads one page of a listing, by its number and size, and when it is due; gives also when that was sent."""

_FAILURES_TO_GIVE_UP: Final = 3
_FAILURES_ALONE: Final = 2
_LISTS_AGAIN_AFTER: Final = 300.0
_OF_THE_LISTING: Final = (BadRequestError, NotFoundError, PermissionDeniedError)
"""Refusals of the listing that may not hold for the details."""


class Verdict(enum.Enum):
    """What to do when a page could not be read."""

    AGAIN = "ask for it again after a pause"
    LATER = "do without the listing for a while"
    REFUSED = "do without the listing for a while, which may be for ever"
    HOPELESS = "do without everything"


@attrs.define(eq=False)
class Sweeps:
    """The sweeps of one workspace's listing: one at a time, page by page.

    Args:
        gate: What reads go through while the service may be down.
        cadence: The pauses after a failure, and those of whoever wants them.
        chance: A random number from [0, 1).
        read_rows: Reads one page; ``None`` where there is no listing.
        dialect: What the service allows.
    """

    _gate: Gate
    _cadence: Cadence
    _chance: Callable[[], float]
    _read_rows: ReadRows | None
    dialect: Dialect
    current: Sweep | None = attrs.field(default=None, init=False)
    """The one under way, or put off."""
    pages: int = attrs.field(default=1, init=False)
    """How many pages the listing has, as far as is known."""
    failures: int = attrs.field(default=0, init=False)
    """How many reads in succession have failed."""
    _count: int = attrs.field(default=0, init=False)
    _narrowed: int | None = attrs.field(default=None, init=False)
    """What size of pages to try, after another one was refused."""
    _due: Due = attrs.field(factory=Due, init=False)
    """By when the pages of the one under way are wanted."""
    _asked: float = attrs.field(default=math.inf, init=False)
    """When its first page was asked for."""
    _last_asked: float | None = attrs.field(default=None, init=False)
    """The same of the last one that is over."""
    _pauses: Failures = attrs.field(factory=Failures, init=False)
    _refusals: int = attrs.field(default=0, init=False)
    _not_before: float = attrs.field(default=-math.inf, init=False)
    """When to try the listing again, if it failed for long, or is refused."""
    rests_until: float = attrs.field(default=-math.inf, init=False)
    """When to ask for a page again that could not be read."""
    _alone: int = attrs.field(default=0, init=False)
    """How many pages in succession could not be read though details could, before each of them."""
    _details_answer: bool = attrs.field(default=False, init=False)
    """Whether details were read since the last failure."""

    @property
    def may_begin(self) -> bool:
        """Whether the listing can be read, as far as is known."""
        return self._read_rows is not None and _now() >= self._not_before

    def begin(self, cadence: Cadence, *, for_all: bool, max_age: float) -> Sweep:
        """Begins another one.

        Args:
            cadence: The pauses of those who want it.
            for_all: Whether all jobs are wanted, and not only some that are known.
            max_age: How old what it shows may become, in seconds.
        """
        self._count += 1
        self._cadence = cadence
        self._due = Due(max_age + (_now() if self._last_asked is None else self._last_asked))
        self._asked = math.inf
        dialect = self.dialect
        trusts_total = not dialect.totals_lie and (dialect.totals_hold or not for_all)
        per_page = self._narrowed or dialect.limits.per_page
        self.current = Sweep(self._count, per_page, trusts_total)
        return self.current

    async def read(self, sweep: Sweep) -> Sighting:
        """Its next page. Raises :class:`CallError`, and the page is still the next one."""
        read_rows = cast("ReadRows", self._read_rows)  # none is begun where there is no listing
        read = functools.partial(read_rows, sweep.page, sweep.per_page, self._due)
        rows, asked = await self._gate.read(read, self._cadence.interval, self._due, failures=self.failures)
        now = _now()
        self._asked = min(self._asked, asked)
        sweep.take(len(rows) + rows.skipped, rows.job_total_count)
        dialect = self.dialect
        dialect.learn(attrs.evolve(dialect.limits, per_page=sweep.per_page))
        dialect.totals_hold = dialect.totals_hold or sweep.total_held
        self._narrowed, self.pages = None, sweep.pages
        self.failures = self._refusals = self._alone = 0
        self._pauses.succeeded(now)
        return Sighting(rows, asked, now)

    def hasten(self, wanted_by: float) -> None:
        """Somebody else wants the one under way."""
        self._due.hasten(wanted_by)

    def end(self) -> None:
        """The one under way is over, unless nobody wanted it any more."""
        if self.current is not None:
            self.current, self._last_asked = None, self._asked

    def rest(self) -> None:
        """Nobody wants any more. Whoever comes does not take over what others waited for."""
        self.current, self._last_asked = None, None
        self.failures = self._refusals = self._alone = 0

    def details_answered(self) -> None:
        """The details of a job were read: the service is there."""
        self._details_answer = True

    def next_at(self, at: float, now: float, max_age: float) -> float:
        """When to begin the next one: at a time, or earlier, if what this one showed were too old then."""
        shortest = self._cadence.shortest
        return rhythm.before_stale(at, now, begun=self._asked, max_age=max_age, shortest=shortest)

    def narrows(self, sweep: Sweep, error: CallError) -> bool:
        """Whether it is the size of pages that was refused: then a smaller one is tried by another sweep."""
        if not isinstance(error, BadRequestError) or not wire.blames_a_parameter(error):
            return False
        asked = attrs.evolve(self.dialect.limits, per_page=sweep.per_page)
        narrower = Ask().narrower(asked, error.message)
        self._narrowed = None if narrower is None else narrower.per_page
        return self._narrowed is not None

    def failed(self, error: CallError) -> tuple[Verdict, float]:
        """A page could not be read: what to do, and when the listing may be asked again."""
        now = _now()
        self.failures += 1
        self._alone += self._details_answer
        self._details_answer = False
        self._pauses.failed()
        again_at = now + self._cadence.after_failures(self._pauses.count, self._chance(), error.retry_after)
        # Refused once, a token may have been revoked: that is no reason to end all watches. And one that
        # was got just now is not renewed at once.
        is_refusal = isinstance(error, AuthenticationError)
        refusals, self._refusals = self._refusals, self._refusals + (is_refusal and error.not_retried is None)
        is_permanent = self._refusals > refusals > 0 if is_refusal else retrying.is_permanent(error)
        if is_permanent and not isinstance(error, _OF_THE_LISTING):
            return Verdict.HOPELESS, again_at
        if is_permanent:
            self._not_before = now + _LISTS_AGAIN_AFTER
            return Verdict.REFUSED, again_at
        # Where details fail as well, all is down, and asking for each of them would help nobody.
        of_the_listing = not retrying.is_outage(error) or self._alone >= _FAILURES_ALONE
        if of_the_listing and self.failures >= _FAILURES_TO_GIVE_UP:
            self._not_before = now + _LISTS_AGAIN_AFTER
            return Verdict.LATER, again_at
        if (error.retry_after or 0.0) > self._cadence.longest:
            self._not_before = again_at  # nobody can wait for so long
            return Verdict.LATER, again_at
        self.rests_until = again_at
        return Verdict.AGAIN, again_at


def _now() -> float:
    return asyncio.get_running_loop().time()
