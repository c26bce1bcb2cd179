"""Whose turn it is, and what nobody may interrupt."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import math
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


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


class Line:
    """One at a time: whoever is not patient first, then who is due first, then who came first.

    A lock of asyncio knows no such difference, and a thousand watches would stand before a user's call, and
    one that looks once an hour before one that looks each second.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[bool, float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._is_taken = False

    @property
    def is_free(self) -> bool:
        """Whether nobody has the turn, or waits for it."""
        return not self._is_taken

    @contextlib.asynccontextmanager
    async def turn(self, *, is_patient: bool, due: float = math.inf) -> AsyncIterator[None]:
        """The turn, once it has come.

        Args:
            is_patient: Whether to let all go first that are not.
            due: When it is wanted, in seconds of any one clock.
        """
        if self._is_taken:
            await self._come(is_patient, due)
        self._is_taken = True
        try:
            yield
        finally:
            self._hand_over()

    async def _come(self, is_patient: bool, due: float) -> None:  # noqa: FBT001
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (is_patient, due, next(self._numbers), future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._hand_over()  # it came at the very moment
            raise

    def _hand_over(self) -> None:
        while self._waiting:
            *_, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)
                return
        self._is_taken = False
