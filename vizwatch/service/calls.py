"""Calls of what may hang, block or end the process: each of them from a thread of its own, one at a time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
from collections.abc import Callable
from typing import Final

_ENDS_WITHIN: Final = 0.5
"""How long to wait for the thread's end, in seconds; the process's end does not wait for it at all."""


class HangingError(Exception):
    """A call has not ended in time. It may go on."""


class Caller:
    """Calls functions, and awaits what they give, in an event loop of its own: what blocks holds up no other.

    Args:
        name: What to call the thread.
        within: How long a call is waited for, in seconds.
    """

    def __init__(self, name: str, within: float) -> None:
        self._name, self.within = name, within
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: concurrent.futures.Future[None] | None = None
        self._outcome: asyncio.Future[BaseException | None] | None = None
        """Of the call under way, or of one that ended after nobody waited for it any more."""
        self._task: asyncio.Task[None] | None = None

    async def call(self, function: Callable[[], object]) -> BaseException | None:
        """Calls the function, awaits what it gives, if that can be, and tells what it raises.

        One that takes too long is cancelled, where that can be; else it goes on, and the next call, which has
        to be for the same thing, waits for it once more instead of another: what it came to counts.

        Args:
            function: What to call.

        Raises:
            HangingError: It has not ended in time.
        """
        if self._outcome is not None:
            error = await self._ended_in_time(self._outcome)
            if not isinstance(error, asyncio.CancelledError):
                return error
        self._outcome = self._begun(function)
        return await self._ended_in_time(self._outcome)

    async def _ended_in_time(self, outcome: asyncio.Future[BaseException | None]) -> BaseException | None:
        try:
            await asyncio.wait([outcome], timeout=self.within)
        finally:
            if not outcome.done() and self._loop is not None:
                self._loop.call_soon_threadsafe(self._cancel)
        if not outcome.done():
            raise HangingError
        self._outcome = None
        return outcome.result()

    def _begun(self, function: Callable[[], object]) -> asyncio.Future[BaseException | None]:
        outcome: concurrent.futures.Future[BaseException | None] = concurrent.futures.Future()
        outcome.set_running_or_notify_cancel()

        async def called() -> None:
            try:
                given = function()
                if inspect.isawaitable(given):
                    await given
            except BaseException as error:  # noqa: BLE001 - the caller's matter, and not this loop's
                outcome.set_result(error)
            else:
                outcome.set_result(None)

        def cancelled_before_it_began(_: asyncio.Task[None]) -> None:
            if not outcome.done():
                outcome.set_result(asyncio.CancelledError())

        def begin() -> None:
            self._task = asyncio.ensure_future(called())
            self._task.add_done_callback(cancelled_before_it_began)

        self._started().call_soon_threadsafe(begin)
        return asyncio.wrap_future(outcome)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():  # by a task of the function's that ended the thread
            self._loop, self._ended = asyncio.new_event_loop(), concurrent.futures.Future()
            ends = (self._loop, self._ended)
            threading.Thread(target=self._work, args=ends, name=self._name, daemon=True).start()
        return self._loop

    @staticmethod
    def _work(loop: asyncio.AbstractEventLoop, ended: concurrent.futures.Future[None]) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.get_loop().run_forever()
        finally:
            ended.set_result(None)

    async def aclose(self) -> None:
        """Cancels what is under way, and ends the thread; what blocks is left behind."""
        loop, self._loop = self._loop, None
        if loop is None or self._ended is None:
            return
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(loop.stop)
        await asyncio.wait([asyncio.wrap_future(self._ended)], timeout=_ENDS_WITHIN)
