"""The gate before the reads of watches: while the service is down, one at a time asks whether it still is."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

import anyio

from vizwatch._rules import retrying
from vizwatch._rules.outage import Outage
from vizwatch._values.errors import CallError
from vizwatch._world.chance import CHANCE
from vizwatch._world.line import Due, Hold, Line

T = TypeVar("T")

_APART: Final = 1.0
"""How far apart those come back that an outage has held, on average, in seconds."""


class Gate:
    """One for all watches of a client.

    Ten thousand watches that each try on their own keep a service down that just comes up, and then all come
    at once. Behind the gate one of them probes: by chance one that did not fail the last time, since what
    fails may not be the service, or else whoever waits longest. When the service answers, the others come
    back one a second, or over their interval where that is shorter. No more go through at once than there
    are connections: whoever waits for one would not know that the service went down meanwhile.

    Nor do reads come to it while credentials are renewed, which a service may refuse all at once: they come
    back in the same way.

    Args:
        outage: What is known of it.
        at_once: How many reads may be under way.
        renewing: The renewal of credentials, by those of the reads that were refused.
    """

    def __init__(self, outage: Outage, at_once: int, renewing: Hold | None = None) -> None:
        self._outage = outage
        self._renewing = renewing or Hold()
        self._line = Line()
        self._places = Line(at_once)
        self._held = 0
        """How many reads an outage or a renewal holds."""

    async def read(
        self,
        read: Callable[[], Awaitable[T]],
        interval: float,
        due: Due | None = None,
        *,
        is_failing: bool = False,
    ) -> T:
        """What `read` gives or raises, once it may be sent.

        Args:
            read: Reads once.
            interval: Over how many seconds the watches of this kind spread after an outage at most.
            due: By when it is wanted: who is due first goes first.
            is_failing: Whether this failed the last time.
        """
        while True:
            if self._outage.is_down():
                with self._holding():
                    by_chance = None if is_failing else Due(CHANCE.random())
                    async with self._line.turn(is_patient=is_failing, due=by_chance):
                        # Whoever held the line before may have found that it is over.
                        if self._outage.is_down():
                            await anyio.sleep_until(self._outage.probe_at)
                            return await self._tried(read, is_probe=True)
                    await self._come_back(interval)
            elif self._renewing.is_held:
                with self._holding():
                    await self._renewing.wait()
                    await self._come_back(interval)
            await self._places.come(due=due)
            try:
                if not self._outage.is_down():
                    return await self._tried(read)
            finally:
                self._places.go()

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def _come_back(self, interval: float) -> None:
        await anyio.sleep(CHANCE.random() * min(interval, self._held * _APART))

    async def _tried(self, read: Callable[[], Awaitable[T]], *, is_probe: bool = False) -> T:
        begun = anyio.current_time()
        try:
            value = await read()
        except CallError as error:
            now = anyio.current_time()
            if retrying.is_outage(error):
                begun = begun if error.elapsed is None else now - error.elapsed
                self._outage.failed(begun, now, CHANCE.random(), is_probe=is_probe)
            else:
                self._outage.answered(now)
            raise
        self._outage.answered(anyio.current_time())
        return value
