"""Both sources say the same: whether a job is read by its details or in the listing, a watch sees one story.

The real poller reads a world of jobs whose lives are drawn, in virtual time and without HTTP. What a watch
should give is told by an observer who reads the job itself, again and again, at once and never in vain.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import attrs
import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Kept

from vizwatch import AuthenticationError, Job, JobStatus, NotFoundError, ServerError, Transition
from vizwatch._flows.following import Clock, Follower, Page, Terms
from vizwatch._flows.polling import Poller
from vizwatch._flows.watching import Watch
from vizwatch._rules.cadence import Cadence, OwnWrites
from vizwatch._rules.listing import Dialect, Limits
from vizwatch._rules.outage import Outage
from vizwatch._rules.rhythm import shortest_of
from vizwatch._rules.transitions import Tracker
from vizwatch._values.rows import NO_DURATION, Rows, Sighting
from vizwatch._values.statuses import TERMINAL
from vizwatch._world.gate import Gate
from vizwatch._world.line import Due
from vizwatch._world.report import Report

pytestmark = pytest.mark.repeats

EPOCH: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
JITTER: Final = 0.2
GRID: Final = 50.0
"""Changes come at multiples of it, and a state lasts for two at least: longer than any look takes, those that
confirm it included."""
SLOWEST: Final = 2.0
LAGS_FOR: Final = 4.0
INSTANT: Final = 0.001
EXAMPLES: Final = 200
AFTER_THE_LAST: Final = 200.0

Status = int | None
"""``None``: the job is deleted."""

Requests = list[tuple[float, str]]
"""When which operation was asked for."""

# --- the world -------------------------------------------------------------------------------------------


@attrs.frozen
class State:
    """What a job is from one moment on."""

    since: float
    status: Status
    began: float
    """When its run began."""
    ended: float | None
    """When its run ended, if it has."""

    def duration(self, at: float) -> int:
        """For how long it has run, in milliseconds."""
        return round(1000 * ((at if self.ended is None else self.ended) - self.began))


@attrs.frozen
class Life:
    """A job's life."""

    states: tuple[State, ...]
    is_listed: bool = True
    """Or else of another workspace."""
    tells_duration: bool = True

    def at(self, moment: float) -> State | None:
        """The state at a moment, if the job exists then."""
        past = [state for state in self.states if state.since <= moment]
        return past[-1] if past and past[-1].status is not None else None

    def job(self, job_id: int, moment: float) -> Job | None:
        """The job as the service shows it."""
        state = self.at(moment)
        if state is None:
            return None
        assert state.status is not None
        duration = state.duration(moment) if self.tells_duration else None
        return Job(job_id, JobStatus(state.status), duration=duration)


class Span(NamedTuple):
    """A span of time, and how much of something there is in it."""

    since: float
    until: float
    amount: float


class Latency(NamedTuple):
    """What a read takes."""

    before: float = 0.0
    """Until the service looks at what is the case."""
    after: float = 0.0
    """Until its answer has come."""


@attrs.frozen(kw_only=True)
class World:
    """What is the case, and how the service answers."""

    lives: tuple[Life, ...]
    per_page: int = 100
    details_take: tuple[Latency, ...] = (Latency(),)
    """Reads take them in turn."""
    pages_take: tuple[Latency, ...] = (Latency(),)
    lags: tuple[Span, ...] = ()
    """When a replica answers that lags by so many seconds."""
    failures: tuple[Span, ...] = ()
    """When every read fails."""
    lapses: tuple[Span, ...] = ()
    """When the listing lacks this share of its jobs."""
    totals: tuple[Span, ...] = ()
    """When it says that it has so many."""

    def until(self, plans: Sequence[Plan]) -> float:
        """When everything has been seen."""
        last = max(life.states[-1].since for life in self.lives)
        return AFTER_THE_LAST + max(last, *(plan.start for plan in plans))


def _amount(spans: Sequence[Span], at: float) -> float:
    return max((span.amount for span in spans if span.since <= at < span.until), default=0.0)


@attrs.define
class Service:
    """Answers as the world is."""

    world: World
    requests: Requests = attrs.field(factory=list)

    async def read_job(self, job_id: int, _due: Due) -> tuple[Job, float]:
        """Details."""
        asked = _now()
        latency = await self._asked("details", self.world.details_take)
        job = self.world.lives[job_id].job(job_id, self._replica())
        await asyncio.sleep(latency.after)
        if job is None:
            raise NotFoundError("no such job", http_status=404, error_code="ModelArts.0105")
        return job, asked

    async def read_rows(self, page: int, per_page: int, _due: Due) -> tuple[Rows, float]:
        """A page of the listing."""
        asked = _now()
        latency = await self._asked("list", self.world.pages_take)
        at = self._replica()
        all_jobs = [life.job(job_id, at) for job_id, life in enumerate(self.world.lives) if life.is_listed]
        jobs = [job for job in all_jobs if job is not None]
        jobs = jobs[: round(len(jobs) * (1 - _amount(self.world.lapses, _now())))]
        chosen = jobs[(page - 1) * per_page : page * per_page]
        await asyncio.sleep(latency.after)
        rows = Rows(
            ids=array("q", [job.job_id for job in chosen]),
            statuses=array("q", [job.status for job in chosen]),
            durations=array("q", [NO_DURATION if job.duration is None else job.duration for job in chosen]),
            job_total_count=round(_amount(self.world.totals, _now())) or len(jobs),
            skipped=0,
            whole=Kept(chosen),
        )
        return rows, asked

    async def _asked(self, operation: str, latencies: Sequence[Latency]) -> Latency:
        latency = latencies[len(self.requests) % len(latencies)]
        self.requests.append((_now(), operation))
        if _amount(self.world.failures, _now()):
            raise ServerError("out of order", http_status=500)
        await asyncio.sleep(latency.before)
        return latency

    def _replica(self) -> float:
        """The time of the replica that answers now."""
        return _now() - _amount(self.world.lags, _now())


def _now() -> float:
    return asyncio.get_running_loop().time()


# --- who watches -----------------------------------------------------------------------------------------


@attrs.frozen
class Plan:
    """A watch that somebody begins."""

    job_id: int
    start: float
    interval: float
    follow_restarts: bool

    def tracker(self) -> Tracker:
        """What decides on its transitions."""
        return Tracker("p", self.job_id, TERMINAL, self.follow_restarts)


class Seen(NamedTuple):
    """What a transition is, however it was found."""

    id: str
    previous: Status
    current: Status
    run: int
    gap: bool
    is_terminal: bool


def seen(transition: Transition) -> Seen:
    """The transition without its times and its job."""
    one = transition
    return Seen(one.id, one.previous, one.current, one.run, one.gap, one.is_terminal)


@attrs.define
class Story:
    """What a watch gave."""

    transitions: list[Transition] = attrs.field(factory=list)
    error: str | None = None

    def seen(self) -> tuple[list[Seen], str | None]:
        """It without times and jobs."""
        return [seen(transition) for transition in self.transitions], self.error


def told(
    world: World, plans: Sequence[Plan], *, shared: bool, seed: int | None = None
) -> tuple[list[Story], Requests]:
    """Plays the world to watches that share a poller, or each have their own."""
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(noop_cycles=1)) as runner:
        return runner.run(_told(world, plans, shared=shared, seed=seed))


async def _told(
    world: World, plans: Sequence[Plan], *, shared: bool, seed: int | None
) -> tuple[list[Story], Requests]:
    service = Service(world)
    chance = (lambda: 0.5) if seed is None else random.Random(seed).random
    gate, report = Gate(Outage(0.8, 30.0), 100), Report()
    dialect = Dialect(Limits(per_page=world.per_page))

    writes = OwnWrites()

    def cadence(interval: float) -> Cadence:
        return Cadence(interval, shortest_of(interval, 1.0), JITTER, 0.8, 30.0)

    def poller() -> Poller:
        rows = service.read_rows if shared else None
        return Poller(gate, report, chance, cadence(10.0), service.read_job, rows, dialect)

    one = poller()

    async def watched(plan: Plan, story: Story) -> None:
        await asyncio.sleep(plan.start)
        terms = Terms(cadence(plan.interval), writes, report, chance, 30.0)
        follower = Follower(plan.tracker(), terms)
        follower.clock = Clock(EPOCH, 0.0)
        watch = Watch(follower, one if shared else poller(), None)
        try:
            async for transition in watch:
                story.transitions.append(transition)
        except NotFoundError as error:
            story.error = type(error).__name__

    stories = [Story() for _ in plans]
    tasks = [asyncio.create_task(watched(plan, story)) for plan, story in zip(plans, stories, strict=True)]
    await asyncio.sleep(world.until(plans))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a read is left"
    return stories, service.requests


def expected(world: World, plan: Plan, until: float) -> tuple[list[Seen], str | None]:
    """What an observer tells who reads the job itself, each few seconds, at once and never in vain."""
    tracker, life = plan.tracker(), world.lives[plan.job_id]
    if life.at(plan.start) is None:
        return [], "NotFoundError"
    found: list[Transition | None] = []
    for step in range(round((until - plan.start) / 5)):
        moment = plan.start + 5 * step
        job, at = life.job(plan.job_id, moment), _date(moment)
        found.append(tracker.gone(at) if job is None else tracker.saw(job, at, at))
        if tracker.ended:
            break
    return [seen(transition) for transition in found if transition is not None], None


def _date(moment: float) -> dt.datetime:
    return EPOCH + dt.timedelta(seconds=moment)


# --- what happens ----------------------------------------------------------------------------------------

way = [1, 2, 4, 7, 8, 9]
ends = sorted(TERMINAL)
others = [0, 15, 18, 20, 99]
THE_SAME: Final = -1
"""The status that there was, in a run whose beginning nobody saw."""


@st.composite
def lives(draw: st.DrawFn, *, is_smooth: bool) -> Life:
    """A life; a smooth one goes the documented way, once."""
    if is_smooth:
        start = draw(st.lists(st.sampled_from(way), unique=True, min_size=1).map(sorted))
        statuses: list[Status] = [*start, *draw(st.lists(st.sampled_from(ends), max_size=1))]
    else:
        some = st.sampled_from([*way, *way, *ends, *others])
        statuses = [draw(some), *draw(st.lists(some | st.just(THE_SAME), max_size=4))]
    if draw(st.integers(0, 3)) == 0:
        statuses.append(None)
    states: list[State] = []
    for status in statuses:
        since = states[-1].since + draw(st.sampled_from([2 * GRID, 3 * GRID])) if states else 0.0
        states.append(
            _next(
                states[-1] if states else None,
                since,
                status,
                anew=not is_smooth and draw(st.integers(0, 5)) == 0,
            )
        )
    return Life(
        tuple(states), is_listed=draw(st.integers(0, 4)) > 0, tells_duration=draw(st.integers(0, 3)) > 0
    )


def _next(last: State | None, since: float, status: Status, *, anew: bool) -> State:
    """The state after another one: of a new run, if an end is left or the status stays, or sometimes."""
    if last is None:
        return State(since, status, since, since if status in TERMINAL else None)
    begins = status == THE_SAME or (last.status in TERMINAL and status not in TERMINAL)
    status = last.status if status == THE_SAME else status
    if begins or anew:
        return State(since, status, since, since if status in TERMINAL else None)
    ended = None if status not in TERMINAL else since if last.ended is None else last.ended
    return State(since, status, last.began, ended)


@st.composite
def spans(
    draw: st.DrawFn, amounts: st.SearchStrategy[float], *, longest: float, most: int
) -> tuple[Span, ...]:
    """Spans of time, far from one another."""
    found: list[Span] = []
    at = 0.0
    for _ in range(draw(st.integers(0, most))):
        at += draw(st.floats(GRID, 3 * GRID))
        found.append(Span(at, at + draw(st.floats(0.5, longest)), draw(amounts)))
        at += longest
    return tuple(found)


@st.composite
def scripts(draw: st.DrawFn, *, is_smooth: bool) -> tuple[World, list[Plan]]:
    """A world, and watches that begin long before a change: what they see first is beyond dispute."""
    seconds = st.floats(0.0, SLOWEST)
    # Of an unseen run, only a read that shows its very first moments late is no proof.
    takes = st.lists(
        st.builds(Latency, seconds if is_smooth else st.just(0.0), seconds), min_size=1, max_size=5
    ).map(tuple)
    world = World(
        lives=tuple(draw(st.lists(lives(is_smooth=is_smooth), min_size=1, max_size=6))),
        per_page=draw(st.sampled_from([100, 1, 2, 3])),
        details_take=draw(takes),
        pages_take=draw(takes),
        failures=draw(spans(st.just(1.0), longest=2.0, most=1)),
        lapses=draw(spans(st.sampled_from([0.3, 0.6, 1.0]), longest=30.0, most=3)),
        lags=draw(spans(st.floats(1.0, 12.0), longest=LAGS_FOR, most=4)) if is_smooth else (),
    )
    plan = st.builds(
        Plan,
        job_id=st.integers(0, len(world.lives) - 1),
        start=st.builds(
            lambda units, rest: units * GRID + rest, st.integers(0, 5), st.floats(0.3 * GRID, 0.5 * GRID)
        ),
        interval=st.sampled_from([5.0, 10.0, 15.0]),
        follow_restarts=st.booleans(),
    )
    return world, draw(st.lists(plan, min_size=1, max_size=8))


def is_between_its_times(world: World, transition: Transition) -> bool:
    """Whether the change lies between the bounds that a transition gives."""
    if transition.not_before is None:
        return True
    first, last = ((at - EPOCH).total_seconds() for at in (transition.not_before, transition.not_after))
    first -= max(
        (span.amount for span in world.lags if span.since <= last and span.until >= first), default=0.0
    )
    return any(
        state.status == transition.current and first - INSTANT <= state.since <= last + INSTANT
        for state in world.lives[transition.job_id].states
    )


def hold(world: World, plans: Sequence[Plan], seed: int | None) -> None:
    """Both sources tell what the observer tells."""
    until = world.until(plans)
    wanted = [expected(world, plan, until) for plan in plans]
    for shared in (False, True):
        stories, requests = told(world, plans, shared=shared, seed=seed)
        assert [story.seen() for story in stories] == wanted, f"shared_reads={shared}"
        for transition in (one for story in stories for one in story.transitions):
            assert is_between_its_times(world, transition), f"shared_reads={shared}: {transition}"
        if not shared or len({plan.job_id for plan in plans}) == 1:
            assert {operation for _, operation in requests} == {"details"}


@settings(max_examples=EXAMPLES)
@given(scripts(is_smooth=False), st.integers(0, 1000))
def test_a_watch_tells_all_that_a_job_goes_through_whichever_source_it_reads(
    script: tuple[World, list[Plan]], seed: int
) -> None:
    """Bit for bit, if each state lasts longer than a look may take.

    Whatever the statuses, unseen runs, jobs of other workspaces, late answers, a service out of order, jobs
    that the listing lacks for a while, and whoever else watches from when on and how often.
    """
    hold(*script, seed)


@settings(max_examples=EXAMPLES)
@given(scripts(is_smooth=True), st.integers(0, 1000))
def test_a_replica_that_lags_takes_no_job_back_whichever_source_is_read(
    script: tuple[World, list[Plan]], seed: int
) -> None:
    """If it answers for less time than a step back is doubted, of jobs that go the documented way."""
    hold(*script, seed)


def life(*steps: tuple[float, Status], is_listed: bool = True) -> Life:
    """A life in one run, without durations."""
    return Life(
        tuple(State(since, status, 0.0, None) for since, status in steps), is_listed, tells_duration=False
    )


def plans(*starts: float) -> list[Plan]:
    """A watch of each job, that looks every ten seconds to the instant if there is no chance."""
    return [Plan(job_id, start, 10.0, follow_restarts=False) for job_id, start in enumerate(starts)]


def test_of_two_reads_that_overlap_the_one_that_answers_later_tells_nothing() -> None:
    """The listing is asked for at 103 and answers at 107; a newcomer reads the details meanwhile."""
    lives = life((0, 8), (104, 15)), life((0, 8))
    late_page = World(lives=lives, pages_take=(Latency(after=4.0),))
    late_details = World(lives=lives, pages_take=(Latency(before=4.0),), details_take=(Latency(after=4.0),))
    for world, start in ((late_page, 105.0), (late_details, 103.5)):
        newcomer = Plan(0, start, 10.0, follow_restarts=False)
        stories, _ = told(world, [*plans(5.0, 5.0), newcomer], shared=True)
        assert [one.current for one in stories[0].transitions] == [8, 15]


def test_a_read_for_somebody_else_does_not_confirm_a_step_back() -> None:
    """A replica lags from 104 to 107. The sweep of 105 shows a step back, and so does a newcomer's of 106."""
    world = World(lives=(life((0, 7), (95, 8)), life((0, 8)), life((0, 8))), lags=(Span(104, 107, 12.0),))
    hold(world, plans(5.0, 5.0, 106.0), None)


@pytest.mark.parametrize("rounded", [0, 1])
def test_a_restart_at_the_very_moment_of_a_read_is_seen_though_durations_are_rounded(rounded: int) -> None:
    tracker = Tracker("p", 1, TERMINAL)
    reads = [(150.0, 150_000), (159.18, 9_180 + rounded), (164.27, 14_270 + rounded)]
    found = [
        tracker.saw(Job(1, JobStatus.RUNNING, duration=duration), at, at)
        for at, duration in ((EPOCH + dt.timedelta(seconds=since), duration) for since, duration in reads)
    ]
    assert [None if one is None else one.run for one in found] == [1, None, 2]


def test_a_newcomer_is_not_forgotten_over_a_sweep_that_goes_on() -> None:
    """It comes while the listing cannot be read; then all others see their jobs end, and leave."""
    world = World(
        lives=(life((0, 8), (100, 10)), life((0, 8), (100, 10)), life((0, 8), is_listed=False)),
        failures=(Span(104, 105.2, 1.0),),
    )
    hold(world, plans(5.0, 5.0, 105.1), None)


@pytest.mark.parametrize(
    ("jobs", "absent", "is_doubted"), [(20, 3, False), (20, 4, True), (50, 3, False), (50, 50, True)]
)
def test_many_that_are_absent_at_once_are_doubted_before_their_details_are_read(
    jobs: int, absent: int, is_doubted: bool
) -> None:
    """One sweep lacks them, and the next one, five seconds later, shows them again: nobody is told."""
    world = World(lives=(life((0, 8)),) * jobs, lapses=(Span(104, 106, absent / jobs),))
    stories, requests = told(world, plans(*[5.0] * jobs), shared=True)
    assert [len(story.transitions) for story in stories] == [1] * jobs
    asked = [at for at, operation in requests if operation == "details" and at < 115]
    assert asked == ([] if is_doubted else [105.0] * absent)
    swept = [at for at, operation in requests if operation == "list" and at < 115]
    assert swept == [*range(5, 115, 10), *([110.0] if is_doubted else [])]


def test_many_that_stay_absent_are_confirmed_by_their_details() -> None:
    """Once each: deleted at 100, lacking at 105 and 110, they are lacking in two more sweeps as well."""
    world, watched = World(lives=(life((0, 8), (100, None)),) * 20), plans(*[5.0] * 20)
    stories, requests = told(world, watched, shared=True)
    assert [story.seen() for story in stories] == [expected(world, plan, 300.0) for plan in watched]
    assert [at for at, operation in requests if operation == "details"] == [110.0] * 20
    assert [at for at, operation in requests if operation == "list"] == [
        *range(5, 115, 10),
        *range(110, 140, 10),
    ]


def test_a_total_that_proves_wrong_ends_no_listing_any_more() -> None:
    """From 104 on the service says three of nine jobs. It is not believed at once, and then never again."""
    world = World(lives=(life((0, 8)),) * 9, per_page=3, totals=(Span(104, 1000, 3.0),))
    _, requests = told(world, plans(*[5.0] * 9), shared=True)
    assert [at for at, operation in requests if operation == "details"] == [110.0] * 6
    last = [at for at, operation in requests if operation == "list" and at > 190]
    assert last == [200.0] * 3, "to where all are shown"


def test_many_that_stay_absent_but_exist_are_read_by_their_details() -> None:
    """The listing lacks them for good; nobody hears of it."""
    world = World(lives=(life((0, 8), (200, 10)),) * 20, lapses=(Span(104, 1000, 1.0),))
    hold(world, plans(*[5.0] * 20), None)


def test_sweeps_come_no_sooner_than_the_shortest_interval() -> None:
    """Though watches that were told of a change come back one after the other, and the first one alone.

    Their jobs have ended, of which a change is no reason to look at them sooner.
    """
    world = World(lives=(life((0, 12), (100, 10), (300, 12)),) * 3)
    watched = [attrs.evolve(plan, follow_restarts=True) for plan in plans(5.0, 5.0, 5.0)]
    for seed in range(20):
        stories, requests = told(world, watched, shared=True, seed=seed)
        assert [len(story.transitions) for story in stories] == [3] * 3
        swept = [at for at, operation in requests if operation == "list"]
        assert min(later - at for at, later in pairwise(swept)) >= 10.0 * (1 - JITTER) - INSTANT
        assert len(swept) == len(requests)


def test_who_is_left_to_details_is_read_at_its_own_pace() -> None:
    """Three pages serve three jobs when the two slow ones want it, and the quick one when that is near."""
    world = World(lives=(life((0, 8)), life((0, 8)), life((0, 8), (100, 10))), per_page=1)
    slow = [attrs.evolve(plan, interval=40.0) for plan in plans(5.0, 5.0)]
    _, requests = told(world, [*slow, Plan(2, 5.0, 10.0, follow_restarts=False)], shared=True)
    swept = [at for at, operation in requests if operation == "list"]
    assert swept == [float(at) for at in (5, 45, 85) for _ in range(3)]
    details = [at for at, operation in requests if operation == "details"]
    quick = [float(at) for at in range(15, 115, 10) if at not in swept]
    assert details == [*quick, *(float(at) for at in range(125, 300, 40) for _ in range(2))]


async def test_a_refusal_is_forgotten_once_the_listing_shows_the_job() -> None:
    """Else one of today would be the last straw after one of yesterday."""
    terms = Terms(Cadence(10.0, 1.0, JITTER, 0.8, 30.0), OwnWrites(), Report(), lambda: 0.5, 30.0)
    follower = Follower(plans(0.0)[0].tracker(), terms)
    job = Job(0, JobStatus.RUNNING)
    rows = Rows(array("q", [0]), array("q", [8]), array("q", [NO_DURATION]), 1, 0, Kept([job]))
    follower.saw(job, 0.0, 0.0)
    for at in (10.0, 1000.0):
        refusal = AuthenticationError("no", http_status=401)
        refusal.not_retried = "got just now"
        follower.failed(refusal, at)
        assert follower.rests_on(Page(Sighting(rows, at + 20.0, at + 20.0), 1), 0)
        assert not follower.is_due(at + 20.0)


async def test_a_token_that_is_refused_to_several_at_once_is_not_refused_twice() -> None:
    """A read for somebody else comes before the token is renewed; a refusal after that is the last one."""
    cadence = Cadence(10.0, 1.0, JITTER, 0.8, 30.0)
    follower = Follower(plans(0.0)[0].tracker(), Terms(cadence, OwnWrites(), Report(), lambda: 0.5, 30.0))
    refusal = AuthenticationError("no", http_status=401, error_code="ModelArts.0202")
    refusal.not_retried, refusal.retry_after = "got just now", 30.0
    follower.failed(refusal, 100.0)
    follower.failed(refusal, 101.0)
    assert follower.next_look(101.0) > 130.0
    with pytest.raises(AuthenticationError):
        follower.failed(refusal, 131.0)
