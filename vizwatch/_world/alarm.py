"""An alarm: one timer for whoever waits for the earliest of many times."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable


class Alarm:
    """Calls once, at the earliest of the times that it is set to, by the event loop's clock.

    Args:
        ring: What is called, with that time: a timer may be early by what a clock cannot tell.
    """

    def __init__(self, ring: Callable[[float], None]) -> None:
        self.context = contextvars.Context()
        """What it is called in."""
        self._ring = ring
        self._at = math.inf
        self._timer: asyncio.Handle | None = None

    def set(self, at: float) -> None:
        """Sets it to a time, unless it is set to an earlier one; infinite for never."""
        if self._at <= at:
            return
        self.clear()
        self._at = at
        loop = asyncio.get_running_loop()
        if at <= loop.time():
            self._timer = loop.call_soon(self._rings, context=self.context)
        else:
            self._timer = loop.call_at(at, self._rings, context=self.context)

    def clear(self) -> None:
        """It is set to no time any more."""
        self._at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        at, self._at, self._timer = self._at, math.inf, None
        self._ring(at)
