"""Sinks: where transitions go. Here are those that need nothing: stdout, and a function of the user's."""

from __future__ import annotations

import inspect
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from vizwatch.service.backlog import Entry
from vizwatch.service.calls import Caller, HangingError
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
        """Delivers one transition; it is taken once this returns. Raises :class:`DeliveryError`.

        One that was not taken is the next one to be delivered.
        """
        ...

    async def aclose(self) -> None:
        """Closes connections; what is under way was cancelled before."""
        ...


class StdoutSink:
    """One JSON object a line, each written before it counts as delivered."""

    def __init__(self, within: float) -> None:
        self._caller = Caller("vizwatch-stdout", within)
        self._is_torn: bool | None = None
        """Whether the last line was written in part; ``None`` before the first one."""

    async def deliver(self, entry: Entry, /) -> None:
        """Writes the line."""
        error = await _called(self._caller, lambda: self._write(entry.payload))
        if isinstance(error, OSError):
            raise DeliveryError(error.strerror or type(error).__name__)
        if error is not None:
            raise error

    def _write(self, payload: str) -> None:
        # Past sys.stdout's buffer, which would keep, and write later, what it could not write.
        descriptor = sys.stdout.fileno()
        if self._is_torn is None:
            self._is_torn = _ends_within_a_line(descriptor)
        lines = ["", payload, ""] if self._is_torn else [payload, ""]
        rest = memoryview("\n".join(lines).encode("ascii"))
        while rest:
            written = os.write(descriptor, rest)
            rest = rest[written:]
            self._is_torn = bool(rest)

    async def aclose(self) -> None:
        """Stdout stays open."""
        await self._caller.aclose()


def _ends_within_a_line(descriptor: int) -> bool:
    """Whether it is a file that ends in a part of a line, as a process before this one may have left it."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        # Opened anew: stdout may not be read.
        with Path(f"/dev/fd/{descriptor}").open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"
    except OSError:  # it is empty, or cannot be read
        return False


class PythonSink:
    """A function of the user's, called in a thread; what a coroutine function gives is awaited there."""

    def __init__(self, call: PythonCall, within: float) -> None:
        self._call = call
        self._caller = Caller("vizwatch-sink", within)

    async def deliver(self, entry: Entry, /) -> None:
        """Calls it with the decoded JSON object."""
        transition = json.loads(entry.payload)
        error = await _called(self._caller, lambda: self._given(transition))
        if error is not None:
            raise DeliveryError(f"it failed with {type(error).__name__}") from error

    def _given(self, transition: dict[str, Any]) -> object:
        given = self._call.function(transition)
        if not inspect.isawaitable(given) and (inspect.isgenerator(given) or inspect.isasyncgen(given)):
            raise TypeError(f"{self._call.name} gave a generator, nothing of which has run")
        return given

    async def aclose(self) -> None:
        """Ends what is under way, where that can be."""
        await self._caller.aclose()


async def _called(caller: Caller, function: Callable[[], object]) -> BaseException | None:
    """What the function raises. Raises :class:`DeliveryError` where that is not known in time."""
    try:
        return await caller.call(function)
    except HangingError:
        raise DeliveryError(f"nothing within {caller.within:g} s") from None
