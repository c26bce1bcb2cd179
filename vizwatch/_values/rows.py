"""The rows of one page of a listing, as columns, for who reads the same listing again and again."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final, Protocol

import attrs

from vizwatch._values.models import Job

NO_DURATION: Final = -(2**63)
"""In a column of durations: none was given."""


class JobSource(Protocol):
    """What the whole jobs of a page come from, when they are asked for."""

    def job(self, index: int) -> Job:
        """The job in that row."""
        ...

    def only(self, indices: Sequence[int]) -> JobSource:
        """A source that keeps no more than these rows."""
        ...


@attrs.frozen(eq=False)
class Rows:
    """The rows of one page, in its order: at once what tells whether a job changed, the rest when asked."""

    ids: array[int]
    statuses: array[int]
    """Their numbers."""
    durations: array[int]
    """In milliseconds; :data:`NO_DURATION` where there is none."""
    job_total_count: int | None
    skipped: int
    """How many rows of the page were left out, since they are no jobs."""
    _source: JobSource

    def __len__(self) -> int:
        return len(self.ids)

    def job(self, index: int) -> Job:
        """The whole job in that row; raises :class:`DecodeError` where the rest of the row is none."""
        return self._source.job(index)

    def only(self, indices: Sequence[int]) -> Rows:
        """These rows alone, which keep no more of the answer."""
        ids, statuses, durations = (
            array("q", [column[index] for index in indices])
            for column in (self.ids, self.statuses, self.durations)
        )
        return Rows(ids, statuses, durations, self.job_total_count, self.skipped, self._source.only(indices))
