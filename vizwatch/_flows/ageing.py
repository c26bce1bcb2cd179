"""Ageing: telling when what is known gets older than was asked for, and not again while that goes on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

import attrs

_CALM: Final = 5.0
"""For how many times the age that is allowed nothing must have been too old, for the next time to be news."""
_INSTANT: Final = 0.001
"""What a clock cannot tell apart, in seconds, and more."""


@attrs.define(eq=False)
class Ageing:
    """Watches the age of what somebody knows, while he waits for more, in the event loop's time."""

    _max_age: float
    _read_at: Callable[[], float | None]
    """When what is known was read; ``None`` while nothing is."""
    _tell: Callable[[float], None]
    """Takes the age, once it is too old."""
    _since: float | None = attrs.field(default=None, init=False)
    """From when on reading could have gone on without a pause."""
    _paused_at: float = attrs.field(default=0.0, init=False)
    _late_at: float = attrs.field(default=-math.inf, init=False)
    """When it was too old for the last time."""
    _timer: asyncio.TimerHandle | None = attrs.field(default=None, init=False)

    def go_on(self) -> None:
        """Reading goes on. For how long it was not wanted is nobody's fault, and does not count."""
        if self._timer is not None:
            return
        now = asyncio.get_running_loop().time()
        self._since = now if self._since is None else self._fresh_at() + now - self._paused_at
        self._look()

    def pause(self) -> None:
        """Nothing more is wanted for now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._paused_at = asyncio.get_running_loop().time()

    def __enter__(self) -> None:
        self.go_on()

    def __exit__(self, *_: object) -> None:
        self.pause()

    def _fresh_at(self) -> float:
        return max(self._since or 0.0, self._read_at() or 0.0)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        until = self._fresh_at() + self._max_age
        is_late = now > until + _INSTANT
        if is_late:
            since, self._late_at = now - self._late_at, now
            if since > _CALM * self._max_age:
                read_at = self._read_at()
                self._tell(now - (self._fresh_at() if read_at is None else read_at))
        # Once it is fresh again, it stays so for as long as it may be old: no such time is missed.
        self._timer = loop.call_at(now + self._max_age if is_late else until + 2 * _INSTANT, self._look)
