"""Reading jobs for all who follow them: one poller for all watches of a workspace.

A poller that follows several jobs reads the listing, a thousand jobs a request, unless the details of those
that are due cost fewer requests. It has no task that waits: a timer starts the reads that are due, and where
nobody follows anything there is neither.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import heapq
import itertools
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, Final, Protocol

import attrs

from vizwatch._flows.following import Clock, Follower, Terms
from vizwatch._rules import retrying, rhythm, wire
from vizwatch._rules.cadence import CONFIRMS_AFTER, Cadence, Failures, on_beat
from vizwatch._rules.listing import Ask, Dialect, Sweep, is_sweep_cheaper, lacks_many
from vizwatch._values.errors import (
    AuthenticationError,
    BadRequestError,
    CallError,
    DecodeError,
    NotFoundError,
    PermissionDeniedError,
)
from vizwatch._values.models import Job, Transition
from vizwatch._values.rows import Rows, Sighting
from vizwatch._world.gate import Gate
from vizwatch._world.line import to_its_end
from vizwatch._world.report import Report

ReadJob = Callable[[int, float], Awaitable[tuple[Job, float]]]
"""Reads a job's details, by when they are due; gives also when they were asked for."""
ReadRows = Callable[[int, int, float], Awaitable[tuple[Rows, float]]]
"""Reads one page of the workspace's listing, by its number and size; the rest is as of details."""

_SMALL: Final = 64
_FAILURES_TO_GIVE_UP: Final = 3
_LISTS_AGAIN_AFTER: Final = 300.0
_OF_THE_LISTING: Final = (BadRequestError, NotFoundError, PermissionDeniedError)
"""Refusals of the listing that may not hold for the details."""


class Looker(Protocol):
    """Who wants a job looked at."""

    follower: Follower

    def rests(self) -> bool:
        """Whether it wants nothing read for now: then it has left, and joins again by itself."""
        ...

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
    def is_over(self) -> bool:
        """Whether it is to be forgotten."""
        ...

    def begins(self) -> None:
        """A reading begins."""
        ...

    def shows(self, page: Sighting) -> None:
        """A page of the reading."""
        ...

    def ends(self, sweep: int, now: float) -> bool:
        """The reading is over; tells whether it is not believed, and another is wanted soon."""
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

    def leave(self) -> None:
        """Leaves, with all of its lookers."""
        ...


@attrs.define(eq=False)
class _Place:
    """A looker's place in the poller."""

    looker: Looker
    queued_for: float = math.inf
    """The time of its entry in the queue."""


class Poller:
    """Reads the jobs of one workspace.

    Args:
        gate: What reads go through while the service may be down.
        report: Who is told of failed reads.
        chance: A random number from [0, 1).
        cadence: The pauses after a listing that failed.
        read_job: Reads one job.
        read_rows: Reads one page of the listing; ``None`` for a poller that never lists.
        dialect: What the service allows.
        check_loop: Raises in another event loop than the one to read in.
    """

    def __init__(
        self,
        gate: Gate,
        report: Report,
        chance: Callable[[], float],
        cadence: Cadence,
        read_job: ReadJob,
        read_rows: ReadRows | None = None,
        dialect: Dialect | None = None,
        check_loop: Callable[[], None] | None = None,
    ) -> None:
        self._gate = gate
        self._report = report
        self._chance = chance
        self._cadence = cadence
        self._read_job = read_job
        self._read_rows = read_rows
        self._dialect = dialect or Dialect()
        self._check_loop = check_loop
        self._places: dict[int, dict[Looker, _Place]] = {}
        self._terms: Counter[Terms] = Counter()
        """On which terms how many follow a job."""
        self._audiences: list[Audience] = []
        self._shown: list[Audience] = []
        """Whom the sweep under way is shown to."""
        self._queue: list[tuple[float, int, _Place]] = []
        self._numbers = itertools.count(1)
        self._context = contextvars.Context()
        """What reads run in: nobody's, or that of the one who watches, whoever hurries it."""
        self._timer: asyncio.Handle | None = None
        self._timer_at = math.inf
        self._reading: dict[int, asyncio.Task[None]] = {}
        """The reads of details under way."""
        self._sweep: Sweep | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._sweep_at = math.inf
        """When those are due that wait for the next sweep."""
        self._awaiting: list[_Place] = []
        """Who was due, and is shown by the sweep under way."""
        self._clock: Clock | None = None
        """That of all who follow, so that they agree on when something was read."""
        self._swept = 0
        self._begun_at: float | None = None
        """When the last sweep was begun that is over."""
        self._sweep_begun_at = math.inf
        """When the first page of the one under way was asked for."""
        self._sweep_due = math.inf
        """When its pages are due."""
        self._pages = 1
        self._doubted = False
        """Whether the last sweep lacked so many jobs that it was not believed."""
        self._disputed: set[int] = set()
        """The jobs that two readings of the listing lacked, until their details are read."""
        self._sweeps_again = False
        """Whether another sweep is wanted for that, whatever it costs."""
        self._failures = Failures()
        """Those of the listing."""
        self._list_failures = 0
        self._refusals = 0
        self._lists_after = -math.inf
        """When to try the listing again, if it failed for long; never, if it is refused."""

    # --- who follows -------------------------------------------------------------------------------------

    def join(self, looker: Looker) -> None:
        """Looks at the looker's job from now on, when its follower says so."""
        if self._read_rows is None:
            self._context = contextvars.copy_context()
        follower = looker.follower
        follower.clock = follower.clock or self._time()
        place = _Place(looker)
        places = self._places.setdefault(follower.job_id, {})
        self._terms[follower.terms] += looker not in places
        places[looker] = place
        if self._sweep is not None and self._sweep.page > 1:
            follower.seen_in = self._sweep.number  # it is not absent from pages read before it came
        self._settle(place)

    def leave(self, looker: Looker) -> None:
        """The looker waits no longer."""
        job_id, terms = looker.follower.job_id, looker.follower.terms
        places = self._places.get(job_id, {})
        self._terms[terms] -= places.pop(looker, None) is not None
        if not self._terms[terms]:
            del self._terms[terms]
        if not places:
            self._places.pop(job_id, None)
        if self._is_idle:
            self._rest()
        elif len(self._queue) > 2 * len(self._places) + _SMALL:
            self._queue = [entry for entry in self._queue if self._is_here(entry[2])]
            heapq.heapify(self._queue)

    def attend(self, audience: Audience) -> None:
        """Shows the listing to the audience from now on, when it is hungry."""
        audience.clock = self._time()
        audience.next_at = _now()
        self._audiences.append(audience)
        self.resume()

    def quit(self, audience: Audience) -> None:
        """The audience wants no more."""
        for audiences in (self._audiences, self._shown):
            if audience in audiences:
                audiences.remove(audience)
        if self._is_idle:
            self._rest()

    def resume(self) -> None:
        """An audience is hungry again."""
        self._call_sweep(min((one.next_at for one in self._audiences if one.is_hungry), default=math.inf))

    @property
    def _is_idle(self) -> bool:
        return not self._places and not self._audiences

    def _time(self) -> Clock:
        if self._check_loop is not None:
            self._check_loop()
        if self._clock is None or self._is_idle:
            self._clock = Clock.started(_now())
        return self._clock

    def _rest(self) -> None:
        self._disarm()
        self._queue.clear()
        self._awaiting.clear()
        self._disputed.clear()
        self._sweep, self._sweep_at, self._doubted, self._sweeps_again = None, math.inf, False, False

    async def abandon(self, job_ids: Iterable[int]) -> None:
        """Ends the reads under way that nobody is left to want: of these jobs, or all if nobody is left."""
        # They are nobody's at once: whoever comes while they end gets reads of their own.
        unwanted = [*self._reading] if self._is_idle else set(job_ids) - self._places.keys()
        tasks = [self._reading.pop(job_id) for job_id in unwanted if job_id in self._reading]
        if self._is_idle and self._sweeping is not None:
            tasks.append(self._sweeping)
            self._sweeping = None
        for task in tasks:
            task.cancel()
        if tasks:
            await to_its_end(asyncio.wait(tasks))

    def hurry(self, job_id: int, *, is_new: bool = False) -> None:
        """Looks at the job soon, since this client wrote to it, or made it."""
        for place in self._places.get(job_id, {}).values():
            place.looker.follower.hurry(_now())
            self._settle(place)
        for audience in list(self._audiences):
            audience.hurry(job_id, is_new=is_new)

    # --- when to look ------------------------------------------------------------------------------------

    def _settle(self, place: _Place) -> None:
        """Sees to it that the job is looked at when it wants to be."""
        follower = place.looker.follower
        at = follower.next_look(_now())
        if self._is_carried(follower):
            self._call_sweep(at)
            at = follower.look_ahead
        if at < place.queued_for and at < math.inf:
            place.queued_for = at
            heapq.heappush(self._queue, (at, next(self._numbers), place))
            self._arm(at)

    def _is_carried(self, follower: Follower) -> bool:
        """Whether the next sweep is early enough for the job."""
        return follower.is_carried and (self._is_cheaper(len(self._places)) or self._has_audience)

    @property
    def _has_audience(self) -> bool:
        return any(one.is_hungry for one in self._audiences)

    def _is_cheaper(self, due: int) -> bool:
        may_list = self._read_rows is not None and _now() >= self._lists_after
        return may_list and is_sweep_cheaper(due, len(self._places), self._pages)

    def _call_sweep(self, at: float) -> None:
        self._sweep_at = min(self._sweep_at, at)
        if self._sweep_at < math.inf:
            self._arm(self._sweep_at)

    def _arm(self, at: float) -> None:
        if self._timer_at <= at:
            return
        self._disarm()
        self._timer_at = at
        loop = asyncio.get_running_loop()
        if at <= loop.time():
            self._timer = loop.call_soon(self._wake, at, context=self._context)
        else:
            self._timer = loop.call_at(at, self._wake, at, context=self._context)

    def _disarm(self) -> None:
        self._timer_at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self, at: float) -> None:
        self._timer, self._timer_at = None, math.inf
        now = max(_now(), at)
        for audience in [one for one in self._audiences if one.is_over]:
            audience.leave()
        due = self._due(now)
        listed = {place.looker.follower.job_id for place in due if place.looker.follower.is_listed}
        unlisted = {place.looker.follower.job_id for place in due} - listed
        is_due = self._sweep_at <= now
        carried: list[_Place] = []
        if is_due:
            self._sweep_at = math.inf  # set anew when it is over
            carried = self._carried() if self._sweeping is None else []
        wanting = listed | {place.looker.follower.job_id for place in carried}
        is_called = any(one.is_hungry and one.next_at <= now for one in self._audiences)
        is_wanted = is_due and (self._sweep is not None or self._sweeps_again or is_called)
        is_wanted = is_wanted or (bool(wanting) and self._is_cheaper(self._due_soon(now, wanting)))
        if is_wanted and self._read_rows is not None:
            listed = set()
            self._awaiting += due
            self._sweeping = self._sweeping or self._started(self._swept_through(self._read_rows))
        else:
            for place in carried:
                if place.looker.follower.is_due(now):
                    listed.add(place.looker.follower.job_id)
                else:
                    self._settle(place)
        if self._sweeping is None:
            self.resume()
        self._look_at(listed | unlisted)
        self._arm_next()

    def _look_at(self, job_ids: set[int]) -> None:
        """Reads the details of each, unless they are being read."""
        for job_id in job_ids - self._reading.keys():
            self._reading[job_id] = self._started(self._looked_at(job_id), job_id)

    def _due(self, now: float) -> list[_Place]:
        """Those whose time has come; takes them out of the queue."""
        due: list[_Place] = []
        while self._queue and self._queue[0][0] <= now:
            at, _, place = heapq.heappop(self._queue)
            if place.queued_for != at or not self._is_here(place):
                continue
            place.queued_for = math.inf
            if place.looker.rests():
                continue
            follower = place.looker.follower
            if not follower.is_due(now):
                self._settle(place)  # it was seen meanwhile
                continue
            follower.looks(at)
            due.append(place)
        return due

    def _due_soon(self, now: float, due: set[int]) -> int:
        """How many looks are due, or wanted so soon that a sweep now does for them, as far as it matters."""
        until, count, entries = now + self._cadence.shortest, len(due), [0]
        while entries and count < self._pages:
            entry = entries.pop()
            if entry < len(self._queue) and self._queue[entry][0] <= until:
                at, _, place = self._queue[entry]
                is_wanted = place.queued_for == at and self._is_here(place)
                count += is_wanted and place.looker.follower.job_id not in due
                entries += 2 * entry + 1, 2 * entry + 2  # by the order of a heap, none below is earlier
        return count

    def _everybody(self) -> list[_Place]:
        return [place for places in self._places.values() for place in places.values()]

    def _is_here(self, place: _Place) -> bool:
        return self._places.get(place.looker.follower.job_id, {}).get(place.looker) is place

    def _carried(self) -> list[_Place]:
        """Those who wait for the next sweep."""
        carried = [place for place in self._everybody() if place.looker.follower.is_carried]
        return [place for place in carried if not place.looker.rests()]

    def _arm_next(self) -> None:
        first = self._queue[0][0] if self._queue else math.inf
        at = min(first, self._sweep_at)
        if at < math.inf and not self._is_idle:
            self._arm(at)

    def _started(self, work: Coroutine[Any, Any, None], job_id: int | None = None) -> asyncio.Task[None]:
        task = asyncio.create_task(work)

        def end(task: asyncio.Task[None]) -> None:
            # A task that is cancelled before it began has not said that it is over.
            if self._sweeping is task:
                self._sweeping = None
            if job_id is not None and self._reading.get(job_id) is task:
                del self._reading[job_id]

        task.add_done_callback(end)
        return task

    # --- details -----------------------------------------------------------------------------------------

    async def _looked_at(self, job_id: int) -> None:
        """Reads a job's details for all who follow it."""
        now, failure = _now(), None
        followers = [looker.follower for looker in self._places.get(job_id, ())]
        interval = min((one.cadence.interval for one in followers), default=0.0)
        due = min((one.due(now) for one in followers), default=math.inf)
        try:
            job, asked = await self._gate.read(lambda: self._read_job(job_id, due), interval, due)
        except CallError as error:
            failure = error
        except BaseException as error:
            for looker in list(self._places.get(job_id, ())) if self._has_read(job_id) else ():
                looker.ended(error)
            if not isinstance(error, Exception):
                raise
            return
        self._has_read(job_id)  # before anyone is told, who may want the next read at once
        now = _now()
        self._settle_dispute(job_id, is_there=failure is None)
        if failure is None:
            self._tell(job_id, lambda follower: follower.saw(job, asked, now))
        else:
            self._tell(job_id, lambda follower: _failed(follower, failure, now))

    def dispute(self, job_ids: Iterable[int]) -> None:
        """Two readings in succession lacked these jobs, and many: their details tell who is right."""
        self._disputed.update(job_ids)

    def _settle_dispute(self, job_id: int, *, is_there: bool) -> None:
        was_disputed = job_id in self._disputed
        self._disputed.discard(job_id)
        if was_disputed and is_there and not self._dialect.totals_lie:
            # The only thing that a listing says of jobs that it does not show is how many they are.
            self._dialect.totals_lie = True
            for place in self._everybody():
                place.looker.follower.is_listed = True  # as far as is known again

    def _has_read(self, job_id: int) -> bool:
        """This task reads the job's details no more; tells whether they were still wanted of it."""
        was_wanted = self._reading.get(job_id) is asyncio.current_task()
        if was_wanted:
            del self._reading[job_id]
        return was_wanted

    def _tell(self, job_id: int, tell: Callable[[Follower], Transition | None]) -> None:
        for place in list(self._places.get(job_id, {}).values()):
            try:
                transition = tell(place.looker.follower)
            except CallError as error:
                place.looker.ended(error)
                continue
            self._told(place, transition)

    def _told(self, place: _Place, transition: Transition | None) -> None:
        looker = place.looker
        if transition is not None:
            looker.took(transition)
        if self._is_here(place) and not looker.follower.is_over:
            self._settle(place)

    # --- sweeps ------------------------------------------------------------------------------------------

    async def _swept_through(self, read_rows: ReadRows) -> None:
        """Reads the whole listing for all, or goes on with it; a failure puts it off."""
        per_page: int | None = None
        try:
            while not self._is_idle:
                sweep = self._sweep or self._begun(per_page or self._dialect.limits.per_page)
                try:
                    rows, asked = await self._gate.read(
                        functools.partial(read_rows, sweep.page, sweep.per_page, self._sweep_due),
                        self._cadence.interval,
                        self._sweep_due,
                    )
                except CallError as error:
                    per_page = self._narrower(sweep, error)
                    if per_page is None:
                        self._put_off(error)
                        return
                    self._break_off()
                    continue
                self._take(sweep, Sighting(rows, asked, _now()))
                if sweep.ended or not self._is_worth_its_rest(sweep):
                    self._over(sweep)
                    return
        except BaseException as error:
            if self._sweeping is asyncio.current_task():
                self._end_all(error)
            if not isinstance(error, Exception):
                raise
        finally:
            if self._sweeping is asyncio.current_task():
                self._sweeping = None

    def _begun(self, per_page: int) -> Sweep:
        self._swept += 1
        self._shown = [one for one in self._audiences if one.is_hungry]
        for audience in self._shown:
            audience.begins()
        max_age = min((terms.max_age for terms in self._all_terms()), default=math.inf)
        self._sweep_due = max_age + (_now() if self._begun_at is None else self._begun_at)
        self._sweep_begun_at = math.inf
        trusts_total = not self._dialect.totals_lie and (self._dialect.totals_hold or not self._shown)
        self._sweep = Sweep(self._swept, per_page, trusts_total)
        return self._sweep

    def _is_worth_its_rest(self, sweep: Sweep) -> bool:
        """Whether at least as many jobs are still to be shown by a sweep as it has pages left."""
        if self._shown:
            return True
        # The newest jobs, mostly followed last, are on the last pages: backwards, a few of them tell.
        unseen = (
            job_id
            for job_id, places in reversed(self._places.items())
            if any(place.looker.follower.is_absent_from(sweep.number) for place in places.values())
        )
        return sum(1 for _ in itertools.islice(unseen, sweep.left)) == sweep.left

    def _take(self, sweep: Sweep, sighting: Sighting) -> None:
        """Shows a page to all who follow one of its jobs."""
        rows = sighting.rows
        self._sweep_begun_at = min(self._sweep_begun_at, sighting.asked)
        sweep.take(len(rows) + rows.skipped, rows.job_total_count)
        self._dialect.learn(attrs.evolve(self._dialect.limits, per_page=sweep.per_page))
        self._pages, self._list_failures, self._refusals = sweep.pages, 0, 0
        self._failures.succeeded(sighting.at)
        self._dialect.totals_hold = self._dialect.totals_hold or sweep.total_held
        for audience in self._shown:
            audience.shows(sighting)
        followed = [row for row, job_id in enumerate(rows.ids) if job_id in self._places]
        if 2 * len(followed) < len(rows):
            # Whoever follows one of its jobs keeps the page.
            rows = rows.only(followed)
            sighting, followed = attrs.evolve(sighting, rows=rows), list(range(len(followed)))
        changed: list[tuple[_Place, int]] = []
        for row in followed:
            status, duration = rows.statuses[row], rows.durations[row]
            for place in self._places[rows.ids[row]].values():
                follower = place.looker.follower
                follower.seen_in, follower.is_listed = sweep.number, True
                if status == follower.status and duration >= follower.duration:
                    follower.sighting, follower.row, follower.duration = sighting, row, duration
                else:
                    changed.append((place, row))
        for place, row in changed:
            self._saw(place, sighting, row)

    def _saw(self, place: _Place, sighting: Sighting, row: int) -> None:
        follower = place.looker.follower
        try:
            job = sighting.rows.job(row)
        except DecodeError as error:
            follower.was_unreadable(error, sighting.at)
            self._settle(place)
            return
        self._told(place, follower.saw(job, sighting.asked, sighting.at))

    def _over(self, sweep: Sweep) -> None:
        """A sweep is over: jobs that it has not shown are read by themselves, the others by the next one."""
        self._sweep = None
        now, self._begun_at = _now(), self._sweep_begun_at
        everybody = self._everybody()
        unseen = [place for place in everybody if place.looker.follower.is_absent_from(sweep.number)]
        is_doubtful = sweep.ended and lacks_many(len(unseen), len(everybody))
        was_doubted, self._doubted = self._doubted, is_doubtful and not self._doubted
        self._sweeps_again = self._doubted
        for audience in self._shown:
            self._sweeps_again = audience.ends(sweep.number, now) or self._sweeps_again
            audience.next_at = self._next_reading(audience, now)
        self._shown = []
        self._sweep_at = self._next_sweep(now)
        self.resume()
        if not self._doubted:
            awaiting, self._awaiting = self._awaiting, []
            if sweep.ended:
                for place in unseen:
                    place.looker.follower.was_not_listed()
                if was_doubted:
                    self.dispute(place.looker.follower.job_id for place in unseen)
                awaiting += unseen
            else:
                self._look_at({place.looker.follower.job_id for place in unseen})
            for place in awaiting:
                if self._is_here(place) and place.looker.follower.job_id not in self._reading:
                    self._settle(place)
        self._arm_next()

    def _all_terms(self) -> Iterator[Terms]:
        yield from self._terms
        for audience in self._audiences:
            yield audience.terms

    def _next_sweep(self, now: float) -> float:
        """When to read the listing again for those who follow a job."""
        if self._sweeps_again:
            return now + CONFIRMS_AFTER
        interval = min((terms.cadence.interval for terms in self._terms), default=math.inf)
        max_age = min((terms.max_age for terms in self._terms), default=math.inf)
        return self._before_stale(now + self._cadence.jittered(interval, self._chance()), now, max_age)

    def _next_reading(self, audience: Audience, now: float) -> float:
        """When to read the listing again for somebody who wants all of it."""
        interval = audience.terms.cadence.interval
        if audience.phase is None:
            at = now + self._cadence.jittered(interval, self._chance())
        else:
            at = on_beat(now, interval, audience.phase)
        return self._before_stale(at, now, audience.terms.max_age)

    def _before_stale(self, at: float, now: float, max_age: float) -> float:
        begun, shortest = self._sweep_begun_at, self._cadence.shortest
        return rhythm.before_stale(at, now, begun=begun, max_age=max_age, shortest=shortest)

    def _narrower(self, sweep: Sweep, error: CallError) -> int | None:
        """What size of pages to try after a refusal; ``None`` where it is not the size that was refused."""
        if not isinstance(error, BadRequestError) or not wire.blames_a_parameter(error):
            return None
        asked = attrs.evolve(self._dialect.limits, per_page=sweep.per_page)
        narrower = Ask().narrower(asked, error.message)
        return None if narrower is None else narrower.per_page

    def _put_off(self, error: CallError) -> None:
        """A page could not be read: it is asked for later, or the listing no more."""
        self._list_failures += 1
        # Refused once, a token may have been revoked: that is no reason to end all watches. And one that
        # was got just now is not renewed at once.
        is_refusal = isinstance(error, AuthenticationError)
        refusals, self._refusals = self._refusals, self._refusals + (is_refusal and error.not_retried is None)
        is_permanent = self._refusals > refusals > 0 if is_refusal else retrying.is_permanent(error)
        if is_permanent and not isinstance(error, _OF_THE_LISTING):
            self._end_all(error)
            return
        self._report.failed(error)
        for audience in self._shown:
            audience.failed(error)
        again_at = self._next_try(error)
        if is_permanent:
            self._lists_after = math.inf
            for audience in list(self._audiences):
                audience.refused(error)
            self._by_details()
        elif not retrying.is_outage(error) and self._list_failures >= _FAILURES_TO_GIVE_UP:
            self._lists_after = _now() + _LISTS_AGAIN_AFTER
            for audience in self._shown:
                audience.next_at = again_at
            self._by_details()
        else:
            self._call_sweep(again_at)

    def _next_try(self, error: CallError) -> float:
        now = _now()
        self._failures.failed()
        at = now + self._cadence.after_failures(self._failures.count, self._chance(), error.retry_after)
        beats = [
            on_beat(now, one.terms.cadence.interval, one.phase)
            for one in self._shown
            if one.phase is not None
        ]
        # Many projects that all try often do a service that is down no good, and come back all at once.
        return max(at, *beats) if self._list_failures > 1 and beats else at

    def _break_off(self) -> None:
        """The sweep under way does not go on."""
        self._sweep, self._sweep_at = None, math.inf
        for audience in self._shown:
            audience.breaks_off()
        self._shown = []

    def _by_details(self) -> None:
        """Gives the sweep up: each job is read by itself, as soon as it is due."""
        self._break_off()
        self._awaiting.clear()
        for place in self._everybody():
            self._settle(place)
        self.resume()

    def _end_all(self, error: BaseException) -> None:
        for place in self._everybody():
            place.looker.ended(error)
        for audience in list(self._audiences):
            audience.ended(error)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _failed(follower: Follower, error: CallError, now: float) -> Transition | None:
    if isinstance(error, NotFoundError):
        return follower.missed(error, now)
    follower.failed(error, now)
    return None
