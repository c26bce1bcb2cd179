"""Which jobs, and which of their transitions, somebody wants who watches many."""

from __future__ import annotations

import attrs

from vizwatch._values import checks
from vizwatch._values.models import Transition
from vizwatch._values.statuses import JobStatus


@attrs.frozen
class Choice:
    """Which jobs and which of their transitions are wanted."""

    job_ids: frozenset[int] | None = None
    """``None`` for all jobs of the workspace, new ones included."""
    statuses: frozenset[JobStatus] | None = None
    text: str = ""
    """What the job's name must have in it, whatever its case."""

    def may_find(self, status: int) -> bool:
        """Whether a job that is found in this status may be wanted."""
        return self.statuses is None or status in self.statuses

    def takes(self, transition: Transition) -> bool:
        """Whether the transition is from or to a wanted status, of a job of such a name."""
        if self.statuses is not None and self.statuses.isdisjoint((transition.previous, transition.current)):
            return False
        return not self.text or self.text in (transition.job.job_name or "").casefold()


def chosen(job_ids: object, status: object, search_content: object) -> Choice:
    """What the caller asks for, checked; raises :class:`ConfigError`."""
    text = "" if search_content is None else checks.text("search_content", search_content, high=100)
    return Choice(
        None if job_ids is None else checks.job_ids("job_ids", job_ids),
        None if status is None else checks.statuses("status", status),
        text.casefold(),
    )
