"""What changed: from reads of a job to its transitions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

import attrs

from vizwatch._values.models import Job, Transition
from vizwatch._values.statuses import JobStatus


@attrs.define
class Tracker:
    """Follows one job through the reads of it.

    What it yields chains (each `previous` is the `current` before it), has no echo (no two neighbours alike
    in run and status), and ends with the first terminal status, unless restarts are followed, or with
    deletion.
    """

    project_id: str
    job_id: int
    terminal: Collection[JobStatus]
    follow_restarts: bool = False
    job: Job | None = attrs.field(default=None, init=False)
    """The job as last read."""
    ended: bool = attrs.field(default=False, init=False)
    _run: int = attrs.field(default=1, init=False)
    _count: int = attrs.field(default=0, init=False)
    _last_read: dt.datetime | None = attrs.field(default=None, init=False)

    def saw(self, job: Job, at: dt.datetime) -> Transition | None:
        """The job was read at that time (UTC): its transition, if its status changed."""
        previous, not_before = self.job, self._last_read
        self.job, self._last_read = job, at
        if previous is not None and previous.status == job.status:
            return None
        is_terminal = job.status in self.terminal
        restarted = previous is not None and previous.status in self.terminal
        if restarted:
            self._run += 1
        self.ended = is_terminal and not self.follow_restarts
        return self._transition(
            None if previous is None else previous.status,
            job.status,
            job,
            not_before,
            at,
            is_terminal=is_terminal,
            gap=restarted and is_terminal,  # from one end to another there was a run that no read saw
        )

    def gone(self, at: dt.datetime) -> Transition | None:
        """The job is deleted: its last transition, or ``None`` for a job that was never seen."""
        self.ended = True
        if self.job is None:
            return None
        return self._transition(self.job.status, None, self.job, self._last_read, at, is_terminal=True)

    def _transition(
        self,
        previous: JobStatus | None,
        current: JobStatus | None,
        job: Job,
        not_before: dt.datetime | None,
        at: dt.datetime,
        *,
        is_terminal: bool,
        gap: bool = False,
    ) -> Transition:
        self._count += 1
        change = f"{_code(previous)}-{_code(current)}"
        return Transition(
            id=f"{self.project_id}/{self.job_id}/{self._run}/{self._count}/{change}",
            project_id=self.project_id,
            job_id=self.job_id,
            previous=previous,
            current=current,
            job=job,
            run=self._run,
            not_before=not_before,
            not_after=at,
            gap=gap,
            is_terminal=is_terminal,
        )


def _code(status: JobStatus | None) -> str:
    return "none" if status is None else str(int(status))
