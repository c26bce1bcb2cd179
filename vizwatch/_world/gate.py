"""The gate before the reads of watches: while the service is down, one at a time asks whether it still is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, TypeVar, cast

import anyio

from vizwatch._rules import retrying
from vizwatch._rules.outage import Outage, RetryRate
from vizwatch._values.errors import CallError
from vizwatch._world.chance import CHANCE
from vizwatch._world.line import Due, Hold, Line

T = TypeVar("T")

_APART: Final = 1.0
"""How far apart those come back that an outage has held, on average, in seconds."""


class Retries:
    """The reads of the watches of many clients that failed the last time, at a rate of all together."""

    def __init__(self) -> None:
        self.rate = RetryRate()
        self._line = Line()
        self._numbers = itertools.count(1)
        self._waiting = self._together = 0
        """How many wait, and how many have at most since nobody did: so many come back in one interval."""
        self._loop: asyncio.AbstractEventLoop | None = None

    async def turn(self, failures: int, interval: float) -> None:
        """Waits until one may be sent: those first that have failed the fewest times.

        Of those that have failed once the last to come is first: where many went down together, another one
        that fails is the likeliest to be answered.

        Args:
            failures: How often it has failed in a row, or for a probe its client's reads have.
            interval: Over how many seconds all that wait are spread at best.
        """
        self._enter_loop()
        self._waiting += 1
        self._together = max(self._together, self._waiting)
        due = Due(failures if failures > 1 else -next(self._numbers))
        try:
            async with self._line.turn(is_patient=False, due=due):
                spread = self._together / max(interval, 1.0)
                await anyio.sleep(max(self.rate.wait(anyio.current_time(), spread), 0.0))
                self.rate.sent(anyio.current_time())
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._together = 0

    def _enter_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Who waits in one that is over, and what its clock says, is of no use in another.
            self._loop, self._line, self.rate = loop, Line(), RetryRate()
            self._waiting = self._together = 0


class Gate:
    """One for all watches of a client.

    Ten thousand watches that each try on their own keep a service down that just comes up, and then all come
    at once. Behind the gate one of them probes: by chance one that did not fail the last time, since what
    fails may not be the service, or else whoever waits longest. When the service answers, the others come
    back one a second, or over their interval where that is shorter. No more go through at once than there
    are connections: whoever waits for one would not know that the service went down meanwhile.

    Nor do reads come to it while credentials are renewed, which a service may refuse all at once: they come
    back in the same way.

    Clients of one service share what they send while reads fail: a project whose reads are answered waits for
    no other one.

    Args:
        outage: What is known of it.
        at_once: How many reads may be under way.
        renewing: The renewal of credentials, by those of the reads that were refused.
        retries: The reads of all clients of the service that are tried again.
    """

    def __init__(
        self, outage: Outage, at_once: int, renewing: Hold | None = None, retries: Retries | None = None
    ) -> None:
        self._outage = outage
        self._retries = retries
        self._renewing = renewing or Hold()
        self._line = Line()
        self._places = Line(at_once)
        self._held: set[asyncio.Task[Any]] = set()
        """The reads that an outage or a renewal holds, or that wait until they are tried again."""

    async def read(
        self,
        read: Callable[[], Awaitable[T]],
        interval: float,
        due: Due | None = None,
        *,
        failures: int = 0,
    ) -> T:
        """What `read` gives or raises, once it may be sent.

        Args:
            read: Reads once.
            interval: Over how many seconds the watches of this kind spread after an outage at most.
            due: By when it is wanted: who is due first goes first.
            failures: How often this has failed in a row.
        """
        is_failing, retries = failures > 0, self._retries
        while True:
            if self._outage.is_down():
                with self._holding():
                    by_chance = None if is_failing else Due(CHANCE.random())
                    async with self._line.turn(is_patient=is_failing, due=by_chance):
                        # Whoever held the line before may have found that it is over.
                        if self._outage.is_down():
                            await anyio.sleep_until(self._outage.probe_at)
                            if retries is not None:
                                await retries.turn(self._outage.failures, interval)
                            return await self._tried(read, is_retry=True, is_probe=True)
                    await self._come_back(interval)
            elif self._renewing.is_held:
                with self._holding():
                    await self._renewing.wait()
                    await self._come_back(interval)
            elif is_failing and retries is not None:
                with self._holding():
                    await retries.turn(failures, interval)
                retries = None  # it has had its turn
                continue
            await self._places.come(due=due)
            try:
                if not self._outage.is_down():
                    return await self._tried(read, is_retry=is_failing)
            finally:
                self._places.go()

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._held.add(task)
        try:
            yield
        finally:
            self._held.discard(task)

    async def _come_back(self, interval: float) -> None:
        await anyio.sleep(CHANCE.random() * min(interval, len(self._held) * _APART))

    async def aclose(self) -> None:
        """Ends the reads that it holds, which nobody wants any more."""
        held = list(self._held)
        for task in held:
            task.cancel()
        if held:
            await asyncio.wait(held)

    async def _tried(self, read: Callable[[], Awaitable[T]], *, is_retry: bool, is_probe: bool = False) -> T:
        rate = self._retries.rate if is_retry and self._retries is not None else None
        begun = anyio.current_time()
        try:
            value = await read()
        except CallError as error:
            now = anyio.current_time()
            if retrying.is_outage(error):
                begun = begun if error.elapsed is None else now - error.elapsed
                self._outage.failed(begun, now, CHANCE.random(), is_probe=is_probe)
                if rate is not None:
                    rate.failed()
            else:
                self._answered(rate)
            raise
        self._answered(rate)
        return value

    def _answered(self, rate: RetryRate | None) -> None:
        self._outage.answered(anyio.current_time())
        if rate is not None:
            rate.answered()
