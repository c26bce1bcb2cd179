"""Looking: who wants a job, or a whole listing, to be looked at."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from vizwatch._flows.following import Clock, Follower, Terms
from vizwatch._values.errors import CallError
from vizwatch._values.models import Transition
from vizwatch._values.rows import Sighting


class Looker(Protocol):
    """Who wants a job looked at."""

    follower: Follower

    def took(self, transition: Transition) -> None:
        """The job has changed."""
        ...

    def ended(self, error: BaseException) -> None:
        """There will be no more."""
        ...


class Audience(Protocol):
    """Who wants to see the whole listing."""

    clock: Clock
    terms: Terms
    """How often to read."""
    phase: float | None
    """Where in the interval to read, in seconds; ``None`` for an interval after the reading before."""
    next_at: float
    """When the next reading is due."""

    @property
    def is_hungry(self) -> bool:
        """Whether it wants to be shown anything."""
        ...

    @property
    def is_left(self) -> bool:
        """Whether its last step was cancelled, and nobody may come back."""
        ...

    def stirs(self) -> None:
        """Reads are about to be begun: it leaves, or its lookers do, if it does not want any."""
        ...

    def begins(self) -> None:
        """A reading begins."""
        ...

    def shows(self, page: Sighting) -> None:
        """A page of the reading."""
        ...

    def lacks(self) -> Collection[int]:
        """The jobs that the reading, which is over, should have shown and has not."""
        ...

    def ends(self, sweep: int, now: float, *, is_believed: bool) -> None:
        """The reading is over; unless it is believed, no job is absent that it lacks, and another follows."""
        ...

    def breaks_off(self) -> None:
        """The reading does not go on: the next one begins anew."""
        ...

    def failed(self, error: CallError) -> None:
        """A page could not be read."""
        ...

    def refused(self, error: CallError) -> None:
        """The listing will not be read any more."""
        ...

    def ended(self, error: BaseException) -> None:
        """There will be no more of anything."""
        ...

    def hurry(self, job_id: int, *, is_new: bool) -> None:
        """This client wrote to a job, or made it."""
        ...
