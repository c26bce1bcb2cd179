"""Time in tests."""

from __future__ import annotations

import asyncio

from looptime import LoopTimeEventLoop


async def elapse(seconds: float) -> None:
    """Lets virtual time pass. In real time a test waits for what happens, and never for a while."""
    assert isinstance(asyncio.get_running_loop(), LoopTimeEventLoop), "this test runs in real time"
    await asyncio.sleep(seconds)
