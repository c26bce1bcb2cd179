"""Batches: what comes within a window of time, written as one; and what is looked up meanwhile, as one."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator
from typing import Any, Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


def parts(items: Iterable[T], most: int) -> Iterator[list[T]]:
    """All of them, so many at a time."""
    rest = iter(items)
    while part := [*itertools.islice(rest, most)]:
        yield part


class Batches(Generic[T]):
    """Gathers what many want to be written.

    What comes after a quiet window is written at once, and what comes less than a window after the last
    write began, together with all that comes until the window is over.

    Args:
        window: How long a window is, in seconds.
        write: Writes all of these, in their order. Whoever gave one of them gets what it raises.
    """

    def __init__(self, window: float, write: Callable[[list[T]], Awaitable[None]]) -> None:
        self._window = window
        self._write = write
        self._gathered: list[T] = []
        self._next: asyncio.Task[None] | None = None
        """The write that takes what is gathered."""
        self._writes: set[asyncio.Task[None]] = set()
        self._last = -math.inf

    async def put(self, one: T) -> None:
        """Returns once it is written. Cancelled, it may be written all the same."""
        self._gathered.append(one)
        if self._next is None:
            self._next = asyncio.create_task(self._write_soon())
            self._writes.add(self._next)
            self._next.add_done_callback(self._written)
        await asyncio.shield(self._next)

    async def _write_soon(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._last + self._window - loop.time(), 0.0))
        self._next, self._last = None, loop.time()
        gathered, self._gathered = self._gathered, []
        await self._write(gathered)

    def _written(self, write: asyncio.Task[None]) -> None:
        self._writes.discard(write)
        if not write.cancelled():
            write.exception()  # which nobody hears of where all that waited were cancelled

    async def aclose(self) -> None:
        """Gives up what is not written yet."""
        writes = list(self._writes)
        for write in writes:
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)
        self._gathered, self._next, self._last = [], None, -math.inf


class Lookups(Generic[K, T]):
    """Asks for what many want to know, at most once at a time.

    What is wanted in the same turn of the event loop is one lookup. Whatever is wanted while that is under
    way is the next one, which begins when that is over.

    Args:
        ask: Looks all of these keys up. Whoever wanted one of them gets what it returns, or raises.
    """

    def __init__(self, ask: Callable[[Collection[K]], Coroutine[Any, Any, T]]) -> None:
        self._ask = ask
        self._wanted: set[K] = set()
        self._waiting: list[asyncio.Future[T]] = []
        """Who wants one of them. One future for all would take longer to leave the more wait for it."""
        self._asking: asyncio.Task[T] | None = None
        self._asked: list[asyncio.Future[T]] = []
        """Who waits for what is under way."""

    async def get(self, keys: Iterable[K]) -> T:
        """What is found of these, maybe with others. Cancelled, they may be looked up all the same."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._wanted.update(keys)
        self._waiting.append(answer)
        if self._asking is None:
            self._begin()
        return await answer

    def _begin(self) -> None:
        self._asking = asyncio.create_task(self._ask_for_all())
        self._asking.add_done_callback(self._answer)

    async def _ask_for_all(self) -> T:
        wanted, self._wanted = self._wanted, set()
        self._asked, self._waiting = self._waiting, []
        return await self._ask(wanted)

    def _answer(self, asking: asyncio.Task[T]) -> None:
        asked, self._asked, self._asking = self._asked, [], None
        error = None if asking.cancelled() else asking.exception()
        for answer in asked:
            if asking.cancelled():
                answer.cancel()
            elif answer.done():  # it was cancelled
                continue
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(asking.result())
        if self._waiting:
            self._begin()

    async def aclose(self) -> None:
        """Gives up what is not found yet; who waits for it is cancelled."""
        waiting, self._waiting, self._wanted = self._waiting, [], set()
        for answer in waiting:
            answer.cancel()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
