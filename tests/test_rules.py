"""The pure rules: listing, transitions, cadence, and the table of what may be sent again."""

from __future__ import annotations

import datetime as dt
import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vizwatch
from vizwatch import Job, JobPage, JobStatus
from vizwatch._rules import retrying
from vizwatch._rules.cadence import (
    ABSENCES_TO_CONFIRM,
    CONFIRMS_AFTER,
    SETTLES_WITHIN,
    Cadence,
    Doubt,
    Failures,
    OwnWrites,
)
from vizwatch._rules.listing import Listing, Seen
from vizwatch._rules.retrying import Fate
from vizwatch._rules.transitions import Tracker, counts_of, found
from vizwatch._values.errors import CallError
from vizwatch._values.exchange import Operation
from vizwatch._values.statuses import TERMINAL

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
MOST_PAGES = 400


def jobs(ids: Sequence[int]) -> tuple[Job, ...]:
    return tuple(Job(number, JobStatus.RUNNING) for number in ids)


# --- listing --------------------------------------------------------------------------------------------


def listed(
    ids: Sequence[int],
    *,
    per_page: int,
    cap: int,
    total: int | None,
    ascending: bool | None = True,
    empty: int | None = None,
    ignores_page: bool = False,
    first: int = 1,
) -> tuple[list[int], int]:
    """The ids that a listing gives of a server like this, and how many pages it asks for."""
    size = min(per_page, cap)
    listing = Listing(Seen(ascending), per_page, first)
    given_: list[int] = []
    asked = 0
    while not listing.ended:
        asked += 1
        assert asked < MOST_PAGES, "the listing does not end"
        number = 1 if ignores_page else listing.page
        if empty is not None and listing.page > empty:
            number -= 1
        content = () if listing.page == empty else ids[(number - 1) * size : number * size]
        page = listing.take(JobPage(jobs(content), listing.page, job_total_count=total))
        given_.extend(job.job_id for job in page.jobs)
    return given_, asked


@pytest.mark.fault("P4")
@given(
    st.lists(st.integers(0, 500), unique=True, max_size=60).map(sorted),
    st.integers(1, 30),
    st.integers(1, 30),
    st.data(),
)
def test_every_job_is_given_once_for_any_page_size_and_cap(
    ids: list[int], per_page: int, cap: int, data: st.DataObject
) -> None:
    """Also where the total is missing, and where the server sorts otherwise than it was asked to."""
    total = data.draw(st.sampled_from([len(ids), None]))
    ascending = data.draw(st.sampled_from([True, False, None]))
    ordered = data.draw(st.permutations(ids)) if data.draw(st.booleans()) else ids
    given_, asked = listed(ordered, per_page=per_page, cap=cap, total=total, ascending=ascending)
    assert given_ == ordered
    assert asked <= -(-len(ids) // min(per_page, cap)) + 2


@pytest.mark.fault("P4")
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12), st.integers(1, 6))
def test_an_empty_page_in_the_middle_ends_nothing(count: int, per_page: int, cap: int, empty: int) -> None:
    ids = list(range(count))
    given_, _ = listed(ids, per_page=per_page, cap=cap, total=count, empty=empty)
    assert given_ == ids


@given(st.integers(0, 30), st.integers(1, 12), st.none() | st.integers(-5, 100))
def test_a_server_that_ignores_the_page_is_not_asked_for_ever(
    count: int, per_page: int, total: int | None
) -> None:
    ids = list(range(count))
    given_, asked = listed(ids, per_page=per_page, cap=1000, total=total, ignores_page=True)
    assert given_ == ids[:per_page]
    assert asked <= 3


@pytest.mark.fault("P4")
@given(st.integers(0, 40), st.integers(1, 12), st.integers(-5, 100))
def test_a_total_that_is_wrong_loses_nothing(count: int, per_page: int, total: int) -> None:
    ids = list(range(count))
    given_, asked = listed(ids, per_page=per_page, cap=1000, total=total)
    assert given_ == ids
    assert asked <= count // per_page + 3


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (25, 1), (999, 1), (1000, 2), (1001, 2), (2500, 3)])
def test_a_listing_costs_as_many_requests_as_it_has_pages(count: int, pages: int) -> None:
    """One more only where the last page is full: a total that counts the page alone would hide the rest."""
    assert listed(range(count), per_page=1000, cap=1000, total=count) == (list(range(count)), pages)


@pytest.mark.parametrize("cap", [10, 100])
def test_a_server_that_caps_the_page_and_counts_the_page_alone_hides_nothing(cap: int) -> None:
    """Where the cap is one that a document names: such a page is never taken for the last one."""
    assert listed(range(1100), per_page=1000, cap=cap, total=cap)[0] == list(range(1100))


@given(st.integers(0, 60), st.integers(1, 30), st.integers(1, 30), st.integers(2, 4), st.booleans())
def test_a_listing_from_a_later_page_gives_all_from_there(
    count: int, per_page: int, cap: int, first: int, has_total: bool
) -> None:
    given_, _ = listed(
        range(count), per_page=per_page, cap=cap, total=count if has_total else None, first=first
    )
    assert given_ == list(range(count))[(first - 1) * min(per_page, cap) :]


@pytest.mark.fault("P1", "P4")
@given(
    st.lists(st.tuples(st.sampled_from(["read", "create", "delete"]), st.integers(0, 50)), max_size=40),
    st.integers(1, 5),
    st.sampled_from(["asc", "desc", "other"]),
)
def test_no_job_is_given_twice_however_the_pages_drift(
    script: list[tuple[str, int]], per_page: int, order: str
) -> None:
    alive = list(range(100, 112))
    listing = Listing(Seen({"asc": True, "desc": False}.get(order)), per_page)
    given_: list[int] = []

    def read() -> None:
        shown = sorted(alive, reverse=order == "desc") if order != "other" else alive
        start = (listing.page - 1) * per_page
        page = JobPage(jobs(shown[start : start + per_page]), listing.page, job_total_count=len(alive))
        given_.extend(job.job_id for job in listing.take(page).jobs)

    for action, number in script:
        if action == "create":
            alive.insert(number % (len(alive) + 1), max(alive, default=100) + 1)
        elif action == "delete" and alive:
            alive.pop(number % len(alive))
        elif not listing.ended:
            read()
    while not listing.ended:
        read()
    assert len(given_) == len(set(given_))


@pytest.mark.fault("P8")
def test_a_long_listing_in_order_forgets_all_but_the_last_ids() -> None:
    seen = Seen(ascending=True)
    for start in range(0, 50_000, 1000):
        assert len(seen.take(jobs(range(start, start + 1000)))) == 1000
    assert seen._all is None
    assert sum(map(len, seen._recent)) == 10_000
    # A server that begins again after its last page repeats nothing, although the first ids are forgotten …
    assert list(seen.take(jobs(range(1000)))) == []
    # … and what is beyond the watermark is new.
    assert [job.job_id for job in seen.take(jobs([5, 50_000, 7, 50_001]))] == [50_000, 50_001]


@pytest.mark.parametrize(
    ("ids", "total", "count"),
    [
        # One that does not belong there, and a service that sorts ids as text.
        ([*range(11_500), 10**6, *range(11_500, 15_000)], 15_001, 11_501),
        ([*range(100_000, 112_000), *range(89_000, 92_000)], 15_000, 12_000),
        ([*range(100_000, 112_000), *range(89_000, 92_000)], None, 12_000),
    ],
)
def test_a_long_listing_that_leaves_its_order_never_ends_as_if_it_were_all(
    ids: list[int], total: int | None, count: int
) -> None:
    listing = Listing(Seen(ascending=True), 1000)
    given_ = 0
    with pytest.raises(
        vizwatch.ProtocolError, match=f"after {count:,} jobs .* some may be missing: list them in another"
    ):
        while not listing.ended:
            rows = ids[(listing.page - 1) * 1000 : listing.page * 1000]
            given_ += len(listing.take(JobPage(jobs(rows), listing.page, job_total_count=total)).jobs)
    assert given_ == count


def test_a_service_that_begins_again_after_a_long_listing_has_given_it_all() -> None:
    listing = Listing(Seen(ascending=True), 1000)
    while not listing.ended:
        first = (listing.page - 1) % 12 * 1000
        listing.take(JobPage(jobs(range(first, first + 1000)), listing.page, job_total_count=12_000))
    assert listing.count == 12_000


# --- transitions ----------------------------------------------------------------------------------------

codes = st.integers(0, 25).map(JobStatus)


@pytest.mark.fault("W9", "ordered", "no echo")
@given(st.lists(codes, min_size=1, max_size=30), st.booleans())
def test_transitions_chain_have_no_echo_and_end_at_the_first_terminal_status(
    script: list[JobStatus], follow: bool
) -> None:
    """Each status is read twice, so that a step back is believed too."""
    tracker = Tracker("p", 197, TERMINAL, follow_restarts=follow)
    seen = []
    for number, status in enumerate(status for status in script for _ in range(2)):
        if tracker.ended:
            break
        at = NOW + dt.timedelta(seconds=number)
        transition = tracker.saw(Job(197, status, duration=number), at - dt.timedelta(seconds=0.25), at)
        if transition is not None:
            assert (transition.not_after, transition.job.duration) == (at, number)
            seen.append(transition)
    ends = next((i for i, status in enumerate(script) if status in TERMINAL), len(script) - 1)
    read = script if follow else script[: ends + 1]
    assert [t.current for t in seen] == [read[0]] + [b for a, b in pairwise(read) if a != b]
    assert seen[0].previous is None
    assert seen[0].not_before is None
    for before, after in pairwise(seen):
        assert after.previous == before.current
        assert (before.run, before.current) != (after.run, after.current)
        assert after.not_before is not None
        assert before.not_after < after.not_after
        assert after.not_before < after.not_after
    assert [t.is_terminal for t in seen] == [t.current in TERMINAL for t in seen]
    assert tracker.ended == (not follow and script[ends] in TERMINAL)
    assert len({t.id for t in seen}) == len(seen)


@pytest.mark.fault("W5")
def test_a_job_that_leaves_a_terminal_status_has_begun_another_run() -> None:
    tracker = Tracker("p", 197, TERMINAL, follow_restarts=True)
    codes = (8, 12, 1, 1, 8, 10, 3, 8, 8)
    seen = [tracker.saw(Job(197, JobStatus(code)), NOW, NOW) for code in codes]
    assert [(t.run, t.gap) for t in seen if t] == [
        (1, False), (1, False), (2, False), (2, False), (2, False), (3, True), (4, False),
    ]  # fmt: skip


def reads_of(tracker: Tracker, *reads: tuple[float, int, int | None]) -> list[int | None]:
    """What comes of reads (seconds, status, duration in seconds)."""
    seen = []
    for seconds, code, duration in reads:
        at = NOW + dt.timedelta(seconds=seconds)
        job = Job(197, JobStatus(code), duration=None if duration is None else duration * 1000)
        transition = tracker.saw(job, at, at)
        seen.append(None if transition is None else transition.current and int(transition.current))
    return seen


@pytest.mark.fault("W8")
@pytest.mark.parametrize(
    ("reads", "seen"),
    [
        ([(0, 8, None), (15, 7, None), (20, 8, None)], [8, None, None]),
        ([(0, 8, None), (15, 7, None), (20, 7, None)], [8, None, 7]),
        ([(0, 8, None), (15, 7, None), (20, 1, None)], [8, None, 1]),
        ([(0, 8, None), (15, 7, None), (20, 12, None)], [8, None, 12]),
        ([(0, 8, None), (15, 15, None), (30, 8, None)], [8, 15, 8]),
        ([(0, 8, None), (15, 18, None), (30, 99, None), (45, 7, None)], [8, 18, 99, 7]),
        ([(0, 10, 100), (15, 8, 90), (20, 10, 100)], [10, None, None]),
        # A restart: the job has run for less than it can have since its end.
        ([(0, 10, 100), (15, 1, 0), (20, 4, 0)], [10, None, 4]),
        ([(0, 10, 100), (15, 8, 10), (20, 8, 15)], [10, None, 8]),
        # A replica that lags shows a duration of the run that has ended, for as long as a minute.
        ([(0, 10, 500), (15, 8, 480), (20, 8, 485), (60, 10, 500)], [10, None, None, None]),
        ([(0, 10, 500), (15, 8, 480), (20, 8, 485), (75, 8, 540)], [10, None, None, 8]),
        ([(0, 10, None), (15, 1, None), (20, 1, None)], [10, None, 1]),
    ],
)
def test_a_step_back_is_believed_once_it_is_confirmed(
    reads: list[tuple[float, int, int | None]], seen: list[int | None]
) -> None:
    assert reads_of(Tracker("p", 197, TERMINAL, follow_restarts=True), *reads) == seen


@pytest.mark.fault("W8")
@given(st.lists(st.tuples(st.sampled_from([1, 4, 7, 8]), st.booleans()), min_size=1, max_size=20))
def test_single_reads_of_a_replica_that_lags_change_nothing(truth: list[tuple[int, bool]]) -> None:
    """A job goes ahead only; between two true reads there may be one that is behind."""
    codes = sorted(code for code, _ in truth)
    reads, lagging = list[tuple[float, int, int | None]](), Tracker("p", 197, TERMINAL)
    for number, (code, (_, lags)) in enumerate(zip(codes, truth, strict=True)):
        reads.append((2.0 * number, code, None))
        if lags:
            reads.append((2.0 * number + 1, codes[max(number - 1, 0)], None))
    seen = [code for code in reads_of(lagging, *reads) if code is not None]
    assert seen == sorted(set(codes))


@pytest.mark.fault("W5")
@pytest.mark.parametrize(
    ("reads", "runs"),
    [
        # Running, and running again: it was stopped and restarted between two reads.
        ([(0, 8, 500), (15, 8, 3), (20, 8, 8)], [(8, 1, False), (8, 2, True)]),
        (
            [(0, 8, 500), (15, 8, 3), (20, 8, 8), (35, 8, 2), (40, 8, 7)],
            [(8, 1, False), (8, 2, True), (8, 3, True)],
        ),
        # A replica that lags says so once, or what cannot be of a new run.
        ([(0, 8, 10), (15, 8, 3), (20, 8, 30)], [(8, 1, False)]),
        ([(0, 8, 500), (15, 8, 450), (20, 8, 455)], [(8, 1, False)]),
        ([(0, 8, 500), (15, 8, None), (30, 8, None)], [(8, 1, False)]),
        # Anew, from its beginning, though no end was seen.
        (
            [(0, 8, 600), (15, 1, 0), (20, 1, 0), (35, 8, 5), (95, 10, 60)],
            [(8, 1, False), (1, 2, True), (8, 2, False), (10, 2, False)],
        ),
        # An end that says less is no proof, nor is a status that the service does not know.
        ([(0, 8, 600), (15, 10, 20)], [(8, 1, False), (10, 1, False)]),
        ([(0, 10, 9), (15, 0, 9), (20, 0, 9), (35, 10, 9)], [(10, 1, False), (0, 1, False), (10, 1, False)]),
        # A deletion that failed is no run.
        ([(0, 10, 9), (15, 6, 9)], [(10, 1, False), (6, 1, False)]),
        # An end, and an end of a shorter run.
        ([(0, 12, 500), (15, 12, 4), (20, 12, 4)], [(12, 1, False), (12, 2, True)]),
    ],
)
def test_a_restart_between_two_reads_is_known_by_the_duration(
    reads: list[tuple[float, int, int | None]], runs: list[tuple[int, int, bool]]
) -> None:
    tracker, seen = Tracker("p", 197, TERMINAL, follow_restarts=True), []
    for seconds, code, duration in reads:
        at = NOW + dt.timedelta(seconds=seconds)
        job = Job(197, JobStatus(code), duration=None if duration is None else duration * 1000)
        transition = tracker.saw(job, at, at)
        if transition is not None:
            seen.append((transition.current, transition.run, transition.gap))
    assert seen == runs


@pytest.mark.parametrize("duration", [-1, 0, 2**63 - 1, None])
def test_an_end_is_known_by_the_length_of_its_run_and_nothing_else_is(duration: int | None) -> None:
    for status in JobStatus:
        told = Tracker("p", 197, TERMINAL).saw(Job(197, status, duration=duration), NOW, NOW)
        assert told is not None
        assert told.id == found("p", told.job, NOW, NOW).id
        change = f"p/197/1/1/none-{int(status)}"
        is_named = status.is_terminal and duration is not None
        assert told.id == (f"{change}/{duration}" if is_named else change)
        assert counts_of(told) == (1, 1)


def test_what_a_job_was_before_a_restart_that_changed_no_status_is_no_step_back() -> None:
    tracker = Tracker("p", 197, TERMINAL)
    assert reads_of(tracker, (0, 8, 500), (15, 8, 3), (20, 8, 8), (24, 8, 12)) == [8, None, 8, None]
    assert not tracker.holds


lives = st.lists(st.tuples(st.sampled_from([1, 5, 7, 8, 9, 10, 12, 15]), st.floats(12, 40)), min_size=1)


@pytest.mark.fault("W8")
@given(lives, st.randoms(use_true_random=False), st.floats(0.1, 4.9))
def test_of_two_replicas_of_which_one_lags_nothing_is_told_that_was_not_so_in_this_order(
    life: list[tuple[int, float]], chance: Random, lag: float
) -> None:
    """Ends included, and whichever of the two answers a read, where each status lasts for twice the lag."""
    changes = list(accumulate((seconds for _, seconds in life[:-1]), initial=0.0))

    def status_at(seconds: float) -> int:
        return life[max(bisect_right(changes, seconds) - 1, 0)][0]

    tracker, told, now = Tracker("p", 197, TERMINAL, follow_restarts=True), list[int](), 0.0
    while now < changes[-1] + 30:
        (code,) = reads_of(tracker, (now, status_at(now - chance.choice((0, lag))), None))
        told += [] if code is None else [code]
        now += CONFIRMS_AFTER if tracker.holds else 1
    was = iter([code for code, _ in life])
    assert all(code in was for code in told), (told, life)
    assert told[-1] == life[-1][0]


@pytest.mark.parametrize(
    ("terminal", "codes", "runs"),
    [({8, 10}, (8, 9, 12), [1, 1, 1]), ({10}, (11, 1, 1, 8), [1, 2, 2])],
)
def test_runs_are_counted_by_the_services_ends_and_not_by_the_callers(
    terminal: set[int], codes: tuple[int, ...], runs: list[int]
) -> None:
    tracker = Tracker("p", 197, {JobStatus(code) for code in terminal}, follow_restarts=True)
    seen = [tracker.saw(Job(197, JobStatus(code)), NOW, NOW) for code in codes]
    assert [one.run for one in seen if one] == runs


def test_a_job_is_followed_from_where_it_was_without_a_transition_for_that() -> None:
    tracker = Tracker("p", 197, {JobStatus.DELETE_FAILED})
    tracker.resume(Job(197, JobStatus.DELETE_FAILED), NOW)
    assert reads_of(tracker, (1, 6, None), (2, 9, None), (3, 9, None), (20, 6, None)) == [None, None, 9, 6]
    assert tracker.ended


def test_deletion_is_the_last_transition_and_keeps_the_job() -> None:
    tracker = Tracker("p", 197, TERMINAL)
    tracker.saw(Job(197, JobStatus.RUNNING), NOW, NOW)
    gone = tracker.gone(NOW)
    assert gone is not None
    assert (gone.previous, gone.current, gone.is_terminal) == (JobStatus.RUNNING, None, True)
    assert gone.job.status is JobStatus.RUNNING
    assert tracker.ended


def test_each_change_of_a_watch_has_an_id_of_its_own_that_depends_on_the_statuses_alone() -> None:
    def ids(pause: int) -> list[str]:
        tracker = Tracker("p", 197, TERMINAL)
        codes = [code for code in (1, 7, 8, 15, 8) for _ in range(pause)]
        reads = [(Job(197, JobStatus(code)), NOW + minutes * MINUTE) for minutes, code in enumerate(codes)]
        seen = [tracker.saw(job, at, at) for job, at in reads]
        return [t.id for t in seen if t]

    assert ids(1) == ids(3)
    assert len(set(ids(1))) == 5


# --- cadence --------------------------------------------------------------------------------------------

chances = st.floats(0, 1, exclude_max=True)


@given(st.floats(1, 1000), st.floats(0, 1), st.floats(0, 0.9), chances)
def test_a_pause_varies_within_its_jitter_and_is_never_shorter_than_the_shortest(
    pause: float, share: float, jitter: float, chance: float
) -> None:
    cadence = Cadence(1000.0, share * pause, jitter, 0.8, 30.0)
    found = cadence.jittered(pause, chance)
    assert max(share * pause, pause * (1 - jitter)) * 0.999 <= found <= pause * (1 + jitter) * 1.001
    assert cadence.jittered(pause, 0.0) <= found, "it grows with chance"


def test_a_pause_that_is_the_shortest_varies_too() -> None:
    cadence = Cadence(15.0, 1.0, 0.2, 0.8, 30.0)
    assert [cadence.jittered(1.0, chance) for chance in (0.0, 0.5)] == pytest.approx([1.0, 1.1])
    assert [cadence.jittered(15.0, chance) for chance in (0.0, 0.5)] == pytest.approx([12.0, 15.0])
    assert cadence.jittered(math.inf, 0.5) == math.inf, "where nobody waits"


@given(st.integers(1, 200), chances)
def test_pauses_after_failures_double_up_to_a_bound(failures: int, chance: float) -> None:
    pause = Cadence(15.0, 1.0, 0.2, 0.8, 30.0).after_failures(failures, chance)
    assert pause == pytest.approx(chance * min(30.0, 0.8 * 2.0 ** (failures - 1)))


def test_only_two_minutes_of_health_forget_the_failures() -> None:
    failures = Failures()
    for _ in range(10):
        failures.failed()
    failures.succeeded(0.0)
    failures.succeeded(119.0)
    failures.failed()
    assert (failures.count, failures.go_on) == (11, True)
    failures.succeeded(1000.0)
    assert (failures.count, failures.go_on) == (11, False)
    failures.succeeded(1120.0)
    assert failures.count == 0


@pytest.mark.parametrize(("asked", "least"), [(None, 0.0), (7.0, 7.0), (1e9, 600.0)])
def test_what_the_service_asks_for_is_the_least_pause_within_reason(
    asked: float | None, least: float
) -> None:
    assert Cadence(15.0, 1.0, 0.2, 0.8, 30.0).after_failures(1, 0.0, asked) == least


@pytest.mark.fault("W1")
def test_a_job_that_was_seen_is_gone_after_three_misses_an_interval_apart() -> None:
    doubt = Doubt(was_seen=True)
    assert [(doubt.missed(0.0), doubt.pause(15.0)) for _ in range(3)] == [
        (False, 15),
        (False, 15),
        (True, 15),
    ]


def test_a_job_never_seen_is_looked_for_three_times_within_seconds() -> None:
    doubt = Doubt()
    missed = [(doubt.missed(0.0), doubt.pause(15.0)) for _ in range(ABSENCES_TO_CONFIRM)]
    assert missed == [(False, 1.0), (False, 2.0), (True, 4.0)]


def test_what_is_doubted_is_read_less_and_less_often() -> None:
    doubt = Doubt(restarted_at=0.0)
    pauses = list[float]()
    while doubt.is_old(True, sum(pauses)):
        pauses.append(doubt.pause(15.0))
    assert pauses == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    doubt = Doubt(is_deleted=True, was_seen=True)
    doubt.missed(0.0)
    assert doubt.pause(15.0) == 1.0


def test_what_a_client_wrote_is_remembered_for_the_latest_jobs() -> None:
    own = OwnWrites()
    for job_id in range(1025):
        own.note(Operation.CREATE, job_id, 1.0)
        if job_id == 1000:
            own.note(Operation.CREATE, 0, 2.0)
    assert own.doubt(0).created_at == 2.0
    assert own.doubt(1).created_at is None
    assert own.doubt(2).created_at == 1.0
    own.note(Operation.RESTART, 7, 3.0)
    own.note(Operation.DELETE, 8, 3.0)
    assert (own.doubt(7).restarted_at, own.doubt(7).is_deleted, own.doubt(8).is_deleted) == (3.0, False, True)
    own.note(Operation.STOP, 7, 4.0)
    assert own.doubt(7).restarted_at is None
    assert own.doubt(7, was_seen=True).was_seen


def test_the_latest_write_to_a_job_counts_whatever_it_was() -> None:
    own = OwnWrites()
    assert own.latest(7) is None
    writes = (Operation.CREATE, Operation.STOP, Operation.RESTART, Operation.DELETE)
    for at, operation in enumerate(writes):
        own.note(operation, 7, float(at))
        assert own.latest(7) == at
    assert own.latest(8) is None


@pytest.mark.fault("W2")
def test_a_job_just_created_is_waited_for() -> None:
    doubt = Doubt(created_at=100.0)
    assert not any(doubt.missed(100.0 + second) for second in range(int(SETTLES_WITHIN)))
    assert doubt.missed(100.0 + SETTLES_WITHIN)


# --- retrying -------------------------------------------------------------------------------------------


@pytest.mark.fault("W6")
def test_the_end_of_the_run_before_an_own_restart_is_not_the_jobs_end() -> None:
    doubt = Doubt(restarted_at=100.0)
    assert doubt.is_old(True, 100.0 + SETTLES_WITHIN - 1)
    assert doubt.pause(15.0) == 1.0
    assert not doubt.is_old(False, 101.0)
    assert not doubt.is_old(True, 100.0 + SETTLES_WITHIN)
    assert not Doubt(restarted_at=100.0, was_seen=True).is_old(True, 102.0)
    assert not Doubt().is_old(True, 0.0)


def api(status: int, retry_after: float | None = None, code: str | None = None) -> vizwatch.ApiError:
    kind = {
        401: vizwatch.AuthenticationError,
        404: vizwatch.NotFoundError,
        409: vizwatch.ConflictError,
        429: vizwatch.RateLimitError,
    }
    return kind.get(status, vizwatch.ServerError)(
        http_status=status, retry_after=retry_after, error_code=code
    )


FATES: list[tuple[CallError, Fate]] = [
    (vizwatch.ConnectError("x"), Fate.NOT_SENT),
    (vizwatch.ConnectError("proxy", retryable=False), Fate.REFUSED),
    (vizwatch.TlsError("expired"), Fate.REFUSED),
    (api(429), Fate.THROTTLED),
    (api(503), Fate.UNAVAILABLE),
    (api(503, 1.0), Fate.UNAVAILABLE_UNTIL),
    (api(503, 1.0, "ModelArts.0010"), Fate.UNAVAILABLE_UNTIL),
    (api(503, None, "ModelArts.4302"), Fate.UNAVAILABLE),
    (api(503, 1.0, "ModelArts.4302"), Fate.HELD_BACK),
    (api(503, 0.0, "ModelArts.4700"), Fate.HELD_BACK),
    (api(503, 1.0, "APIGW.0201"), Fate.HELD_BACK),
    (api(500, 1.0, "ModelArts.4302"), Fate.FAILED),
    (api(500), Fate.FAILED),
    (api(408), Fate.FAILED),
    (api(404), Fate.REFUSED),
    (vizwatch.TransportError("x"), Fate.UNKNOWN),
    (vizwatch.RequestTimeoutError("x"), Fate.UNKNOWN),
    (vizwatch.DecodeError("x"), Fate.GARBLED),
    (vizwatch.ProtocolError("x", http_status=200), Fate.GARBLED),
    (vizwatch.ProtocolError("x", http_status=302), Fate.REDIRECTED),
    (api(401), Fate.UNAUTHENTICATED),
]


@pytest.mark.parametrize(("error", "fate"), FATES)
def test_every_error_has_its_fate(error: CallError, fate: Fate) -> None:
    assert retrying.fate(error) is fate
    permanent = {Fate.REFUSED, Fate.UNAUTHENTICATED}
    assert retrying.is_permanent(error) == (fate in permanent)
    unsent = retrying.fate(error, was_sent=False)
    assert unsent is (fate if fate in permanent else Fate.NOT_SENT)


#                   NOT_SENT 429 503 503+RA 503+RA+gateway 5xx UNKNOWN garbled redirect 401 refused
POLICY = {
    Operation.LIST:    "yes yes yes yes yes yes yes yes yes no no",
    Operation.GET:     "yes yes yes yes yes yes yes yes yes no no",
    Operation.TOKEN:   "yes yes yes yes yes yes yes yes yes no no",
    Operation.UPDATE:  "yes yes yes yes yes yes yes no no no no",
    Operation.STOP:    "yes yes yes yes yes no no no no no no",
    Operation.DELETE:  "yes yes yes yes yes no no no no no no",
    Operation.RESTART: "yes yes no yes yes no no no no no no",
    Operation.CREATE:  "yes yes no no yes no no no no no no",
}  # fmt: skip
COLUMNS = [
    Fate.NOT_SENT, Fate.THROTTLED, Fate.UNAVAILABLE, Fate.UNAVAILABLE_UNTIL, Fate.HELD_BACK, Fate.FAILED,
    Fate.UNKNOWN, Fate.GARBLED, Fate.REDIRECTED, Fate.UNAUTHENTICATED, Fate.REFUSED,
]  # fmt: skip


@pytest.mark.fault("N1", "H2")
@pytest.mark.parametrize("operation", Operation)
def test_the_table_of_what_may_be_sent_again(operation: Operation) -> None:
    row = dict(zip(COLUMNS, POLICY[operation].split(), strict=True))
    for fate in Fate:
        assert retrying.may_resend(operation, [fate]) == (row[fate] == "yes"), (operation, fate)


@pytest.mark.fault("H14")
@pytest.mark.parametrize("fate", [Fate.GARBLED, Fate.REDIRECTED])
def test_an_answer_of_somebody_else_is_doubted_once(fate: Fate) -> None:
    assert retrying.may_resend(Operation.GET, [Fate.FAILED, fate])
    assert not retrying.may_resend(Operation.GET, [fate, Fate.FAILED, fate])
    assert retrying.may_resend(Operation.GET, [fate, fate, Fate.FAILED])


@pytest.mark.parametrize(
    ("operation", "fates", "unknown"),
    [
        (Operation.CREATE, [Fate.UNKNOWN], True),
        (Operation.CREATE, [Fate.GARBLED], True),
        (Operation.DELETE, [Fate.FAILED], True),
        (Operation.STOP, [Fate.UNAVAILABLE, Fate.REFUSED], True),
        (Operation.UPDATE, [Fate.UNKNOWN, Fate.NOT_SENT], True),
        (Operation.CREATE, [Fate.NOT_SENT, Fate.THROTTLED], False),
        (Operation.CREATE, [Fate.REDIRECTED], False),
        (Operation.CREATE, [Fate.UNAVAILABLE_UNTIL], True),
        (Operation.CREATE, [Fate.HELD_BACK, Fate.HELD_BACK], False),
        (Operation.STOP, [Fate.REFUSED], False),
        (Operation.GET, [Fate.UNKNOWN], False),
    ],
)
def test_a_write_may_have_happened_if_any_attempt_left_that_open(
    operation: Operation, fates: list[Fate], unknown: bool
) -> None:
    assert retrying.outcome_is_unknown(operation, fates) == unknown


@pytest.mark.fault("H3")
@given(st.integers(1, 10_000), chances, st.none() | st.floats(0, 1e9))
def test_a_wait_is_within_its_bounds(retry: int, chance: float, asked: float | None) -> None:
    settings: Any = vizwatch.Settings()
    wait = retrying.wait_before(retry, settings, chance, asked)
    if asked is not None and asked > settings.retry_after_max:
        assert wait is None
    else:
        assert wait is not None
        assert (asked or 0.0) <= wait <= (asked or 0.0) + min(20.0, 0.5 * 2.0 ** min(retry - 1, 60))
