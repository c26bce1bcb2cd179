"""Batches: what comes within a window of time, written as one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


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
