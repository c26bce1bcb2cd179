"""Looking: who wants a job, or a whole listing, to be looked at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Protocol

import attrs

from vizwatch._flows.following import Clock, Follower, Terms
from vizwatch._rules.agenda import NONE
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


@attrs.define(eq=False)
class Place:
    """A looker's place among all lookers of a workspace."""

    looker: Looker
    follower: Follower
    at: float = math.inf
    """When it is on the agenda for a look of its own."""
    entry: int = NONE
    came_in: int = 0
    """The number of the sweep under way when it came, which may have passed the job's page."""

    def is_unseen_since(self, sweep: int) -> bool:
        """Whether that sweep and all after it should have shown the job, and did not."""
        return self.came_in < sweep and self.follower.is_absent_since(sweep)


@attrs.define(eq=False)
class Places:
    """The places of all lookers of a workspace, by the jobs that they look at."""

    by_job: dict[int, dict[Looker, Place]] = attrs.field(factory=dict, init=False)
    terms: Counter[Terms] = attrs.field(factory=Counter, init=False)
    """On which terms how many follow a job."""

    def __len__(self) -> int:
        """How many jobs are looked at."""
        return len(self.by_job)

    def __iter__(self) -> Iterator[Place]:
        return (place for places in self.by_job.values() for place in places.values())

    def __contains__(self, place: Place) -> bool:
        return self.by_job.get(place.follower.job_id, {}).get(place.looker) is place

    def of(self, job_id: int) -> Collection[Place]:
        """Those of one job."""
        return self.by_job.get(job_id, {}).values()

    def take(self, looker: Looker, came_in: int) -> Place:
        """The looker's place, from now on if it had none."""
        follower = looker.follower
        places = self.by_job.setdefault(follower.job_id, {})
        place = places.get(looker)
        if place is None:
            place = places[looker] = Place(looker, follower)
            self.terms[follower.terms] += 1
        place.came_in = came_in or place.came_in
        return place

    def give_up(self, looker: Looker) -> Place | None:
        """The place that the looker had, if it had one."""
        job_id, terms = looker.follower.job_id, looker.follower.terms
        place = self.by_job.get(job_id, {}).pop(looker, None)
        if place is None:
            return None
        if not self.by_job[job_id]:
            del self.by_job[job_id]
        self.terms[terms] -= 1
        if not self.terms[terms]:
            del self.terms[terms]
        return place


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
