"""Whose turn it is, and what nobody may interrupt."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import math
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any, Final, TypeVar, cast

import anyio
import attrs

T = TypeVar("T")

_SMALL: Final = 64


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Does the work, even if this task is cancelled meanwhile by whatever means, and only then lets it be.

    For closing alone, and for work whose time is bounded: what is half closed leaks.
    """
    task, cancelled = asyncio.ensure_future(work), None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None and not task.cancelled():
        task.exception()  # it is heard of
        raise cancelled
    return task.result()


async def in_time(work: Coroutine[Any, Any, T], deadline: float) -> T:
    """What the work gives; raises :class:`TimeoutError` after the deadline, in the event loop's time.

    Work that has nothing to wait for costs no timer.
    """
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    async with asyncio.timeout_at(deadline):
        return await _rest(work, waits_for)


@types.coroutine
def _rest(work: Coroutine[Any, Any, T], waits_for: object) -> Generator[Any, None, T]:
    """Goes on with work that waits for the first time."""
    try:
        while True:
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 - the work's own, to pass on
                waits_for = work.throw(error)
            else:
                waits_for = work.send(None)
    except StopIteration as done:
        return cast("T", done.value)


@attrs.define(eq=False)
class Due:
    """By when something is wanted, which may become earlier while it waits for its turn."""

    at: float = math.inf
    """In seconds of any one clock; infinite for after all that say when."""
    _stand: Callable[[], None] | None = attrs.field(default=None, init=False)
    """Takes the place in the line that it is waited for in, if any."""

    def hasten(self, at: float) -> None:
        """It is wanted by this time, too."""
        if at < self.at:
            self.at = at
            if self._stand is not None:
                self._stand()

    def stands(self, stand: Callable[[], None] | None) -> None:
        """It waits in a line from now on, or in none."""
        self._stand = stand


class Hold:
    """What others wait for until it is over, though several do it: until the first one has done it."""

    def __init__(self) -> None:
        self.is_held = False
        """Whether somebody does it."""
        self._over: asyncio.Future[None] | None = None
        """Done once it is over; ``None`` while nobody waits for that."""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """It is done within the block."""
        if self.is_held:
            yield
            return
        self.is_held = True
        try:
            yield
        finally:
            over, self._over, self.is_held = self._over, None, False
            if over is not None:
                over.set_result(None)

    async def wait(self) -> None:
        """Waits until it is over, which somebody does."""
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._over])


class Line:
    """So many at once: whoever is not patient first, then who is due first, then who came first.

    A lock of asyncio knows no such difference, and a thousand watches would stand before a user's call, and
    one that looks once an hour before one that looks each second.

    Args:
        at_once: How many may have their turn at once.
    """

    def __init__(self, at_once: int = 1) -> None:
        self._free = at_once
        self._may_rest = at_once - 1
        self._waiting: list[tuple[bool, float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._size = 0
        """How many wait: whoever was cancelled, or has moved forward, leaves his old place behind."""

    @property
    def is_free(self) -> bool:
        """Whether a turn comes at once."""
        return self._free > 0

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for a turn who is not patient."""
        while self._waiting and self._waiting[0][-1].done():
            heapq.heappop(self._waiting)
        return bool(self._waiting) and not self._waiting[0][0]

    @contextlib.asynccontextmanager
    async def turn(self, *, is_patient: bool, due: Due | None = None) -> AsyncIterator[None]:
        """A turn, as of :meth:`come`, until the ``async with`` block ends."""
        await self.come(is_patient=is_patient, due=due)
        try:
            yield
        finally:
            self.go()

    async def come(self, *, is_patient: bool = False, due: Due | None = None) -> None:
        """Waits for a turn, which :meth:`go` ends.

        Args:
            is_patient: Whether to let all go first that are not.
            due: By when it is wanted; for one place at a time.
        """
        if self._free > 0:
            self._free -= 1
            return
        due = due or Due()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        number = next(self._numbers)

        def stand() -> None:
            heapq.heappush(self._waiting, (is_patient, due.at, number, future))
            if len(self._waiting) > 2 * self._size + _SMALL:
                self._waiting = [place for place in self._waiting if not place[-1].done()]
                heapq.heapify(self._waiting)

        self._size += 1
        stand()
        due.stands(stand)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.go()  # it came at the very moment
            raise
        finally:
            due.stands(None)
            self._size -= 1

    def go(self) -> None:
        """Ends a turn: it is the next one's."""
        while self._waiting:
            *_, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)
                return
        self._free += 1

    def rest(self, seconds: float) -> None:
        """Ends a turn; nobody has one in its place for so long, unless all other places rest too."""
        if not self._may_rest:
            self.go()
            return
        self._may_rest -= 1
        asyncio.get_running_loop().call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._may_rest += 1
        self.go()
