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
_at_signal: Final = contextvars.ContextVar[list[Callable[[], None]]]("_at_signal")
"""What the first signal begins besides."""


def end_within(seconds: float, code: int, *, after_signal: bool = False) -> None:
    """Ends the process after so long, if it is there for the command, whatever hangs by then.

    A thread cannot be cancelled, such as one that looks up a name or is the user's, and the interpreter waits
    for each.

    Args:
        seconds: How long the end may take.
        code: The exit code.
        after_signal: Whether the time begins with the first signal, and not now.
    """
    if not is_process.get():
        return
    timer = threading.Timer(seconds, _end, (seconds, code))
    timer.daemon = True
    if after_signal:
        _at_signal.get().append(timer.start)
    else:
        timer.start()


def _end(seconds: float, code: int) -> None:
    def say() -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"vizwatch: something hangs, and is left after {seconds:g} s\n")
            sys.stderr.flush()

    # Which may hang as well.
    saying = threading.Thread(target=say, daemon=True)
    saying.start()
    saying.join(0.1)
    os._exit(code)


def run(command: Coroutine[Any, Any, int]) -> int:
    """Runs a command to its end, or until Ctrl-C (130) or SIGTERM (143), and returns the exit code."""
    received: list[int] = []
    at_signal: list[Callable[[], None]] = []
    _at_signal.set(at_signal)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()

        async def until_signalled() -> int:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - for the type checker: this is a task's code

            def end(number: int, _: FrameType | None) -> None:
                if not received:
                    for begin in at_signal:
                        begin()
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
