"""What watches have to tell whoever runs them, in few lines of the logger `vizwatch`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

import anyio

from vizwatch._values.errors import CallError
from vizwatch._values.exchange import Stale
from vizwatch._values.statuses import JobStatus
from vizwatch._world.hooks import tell

_LOG: Final = logging.getLogger("vizwatch")
_EVERY: Final = 60.0
_MOST_CODES: Final = 100
_EPISODE: Final = 600.0


class _Tally:
    """Counts what happens to thousands of watches, and says so in a line a minute at most, with the last."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._count = 0
        self._told_at = -math.inf

    def add(self, error: CallError) -> None:
        """It happened once more."""
        self._count += 1
        now = anyio.current_time()
        if now - self._told_at >= _EVERY:
            _LOG.warning(self._line, self._count, error)
            self._count, self._told_at = 0, now


class Report:
    """One for all watches of an account: what happens to thousands of them is still one line a minute."""

    def __init__(self) -> None:
        self._failed = _Tally("%d reads of watches failed, the last with: %s")
        self._lost = _Tally("%d jobs are watched no longer, the last since: %s")
        self._codes: set[int] = set()
        self._stale_at = -math.inf
        self._skipped_at = -math.inf

    def read(self, status: JobStatus) -> None:
        """A read succeeded; a status that no document names is told once."""
        if status.is_known or status in self._codes or len(self._codes) >= _MOST_CODES:
            return
        self._codes.add(int(status))
        _LOG.warning("a job has the status %d, which no document names: it ends no watch", status)

    def skipped(self, project_id: str, rows: int) -> None:
        """A listing has more rows than before that are no jobs, and nobody can watch."""
        now = anyio.current_time()
        if now - self._skipped_at >= _EPISODE:
            self._skipped_at = now
            _LOG.warning(
                "%d rows of the listing of project %s are no jobs: they are not watched", rows, project_id
            )

    def stale(self, stale: Stale, hook: Callable[[Stale], object] | None) -> None:
        """What a watch knows is older than it asked for; logged once, until that did not happen for long."""
        now = anyio.current_time()
        if now - self._stale_at >= _EPISODE:
            _LOG.warning(
                "what is known of %s is %.0f s old, and %g s are allowed: the account's budget of requests "
                "does not suffice, or the service is slow or down",
                f"project {stale.project_id}" if stale.job_id is None else f"job {stale.job_id}",
                stale.age,
                stale.max_age,
            )
        self._stale_at = now
        if hook is not None:
            tell("on_stale", hook, stale)

    def failed(self, error: CallError) -> None:
        """A watch could not read its job, and will try again."""
        self._failed.add(error)

    def rests(self, project_id: str, error: BaseException, seconds: float) -> None:
        """Nothing of a project can be read, and it is left alone for so long."""
        _LOG.warning("project %s cannot be read, and is tried again in %g s: %s", project_id, seconds, error)

    def lost(self, error: CallError) -> None:
        """One of several jobs that are watched together is not watched any longer."""
        self._lost.add(error)
