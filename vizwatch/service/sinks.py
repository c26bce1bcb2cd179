"""Sinks: where transitions go. Here are those that need nothing: stdout, and a function of the user's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from vizwatch.service.backlog import Entry
from vizwatch.service.options import PythonCall


class DeliveryError(Exception):
    """A sink did not take a transition, which is kept, and tried again.

    Args:
        text: Why, without secrets.
        is_refusal: Whether the same delivery will hardly be taken later, unless somebody mends something.
        retry_after: For how many seconds the sink asks to be left alone.
    """

    def __init__(self, text: str, *, is_refusal: bool = False, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.is_refusal = is_refusal
        self.retry_after = retry_after


class Sink(Protocol):
    """One place to deliver to. At-least-once: what was delivered may come again, under the same id."""

    async def deliver(self, entry: Entry, /) -> None:
        """Delivers one transition; it is taken once this returns. Raises :class:`DeliveryError`."""
        ...

    async def aclose(self) -> None:
        """Closes connections; what is under way was cancelled before."""
        ...


class _OneAtATime:
    """Calls that may hang: nobody waits longer than `within`, and none is begun while another one hangs.

    What blocks is called in a thread that the process's end does not wait for.
    """

    def __init__(self, within: float) -> None:
        self._within = within
        self._hanging: asyncio.Future[Any] | None = None

    async def run(self, begin: Callable[[], asyncio.Future[Any]]) -> Any:
        """What the call gives. Raises what it raises, and :class:`DeliveryError` if it takes too long."""
        if self._hanging is not None:
            await asyncio.wait([self._hanging], timeout=self._within)
            if not self._hanging.done():
                raise DeliveryError("the call before is still running")
        self._hanging = future = begin()
        future.add_done_callback(_retrieved)
        try:
            await asyncio.wait([future], timeout=self._within)
        except asyncio.CancelledError:
            _give_up(future)
            raise
        if not future.done():
            _give_up(future)
            raise DeliveryError(f"nothing within {self._within:g} s")
        self._hanging = None
        if future.cancelled():
            raise DeliveryError("it was cancelled")
        return future.result()


def _give_up(future: asyncio.Future[Any]) -> None:
    if isinstance(future, asyncio.Task):  # a thread cannot be told
        future.cancel()


def _retrieved(future: asyncio.Future[Any]) -> None:
    """Whatever it raises, it is no news to the event loop."""
    if not future.cancelled():
        future.exception()


def _harmless(error: BaseException) -> Exception:
    """The error, if a future may have it: others would end the event loop, or the future would never end."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"it raised {type(error).__name__}")


def _in_thread(call: Callable[[], Any]) -> asyncio.Future[Any]:
    promise: concurrent.futures.Future[Any] = concurrent.futures.Future()
    promise.set_running_or_notify_cancel()

    def work() -> None:
        try:
            promise.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
            promise.set_exception(_harmless(error))

    threading.Thread(target=work, name="vizwatch-sink", daemon=True).start()
    return asyncio.wrap_future(promise)


async def _awaited(given: Awaitable[object]) -> None:
    try:
        await given
    except (SystemExit, KeyboardInterrupt) as error:
        raise _harmless(error) from None


class StdoutSink:
    """One JSON object a line, each written before it counts as delivered."""

    def __init__(self, within: float) -> None:
        self._calls = _OneAtATime(within)
        self._is_torn = False
        """Whether the last line was written in part."""

    async def deliver(self, entry: Entry, /) -> None:
        """Writes the line."""
        try:
            await self._calls.run(lambda: _in_thread(lambda: self._write(entry.payload)))
        except OSError as error:
            raise DeliveryError(error.strerror or type(error).__name__) from None

    def _write(self, payload: str) -> None:
        # Past sys.stdout's buffer, which would keep, and write later, what it could not write.
        lines = ["", payload, ""] if self._is_torn else [payload, ""]
        rest = memoryview("\n".join(lines).encode("ascii"))
        descriptor = sys.stdout.fileno()
        while rest:
            written = os.write(descriptor, rest)
            rest = rest[written:]
            self._is_torn = bool(rest)

    async def aclose(self) -> None:
        """There is nothing to close."""


class PythonSink:
    """A function of the user's: a coroutine function is awaited, another one is called in a thread."""

    def __init__(self, call: PythonCall, within: float) -> None:
        self._call = call
        self._calls = _OneAtATime(within)

    async def deliver(self, entry: Entry, /) -> None:
        """Calls it with the decoded JSON object."""
        transition = json.loads(entry.payload)
        try:
            given = await self._calls.run(lambda: self._begin(transition))
            if inspect.isawaitable(given):
                await self._calls.run(lambda: asyncio.create_task(_awaited(given)))
        except DeliveryError:
            raise
        except Exception as error:
            raise DeliveryError(f"it failed with {type(error).__name__}") from error

    def _begin(self, transition: dict[str, Any]) -> asyncio.Future[Any]:
        function = self._call.function
        if inspect.iscoroutinefunction(function):
            return asyncio.create_task(_awaited(function(transition)))
        return _in_thread(lambda: function(transition))

    async def aclose(self) -> None:
        """There is nothing to close."""
