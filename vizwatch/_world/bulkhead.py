"""A bulkhead: places that many projects share, where those that hang leave room for the others."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

import attrs

from vizwatch._values.errors import ConnectError
from vizwatch._world.line import Line

SLOW_AFTER: Final = 5.0
"""How long a project may keep others waiting, in seconds."""
RESTS_FOR: Final = 30.0
"""How long a place rests that had no descriptor or port, in seconds."""


def leave(line: Line, error: BaseException | None) -> None:
    """Leaves a place for a connection, after the error that its use ended with.

    Where this machine or process had none left, there are fewer than there are places: whoever comes is to
    wait for one of those that are open, and not to fail as well.
    """
    if isinstance(error, ConnectError) and error.is_local:
        line.rest(RESTS_FOR)
    else:
        line.go()


@attrs.define(eq=False)
class Standing:
    """How one of the projects did last."""

    is_slow: bool = False
    """Whether it kept its place for 5 seconds or longer."""


class Bulkhead:
    """So many places for many projects.

    A project that has kept a place for 5 seconds is slow until it keeps one for less: slow ones let all
    others go first, and together have three quarters of the places at most. Any other one gives its place up
    after these 5 seconds, once one that is not slow waits for it, and comes again as a slow one.

    So those that hang, however many they are, keep no other from a place for longer than 5 seconds for each
    full set of places that came before it; and once they are known, not at all. What is slow and answers is
    waited for, in the places of the slow ones.

    Args:
        places: How many there are; fewer than four have no quarter.
    """

    def __init__(self, places: int) -> None:
        self._line = Line(places)
        self._of_slow = Line(places - places // 4)
        self._overdue: dict[Place, None] = {}
        """Those that were not wanted when their 5 seconds were over, the oldest first."""

    async def place(self, standing: Standing) -> Place:
        """Waits for a place, which is to be entered at once.

        Args:
            standing: The project's.
        """
        is_slow = standing.is_slow
        if is_slow:
            await self._of_slow.come()
        try:
            if self._overdue and not (is_slow or self._line.is_free):
                oldest = next(iter(self._overdue))
                del self._overdue[oldest]
                oldest.give_up()
            await self._line.come(is_patient=is_slow)
        except BaseException:
            if is_slow:
                self._of_slow.go()
            raise
        return Place(self, standing, is_slow=is_slow)

    def overdue(self, place: Place) -> None:
        """The 5 seconds of a place are over."""
        if self._line.is_wanted:
            place.give_up()
        else:
            self._overdue[place] = None

    def leave(self, place: Place, error: BaseException | None, *, is_slow: bool) -> None:
        """A place is free again, or rests, after the error that its use ended with."""
        self._overdue.pop(place, None)
        if is_slow:
            self._of_slow.go()
        leave(self._line, error)


class Place:
    """A place, from now until an ``async with`` block ends.

    Given up, the block is broken off, and nothing is raised beyond it: whoever still wants what it was for
    asks for a place again.
    """

    def __init__(self, bulkhead: Bulkhead, standing: Standing, *, is_slow: bool) -> None:
        loop = asyncio.get_running_loop()
        self._bulkhead = bulkhead
        self._standing = standing
        self._is_slow = is_slow
        self._since = loop.time()
        self._giving_up = asyncio.timeout(None)
        self._timer = None if is_slow else loop.call_later(SLOW_AFTER, bulkhead.overdue, self)

    def give_up(self) -> None:
        """Breaks the block off."""
        self._giving_up.reschedule(asyncio.get_running_loop().time())

    async def __aenter__(self) -> None:
        await self._giving_up.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        took = asyncio.get_running_loop().time() - self._since
        self._standing.is_slow = self._giving_up.expired() or took >= SLOW_AFTER
        if self._timer is not None:
            self._timer.cancel()
        self._bulkhead.leave(self, error, is_slow=self._is_slow)
        try:
            await self._giving_up.__aexit__(kind, error, traceback)
        except TimeoutError:
            return True
        return False
