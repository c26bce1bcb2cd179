"""Showing a listing to those who follow single jobs: each change is told, and whoever rests is seen, too."""

from __future__ import annotations

import random

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pages import Kept

from vizwatch import Job, JobStatus, Transition
from vizwatch._flows.following import Follower, Terms
from vizwatch._flows.looking import Place, Places
from vizwatch._flows.showing import Showing
from vizwatch._rules.cadence import Cadence, OwnWrites
from vizwatch._rules.pacing import Haste
from vizwatch._rules.transitions import Tracker
from vizwatch._values.rows import Rows, Sighting, compact
from vizwatch._values.statuses import TERMINAL
from vizwatch._world.report import Report

pytestmark = pytest.mark.repeats

CADENCE = Cadence(15.0, 1.0, 0.2, 0.8, 30.0)


class Unbounded(Haste):
    """Time begins anew with each example; and who is in a hurry never rests."""

    def may(self, now: float) -> bool:
        return True


TERMS = Terms(CADENCE, OwnWrites(), Report(), random.Random(1).random, request_time=30.0, haste=Unbounded())
FORWARD = (JobStatus.INIT, JobStatus.WAITING, JobStatus.RUNNING)


class Looker:
    """Follows one job, and knows what it was last told or shown, and when."""

    def __init__(self, job_id: int) -> None:
        self.follower = Follower(Tracker("p", job_id, TERMINAL), TERMS)
        self.known: Job | None = None
        self.known_at = 0.0

    def knows(self, job: Job) -> bool:
        """Whether a row tells it nothing."""
        known = self.known
        return (
            known is not None
            and job.status is known.status
            and not (job.duration or 0) < (known.duration or 0)
        )

    def learns(self, job: Job, now: float) -> None:
        """A row told it nothing, or an answer was believed."""
        self.known, self.known_at = job, now

    def took(self, transition: Transition) -> None:
        """A poller would say so."""

    def ended(self, error: BaseException) -> None:
        raise error


def looker_at(place: Place) -> Looker:
    assert isinstance(place.looker, Looker)
    return place.looker


def page_of(jobs: list[Job], asked: float, at: float) -> Sighting:
    ids, statuses, durations = (
        compact(column)
        for column in (
            [one.job_id for one in jobs],
            [int(one.status) for one in jobs],
            [one.duration or 0 for one in jobs],
        )
    )
    return Sighting(Rows(ids, statuses, durations, len(jobs), 0, Kept(jobs)), asked, at)


NUMBERS = st.integers(1, 9)


class Sweeps(RuleBasedStateMachine):
    """Sweeps of a listing that changes between them, and between their pages."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.page_at = 0.0
        self.jobs: dict[int, Job] = {}
        self.places = Places()
        self.roused: list[Place] = []
        self.showing = Showing(self.places, self.roused.append)
        self.lookers: list[Looker] = []
        self.seen: dict[Place, int] = {}
        """Which sweep was the last to show its job to each."""
        self.sweep = self.next_row = self.pages = 0
        self.is_under_way = False
        self.still = 0
        """How many whole sweeps nothing has happened for."""

    @initialize(count=st.integers(0, 9), per_page=st.integers(1, 5), followed=st.sets(NUMBERS))
    def begin(self, count: int, per_page: int, followed: set[int]) -> None:
        self.jobs = {job_id: Job(job_id, FORWARD[0], duration=0) for job_id in range(1, count + 1)}
        self.per_page = per_page
        for job_id in followed:
            self.join(job_id)
        for _ in range(3):
            self.all_pages()

    @rule(job_id=NUMBERS)
    def join(self, job_id: int) -> None:
        self.still = 0
        looker = Looker(job_id)
        self.lookers.append(looker)
        passed = self.is_under_way and self.next_row > 0
        self.showing.joins(self.places.take(looker, self.sweep if passed else 0))

    @precondition(lambda self: self.lookers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.still = 0
        looker = data.draw(st.sampled_from(self.lookers))
        self.lookers.remove(looker)
        place = self.places.give_up(looker)
        assert place is not None
        self.showing.leaves(place)
        assert looker.follower.page is None

    @rule(job_id=NUMBERS)
    def change(self, job_id: int) -> None:
        """It is created, or comes to its next status."""
        self.still = 0
        job = self.jobs.get(job_id)
        at = -1 if job is None else FORWARD.index(job.status)
        self.jobs[job_id] = Job(job_id, FORWARD[min(at + 1, len(FORWARD) - 1)], duration=int(self.now))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def begin_anew(self, data: st.DataObject) -> None:
        self.still = 0
        job = data.draw(st.sampled_from([*self.jobs.values()]))
        self.jobs[job.job_id] = attrs.evolve(job, duration=0)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.still = 0
        del self.jobs[data.draw(st.sampled_from([*self.jobs]))]

    @rule()
    def age(self) -> None:
        self.now += 1.0
        self.jobs = {
            job_id: attrs.evolve(job, duration=(job.duration or 0) + 1) for job_id, job in self.jobs.items()
        }

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def read_details(self, data: st.DataObject) -> None:
        self.still = 0
        job = data.draw(st.sampled_from([*self.jobs.values()]))
        self.now += 1.0
        for place in list(self.places.of(job.job_id)):
            self.tell(place, job, self.now - 0.5)

    @rule()
    def all_pages(self) -> None:
        """A whole sweep, or the rest of one."""
        before = {place: place.follower.page for place in self.places}
        if any(place.follower.tracker.holds for place in self.places):
            self.still = 0
        self.still += not self.is_under_way
        self.next_page(0.5, is_last=False)
        while self.is_under_way:
            self.next_page(0.5, is_last=False)
        for place, page in before.items():
            if self.still > 2 and place.follower.job_id in self.jobs:
                assert place.follower.page is not None, "whose job is as it was rests"
                assert self.still == 3 or place.follower.page is page, "a page is noted once for all"
        if self.still:
            assert len(self.showing._pages) == (self.pages if self.lookers else 0)

    @rule(took=st.sampled_from([0.5, 5.0]), is_last=st.sampled_from([False, False, True]))
    def next_page(self, took: float, *, is_last: bool) -> None:
        if not self.is_under_way:
            self.sweep, self.next_row, self.pages, self.is_under_way = self.sweep + 1, 0, 0, True
            self.showing.begins(self.sweep)
        self.now += 1.0
        jobs = [self.jobs[job_id] for job_id in sorted(self.jobs)][self.next_row :][: self.per_page]
        self.next_row += self.per_page
        self.pages += 1
        asked, self.page_at = max(self.page_at, self.now - took), self.now
        rested = {place: place.follower.page is not None for place in self.places}
        told = self.showing.shows(page_of(jobs, asked, self.now))
        places = [place for place, *_ in told]
        for place, was_resting in rested.items():
            if was_resting and place.follower.page is None:
                assert place in places or place in self.roused, "it gets its next look"
        assert len(places) == len(set(places))
        for job in jobs:
            for place in self.places.of(job.job_id):
                looker = looker_at(place)
                self.seen[place] = self.sweep
                tells_nothing = looker.knows(job) and looker.known_at <= asked
                assert tells_nothing or place in places, "it is told what changes"
                assert not (tells_nothing and place in places and rested[place]), "and nothing else"
                if place not in places:
                    assert place.follower.page is not None
                    looker.learns(job, self.now)
        for place, page, row in told:
            job = page.rows.job(row)
            assert job == self.jobs[place.follower.job_id]
            self.tell(place, job, asked)
        if is_last or self.next_row >= len(self.jobs):
            self.end(is_whole=not is_last)

    def end(self, *, is_whole: bool) -> None:
        self.is_under_way = False
        if is_whole:
            self.showing.ends()
        for since in (self.sweep - 1, self.sweep):
            unseen = list(self.showing.unseen(since))
            assert len(unseen) == len(set(unseen))
            assert set(unseen) == {
                place for place in self.places if place.came_in < since and self.seen.get(place, 0) < since
            }

    def tell(self, place: Place, job: Job, asked: float) -> None:
        place.follower.saw(job, asked, self.now)
        # What was asked for before the last answer came, or too early to confirm a step back, is not taken.
        if place.follower.was_read_since(self.now - 0.5):
            looker_at(place).learns(job, self.now)

    @invariant()
    def whoever_rests_knows_its_job(self) -> None:
        for place in self.places:
            page = place.follower.page
            if page is not None:
                assert place.follower.job_id in page.sighting.rows.ids


TestSweeps = Sweeps.TestCase
TestSweeps.settings = settings(max_examples=300, stateful_step_count=40)
