"""Following one job: from reads of it, whoever reads, to its transitions and to when to look again."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
from collections.abc import Callable
from typing import Final

import attrs

from vizwatch._flows.ageing import Ageing
from vizwatch._rules import retrying, rhythm
from vizwatch._rules.cadence import CONFIRMS_AFTER, Cadence, Doubt, Failures, OwnWrites, is_recent
from vizwatch._rules.pacing import Haste
from vizwatch._rules.transitions import Tracker, counts_of
from vizwatch._values.errors import AuthenticationError, CallError, DecodeError, NotFoundError
from vizwatch._values.exchange import Stale
from vizwatch._values.models import Job, Transition
from vizwatch._values.rows import NO_DURATION, Sighting
from vizwatch._values.statuses import JobStatus
from vizwatch._world.report import Report

_NEVER_QUIET: Final = -(2**63)  # no status
_EARLY_ENOUGH: Final = 0.8
"""After which share of the time until it is looked at again another read may confirm a step back, too."""
_NEARLY: Final = 0.95
"""The same of the shortest pause, for a sweep that confirms an absence: details are read after one."""


@attrs.frozen
class Clock:
    """The time in UTC by the event loop's clock, so that a step of the wall clock reorders nothing."""

    _wall: dt.datetime
    _loop: float

    @classmethod
    def started(cls, now: float) -> Clock:
        """A clock that agrees with the wall's now."""
        return cls(dt.datetime.now(dt.UTC), now)

    def at(self, now: float) -> dt.datetime:
        """The time in UTC."""
        return self._wall + dt.timedelta(seconds=now - self._loop)

    def when(self, moment: dt.datetime, now: float) -> float:
        """The event loop's time then, but not after now: the wall's clock may have been wrong."""
        return min(self._loop + (moment - self._wall).total_seconds(), now)


@attrs.frozen(eq=False)
class Terms:
    """What the followers of one client have in common that are asked for alike."""

    cadence: Cadence
    own_writes: OwnWrites
    report: Report
    chance: Callable[[], float]
    """A random number from [0, 1)."""
    request_time: float
    """How long one read may take, in seconds."""
    haste: Haste = attrs.field(factory=Haste)
    """Whether a look may come sooner than usual: one for all that spend one account's budget."""
    max_age: float = math.inf
    """How old what is known may become by the caller's wish, in seconds."""
    on_stale: Callable[[Stale], object] | None = None
    """Whom to tell when it becomes older."""

    @property
    def patience(self) -> float:
        """How old what is known may become without being stale: a healthy poller never waits for longer."""
        return min(self.max_age, self.cadence.longest + self.request_time)

    def ageing(
        self, project_id: str, job_id: int | None, heard_at: Callable[[], float | None]
    ) -> Ageing | None:
        """What tells when what is known gets too old; ``None`` where any age will do.

        Args:
            project_id: The project.
            job_id: The job; ``None`` for a whole workspace, or many jobs.
            heard_at: When what is known was read; ``None`` while nothing is.
        """
        if math.isinf(self.max_age):
            return None

        def tell(age: float) -> None:
            stale = Stale(project_id=project_id, job_id=job_id, age=age, max_age=self.max_age)
            self.report.stale(stale, self.on_stale)

        return Ageing(self.max_age, heard_at, tell)


@attrs.define(eq=False)
class Page:
    """A page of the listing as it was last shown, for all who follow a job on it and know nothing better."""

    sighting: Sighting
    sweep: int
    """The number of the sweep that showed it."""
    loose: dict[int, None] = attrs.field(factory=dict)
    """The jobs whose rows have to be shown one by one, on whatever page they are."""


@attrs.define(eq=False, weakref_slot=False)
class Follower:
    """Follows one job through its reads, in seconds of the event loop's clock.

    A read that shows what the one before it showed changes nothing but when the job was last read. Most are
    of this kind, so a listing need not be handed in row by row: a follower rests on the page that showed its
    job as it was, together with all others there, and whatever later sweeps make of that page without
    changing the job's row is made up for when something happens, or when the next look would be due.
    """

    tracker: Tracker
    terms: Terms
    _is_awaited: bool = False
    """Whether a job that was never seen is waited for, however long."""
    clock: Clock | None = attrs.field(default=None, init=False)
    last_look: float = attrs.field(default=math.inf, init=False)
    """When to look for the last time, before a deadline."""
    is_hurried: bool = attrs.field(default=True, init=False)
    """Whether the next look is wanted earlier than an interval after the last one."""
    is_listed: bool = attrs.field(default=True, init=False)
    """Whether the job is in the listing, as far as is known: of another workspace, it is not."""
    failed_for_good: bool = attrs.field(default=False, init=False)
    page: Page | None = attrs.field(default=None, init=False)
    """What it rests on, if anything."""
    _row: int = attrs.field(default=0, init=False)
    """The job's row there."""
    _seen_in: int = attrs.field(default=0, init=False)
    _status: int = attrs.field(default=_NEVER_QUIET, init=False)
    """The status with which a row is as it was, unless its duration is less than the last one."""
    _duration: int = attrs.field(default=NO_DURATION, init=False)
    _look_at: float = attrs.field(default=-math.inf, init=False)
    _look_ahead_at: float = attrs.field(default=math.inf, init=False)
    """When the job's automatic stop comes near, as far as it is not hurried yet."""
    _looked_last: bool = attrs.field(default=False, init=False)
    _read_at: float | None = attrs.field(default=None, init=False)
    _answered_at: float = attrs.field(default=-math.inf, init=False)
    """When the answer of the last read had come."""
    _since: float = attrs.field(default=-math.inf, init=False)
    """When the job's status was first seen."""
    _has_changed: bool = attrs.field(default=False, init=False)
    """Whether another one was seen before."""
    _doubt: Doubt | None = attrs.field(default=None, init=False)
    """What is doubted since the last read that was believed."""
    _failures: Failures | None = attrs.field(default=None, init=False)
    """Those that are not forgotten, if there are any."""
    _latest: Job | None = attrs.field(default=None, init=False)
    """The job as last read, believed or not."""
    _hopeless_from: float = attrs.field(default=math.inf, init=False)
    """From when on a refusal for the credentials is one too many: the last read was refused for them."""

    @property
    def job_id(self) -> int:
        """The job."""
        return self.tracker.job_id

    @property
    def cadence(self) -> Cadence:
        """Its pauses."""
        return self.terms.cadence

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to read."""
        return self.tracker.ended or self.failed_for_good

    @property
    def job(self) -> Job | None:
        """The job as last read, a read that is still doubted left out if there was a better one."""
        if self.page is not None:
            with contextlib.suppress(DecodeError):
                return self.page.sighting.rows.job(self._row)
        return self.tracker.job or self._latest

    @property
    def read_at(self) -> float | None:
        """When the last good read was begun."""
        return self._read_at if self.page is None else self.page.sighting.asked

    @property
    def heard_at(self) -> float | None:
        """When the last good read was begun, or the last one that found no such job, believed or not."""
        missed_at = None if self._doubt is None else self._doubt.missed_at
        return self.read_at if missed_at is None else missed_at

    @property
    def is_failing(self) -> bool:
        """Whether the last read failed."""
        return self.failures > 0

    @property
    def failures(self) -> int:
        """How many of its reads have failed that are not forgotten, if the last one did."""
        if self.page is not None or self._failures is None or not self._failures.go_on:
            return 0
        return self._failures.count

    def is_urgent(self, now: float) -> bool:
        """Whether somebody waits for the first answer, or for what a write of this client's has come to."""
        return self.heard_at is None or self.is_after_write(now)

    def is_after_write(self, now: float) -> bool:
        """Whether this client wrote to the job just now."""
        return is_recent(self.terms.own_writes.latest(self.job_id), now)

    def is_stale(self, now: float) -> bool:
        """Whether the last good read is too long ago."""
        read_at = self.read_at
        return read_at is None or now - read_at > self.terms.patience

    def due(self, now: float) -> float:
        """When a read begun now is wanted, so that what is known becomes no older than was asked for."""
        read_at = self.read_at
        return (now if read_at is None else read_at) + self.terms.max_age

    def next_look(self, now: float) -> float:
        """When to look again."""
        self.rouse()
        at = min(self._look_at, self._look_ahead_at)
        return at if self._looked_last or not now < self.last_look < at else self.last_look

    @property
    def look_ahead(self) -> float:
        """When a look is wanted however fresh what is known is."""
        return min(self._look_ahead_at, math.inf if self._looked_last else self.last_look)

    def is_due(self, now: float) -> bool:
        """Whether it is time for a look."""
        self.rouse()
        return now >= min(self._look_at, self.look_ahead)

    def looks(self, at: float) -> None:
        """A look is taken that was wanted at this time."""
        # Not told by the time, as timers may be early by what a clock cannot tell.
        self._looked_last = self._looked_last or at >= self.last_look
        if at >= self._look_ahead_at:
            self._look_ahead_at = math.inf

    @property
    def is_carried(self) -> bool:
        """Whether the sweeps of the listing are enough for the job, as long as nothing happens to it."""
        return self.is_listed and not self.is_hurried

    @property
    def is_missed(self) -> bool:
        """Whether the job's details say that it is no more, which is not believed yet."""
        return self._doubt is not None and self._doubt.is_missed

    @property
    def seen_in(self) -> int:
        """The number of the sweep that last showed the job; 0 where none has."""
        return self._seen_in if self.page is None else max(self._seen_in, self.page.sweep)

    def is_absent_since(self, sweep: int) -> bool:
        """Whether that sweep and all after it should have shown the job, and did not."""
        return self.is_listed and self.seen_in < sweep

    def was_read_since(self, time: float) -> bool:
        """Whether an answer has shown the job after that."""
        return (self._answered_at if self.page is None else self.page.sighting.at) > time

    @property
    def is_settled(self) -> bool:
        """Whether nothing is expected of the job but what a listing shows."""
        return self.is_carried and self._status != _NEVER_QUIET

    def was_listed(self, sweep: int) -> None:
        """A sweep has shown the job."""
        self._seen_in, self.is_listed = sweep, True

    def rests_on(self, page: Page, row: int) -> bool:
        """Whether it rests on a page that shows the job, as it does from now on if that is nothing new."""
        if self.page is page:
            return True
        rows = page.sighting.rows
        known = self._duration if self.page is None else self.page.sighting.rows.durations[self._row]
        is_quiet = rows.statuses[row] == self._status and rows.durations[row] >= known
        if is_quiet and not self.was_read_since(page.sighting.asked):
            self.page, self._row = page, row
            return True
        return False

    def rouse(self) -> None:
        """It rests no longer: what the page has come to is made up for."""
        page, self.page = self.page, None
        if page is None:
            return
        page.loose[self.job_id] = None
        sighting, self._seen_in = page.sighting, max(self._seen_in, page.sweep)
        self._hopeless_from = math.inf
        self._read_at, self._answered_at = sighting.asked, sighting.at
        self._succeeded(sighting.at)
        self._duration = sighting.rows.durations[self._row]
        with contextlib.suppress(DecodeError):  # its status is known, and was the same
            job = self._latest = sighting.rows.job(self._row)
            clock = self._clock(sighting.at)
            self.tracker.saw(job, clock.at(sighting.asked), clock.at(sighting.at))
        if self.tracker.job is not None:
            self._pause(self.tracker.job, sighting.at)

    def resume(self, job: Job, asked: float, counts: tuple[int, int]) -> None:
        """Goes on with a job as it was last read, after so many runs and transitions."""
        self.tracker.resume(job, self._clock(asked).at(asked), counts)
        self._latest, self._read_at = job, asked

    def resume_after(self, told: Transition, now: float) -> None:
        """Goes on after a transition that was told before this process began, maybe."""
        counts, clock = counts_of(told), self._clock(now)
        if told.current is None:
            self.tracker.recount(counts)
            return
        read_at = clock.at(clock.when(told.read_at or told.not_after, now))
        self.tracker.resume(told.job, read_at, counts, was_told=True)

    def look_now(self) -> None:
        """The next look is wanted at once."""
        self.rouse()
        self._look_at, self.is_hurried, self._status = -math.inf, True, _NEVER_QUIET

    def hurry(self, now: float) -> None:
        """The next look is wanted soon: this client wrote to the job. Pauses after failures are kept to."""
        self.rouse()
        if not self.is_failing:
            self._look_at, self.is_hurried = min(self._look_at, now + self.cadence.shortest), True
            self.is_listed = self.is_listed and not self.is_missed  # its details tell more

    def was_not_listed(self, now: float) -> Transition | None:
        """The listing lacks the job: its details tell whether it is gone, or of another workspace.

        Once they have said that it is, the listing's word counts, too: its last transition, if that is the
        last one needed.
        """
        doubt = self._doubt
        is_missed = doubt is not None and doubt.is_missed
        if doubt is not None and is_missed and now >= doubt.counts_from:
            return self.tracker.gone(self._clock(now).at(now)) if self._is_gone(now) else None
        if not is_missed or self.is_due(now):
            self.is_listed = False
            self.look_now()
        return None

    def relies_on_listing(self) -> None:
        """Its details are refused for good, and the listing is all there is."""
        self.rouse()
        self.failed_for_good = self.is_hurried = False
        self.is_listed, self._look_at = True, math.inf

    def was_unreadable(self, error: DecodeError, now: float) -> None:
        """The job's row in the listing cannot be decoded: its details may be right."""
        self.rouse()
        self.is_listed = False
        if not self.is_failing:
            self.failed(error, now)

    def saw(self, job: Job, asked: float, now: float) -> Transition | None:
        """The job was read: its transition, if that is one.

        Args:
            job: The job.
            asked: When the read was begun.
            now: When its answer had come.
        """
        self._hopeless_from = math.inf
        self.terms.report.read(job.status)
        self.rouse()
        if self._tells_nothing(job, asked, now):
            self._look_at = max(self._look_at, now + self.cadence.shortest)
            return None
        self._latest, self._answered_at = job, now
        self._succeeded(now)
        self._status, self.is_hurried = _NEVER_QUIET, True
        if self._is_old(job, now):
            self._look_at = now + self._doubts().pause(self._usual())
            return None
        self._doubt = None
        clock = self._clock(now)
        transition = self.tracker.saw(job, clock.at(asked), clock.at(now))
        if self.tracker.holds:
            self._look_at = now + self._confirms_after
            return None
        if transition is not None:
            gap = 0.0 if self._read_at is None else asked - self._read_at
            self._since = rhythm.changed_at(now, gap, self.cadence.longest)
            self._has_changed = transition.previous is not None
        if job.status is not JobStatus.UNKNOWN or self._read_at is None:
            self._read_at = asked
        if job.status is not JobStatus.UNKNOWN:
            self._status = int(job.status)
        self._duration = NO_DURATION if job.duration is None else job.duration
        self._pause(job, now)
        return transition

    def _tells_nothing(self, job: Job, asked: float, now: float) -> bool:
        """Whether a read may be older than the last one, or is too early to confirm a step back.

        Where watches share their reads, a sweep and a read of details may overlap, and which of them is older
        nobody can tell. And a read for somebody else may come an instant after the one that showed the step
        back, from the same replica: that refutes it as well as any, and confirms nothing.
        """
        confirms_at = self._answered_at + _EARLY_ENOUGH * self._confirms_after
        is_too_early = self.tracker.holds and not self._looked_last and asked < confirms_at
        is_step_back = is_too_early and self.tracker.is_step_back(job, self._clock(now).at(asked))
        return is_step_back or asked < self._answered_at

    @property
    def _confirms_after(self) -> float:
        return min(self.cadence.interval, CONFIRMS_AFTER)

    def _is_old(self, job: Job, now: float) -> bool:
        is_first_end = self.tracker.job is None and job.status.is_terminal
        return is_first_end and self._doubts().is_old(True, now)

    def _doubts(self) -> Doubt:
        if self._doubt is None:
            was_seen = self.tracker.job is not None
            self._doubt = self.terms.own_writes.doubt(
                self.job_id, was_seen=was_seen, is_awaited=self._is_awaited
            )
        return self._doubt

    def _succeeded(self, now: float) -> None:
        if self._failures is not None:
            self._failures.succeeded(now)
            if not self._failures.count:
                self._failures = None

    def _usual(self) -> float:
        return self.cadence.jittered(self.cadence.interval, self.terms.chance())

    def _pause(self, job: Job, now: float) -> None:
        """Looks again when the job, as it was read now and believed, wants it."""
        interval, shortest = self.cadence.interval, self.cadence.shortest
        wrote_at = self.terms.own_writes.latest(self.job_id)
        pause = rhythm.pause(
            job,
            interval=interval,
            shortest=shortest,
            since_change=rhythm.known_age(now - self._since, interval, has_changed=self._has_changed),
            since_write=None if wrote_at is None or wrote_at > now else now - wrote_at,
        )
        if pause < interval:
            # Its own writes' outcome is what a client waits for.
            if not (is_recent(wrote_at, now) or self.terms.haste.may(now)):
                pause = interval
        else:
            self.terms.haste.waits()
        self._look_at = self._before_stale(now + self.cadence.jittered(pause, self.terms.chance()), now)
        self.is_hurried = pause < interval
        self._look_ahead_at = math.inf if self.is_hurried else now + rhythm.hurries_in(job, interval)

    def _before_stale(self, at: float, now: float) -> float:
        """When to look again at the latest: the next read may take as long as the last one."""
        max_age, asked = self.terms.max_age, self._read_at
        if math.isinf(max_age) or asked is None:
            return at
        return rhythm.before_stale(at, now, begun=asked, max_age=max_age, shortest=self.cadence.shortest)

    def missed(self, error: NotFoundError, now: float) -> Transition | None:
        """The details were not found: the last transition, if the job is gone; raises if it never was."""
        self._succeeded(now)
        if not self._is_gone(now):
            return None
        transition = self.tracker.gone(self._clock(now).at(now))
        if transition is None:
            self.failed_for_good = True
            error.job_id = self.job_id
            raise error
        return transition

    def _is_gone(self, now: float) -> bool:
        """Whether the job is gone, now that it was once more not found; else when to look again."""
        self.rouse()
        self._status, doubt = _NEVER_QUIET, self._doubts()
        if doubt.missed(now):
            return True
        self._look_at = now + doubt.pause(self._usual())
        doubt.counts_from = now + _NEARLY * doubt.pause(self.cadence.jittered(self.cadence.interval, 0.0))
        self.is_hurried = not doubt.is_unexpected
        if doubt.was_seen:
            # What the listing never showed may be of another workspace; an expected end is confirmed sooner.
            self.is_listed = doubt.is_unexpected and self.seen_in > 0
        return False

    def failed(self, error: CallError, now: float) -> None:
        """The read failed; raises the error if no later one will come to anything else."""
        error.job_id = self.job_id
        self.rouse()
        # Refused to other watches, a token may have been revoked; refused again later, it is hopeless. A read
        # that comes sooner, for somebody else, is refused for the same reason.
        is_refusal = isinstance(error, AuthenticationError)
        is_hopeless = is_refusal and now >= self._hopeless_from
        hopeless_from = min(self._hopeless_from, now + (error.retry_after or 0.0))
        self._hopeless_from = hopeless_from if is_refusal else math.inf
        if retrying.is_permanent(error) or is_hopeless:
            self.failed_for_good = True
            raise error
        self.terms.report.failed(error)
        self._failures = self._failures or Failures()
        self._failures.failed()
        self.is_hurried = True
        pause = self.cadence.after_failures(self._failures.count, self.terms.chance(), error.retry_after)
        self._look_at = now + pause

    def _clock(self, now: float) -> Clock:
        if self.clock is None:
            self.clock = Clock.started(now)
        return self.clock
