"""Surveying: following all jobs of a workspace, or many of them, by the readings of its listing."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from vizwatch._flows.ageing import Ageing
from vizwatch._flows.arriving import COMES_BACK_AFTER, COMES_BACK_SOON, Arrivals
from vizwatch._flows.following import Clock, Follower, Terms
from vizwatch._flows.polling import Poller
from vizwatch._rules.census import Census
from vizwatch._rules.choice import Choice
from vizwatch._rules.transitions import counts_of, found
from vizwatch._values.errors import AuthenticationError, CallError, DecodeError, NotFoundError
from vizwatch._values.models import Job, Transition
from vizwatch._values.rows import Sighting, rows_of
from vizwatch._values.statuses import JobStatus

if TYPE_CHECKING:
    from vizwatch._flows.delivering import Delivery
    from vizwatch._rules.records import Given

_REMEMBERED: Final = 1024
_ANY_SWEEP: Final = 1
_FOUND: Final = (1, 1)
"""The run, and the number of transitions, of a job that was found and has not changed."""


@attrs.define(eq=False)
class Member:
    """A job that is followed by itself, since it is not as the listing last showed it, or is not in it."""

    follower: Follower
    survey: Survey
    is_as_listed: bool = attrs.field(default=False, init=False)
    """Whether what is known of the job is what its row says."""
    told: Transition | None = attrs.field(default=None, init=False)
    """Its last transition, until that is taken."""

    def took(self, transition: Transition) -> None:
        """The poller says that the job has changed."""
        self.is_as_listed = False
        self.survey.tell(self, transition)

    def ended(self, error: BaseException) -> None:
        """The poller says that there will be no more."""
        self.survey.lost(self, error)


@attrs.define(eq=False)
class Survey:
    """The jobs of one workspace, as the readings of its listing show them.

    A job that stays as it is costs nothing but its row. One that changes is followed by itself, with looks
    of its own where it wants them soon, until it is again as its row says and can wait for the next reading.

    What was found is taken one by one. Until all of it is taken, the survey has no part in further readings:
    whoever is slow holds back nothing but this.
    """

    _poller: Poller
    _choice: Choice
    _new_follower: Callable[[int], Follower]
    _project_id: str
    terms: Terms
    phase: float | None = None
    """Where in the interval to read, in seconds; ``None`` for an interval after the reading before."""
    delivery: Delivery | None = None
    """Keeps the consumer's place; ``None`` where nobody asked for that."""
    arrivals: Arrivals = attrs.field(factory=Arrivals)
    clock: Clock = attrs.field(init=False)
    """The poller's, from the beginning on."""
    next_at: float = attrs.field(default=0.0, init=False)
    """When the next reading is due."""
    read_at: float | None = attrs.field(default=None, init=False)
    """When the last whole reading was begun."""
    took: float = attrs.field(default=0.0, init=False)
    """How long that was, in seconds."""
    skipped: int = attrs.field(default=0, init=False)
    """How many of its rows were no jobs."""
    error: BaseException | None = attrs.field(default=None, init=False)
    """What its reads fail with, or have ended with."""
    has_ended: bool = attrs.field(default=False, init=False)
    _begun_at: float = attrs.field(default=math.inf, init=False)
    _skips: int = attrs.field(default=0, init=False)
    """How many rows of the reading under way are no jobs."""
    _believed_at: float = attrs.field(default=math.inf, init=False)
    """When the first reading was begun since the last one that was believed."""
    _lacking: list[tuple[Sighting, int]] = attrs.field(factory=list, init=False)
    """The rows of the jobs that the reading should have shown, once it is over."""
    _census: Census = attrs.field(factory=Census, init=False)
    _members: dict[int, Member] = attrs.field(factory=dict, init=False)
    _counts: dict[int, tuple[int, int]] = attrs.field(factory=dict, init=False)
    """The run and the number of transitions of each job that has had more than the first."""
    _gone: dict[int, tuple[int, int]] = attrs.field(factory=dict, init=False)
    """The same of the last jobs that were deleted: a listing that lagged may show them once more."""
    _is_resting: bool = attrs.field(default=False, init=False)
    """Whether its jobs are left alone until all that was found is taken."""
    _found: deque[Iterator[Transition]] = attrs.field(factory=deque, init=False)
    _taken: Transition | None = attrs.field(default=None, init=False)
    """What was taken last, until the next one is."""
    prepared: int = attrs.field(default=0, init=False)
    """How many of those that were found come again should this process end, where a checkpoint is kept."""
    _ageing: Ageing | None = attrs.field(default=None, init=False)
    _comes_back: asyncio.TimerHandle | None = attrs.field(default=None, init=False)
    _was_back: bool = attrs.field(default=False, init=False)
    """Whether it has come back from a rest, and could not read yet."""

    async def begin(self) -> None:
        """Reads from now on, and goes on with what a checkpoint has; may raise what is wrong with that."""
        kept = {} if self.delivery is None else await self.delivery.begin(self._choice.job_ids)
        if self.arrivals.closed:
            self.end()
            return
        self.arrivals.surveys.append(self)
        self.arrivals.expected -= 1
        self._poller.attend(self)
        self._resume(kept)
        gone = {job_id for job_id, given in kept.items() if given.transition.current is None}
        for job_id in self._choice.job_ids or ():
            if job_id not in gone:
                self._follow(self._members.get(job_id) or self._member(job_id))
        self._ageing = self.terms.ageing(self._project_id, None, lambda: self.heard_at)
        if self._ageing is not None and not self._found:
            self._ageing.go_on()

    @property
    def is_over(self) -> bool:
        """Whether nobody will ask for more."""
        return self.arrivals.closed or self.has_ended

    @property
    def is_hungry(self) -> bool:
        """Whether a reading of the listing is wanted."""
        return self._choice.job_ids is None and not self._is_unwanted and not self.is_over

    @property
    def _is_unwanted(self) -> bool:
        """Whether nothing more is wanted before what was found is taken, or somebody comes back for it."""
        return bool(self._found) or self.arrivals.is_left

    @property
    def is_left(self) -> bool:
        """Whether its last step was cancelled, and nobody may come back."""
        return self.arrivals.is_left

    @property
    def has_found(self) -> bool:
        """Whether something was not taken yet."""
        return bool(self._found)

    @property
    def heard_at(self) -> float | None:
        """When the oldest of what is known was read; ``None`` before all was.

        A job that was never there is asked for now and then, and any listing may show it: it does not count.
        """
        if self._choice.job_ids is None:
            return self.read_at
        followers = [member.follower for member in self._members.values()]
        if any(follower.heard_at is None for follower in followers):
            return None
        known = (follower.heard_at for follower in followers if follower.read_at is not None)
        return min(filter(None, known), default=asyncio.get_running_loop().time())

    def age(self, now: float) -> float | None:
        """Seconds since the oldest of what is known was read; ``None`` before all was."""
        heard_at = self.heard_at
        return None if heard_at is None else now - heard_at

    def is_stale(self, now: float) -> bool:
        """Whether what is known is too old: a healthy survey does not let it become so."""
        age, terms = self.age(now), self.terms
        return age is None or age > min(terms.max_age, terms.patience + 2 * self.took)

    @property
    def size(self) -> int:
        """How many jobs are known."""
        return self._census.size if self._choice.job_ids is None else len(self._members)

    # --- what was found before -----------------------------------------------------------------------------

    def _resume(self, kept: Mapping[int, Given]) -> None:
        """Goes on with what was told of each job: what the first reading shows may be a change of that."""
        told = sorted((given.transition for given in kept.values()), key=lambda one: one.not_after)
        now = asyncio.get_running_loop().time()
        of_a_read: defaultdict[float, list[Transition]] = defaultdict(list)
        for one in told:
            if one.current is None:
                if kept[one.job_id].is_delivered:
                    self._note_gone(one.job_id, counts_of(one))
            elif self._choice.job_ids is not None:
                self._member(one.job_id).follower.resume_after(one, now)
            else:
                counts = counts_of(one)
                if counts != _FOUND:
                    self._counts[one.job_id] = counts
                of_a_read[self.clock.when(one.read_at or one.not_after, now)].append(one)
        self._census.close(
            Sighting(rows_of([one.job for one in transitions]), read_at, read_at)
            for read_at, transitions in of_a_read.items()
        )
        undelivered = [one for one in told if not kept[one.job_id].is_delivered]
        if undelivered:
            self._put(iter(undelivered))

    # --- what was found ----------------------------------------------------------------------------------

    def take(self) -> Transition | None:
        """The next of the wanted transitions; ``None`` now and then, and once all that was found is taken."""
        self._let_go()
        if self._found:
            for transition in self._found[0]:
                self.prepared -= 1
                if self._choice.takes(transition):
                    self._taken = transition
                    return transition
                if self.delivery is not None:
                    self.delivery.passes(transition)
                self._was_taken(transition)
            self._found.popleft()
        self.go_on()
        return None

    def prepare(self, limit: int) -> int:
        """Keeps the next ones that were found, so many at most, before they are taken; says how many are.

        Of no job there is more than one: it is left alone until that is taken.
        """
        if self.delivery is None or self.prepared > 0 or not self._found:
            return 0
        self._let_go()
        found = [*itertools.islice(itertools.chain.from_iterable(self._found), limit)]
        if not found:
            self._found.clear()
            self.go_on()
            return 0
        self._found.appendleft(iter(found))
        self.prepared = len(found)
        self.delivery.prepares(filter(self._choice.takes, found))
        return len(found)

    def go_on(self) -> None:
        """Reads again, if nothing is left to be taken."""
        if self._is_unwanted or self.is_over:
            return
        if self._is_resting:
            self._is_resting = False
            for member in self._members.values():
                if member.told is None:
                    self._poller.join(member)
        self._poller.resume()
        if self._ageing is not None and (self._members or self._choice.job_ids is None):
            self._ageing.go_on()

    def _follow(self, member: Member) -> None:
        """Has a job looked at when it wants to be, or once all that was found is taken."""
        if not self._is_resting:
            self._poller.join(member)

    def stirs(self) -> None:
        """Reads are about to be begun: none for a job while nothing is wanted."""
        if self.is_over:
            self.leave()
        elif self._is_unwanted and not self._is_resting:
            self._is_resting = True
            if self._ageing is not None:
                self._ageing.pause()
            for member in self._members.values():
                self._poller.leave(member)

    def _put(self, transitions: Iterator[Transition]) -> None:
        if not self._found:
            self.arrivals.ready.append(self)
            if self._ageing is not None:
                self._ageing.pause()
        self._found.append(transitions)
        self.arrivals.came.set()

    def _of_page(self, page: Sighting, rows: Sequence[int]) -> Iterator[Transition]:
        """The jobs that a first reading finds: each is decoded when it is taken."""
        asked, at = self.clock.at(page.asked), self.clock.at(page.at)
        wanted = [row for row in rows if self._choice.may_find(page.rows.statuses[row])]
        jobs = page.rows.jobs() if 2 * len(wanted) > len(page.rows) else None
        for row in wanted:
            try:
                job = page.rows.job(row) if jobs is None else jobs[row]
            except DecodeError as error:
                self._follow_unreadable(self._member(page.rows.ids[row]), error, page.at)
            else:
                yield found(self._project_id, job, asked, at)

    def _put_of(self, member: Member, transition: Transition) -> None:
        member.told = transition
        self._put(iter([transition]))

    def _let_go(self) -> None:
        """The consumer has dealt with what was taken last."""
        if self._taken is not None:
            taken, self._taken = self._taken, None
            self._was_taken(taken)

    def _was_taken(self, transition: Transition) -> None:
        """The consumer has dealt with a transition, or does not want it: its job is looked at again."""
        member = self._members.get(transition.job_id)
        if member is None and transition.current is None:
            self._note_gone(transition.job_id, counts_of(transition))  # told by another process before
        if member is None or member.told is not transition:
            return
        member.told = None
        if member.follower.is_over:
            self._forget(member)
        elif not self._is_settled(member):
            self._follow(member)

    # --- readings of the listing -------------------------------------------------------------------------

    def begins(self) -> None:
        """A reading begins."""
        self._begun_at, self._skips = math.inf, 0

    def shows(self, sighting: Sighting) -> None:
        """A page of the reading."""
        self._begun_at = min(self._begun_at, sighting.asked)
        self._skips += sighting.rows.skipped
        news = self._census.take(sighting)
        page, ids = news.sighting, news.sighting.rows.ids
        new = [row for row in news.new if ids[row] not in self._members] if self._members else news.new
        if self.read_at is None:
            first = [row for row in new if ids[row] not in self._gone] if self._gone else new
            if first:
                self._put(self._of_page(page, first))
            new = [row for row in new if ids[row] in self._gone] if self._gone else ()
        for row in new:
            self._saw(self._member(ids[row]), page, row)
        for row, page_before, row_before in news.changed:
            if ids[row] not in self._members:
                self._saw(self._resumed(page_before, row_before), page, row)

    def lacks(self) -> list[int]:
        """The jobs that the reading, which is over, should have shown; those followed by themselves aside."""
        self._believed_at = min(self._believed_at, self._begun_at)
        self._lacking = [
            (page, row)
            for page in self._census.rest()
            if page.asked < self._believed_at
            for row, job_id in enumerate(page.rows.ids)
            if job_id not in self._members
        ]
        return [page.rows.ids[row] for page, row in self._lacking]

    def ends(self, sweep: int, now: float, *, is_believed: bool) -> None:
        """The reading is over."""
        self.error, self._was_back = None, False
        rest, lacking = self._census.rest(), self._lacking
        self._lacking = []
        if not is_believed:
            self._census.close(rest)
            return
        self._census.close(page for page in rest if page.asked >= self._believed_at)
        self._believed_at = math.inf
        self.read_at, self.took = self._begun_at, now - self._begun_at
        if self._skips > self.skipped:
            self.terms.report.skipped(self._project_id, self._skips)
        self.skipped = self._skips
        for member in list(self._members.values()):
            follower = member.follower
            if follower.page is not None and follower.seen_in == sweep:
                member.is_as_listed = True
                self._is_settled(member)
        for page, row in lacking:
            member = self._resumed(page, row)
            member.follower.was_not_listed(now)
            self._follow(member)

    def breaks_off(self) -> None:
        """The reading does not go on: the next one begins anew."""
        self._census.close(self._census.rest())

    def failed(self, error: BaseException) -> None:
        """A page could not be read, and is asked for again."""
        self.error = error

    def refused(self, error: BaseException) -> None:
        """The listing will not be read any more."""
        if self._choice.job_ids is None:
            self.ended(error)

    def ended(self, error: BaseException) -> None:
        """Nothing more can be read."""
        if self.has_ended:
            return
        self.error, self.has_ended = error, True
        self.leave()
        if not self._found:
            self.arrivals.ready.append(self)
        self.arrivals.came.set()
        if not self.arrivals.raises:
            after = COMES_BACK_AFTER if self._was_back else COMES_BACK_SOON
            self._comes_back = asyncio.get_running_loop().call_later(after, self._come_back)
            self.terms.report.rests(self._project_id, error, after)

    def _come_back(self) -> None:
        """Reads again: the others are watched still, and what was refused may be allowed by now."""
        if self.arrivals.closed:
            return
        self.has_ended, self._was_back = False, True
        self.breaks_off()
        self._poller.attend(self)
        for member in self._members.values():
            member.follower.relies_on_listing()
            if member.told is None:
                self._follow(member)

    def leave(self) -> None:
        """Reads no more."""
        if self._ageing is not None:
            self._ageing.pause()
        self._poller.quit(self)
        for member in self._members.values():
            self._poller.leave(member)

    def end(self) -> None:
        """Nobody will take anything any more."""
        self.leave()
        if self._comes_back is not None:
            self._comes_back.cancel()
        if self.delivery is not None:
            self.delivery.end()

    async def aclose(self) -> None:
        """Reads no more, and ends the reads under way that nobody else wants."""
        self.end()
        await self._poller.abandon(self._members)

    # --- jobs that are followed by themselves -------------------------------------------------------------

    def hurry(self, job_id: int, *, is_new: bool) -> None:
        """The client wrote to the job, whose next change is looked for soon, or made it."""
        if job_id in self._members or self._choice.job_ids is not None or self.read_at is None:
            return
        place = self._census.find(job_id)
        if place is not None:
            self._follow(self._resumed(*place))
        elif is_new:
            self._follow(self._member(job_id))

    def tell(self, member: Member, transition: Transition) -> None:
        """A job has changed; it is left alone until that is taken."""
        self._poller.leave(member)
        self._put_of(member, transition)

    def lost(self, member: Member, error: BaseException) -> None:
        """A job's details will not be read: if for a reason of its own, that ends nothing else."""
        if not isinstance(error, CallError) or isinstance(error, AuthenticationError):
            self.ended(error)
            return
        self.error = error
        if self._choice.job_ids is None and not isinstance(error, NotFoundError):
            self.terms.report.failed(error)
            member.follower.relies_on_listing()
            self._follow(member)
            return
        self._poller.leave(member)
        self._members.pop(member.follower.job_id, None)
        if self._choice.job_ids is not None:
            self.terms.report.lost(error)
            if not self._members:
                self.ended(error)

    def _member(self, job_id: int) -> Member:
        follower = self._new_follower(job_id)
        follower.clock = self.clock
        counts = self._gone.pop(job_id, self._counts.get(job_id))
        if counts is not None:
            follower.tracker.recount(counts)
        member = self._members[job_id] = Member(follower, self)
        return member

    def _resumed(self, page: Sighting, row: int) -> Member:
        """Follows a job by itself that was as this row says."""
        job_id = page.rows.ids[row]
        try:
            job = page.rows.job(row)
        except DecodeError:
            job = Job(job_id, JobStatus(page.rows.statuses[row]))
        member = self._member(job_id)
        member.follower.resume(job, page.asked, self._counts.get(job_id, _FOUND))
        member.follower.was_listed(_ANY_SWEEP)
        return member

    def _saw(self, member: Member, page: Sighting, row: int) -> None:
        """Shows a row to a job that nobody else shows it to."""
        try:
            job = page.rows.job(row)
        except DecodeError as error:
            self._follow_unreadable(member, error, page.at)
            return
        transition = member.follower.saw(job, page.asked, page.at)
        member.is_as_listed = True
        member.follower.was_listed(_ANY_SWEEP)
        if transition is not None:
            self._put_of(member, transition)
        elif not self._is_settled(member):
            self._follow(member)

    def _follow_unreadable(self, member: Member, error: DecodeError, now: float) -> None:
        """Reads a job by its details, whose row cannot be decoded."""
        member.follower.was_unreadable(error, now)
        self._follow(member)

    def _is_settled(self, member: Member) -> bool:
        """Whether the readings of the listing are enough for the job; from then on nothing else is done."""
        is_settled = member.is_as_listed and member.follower.is_settled and member.told is None
        if is_settled and self._choice.job_ids is None:
            self._counts[member.follower.job_id] = member.follower.tracker.counts
            self._poller.leave(member)
            del self._members[member.follower.job_id]
            return True
        return False

    def _forget(self, member: Member) -> None:
        """The job was deleted."""
        job_id, counts = member.follower.job_id, member.follower.tracker.counts
        self._members.pop(job_id, None)
        self._census.forget(job_id)
        self._counts.pop(job_id, None)
        if member.follower.tracker.job is not None:
            self._note_gone(job_id, counts)

    def _note_gone(self, job_id: int, counts: tuple[int, int]) -> None:
        self._gone[job_id] = counts
        if len(self._gone) > _REMEMBERED:
            forgotten = next(iter(self._gone))
            del self._gone[forgotten]
            if self.delivery is not None:
                self.delivery.forgets(forgotten)
