"""What a command can come to: exit codes, and one line on stderr for every error a user can cause."""

from __future__ import annotations

import contextlib
import enum
import os
import sys
from typing import Final

import cyclopts

from vizwatch import ConfigError, JobEndedError, JobGoneError, VizwatchError, WatchTimeoutError, printable

_MAX_LINE: Final = 1_000

Reported = (VizwatchError, cyclopts.CycloptsError, OSError, ExceptionGroup)
"""The errors that :func:`report` makes a line of; any other one is a mistake in this package."""


class ExitCode(enum.IntEnum):
    """What the process exits with; 128 and the signal's number if a signal ended it."""

    DONE = 0
    FAILED = 1
    """The service refused or failed, or the connection to it."""
    USAGE = 2
    """A wrong argument or configuration; nothing was asked of the service."""
    OTHERWISE = 3
    """A job ended as a failure, or otherwise than asked."""
    DEADLINE = 4
    """The time given by ``--timeout`` passed."""


def exit_code(error: BaseException) -> ExitCode:
    """What an error ends the process with."""
    if isinstance(error, ConfigError | cyclopts.CycloptsError):
        return ExitCode.USAGE
    if isinstance(error, JobEndedError | JobGoneError):
        return ExitCode.OTHERWISE
    return ExitCode.DEADLINE if isinstance(error, WatchTimeoutError) else ExitCode.FAILED


def report(error: BaseException) -> ExitCode:
    """Says an error in one line, and returns its exit code; raises what is no user's matter.

    Nothing is said where the reader of the output is gone, as in ``vizwatch list | head -1``: that is how it
    wanted to end.
    """
    if isinstance(error, BaseExceptionGroup):
        return report(error.exceptions[0])
    if isinstance(error, OSError) and sys.stdout is not None:
        _discard_unwritten()
    if isinstance(error, BrokenPipeError):
        return ExitCode.DONE
    if not isinstance(error, Reported):
        raise error
    text = " ".join(str(error).split())
    with contextlib.suppress(OSError):
        sys.stderr.write(f"vizwatch: {printable(text, _MAX_LINE)}\n")
    return exit_code(error)


def _discard_unwritten() -> None:
    """Gives up what stdout does not take: the interpreter would try once more, and complain, at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
