"""When to look at a job again, as a rule."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vizwatch import Job, JobStatus, Settings
from vizwatch._rules.rhythm import pause, shortest_of
from vizwatch._values.models import Schedule
from vizwatch._values.statuses import TERMINAL

INTERVAL = 15.0
SHORTEST = 1.0
HOUR = 3600.0
MOST_JITTER = 0.9
"""The greatest `Settings.poll_jitter`."""

seconds = st.floats(0, 1e7)
intervals = st.floats(0.001, 86_400)
statuses = st.sampled_from([*JobStatus, JobStatus(99)])
passing = st.sampled_from(
    [one for one in [*JobStatus, JobStatus(99)] if one not in {*TERMINAL, JobStatus.RUNNING}]
)
schedules = st.lists(
    st.builds(
        Schedule,
        st.sampled_from(["stop", "start", None]),
        st.sampled_from(["HOURS", "DAYS", None]),
        st.none() | st.integers(0, 24),
    ),
    max_size=2,
).map(tuple)
wholes = st.none() | st.integers(-(2**63), 2**63 - 1)
jobs = st.builds(Job, st.just(1), statuses, duration=wholes, remaining_duration=wholes, schedule=schedules)


def running(seconds: float | None, hours: int | None = None) -> Job:
    schedule = () if hours is None else (Schedule("stop", "HOURS", hours),)
    duration = None if seconds is None else round(seconds * 1000)
    return Job(1, JobStatus.RUNNING, duration=duration, schedule=schedule)


def paused(
    job: Job, since_change: float | None, since_write: float | None = None, interval: float = INTERVAL
) -> float:
    shortest = shortest_of(interval, SHORTEST)
    return pause(
        job, interval=interval, shortest=shortest, since_change=since_change, since_write=since_write
    )


@given(jobs, intervals, st.floats(0, 1), st.none() | seconds, st.none() | seconds)
def test_it_is_never_shorter_than_the_shortest_nor_longer_than_the_interval(
    job: Job, interval: float, share: float, since_change: float | None, since_write: float | None
) -> None:
    """So what a watch says is never older than the interval, its jitter and a request's time."""
    shortest = share * interval
    found = pause(
        job, interval=interval, shortest=shortest, since_change=since_change, since_write=since_write
    )
    assert shortest <= found <= interval


@given(intervals, st.floats(0.001, 86_400))
def test_the_shortest_is_a_share_of_the_interval_unless_less_is_forbidden(
    interval: float, least: float
) -> None:
    shortest = shortest_of(interval, least)
    assert shortest <= interval
    assert shortest >= min(interval, least)
    assert shortest <= max(least, interval / 10)
    assert shortest_of(15.0, Settings().poll_interval_min) == 1.0


@given(statuses, st.tuples(seconds, seconds).map(sorted), st.none() | seconds)
def test_the_longer_a_status_lasts_the_longer_it_is_left_alone(
    status: JobStatus, ages: list[float], since_write: float | None
) -> None:
    younger, older = ages
    job = Job(1, status)
    assert paused(job, younger, since_write) <= paused(job, older, since_write)


@given(seconds, passing)
def test_a_passing_status_is_looked_at_more_often_than_a_run(age: float, status: JobStatus) -> None:
    assert paused(Job(1, status), age) <= paused(running(None), age)


@given(passing)
def test_a_passing_status_is_looked_at_often_and_the_interval_comes_back(status: JobStatus) -> None:
    """However long it lasts, no more than 30 looks come on top of those at the interval."""
    job, age, looks = Job(1, status), 0.0, 0
    while age < 24 * HOUR:
        age += paused(job, age)
        looks += 1
        assert looks != 10 or age <= 11.0
        assert looks <= age / INTERVAL + 30


def test_a_run_is_left_alone_after_its_first_moments() -> None:
    assert paused(running(None), 0.0) == SHORTEST
    assert paused(running(None), 10.0) == 5.0
    assert paused(running(None), 30.0) == INTERVAL


@given(st.sampled_from(sorted(TERMINAL)), st.none() | seconds)
def test_an_ended_job_is_looked_at_by_the_interval_at_once(
    status: JobStatus, since_change: float | None
) -> None:
    assert (
        paused(Job(1, status, duration=3_600_000, schedule=(Schedule("stop", "HOURS", 1),)), since_change)
        == 15.0
    )


@given(st.floats(0.001, 1e7))
def test_a_run_that_was_there_before_is_as_old_as_its_duration(age: float) -> None:
    assert paused(running(age), None) == pytest.approx(paused(running(None), age), abs=0.001)
    assert paused(running(age), 12.0) == paused(running(None), 12.0)


@given(statuses, intervals, st.none() | st.integers(-(2**63), 0))
def test_ten_thousand_watches_that_begin_together_do_not_look_every_second(
    status: JobStatus, interval: float, duration: int | None
) -> None:
    """A status of unknown age costs about three times the looks at most, a run no more than usual."""
    found = paused(Job(1, status, duration=duration), None, interval=interval)
    assert found >= 0.33 * interval
    if status is JobStatus.RUNNING:
        assert found == interval


@given(jobs, st.none() | seconds, seconds)
def test_an_own_write_opens_a_fast_lane_and_it_closes(
    job: Job, since_change: float | None, since_write: float
) -> None:
    usual = paused(job, since_change)
    assert paused(job, since_change, 0.0) == SHORTEST
    assert paused(job, since_change, since_write) <= usual
    assert paused(job, since_change, 10 * INTERVAL + since_write) == usual


@given(st.integers(1, 24), seconds, intervals, st.none() | seconds, st.floats(0, MOST_JITTER))
def test_no_pause_goes_past_an_automatic_stop_whatever_the_jitter(
    hours: int, ran: float, interval: float, since_change: float | None, jitter: float
) -> None:
    job = running(ran, hours)
    due = hours * HOUR - (job.duration or 0) / 1000
    assume(due > 0)
    found = paused(job, since_change, interval=interval)
    assert found * (1 + jitter) <= due or found == shortest_of(interval, SHORTEST)


@given(st.integers(1, 24), st.floats(0, 5))
def test_an_automatic_stop_is_looked_for_often_when_it_is_due_and_not_for_ever(
    hours: int, late: float
) -> None:
    assert paused(running(hours * HOUR - 10, hours), None) == 5.0
    assert paused(running(hours * HOUR + late, hours), None) == SHORTEST
    assert paused(running(hours * HOUR + 100, hours), None) == 10.0
    assert paused(running(hours * HOUR + 150 + late, hours), None) == INTERVAL


def test_the_first_of_several_automatic_stops_counts() -> None:
    stops = tuple(Schedule("stop", "HOURS", hours) for hours in (8, 2, 24))
    job = Job(1, JobStatus.RUNNING, duration=7_190_000, schedule=stops)
    assert paused(job, None) == 5.0


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule("stop", "HOURS", 0),
        Schedule("stop", "HOURS", None),
        Schedule("stop", "MINUTES", 1),
        Schedule("start", "HOURS", 1),
    ],
)
def test_what_is_no_automatic_stop_by_the_documents_changes_nothing(schedule: Schedule) -> None:
    job = Job(1, JobStatus.RUNNING, duration=3_600_000, schedule=(schedule,))
    assert paused(job, None) == INTERVAL


@given(jobs, wholes, st.none() | seconds)
def test_the_remaining_duration_is_not_guessed_at(
    job: Job, remaining: int | None, since_change: float | None
) -> None:
    other = Job(1, job.status, duration=job.duration, remaining_duration=remaining, schedule=job.schedule)
    assert paused(job, since_change) == paused(other, since_change)
