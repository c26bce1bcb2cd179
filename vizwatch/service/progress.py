"""How the service is getting on: what was counted, and what is wrong just now."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Final

import attrs

from vizwatch import Attempt, Transition, VizwatchError, printable

LOG: Final = logging.getLogger("vizwatch.service")
_EVERY: Final = 60.0


def backoff(failures: int, base: float, longest: float) -> float:
    """How long to wait after so many failures in a row: doubling, and shorter by chance."""
    return random.uniform(0.5, 1.0) * min(longest, base * 2.0 ** min(failures - 1, 30))


@attrs.define
class Trouble:
    """What fails just now: health says so meanwhile, and the log when it begins and when it is over.

    The log is silent about what begins, or changes its reason, less than a minute after it was last said.
    """

    what: str
    """What it is that fails."""
    text: str | None = attrs.field(default=None, init=False)
    """What it fails with, in one line; ``None`` while all is well."""
    since: float = attrs.field(default=0.0, init=False)
    """Since when, by the event loop's time."""
    failures: int = attrs.field(default=0, init=False)
    """How often in a row."""

    _said_at: float = attrs.field(default=-math.inf, init=False)
    _said: str | None = attrs.field(default=None, init=False)

    def failed(self, text: str, cause: BaseException | None = None) -> None:
        """It failed, once more; the log has the cause with its traceback, if there is one."""
        text, now = printable(" ".join(text.split())), asyncio.get_running_loop().time()
        if self.text is None:
            self.since = now
        if text != self._said and now - self._said_at >= _EVERY:
            self._said, self._said_at = text, now
            LOG.warning("%s fails, and is tried again: %s", self.what, text, exc_info=cause)
        self.text = text
        self.failures += 1

    def over(self) -> None:
        """It works."""
        if self._said is not None:
            LOG.warning("%s works again, after %d failures", self.what, self.failures)
        self.text, self.failures, self._said = None, 0, None


@attrs.define(eq=False)
class Progress:
    """Of one service."""

    sinks: dict[str, Trouble]
    """The trouble with each sink, by its name."""
    backlog: dict[str, Trouble] = attrs.field(
        factory=lambda: {what: Trouble(f"to {what} the backlog") for what in ("write", "read", "clear")},
        init=False,
    )
    """What is wrong with the file, by what is done: on a full disk, some of it still works."""
    checkpoint: Trouble = attrs.field(factory=lambda: Trouble("to write the checkpoint"), init=False)
    """What is wrong with where the watch keeps its place."""
    transitions: Counter[tuple[str, str]] = attrs.field(factory=Counter, init=False)
    """By target, and by the name of the status that they lead to."""
    requests: Counter[tuple[str, str]] = attrs.field(factory=Counter, init=False)
    """By operation, and by what came of it: `ok`, or the name of the error."""
    retries: Counter[str] = attrs.field(factory=Counter, init=False)
    """Requests that failed, and are made again unless they were refused for good, by operation."""
    deliveries: Counter[tuple[str, str]] = attrs.field(factory=Counter, init=False)
    """By sink, and by what came of it: `delivered`, `failed` or `refused`."""

    @classmethod
    def of(cls, sinks: Sequence[str]) -> Progress:
        """Before anything has happened."""
        return cls({name: Trouble(f"sink {name}") for name in sinks})

    @property
    def backlog_error(self) -> str | None:
        """Why the backlog cannot be used just now."""
        return next((one.text for one in self.backlog.values() if one.text is not None), None)

    def requested(self, attempt: Attempt) -> None:
        """For `Settings.on_request`."""
        error = attempt.error
        self.requests[attempt.operation, "ok" if error is None else type(error).__name__] += 1
        if isinstance(error, VizwatchError):  # what was cancelled was given up
            self.retries[attempt.operation] += 1

    def saw(self, target: str, transition: Transition) -> None:
        """A transition came; statuses that no document names count as one, since they are the server's."""
        status = transition.current
        known = "DELETED" if status is None else status.name if status.is_known else "OTHER"
        self.transitions[target, known] += 1
