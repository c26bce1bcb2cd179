"""Taking what comes of an iterator while a test goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

T = TypeVar("T")


@contextlib.asynccontextmanager
async def taken(items: AsyncIterator[T], note: Callable[[T], object]) -> AsyncIterator[None]:
    """Notes each item meanwhile; raises what the iterator raised."""

    async def take() -> None:
        async for item in items:
            note(item)

    task = asyncio.create_task(take())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
