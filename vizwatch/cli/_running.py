"""One event loop for one command, which a signal ends by cancelling it: so everything is closed."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

is_process: Final = contextvars.ContextVar("is_process", default=False)
"""Whether the process is there for the command, and ends with it."""


def end_within(seconds: float, code: int) -> None:
    """Ends the process after so long, if it is there for the command, whatever hangs by then.

    A thread cannot be cancelled, such as one that looks up a name or is the user's, and the interpreter waits
    for each.
    """
    if not is_process.get():
        return

    def end() -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"vizwatch: something hangs, and is left after {seconds:g} s\n")
            sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def run(command: Coroutine[Any, Any, int]) -> int:
    """Runs a command to its end, or until Ctrl-C (130) or SIGTERM (143), and returns the exit code."""
    received: list[int] = []
    with asyncio.Runner() as runner:
        loop = runner.get_loop()

        async def until_signalled() -> int:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - for the type checker: this is a task's code

            def end(number: int, _: FrameType | None) -> None:
                received.append(number)
                loop.call_soon_threadsafe(task.cancel)

            with _handling(end):
                return await command

        try:
            return runner.run(until_signalled())
        except asyncio.CancelledError:
            if not received:
                raise
            return 128 + received[0]


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handles the signals, even those that a shell ignores for what it starts in the background."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.signal(number, handler)) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, previous in before:
            signal.signal(number, previous)
