"""When the watches of a job look at it: the rule of the pauses, as it is wired."""

from __future__ import annotations

import asyncio
import math
import random
from array import array
from contextvars import ContextVar
from itertools import pairwise

import attrs
import pytest
from counting import reads
from hypothesis import given
from hypothesis import strategies as st
from pages import Kept
from virtual import elapse

import vizwatch
from vizwatch import Client, Job, JobStatus, Settings, Transition
from vizwatch._flows.following import Follower, Page, Terms
from vizwatch._rules.cadence import CONFIRMS_AFTER, Cadence, OwnWrites
from vizwatch._rules.rhythm import shortest_of
from vizwatch._rules.transitions import Tracker
from vizwatch._values.errors import AuthenticationError, NotFoundError
from vizwatch._values.exchange import Operation
from vizwatch._values.models import Schedule
from vizwatch._values.rows import NO_DURATION, Rows, Sighting
from vizwatch._values.statuses import TERMINAL
from vizwatch._world.report import Report
from vizwatch.emulator import Emulator

INTERVAL = 15.0
SHORTEST = 1.0
JITTER = 0.2
HOUR = 3600.0

codes = st.sampled_from([0, 1, 2, 4, 7, 8, 9, 10, 12, 15, 20, 99])
gaps = st.sampled_from([0.0, 0.5, 3.0, 20.0, 200.0])


def followed(own_writes: OwnWrites | None = None, interval: float = INTERVAL, seed: int = 1) -> Follower:
    terms = Terms(
        Cadence(interval, shortest_of(interval, SHORTEST), JITTER, 0.8, 30.0),
        own_writes or OwnWrites(),
        Report(),
        random.Random(seed).random,
        request_time=30.0,
    )
    return Follower(Tracker("p", 7, TERMINAL, follow_restarts=True), terms)


def shown(job: Job, at: float) -> Page:
    """A page with one job."""
    duration = NO_DURATION if job.duration is None else job.duration
    ids, statuses, durations = (array("q", [value]) for value in (job.job_id, int(job.status), duration))
    return Page(Sighting(Rows(ids, statuses, durations, 1, 0, Kept([job])), at, at), 1)


def ran(seconds: float, hours: int | None = None) -> Job:
    schedule = () if hours is None else (Schedule("stop", "HOURS", hours),)
    return Job(7, JobStatus.RUNNING, duration=round(seconds * 1000), schedule=schedule)


def pauses(follower: Follower, job: Job, begin: float, until: float) -> list[float]:
    """Those of a watch that shows this job each time."""
    moments = [begin]
    while moments[-1] < until:
        follower.saw(job, moments[-1], moments[-1])
        moments.append(follower.next_look(moments[-1]))
    return [after - before for before, after in pairwise(moments)]


# --- of one follower ------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(codes, st.none() | st.integers(0, 10**8), gaps), min_size=1, max_size=30),
    st.lists(st.floats(0, 500), max_size=3),
    st.sampled_from([1.0, 15.0, 600.0]),
    st.integers(0, 24),
    st.integers(0, 9),
)
def test_a_pause_after_a_good_read_is_neither_too_short_nor_too_long(
    script: list[tuple[int, int | None, float]], writes: list[float], interval: float, hours: int, seed: int
) -> None:
    """So what a watch says is never older than `Follower.is_stale` allows."""
    own, now = OwnWrites(), 0.0
    follower = followed(own, interval, seed)
    for code, duration, late in script:
        for write in writes:
            if write <= now:
                own.note(Operation.STOP, 7, write)
        schedule = (Schedule("stop", "HOURS", hours),)
        follower.saw(Job(7, JobStatus(code), duration=duration, schedule=schedule), now, now)
        at = follower.next_look(now)
        if not follower.tracker.holds:
            assert follower.cadence.shortest - 1e-6 <= at - now <= follower.cadence.longest + 1e-6
        assert not follower.is_stale(at) or follower.tracker.holds or code == 0
        now = at + late


@given(st.sampled_from([1, 4, 7, 9, 99]), st.integers(0, 9))
def test_a_passing_status_of_unknown_age_is_left_alone_in_the_end(code: int, seed: int) -> None:
    """Ten thousand jobs that are found waiting for hours cost no more than running ones."""
    found = pauses(followed(seed=seed), Job(7, JobStatus(code)), 0.0, 3 * HOUR)
    assert all(pause >= 0.8 * INTERVAL / 3 - 1e-6 for pause in found)
    assert max(found[:20]) <= 1.2 * INTERVAL / 3 + 1e-6
    assert min(found[60:]) >= 0.8 * INTERVAL - 1e-6
    assert len(found) <= 3 * HOUR / INTERVAL + 60


def test_a_change_opens_a_fast_lane_and_it_closes() -> None:
    follower = followed()
    follower.saw(Job(7, JobStatus.WAITING), 0.0, 0.0)
    follower.saw(Job(7, JobStatus.WAITING), 90.0, 90.0)
    found = pauses(follower, Job(7, JobStatus.RUNNING), 100.0, 1000.0)
    assert all(SHORTEST <= pause <= SHORTEST * (1 + JITTER) for pause in found[:2])
    assert found[:11] == pytest.approx(sorted(found[:11]), rel=2 * JITTER)
    assert not follower.is_hurried
    assert min(found[12:]) >= (1 - JITTER) * INTERVAL - 1e-6


def test_what_changed_in_an_outage_is_not_looked_at_as_if_it_were_about_to_change_again() -> None:
    follower = followed()
    follower.saw(Job(7, JobStatus.WAITING), 0.0, 0.0)
    follower.saw(Job(7, JobStatus.RUNNING), HOUR, HOUR)
    assert follower.next_look(HOUR) >= HOUR + (1 - JITTER) * INTERVAL


def test_a_run_that_began_unseen_is_a_change_too() -> None:
    follower = followed()
    for at, duration in ((0.0, 1e6), (90.0, 1e6 + 90), (100.0, 5.0), (105.0, 10.0)):
        follower.saw(ran(duration), at, at)
    assert follower.tracker.job == ran(10.0)
    assert follower.next_look(105.0) <= 105.0 + SHORTEST * (1 + JITTER)


def test_what_is_doubted_keeps_its_own_pauses() -> None:
    """A step back waits for the replica, and an absence for an interval, however young the status."""
    follower = followed()
    follower.saw(Job(7, JobStatus.WAITING), 0.0, 0.0)
    follower.saw(Job(7, JobStatus.RUNNING), 10.0, 10.0)
    follower.saw(Job(7, JobStatus.WAITING), 11.0, 11.0)
    assert follower.next_look(11.0) == 11.0 + CONFIRMS_AFTER
    follower.saw(Job(7, JobStatus.RUNNING), 16.0, 16.0)
    follower.missed(NotFoundError("", http_status=404), 17.0)
    assert follower.next_look(17.0) >= 17.0 + (1 - JITTER) * INTERVAL


def test_a_job_deleted_by_this_client_is_confirmed_within_seconds() -> None:
    own = OwnWrites()
    follower = followed(own)
    follower.saw(ran(1000.0), 0.0, 0.0)
    own.note(Operation.DELETE, 7, 5.0)
    now, transition = 6.0, None
    while transition is None:
        transition = follower.missed(NotFoundError("", http_status=404), now)
        now = follower.next_look(now)
    assert transition.current is None
    assert now <= 6.0 + 1.0 + 2.0 + 1e-6


@pytest.mark.looptime
async def test_an_own_write_cuts_a_pause_short_but_not_one_after_a_failure() -> None:
    own = OwnWrites()
    follower = followed(own)
    follower.saw(ran(1000.0), 0.0, 0.0)
    own.note(Operation.STOP, 7, 2.0)
    follower.hurry(2.0)
    assert follower.is_hurried
    assert follower.next_look(2.0) == 2.0 + SHORTEST
    follower.failed(vizwatch.RateLimitError("slower", http_status=429, retry_after=60.0), 3.0)
    follower.hurry(4.0)
    assert follower.next_look(4.0) >= 63.0


@given(st.integers(0, 9))
def test_a_page_that_shows_nothing_new_moves_the_next_look(seed: int) -> None:
    """So a job in its fast lane is not read again by itself after each page of the listing."""
    follower = followed(seed=seed)
    follower.saw(Job(7, JobStatus.INIT), 0.0, 0.0)
    follower.saw(Job(7, JobStatus.WAITING), 1.0, 1.0)
    first = follower.next_look(1.0)
    assert follower.rests_on(shown(Job(7, JobStatus.WAITING), first - 0.01), 0)
    assert not follower.is_due(first)
    assert first + SHORTEST - 0.02 <= follower.next_look(first) <= first + SHORTEST * (1 + JITTER)
    assert follower.is_hurried


@given(st.integers(0, 9), st.floats(0, 10))
def test_an_automatic_stop_is_looked_at_by_its_time_though_pages_show_nothing_new(
    seed: int, phase: float
) -> None:
    """The pages come every ten seconds; between them the follower is asked as a poller asks it."""
    follower, stop = followed(seed=seed), HOUR - 1000.0
    follower.saw(ran(1000.0, 1), 0.0, 0.0)
    assert follower.look_ahead == stop - INTERVAL
    looks, page, now = list[float](), phase, 0.0
    while now < stop:
        wanted = follower.next_look(now) if follower.is_hurried else follower.look_ahead
        now = min(wanted, page)
        if now == page:
            page += 10.0
            assert follower.rests_on(shown(ran(1000.0 + now, 1), now), 0)
        elif follower.is_due(now):
            follower.looks(now)
            follower.saw(ran(1000.0 + now, 1), now, now)
            looks.append(now)
    assert all(look >= stop - 2 * INTERVAL for look in looks)
    assert len(looks) <= 8
    assert now - stop <= SHORTEST * (1 + JITTER)
    assert now in looks or page - 10.0 == now


# --- over HTTP ------------------------------------------------------------------------------------------


def test_a_look_that_is_taken_for_an_automatic_stop_is_not_wanted_again() -> None:
    """Else whoever asks for the next look would ask for ever."""
    follower = followed()
    follower.saw(ran(HOUR, hours=2), 0.0, 0.0)
    ahead = follower.look_ahead
    assert ahead == HOUR - INTERVAL
    follower.looks(ahead)
    assert follower.look_ahead == math.inf


@pytest.mark.looptime
@pytest.mark.parametrize("how", ["details", "a page"])
async def test_a_refusal_that_was_followed_by_an_answer_is_not_the_second(how: str) -> None:
    """Whether the answer is one to a read of the job alone, or a page that shows it as it was."""

    def refuse(at: float) -> None:
        error = AuthenticationError("refused", http_status=401)
        error.not_retried = "the token was got just now"
        follower.failed(error, at)

    follower = followed()
    follower.saw(ran(HOUR), 0.0, 0.0)
    refuse(20.0)
    if how == "details":
        follower.saw(ran(HOUR + 40), 40.0, 40.0)
    else:
        assert follower.rests_on(shown(ran(HOUR + 40), 40.0), 0)
    refuse(60.0)
    with pytest.raises(AuthenticationError):
        refuse(100.0)


@pytest.mark.looptime
async def test_pages_that_show_a_job_as_it_was_are_answers_that_make_failures_forgotten() -> None:
    """After two minutes of them a failure is the first one again."""
    follower = followed()
    follower.saw(ran(HOUR), 0.0, 0.0)
    for number in range(1, 8):
        follower.failed(vizwatch.ServerError("down", http_status=500), float(number))
    for at in range(20, 200, 20):
        assert follower.rests_on(shown(ran(HOUR + at), float(at)), 0)
        follower.next_look(float(at))
    follower.failed(vizwatch.ServerError("down", http_status=500), 200.0)
    assert follower.next_look(200.0) <= 200.0 + follower.cadence.backoff_base


def missed_once(at: float) -> Follower:
    """A running job that the listing showed, and whose details were not found."""
    follower = followed()
    follower.saw(ran(HOUR), 0.0, 0.0)
    follower.was_listed(1)
    assert follower.missed(NotFoundError("no such job", http_status=404), at) is None
    assert follower.is_carried
    return follower


def test_sweeps_that_lack_a_job_that_was_missed_count_an_interval_apart() -> None:
    """Three absences over two intervals are a deletion; one that comes sooner is none of them (W1)."""
    follower = missed_once(20.0)
    assert follower.was_not_listed(25.0) is None
    assert follower.was_not_listed(36.0) is None
    assert follower.was_not_listed(41.0) is None
    assert follower.is_carried
    gone = follower.was_not_listed(52.0)
    assert gone is not None
    assert gone.current is None


@pytest.mark.parametrize("writes", [True, False])
def test_a_job_that_was_missed_and_written_to_is_looked_for_by_its_details(writes: bool) -> None:
    follower = missed_once(20.0)
    if writes:
        follower.hurry(22.0)
        assert not follower.is_listed
        assert follower.next_look(22.0) == 22.0 + SHORTEST
    else:
        follower.last_look = 24.0  # before a deadline
        assert follower.was_not_listed(24.0) is None
        assert not follower.is_listed
        assert follower.is_due(24.0)


def test_an_answer_that_may_be_older_than_the_last_one_is_no_reason_to_look_at_once() -> None:
    """Nor is it one to put off the look that is wanted anyway by more than the shortest pause."""
    follower = followed()
    follower.saw(ran(HOUR), 10.0, 20.0)
    follower.look_now()
    assert follower.saw(ran(HOUR), 15.0, 30.0) is None
    assert follower.next_look(30.0) == 30.0 + SHORTEST


async def seen(client: Client, job_id: int) -> list[Transition]:
    return [transition async for transition in client.watch(job_id, interval=INTERVAL)]


def client_of(cloud: Emulator, *, shared: bool = True) -> Client:
    settings = Settings(shared_reads=shared)
    return Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings)


def late(transitions: list[Transition], truth: list[float]) -> list[float]:
    """By how much each change but the first was seen late, where the first was seen at once."""
    first = transitions[0].not_after
    return [
        (one.not_after - first).total_seconds() - since
        for one, since in zip(transitions[1:], truth, strict=True)
    ]


async def test_watches_with_the_same_interval_share_what_they_have_in_common(client: Client) -> None:
    """It would be weighed a hundred thousand times."""
    usual, same, other = (client.watch(7, interval=interval).follower for interval in (None, 15, 30))
    assert usual.terms is same.terms
    assert usual.cadence.interval == 15.0
    assert other.cadence.interval == 30.0


async def ended(tasks: list[asyncio.Task[list[Transition]]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


both_ways = pytest.mark.parametrize("shared", [False, True], ids=["by details", "by the listing"])


def steady(cloud: Emulator, client: Client, *, shared: bool) -> list[asyncio.Task[list[Transition]]]:
    """Watches of jobs to which nothing happens, for which the listing is read."""
    return [asyncio.create_task(seen(client, job_id)) for job_id in cloud.add_jobs(3 * shared, status=8)]


@pytest.mark.looptime
@both_ways
async def test_a_start_is_seen_within_a_small_share_of_the_interval_at_few_requests(shared: bool) -> None:
    life = [(0.0, 1), (3.0, 4), (25.0, 7), (45.0, 8), (2000.0, 10)]
    async with Emulator(life=life) as cloud, client_of(cloud, shared=shared) as client:
        others = steady(cloud, client, shared=shared)
        job = await client.create_job("mine", "/obs/logs/")
        watch = asyncio.create_task(seen(client, job.job_id))
        await elapse(60)
        spent = reads(cloud).total()
        *start, end = late(await watch, [3.0, 25.0, 45.0, 2000.0])
        # A pause is a tenth of the status' age, which was 3, 22 and 20 s, but for the shortest, and jitter.
        assert start[0] <= SHORTEST * (1 + JITTER) + 0.1
        assert start[1] <= 0.1 * 22.0 * (1 + JITTER) + 0.1
        assert start[2] <= 0.1 * 20.0 * (1 + JITTER) + 0.1
        assert spent <= 50, "even looks that see the start as soon are one each two seconds, for ever"
        assert end <= INTERVAL * (1 + JITTER) + 0.1
        assert reads(cloud).total() - spent <= 1940 / (INTERVAL * (1 - JITTER)) + 2
        await ended(others)


@pytest.mark.looptime
@both_ways
async def test_a_write_of_the_same_client_wakes_a_watch_and_opens_its_fast_lane(shared: bool) -> None:
    async with Emulator(kill_seconds=4.0) as cloud, client_of(cloud, shared=shared) as client:
        others = steady(cloud, client, shared=shared)
        (job_id,) = cloud.add_jobs(1, status=8)
        watch = asyncio.create_task(seen(client, job_id))
        await elapse(100)
        before, start = reads(cloud), asyncio.get_running_loop().time()
        await client.stop_job(job_id)
        transitions = await watch
        took = asyncio.get_running_loop().time() - start
        assert [one.current for one in transitions] == [8, 9, 12]
        stopping, stopped = transitions[1:]
        assert (stopped.not_after - stopping.not_after).total_seconds() <= 4 * SHORTEST * (1 + JITTER)
        assert SHORTEST <= took <= 4.0 + SHORTEST * (1 + JITTER) + 0.1
        assert (reads(cloud) - before).total() <= 6
        await ended(others)


@pytest.mark.looptime
@pytest.mark.parametrize(("call", "before"), [("stop_job", 8), ("restart_job", 12), ("delete_job", 12)])
async def test_a_write_that_is_cancelled_under_way_wakes_a_watch_since_it_may_have_happened(
    cloud: Emulator, here: Client, call: str, before: int
) -> None:
    (job_id,) = cloud.add_jobs(1, status=before)
    watch = here.watch(job_id, interval=60, follow_restarts=True)
    await anext(watch)
    step = asyncio.ensure_future(watch.__anext__())
    await elapse(100)
    method = "DELETE" if call == "delete_job" else "POST"
    cloud.fault("latency", seconds=30, performed=True, match={"method": method})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(getattr(here, call)(job_id), 2)
    start = asyncio.get_running_loop().time()
    assert (await step).current != before
    assert asyncio.get_running_loop().time() - start <= 12


@pytest.mark.looptime
async def test_a_write_wakes_no_watch_of_another_job(cloud: Emulator, here: Client) -> None:
    job_id, other = cloud.add_jobs(2, status=8)
    cloud.advance(100)
    async with client_of(cloud, shared=False) as client:
        watch = asyncio.create_task(seen(client, other))
        await elapse(1)
        before = reads(cloud)
        await client.stop_job(job_id)
        await elapse(10)
        assert reads(cloud) == before
        await ended([watch])


@pytest.mark.looptime
async def test_a_watch_that_a_write_wakes_reads_in_its_own_context(cloud: Emulator) -> None:
    """What a caller's credentials or tracing keep in context variables is the watch's, not the writer's."""
    who, asked = ContextVar("who", default=""), list[str]()

    class Noting:
        async def headers(self, request: vizwatch.Outgoing, /) -> dict[str, str]:
            asked.append(who.get())
            return {"X-Auth-Token": cloud.token}

    (job_id,) = cloud.add_jobs(1, status=8)
    settings = Settings(shared_reads=False)
    async with Client(cloud.endpoint, cloud.project_id, auth=Noting(), settings=settings) as client:
        who.set("the watch")
        watch = asyncio.create_task(seen(client, job_id))
        await elapse(1)
        who.set("the writer")
        asked.clear()
        await client.stop_job(job_id)
        await watch
    assert asked[0] == "the writer"
    assert set(asked[1:]) == {"the watch"}


@pytest.mark.looptime
@both_ways
async def test_an_automatic_stop_is_seen_when_it_is_due(shared: bool) -> None:
    life = [(0.0, 8)]
    async with Emulator(life=life, kill_seconds=30.0) as cloud, client_of(cloud, shared=shared) as client:
        others = steady(cloud, client, shared=shared)
        job = await client.create_job("mine", "/obs/logs/", auto_stop_hours=1)
        stopping, stopped = late(await seen(client, job.job_id), [HOUR, HOUR + 30.0])
        assert stopping <= SHORTEST * (1 + JITTER) + 0.1
        assert stopped <= 30.0 * 0.1 * (1 + JITTER) + 0.1
        assert reads(cloud).total() <= HOUR / (INTERVAL * (1 - JITTER)) + 40
        assert reads(cloud)["details"] <= 5 or not shared
        await ended(others)


@pytest.mark.repeats
@pytest.mark.looptime
@pytest.mark.parametrize(("jobs", "pages"), [(1000, 1), (1001, 2)])
async def test_a_thousand_jobs_that_wait_are_read_by_the_page(
    cloud: Emulator, here: Client, jobs: int, pages: int
) -> None:
    watches = [asyncio.create_task(seen(here, job_id)) for job_id in cloud.add_jobs(jobs, status=7)]
    await elapse(30)
    spent = reads(cloud)
    assert spent["details"] < pages
    assert spent["list"] <= pages * (2 + 30 / (INTERVAL / 3 * (1 - JITTER)))
    await ended(watches)


@pytest.mark.looptime
@pytest.mark.parametrize(("jobs", "pages"), [(100, 1), (1001, 2)])
async def test_many_jobs_that_start_one_after_the_other_cost_a_sweep_a_second_at_most(
    cloud: Emulator, here: Client, jobs: int, pages: int
) -> None:
    plans = [[[0.0, 7], [5.0 + 10.0 * number / jobs, 8]] for number in range(jobs)]
    job_ids = [job_id for plan in plans for job_id in cloud.add_jobs(1, plan=plan)]
    # Whoever is due while a page is on its way is on that page, and not read by itself.
    cloud.fault("latency", seconds=0.3, match={"operation": "list"})
    watches = [asyncio.create_task(seen(here, job_id)) for job_id in job_ids]
    await elapse(5)
    before = reads(cloud)
    await elapse(10)
    spent = reads(cloud) - before
    assert spent["details"] <= 10 / SHORTEST, "where one alone is due, of two pages"
    assert spent["list"] + spent["details"] <= pages * (1 + 10 / SHORTEST)
    await ended(watches)


@pytest.mark.looptime
async def test_a_job_that_is_in_a_hurry_leaves_the_many_that_are_not_to_the_listing(
    cloud: Emulator, here: Client
) -> None:
    """Where a sweep costs two requests, and one job alone starts, that one is read by itself."""
    (starting,) = cloud.add_jobs(1, plan=[[0, 7], [100, 8]])
    job_ids = cloud.add_jobs(1100, status=8)
    watches = [asyncio.create_task(seen(here, job_id)) for job_id in (*job_ids, starting)]
    await elapse(100)
    before = reads(cloud)
    await elapse(30)
    spent = reads(cloud) - before
    # Ten looks in its first 20 s, of which the sweeps that are due anyway may save a few.
    assert 5 <= spent["details"] <= 12
    assert spent["list"] <= 2 * (1 + 30 / (INTERVAL * (1 - JITTER)))
    await ended(watches)


def test_who_asks_for_the_job_changes_nothing() -> None:
    """A follower that is roused has another next look, which nobody would know of."""
    follower, page = followed(), shown(ran(HOUR + 10), 10.0)
    follower.saw(ran(HOUR), 0.0, 0.0)
    assert follower.rests_on(page, 0)
    job = follower.job
    assert job is not None
    assert (job.duration, follower.page) == (1000 * (HOUR + 10), page)


def test_a_read_that_is_too_early_to_confirm_a_step_back_refutes_it_all_the_same() -> None:
    follower = followed()
    follower.saw(ran(HOUR), 0.0, 0.0)
    waiting = attrs.evolve(ran(HOUR + 20), status=JobStatus.WAITING)
    for at in (20.0, 21.0):
        assert follower.saw(waiting, at, at) is None, "another one confirms nothing as soon as that"
    assert follower.saw(ran(HOUR + 22), 22.0, 30.0) is None
    assert follower.saw(waiting, 40.0, 40.0) is None, "so this is the first one again"
    confirmed = follower.saw(waiting, 46.0, 46.0)
    assert confirmed is not None
    assert confirmed.current is JobStatus.WAITING
