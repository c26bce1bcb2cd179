"""Reading jobs for all who follow them: one poller for all watches of a workspace.

A poller that follows several jobs reads the listing, a thousand jobs a request, unless the details of those
that are due cost fewer requests. It has no task that waits: a timer starts the reads that are due, and where
nobody follows anything there is neither.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

from vizwatch._flows.following import Clock, Follower, Terms
from vizwatch._flows.looking import Audience, Looker, Place, Places
from vizwatch._flows.reading import Reads, Turn
from vizwatch._flows.showing import Showing
from vizwatch._flows.sweeping import ReadRows, Sweeps, Verdict
from vizwatch._rules import retrying
from vizwatch._rules.agenda import Agenda
from vizwatch._rules.cadence import CONFIRMS_AFTER, Cadence
from vizwatch._rules.listing import Absence, Dialect, Sweep, is_sweep_cheaper
from vizwatch._values.errors import CallError, DecodeError, NotFoundError
from vizwatch._values.models import Job, Transition
from vizwatch._values.rows import Sighting
from vizwatch._world.alarm import Alarm
from vizwatch._world.gate import Gate
from vizwatch._world.line import Due, to_its_end
from vizwatch._world.report import Report

ReadJob = Callable[[int, Due], Awaitable[tuple[Job, float]]]
"""Reads a job's details, by when they are wanted; gives also when that was sent."""

_LISTED_AGAIN_AFTER: Final = 300.0


class Poller:
    """Reads the jobs of one workspace.

    Args:
        gate: What reads go through while the service may be down.
        report: Who is told of failed reads.
        chance: A random number from [0, 1).
        cadence: The pauses while nobody says which, and after a failure.
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
        self._usual = cadence
        self._read_job = read_job
        self._sweeps = Sweeps(gate, cadence, chance, read_rows, dialect or Dialect())
        self._reads_alone = read_rows is None
        self._check_loop = check_loop
        self._places = Places()
        self._showing = Showing(self._places, self._settle)
        self._audiences: list[Audience] = []
        self._shown: list[Audience] = []
        """Whom the sweep under way is shown to."""
        self._agenda: Agenda[Place] = Agenda()
        self._alarm = Alarm(self._woken)
        self._reads = Reads(self._looked_at, self._wanted_by)
        self._sweeping: asyncio.Task[None] | None = None
        self._sweep_at = math.inf
        """When those are due that wait for the next sweep."""
        self._swept_at = -math.inf
        """When the last sweep was over."""
        self._awaiting: list[Place] = []
        """Who was due, and is shown by the sweep under way."""
        self._clock: Clock | None = None
        self._absence = Absence()
        self._disputed: set[int] = set()
        """The jobs that two sweeps lacked, and many, until their details are read."""
        self._listed_again_at = math.inf
        """When to look for those in the listing again that it lacked."""

    # --- who follows -------------------------------------------------------------------------------------

    def join(self, looker: Looker) -> None:
        """Looks at the looker's job from now on, when its follower says so."""
        if self._reads_alone:
            self._alarm.context = contextvars.copy_context()  # the watcher's, whoever hurries it
        follower = looker.follower
        follower.clock = follower.clock or self.clock()
        sweep = self._sweeps.current
        place = self._places.take(looker, 0 if sweep is None or sweep.page == 1 else sweep.number)
        self._showing.joins(place)
        self._settle(place)
        self._hasten(follower.terms)
        self._reads.hasten(follower.job_id, follower.due(_now()))

    def leave(self, looker: Looker) -> None:
        """The looker waits no longer."""
        place = self._places.give_up(looker)
        if place is None:
            return
        self._agenda.take_off(place)
        self._showing.leaves(place)
        if not self._places.of(looker.follower.job_id):
            self._disputed.discard(looker.follower.job_id)
        if self._is_idle:
            self._rest()

    def attend(self, audience: Audience) -> None:
        """Shows the listing to the audience from now on, when it is hungry."""
        audience.clock = self.clock()
        audience.next_at = _now()
        self._audiences.append(audience)
        self._hasten(audience.terms)
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
        self._call_sweep(min((one.next_at for one in self._hungry), default=math.inf))

    @property
    def _is_idle(self) -> bool:
        return not self._places and not self._audiences

    def clock(self) -> Clock:
        """That of all who come while somebody is there, so that they agree on when something was read."""
        if self._check_loop is not None:
            self._check_loop()
        if self._clock is None or self._is_idle:
            self._clock = Clock.started(_now())
        return self._clock

    def _hasten(self, terms: Terms) -> None:
        """Somebody has come who may want the sweep under way sooner than who was there."""
        self._sweeps.hasten(_now() + terms.max_age)

    def _rest(self) -> None:
        self._alarm.clear()
        self._agenda.clear()
        self._showing.clear()
        self._awaiting.clear()
        self._disputed.clear()
        self._sweeps.rest()
        self._absence = Absence()
        self._sweep_at = self._listed_again_at = math.inf
        self._swept_at = -math.inf

    async def abandon(self, job_ids: Iterable[int]) -> None:
        """Ends the reads under way that nobody is left to want: of these jobs, or all if nobody is left."""
        by_job = self._places.by_job
        unwanted = None if self._is_idle else {job_id for job_id in job_ids if job_id not in by_job}
        # Reads that wait take the places of those that end, and are not of whoever has left.
        tasks = self._alarm.context.run(self._reads.drop, unwanted)
        if self._is_idle and self._sweeping is not None:
            tasks.append(self._sweeping)
            self._sweeping = None
        for task in tasks:
            task.cancel()
        if tasks:
            await to_its_end(asyncio.wait(tasks))

    def hurry(self, job_id: int, *, is_new: bool = False) -> None:
        """Looks at the job soon, since this client wrote to it, or made it."""
        for place in self._places.of(job_id):
            place.follower.hurry(_now())
            self._settle(place)
        for audience in list(self._audiences):
            audience.hurry(job_id, is_new=is_new)

    # --- when to look ------------------------------------------------------------------------------------

    def _settle(self, place: Place) -> None:
        """Sees to it that the job is looked at when it wants to be."""
        follower = place.follower
        at = follower.next_look(_now())
        if self._is_carried(follower):
            self._call_sweep(at)
            at = follower.look_ahead
        self._agenda.put(place, at)
        self._alarm.set(at)

    def _is_carried(self, follower: Follower) -> bool:
        """Whether the next sweep is early enough for the job."""
        return follower.is_carried and (self._is_cheaper(len(self._places)) or bool(self._hungry))

    @property
    def _hungry(self) -> list[Audience]:
        """Who wants to be shown the whole listing."""
        return [one for one in self._audiences if one.is_hungry]

    def _is_cheaper(self, due: int) -> bool:
        sweeps = self._sweeps
        return sweeps.may_begin and is_sweep_cheaper(due, len(self._places), sweeps.pages)

    def _call_sweep(self, at: float) -> None:
        """A sweep is wanted at a time; it comes later where the listing is to be left alone until then."""
        self._sweep_at = min(self._sweep_at, max(at, self._sweeps.rests_until))
        self._alarm.set(self._sweep_at)

    def _woken(self, at: float) -> None:
        try:
            self._wake(at)
        except Exception as error:  # noqa: BLE001 - a timer has nobody else to tell
            self._end_all(error)

    def _wake(self, at: float) -> None:
        """Begins the reads that are due."""
        now = max(_now(), at)
        for audience in list(self._audiences):
            audience.stirs()
        due = self._due(now)
        if now >= self._listed_again_at:
            self._list_again()
        listed = {place.follower.job_id for place in due if place.follower.is_listed}
        unlisted = {place.follower.job_id for place in due} - listed
        is_due = self._sweep_at <= now
        if is_due:
            self._sweep_at = math.inf  # set anew when it is over
        waits = is_due and self._sweeping is None
        is_wanted = is_due and (
            self._sweeps.current is not None or self._absence.is_doubted or self._is_called(now)
        )
        if is_wanted or self._is_cheaper(self._wanted(now, listed, self._carried(now) if waits else ())):
            listed = {place.follower.job_id for place in due if self._is_too_late_for(place, now)}
            self._awaiting += (place for place in due if place.follower.job_id not in listed)
            self._sweep(now)
        elif waits:
            for place in [*self._carried(now)]:
                if place.follower.is_due(now):
                    listed.add(place.follower.job_id)
                else:
                    self._settle(place)
            later = [one for one in self._places.terms if self._next_sweep_on(one) > now]
            self._call_sweep(
                min((self._next_sweep_on(one, self._chance()) for one in later), default=math.inf)
            )
        if self._sweeping is None:
            self.resume()
        self._look_at(listed | unlisted)
        self._arm_next()

    def _is_too_late_for(self, place: Place, now: float) -> bool:
        """Whether the sweep cannot tell what a write has come to: it began before, or has to wait."""
        is_begun = self._sweeping is not None or now < self._sweeps.rests_until
        return is_begun and place.follower.is_after_write(now)

    def _is_called(self, now: float) -> bool:
        """Whether somebody wants the whole listing, or so soon that it does for a job that is due now.

        Who has a place in the interval keeps it.
        """
        return any(
            one.next_at <= now + (one.terms.cadence.spread if self._places and one.phase is None else 0.0)
            for one in self._hungry
        )

    def _look_at(self, job_ids: Iterable[int]) -> None:
        """Reads the details of each, unless they are being read."""
        now = _now()
        for job_id in job_ids:
            self._reads.want(job_id, now, self._turn(job_id, now))
        self._reads.begin()

    def _turn(self, job_id: int, now: float) -> Turn:
        followers = [place.follower for place in self._places.of(job_id)]
        if any(follower.is_failing for follower in followers):
            return Turn.LAST
        if all(follower.heard_at is None for follower in followers):
            return Turn.FIRST
        return Turn.AT_ONCE if any(follower.is_urgent(now) for follower in followers) else Turn.USUAL

    def _wanted_by(self, job_id: int, since: float) -> float | None:
        """By when a job's details are wanted, and have been since a time; ``None`` for no more."""
        places = self._places.of(job_id)
        if any(not place.follower.was_read_since(since) for place in places):
            now = _now()
            return min(place.follower.due(now) for place in places)
        for place in places:
            self._settle(place)  # a sweep has shown it meanwhile
        return None

    def _sweep(self, now: float) -> None:
        """Begins a sweep, or goes on with one, unless the listing is to be left alone for a while."""
        if self._sweeping is not None:
            return
        if now < self._sweeps.rests_until:
            self._call_sweep(now)
            return

        def end(task: asyncio.Task[None]) -> None:
            # One that is cancelled before it began has not said that it is over.
            if self._sweeping is task:
                self._sweeping = None

        self._sweeping = asyncio.create_task(self._swept_through())
        self._sweeping.add_done_callback(end)

    def _list_again(self) -> None:
        """All jobs are in the listing, as far as is known: what it lacked once it may show by now."""
        self._listed_again_at = math.inf
        for place in self._places:
            place.follower.is_listed = True

    def _due(self, now: float) -> list[Place]:
        """Those whose time has come; takes them off the agenda."""
        due: list[Place] = []
        for place, at in self._agenda.due(now):
            if not place.follower.is_due(now):
                self._settle(place)  # it was seen meanwhile
                continue
            place.follower.looks(at)
            due.append(place)
        return due

    def _wanted(self, now: float, due: set[int], carried: Iterable[Place]) -> int:
        """How many jobs a sweep would serve that are due, as far as it matters whether there are enough.

        Those that are wanted so soon that a sweep now does for them count, too, if any is due.
        """
        found = set(due)
        if not self._sweeps.may_begin:
            return len(found)
        for places in (carried, self._agenda.until(now + self._cadence.shortest)):
            for place in places:
                if len(found) >= self._sweeps.pages:
                    return len(found)
                found.add(place.follower.job_id)
            if not found:
                break
        return len(found)

    def _carried(self, now: float) -> Iterator[Place]:
        """Those who wait for the next sweep, and want it by now."""
        terms = {one for one in self._places.terms if self._next_sweep_on(one) <= now}
        return (
            place for place in self._places if place.follower.terms in terms and place.follower.is_carried
        )

    def _arm_next(self) -> None:
        if not self._is_idle:
            self._alarm.set(min(self._agenda.first_at, self._sweep_at))

    # --- details -----------------------------------------------------------------------------------------

    async def _looked_at(self, job_id: int, due: Due) -> None:
        """Reads a job's details for all who follow it."""
        failure = None
        followers = [place.follower for place in self._places.of(job_id)]
        interval = min((one.cadence.interval for one in followers), default=0.0)
        failures = max((one.failures for one in followers), default=0)
        try:
            job, asked = await self._gate.read(
                lambda: self._read_job(job_id, due), interval, due, failures=failures
            )
        except CallError as error:
            failure = error
        except BaseException as error:
            for place in list(self._places.of(job_id)) if self._reads.ends(job_id) else ():
                place.looker.ended(error)
            if not isinstance(error, Exception):
                raise
            return
        self._reads.ends(job_id)  # before anyone is told, who may want the next read at once
        now = _now()
        if failure is None:
            self._sweeps.details_answered()
            self._settle_dispute(job_id)
            self._tell(job_id, lambda follower: follower.saw(job, asked, now))
        else:
            self._tell(job_id, lambda follower: _failed(follower, failure, now))

    def _settle_dispute(self, job_id: int) -> None:
        """A job is there. If two sweeps lacked it, and many, the listing goes on beyond its total."""
        if job_id not in self._disputed or self._sweeps.dialect.totals_lie:
            return
        # The only thing that a listing says of jobs that it does not show is how many they are.
        self._sweeps.dialect.totals_lie = True
        self._list_again()
        disputed, self._disputed = self._disputed - {job_id}, set()
        self._reads.drop(one for one in disputed if not self._reads.is_under_way(one))
        for one in disputed:
            for place in self._places.of(one):
                self._settle(place)

    def _tell(self, job_id: int, tell: Callable[[Follower], Transition | None]) -> None:
        for place in list(self._places.of(job_id)):
            try:
                transition = tell(place.follower)
            except Exception as error:  # noqa: BLE001 - it is the follower's, who gets it
                place.looker.ended(error)
                continue
            self._told(place, transition)

    def _told(self, place: Place, transition: Transition | None) -> None:
        looker = place.looker
        if transition is not None:
            looker.took(transition)
        elif looker.follower.is_over:
            looker.ended(StopAsyncIteration())  # it had ended before, and nothing has changed
        if place in self._places and not looker.follower.is_over:
            self._settle(place)

    # --- sweeps ------------------------------------------------------------------------------------------

    async def _swept_through(self) -> None:
        """Reads the whole listing for all, or goes on with it; a failure puts it off."""
        sweeps = self._sweeps
        try:
            while self._goes_on():
                sweep = sweeps.current or self._begun()
                try:
                    sighting = await sweeps.read(sweep)
                except CallError as error:
                    if not sweeps.narrows(sweep, error):
                        self._put_off(error)
                        return
                    self._break_off()
                    continue
                self._take(sighting)
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

    def _goes_on(self) -> bool:
        """Whether anybody wants the next page; after a cancelled step not before somebody comes back."""
        for audience in list(self._shown):
            audience.stirs()
        is_left = bool(self._shown) and all(one.is_left for one in self._shown)
        if is_left and self._hungry:
            self._break_off()  # somebody else has come, who has not seen its first pages
            return True
        return bool(self._places) or not (self._is_idle or is_left)

    def _begun(self) -> Sweep:
        self._shown = self._hungry
        for audience in self._shown:
            audience.begins()
        max_age = min((terms.max_age for terms in self._all_terms()), default=math.inf)
        sweep = self._sweeps.begin(self._cadence, for_all=bool(self._shown), max_age=max_age)
        self._showing.begins(sweep.number)
        return sweep

    def _is_worth_its_rest(self, sweep: Sweep) -> bool:
        """Whether at least as many jobs are still to be shown by a sweep as it has pages left."""
        if self._shown or self._absence.is_doubted:
            return True
        unseen: set[int] = set()
        for place in self._showing.unseen(sweep.number):
            unseen.add(place.follower.job_id)
            if len(unseen) == sweep.left:
                return True
        return False

    def _take(self, sighting: Sighting) -> None:
        """Shows a page to all who follow one of its jobs."""
        self._reads.pages = self._sweeps.pages
        for audience in self._shown:
            audience.shows(sighting)
        for place, page, row in self._showing.shows(sighting):
            self._saw(place, page, row)

    def _saw(self, place: Place, sighting: Sighting, row: int) -> None:
        follower = place.follower
        try:
            job = sighting.rows.job(row)
        except DecodeError as error:
            follower.was_unreadable(error, sighting.at)
            self._settle(place)
            return
        self._told(place, follower.saw(job, sighting.asked, sighting.at))

    def _over(self, sweep: Sweep) -> None:
        """A sweep is over: jobs that it has not shown are read by themselves, the others by the next one."""
        self._sweeps.end()
        now, since, was_doubted = _now(), self._absence.since(sweep.number), self._absence.is_doubted
        if sweep.ended:
            self._showing.ends()
        unseen = [*self._showing.unseen(since)]
        is_believed = not sweep.ended or self._is_believed(sweep, unseen, disputes=was_doubted)
        for audience in self._shown:
            audience.ends(sweep.number, now, is_believed=is_believed)
            audience.next_at = self._next_reading(audience, now)
        self._shown = []
        self._sweep_at, self._swept_at = self._next_sweep(now), now
        self.resume()
        if is_believed:
            awaiting, self._awaiting = self._awaiting, []
            if sweep.ended:
                self._were_not_listed(unseen, now)
            else:
                self._look_at({place.follower.job_id for place in unseen})
            for place in awaiting:
                if place in self._places and not self._reads.is_under_way(place.follower.job_id):
                    self._settle(place)
        self._arm_next()

    def _is_believed(self, sweep: Sweep, unseen: Iterable[Place], *, disputes: bool) -> bool:
        """Whether the jobs are absent that a sweep lacks; of those that were once shown, details tell."""
        lacking = {place.follower.job_id for place in unseen if not place.follower.is_missed}
        of_all = {job_id for audience in self._shown for job_id in audience.lacks()}
        if disputes:
            self._disputed |= of_all | {one.follower.job_id for one in unseen if one.follower.seen_in}
        lacking |= of_all
        return self._absence.is_believed(sweep.number, len(lacking), self._sweeps.pages)

    def _were_not_listed(self, unseen: Iterable[Place], now: float) -> None:
        for place in unseen:
            if place in self._places:
                self._told(place, place.follower.was_not_listed(now))
                self._listed_again_at = min(self._listed_again_at, now + _LISTED_AGAIN_AFTER)

    def _all_terms(self) -> Iterator[Terms]:
        yield from self._places.terms
        for audience in self._audiences:
            yield audience.terms

    @property
    def _cadence(self) -> Cadence:
        """Of whoever wants to know soonest."""
        cadences = (terms.cadence for terms in self._all_terms())
        return min(cadences, key=lambda cadence: cadence.interval, default=self._usual)

    def _next_sweep_on(self, terms: Terms, chance: float = 0.0) -> float:
        """When those on these terms want the next sweep; at the earliest, unless chance says otherwise."""
        cadence = terms.cadence
        at = self._swept_at + cadence.jittered(cadence.interval, chance)
        return self._sweeps.next_at(at, self._swept_at, terms.max_age)

    def _next_sweep(self, now: float) -> float:
        """When to read the listing again for those who follow a job."""
        if self._absence.is_doubted:
            return now + CONFIRMS_AFTER
        interval = min((terms.cadence.interval for terms in self._places.terms), default=math.inf)
        max_age = min((terms.max_age for terms in self._places.terms), default=math.inf)
        at = now + self._cadence.jittered(interval, self._chance())
        return self._sweeps.next_at(at, now, max_age)

    def _next_reading(self, audience: Audience, now: float) -> float:
        """When to read the listing again for somebody who wants all of it."""
        cadence = audience.terms.cadence
        if audience.phase is None:
            at = now + self._cadence.jittered(cadence.interval, self._chance())
        else:
            at = cadence.on_beat(now, audience.phase)
        return self._sweeps.next_at(at, now, audience.terms.max_age)

    def _put_off(self, error: CallError) -> None:
        """A page could not be read: it is asked for later, or the listing no more."""
        verdict, at = self._sweeps.failed(error)
        if verdict is Verdict.HOPELESS:
            self._end_all(error)
            return
        self._report.failed(error)
        for audience in self._shown:
            audience.failed(error)
        at = self._not_all_at_once(at)
        if verdict is Verdict.AGAIN:
            self._call_sweep(at)
            if retrying.is_outage(error):
                self._look_at(self._any_job())
            return
        for audience in self._shown:
            audience.next_at = at
        if verdict is Verdict.REFUSED:
            for audience in list(self._audiences):
                audience.refused(error)
        self._by_details()

    def _any_job(self) -> Iterable[int]:
        """A job whose details tell whether all is down, or the listing alone; none that was read just now.

        Whichever comes by chance: the details of one may fail as well.
        """
        since = _now() - self._cadence.shortest
        others = [place.follower for place in self._places if not place.follower.was_read_since(since)]
        others = [follower for follower in others if not follower.is_failing] or others
        return [others[int(self._chance() * len(others))].job_id] if others else []

    def _not_all_at_once(self, at: float) -> float:
        """When to try again, though there are many projects that fail: else they all come back together."""
        terms = [(one.terms, one.phase) for one in self._shown if one.phase is not None]
        if self._sweeps.failures < 2 or not terms:
            return at
        return max(at, *(one.cadence.on_beat(_now(), phase) for one, phase in terms))

    def _break_off(self) -> None:
        """The sweep under way does not go on."""
        self._sweeps.current, self._sweep_at = None, math.inf
        for audience in self._shown:
            audience.breaks_off()
        self._shown = []

    def _by_details(self) -> None:
        """Gives the sweep up: each job is read by itself, as soon as it is due."""
        self._break_off()
        self._awaiting.clear()
        for place in self._places:
            self._settle(place)
        self.resume()

    def _end_all(self, error: BaseException) -> None:
        for place in list(self._places):
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
