"""One page of a listing for whoever looks at identity and status first."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Sequence
from typing import Final, Protocol, Self

import attrs

from vizwatch._values.models import Job

NO_DURATION: Final = -(2**31)
"""What stands in :attr:`Rows.durations` for a job without one: the least number of four bytes.

An answer may say that number, or a lesser one, though no job runs for less than no time. It does no harm: the
columns only tell at which jobs to look, and what has become of a job is told by its whole :class:`Job`.
"""


class WholeJobs(Protocol):
    """Where the jobs of a page are, until they are asked for."""

    def one(self, index: int) -> Job:
        """One of them."""
        ...

    def all(self) -> Sequence[Job] | None:
        """All of them; ``None`` where they are to be asked for one by one."""
        ...

    def only(self, indices: Sequence[int]) -> Self:
        """A copy with only these, which keeps nothing of the others."""
        ...


def compact(values: Sequence[int]) -> array[int]:
    """A column of a page: a byte a row where all values fit, else four, else eight.

    Columns of different widths compare right, though one number at a time: of the same jobs they are rare.
    """
    for typecode in ("b", "i"):
        try:
            return array(typecode, values)
        except OverflowError:
            continue
    return array("q", values)


@attrs.frozen(eq=False)
class Rows:
    """The columns of one page, in its order, and each whole :class:`Job` once it is asked for.

    It holds the answer's bytes and no object for a row: a million rows weigh hardly more than their answers.
    """

    ids: array[int]
    statuses: array[int]
    """The statuses' numbers."""
    durations: array[int]
    """In milliseconds; :data:`NO_DURATION` where there is none."""
    job_total_count: int | None
    """How many jobs the service says the listing has: a hint, never relied on alone."""
    skipped: int
    """How many rows were left out since they are no jobs."""
    _whole: WholeJobs

    def __len__(self) -> int:
        return len(self.ids)

    def job(self, index: int) -> Job:
        """The whole job; raises :class:`DecodeError` where a field is wrong that was not looked at before."""
        return self._whole.one(index)

    def jobs(self) -> Sequence[Job] | None:
        """All whole jobs at once, which is faster; ``None`` where a field is wrong, or not as documented."""
        return self._whole.all()

    def only(self, indices: Sequence[int]) -> Rows:
        """A copy with only these rows, which keeps nothing else of the answer."""
        ids, statuses, durations = (
            array(column.typecode, [column[index] for index in indices])
            for column in (self.ids, self.statuses, self.durations)
        )
        whole = self._whole.only(indices)
        return attrs.evolve(self, ids=ids, statuses=statuses, durations=durations, whole=whole)

    def changed_since(self, before: Rows) -> Sequence[int]:
        """The rows whose status is another one, or whose duration began anew, since a page of the same."""
        if before.statuses == self.statuses and all(map(operator.ge, self.durations, before.durations)):
            return ()
        return [row for row in range(len(self)) if self.is_changed(row, before, row)]

    def is_changed(self, row: int, before: Rows, row_before: int) -> bool:
        """Whether a job's status is another one, or its duration began anew, since a row of it before."""
        return (
            self.statuses[row] != before.statuses[row_before]
            or self.durations[row] < before.durations[row_before]
        )


@attrs.frozen(eq=False)
class _Whole:
    """Whole jobs, as they are."""

    _jobs: Sequence[Job]

    def one(self, index: int) -> Job:
        return self._jobs[index]

    def all(self) -> Sequence[Job]:
        return self._jobs

    def only(self, indices: Sequence[int]) -> _Whole:
        return _Whole([self._jobs[index] for index in indices])


def rows_of(jobs: Sequence[Job]) -> Rows:
    """A page of these jobs, which was no answer."""
    ids, statuses = (compact([getattr(job, name) for job in jobs]) for name in ("job_id", "status"))
    durations = compact([NO_DURATION if job.duration is None else job.duration for job in jobs])
    return Rows(ids, statuses, durations, None, 0, _Whole(jobs))


@attrs.frozen(eq=False)
class Sighting:
    """A page of a listing, and when it was read, in seconds of any one clock."""

    rows: Rows
    asked: float
    """When the read was begun: what it says was true then or later."""
    at: float
    """When its answer had come."""
