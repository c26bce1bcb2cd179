"""What one reading of a listing shows to be different from the one before it, beside a plain dictionary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vizwatch._rules import codec
from vizwatch._rules.census import Census
from vizwatch._values.rows import NO_DURATION, Rows, Sighting

Row = tuple[int, int, int | None]
"""Id, status and duration."""


def page_of(rows: Sequence[Row], at: float = 0.0) -> Sighting:
    jobs = [{"job_id": job_id, "status": status, "duration": duration} for job_id, status, duration in rows]
    decoded = codec.decode_rows(json.dumps({"jobs": jobs}).encode())
    assert isinstance(decoded, Rows)
    return Sighting(decoded, at, at)


def state(page: Sighting, row: int) -> Row:
    rows = page.rows
    duration = rows.durations[row]
    return rows.ids[row], rows.statuses[row], None if duration == NO_DURATION else duration


def steps_back(before: int | None, after: int | None) -> bool:
    return (NO_DURATION if after is None else after) < (NO_DURATION if before is None else before)


IDS = (0, 1, 2, 3, 127, 128, 2**31 - 1, 2**31, 2**40)
DURATIONS = (None, 0, 1, 127, 128, 2**31 - 1, 2**31, 2**40)
"""Of every width that a column has."""

rows = st.tuples(st.sampled_from(IDS), st.integers(7, 9), st.sampled_from(DURATIONS))
wild = st.lists(st.lists(rows, max_size=4), max_size=4)


@st.composite
def orderly(draw: st.DrawFn) -> list[list[Row]]:
    """A listing by id, in pages of three, as a service gives it that keeps to its documents."""
    jobs = {job_id: (job_id, status, duration) for job_id, status, duration in draw(st.lists(rows))}
    ascending = [jobs[job_id] for job_id in sorted(jobs)]
    return [ascending[at : at + 3] for at in range(0, len(ascending), 3)]


forgets = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), max_size=3)
readings = st.lists(st.tuples(wild | orderly(), st.booleans(), forgets), max_size=6)
"""The pages of each reading, whether what it lacks is still held for true, and what is forgotten before which
of its pages, or at its end."""


@given(readings)
def test_each_row_is_told_to_be_new_changed_or_as_it_was(
    readings: list[tuple[list[list[Row]], bool, list[tuple[int, int]]]],
) -> None:
    census = Census()
    known: dict[int, Row] = {}
    for pages, keeps_rest, forgets in readings:
        before, shown, seen = dict(known), dict[int, Row](), set[int]()
        for number, page in enumerate([*pages, None]):
            for job_id in [job_id for at, job_id in forgets if at == number]:
                census.forget(job_id)
                (shown if job_id in shown else before).pop(job_id, None)
            if page is None:
                break
            news = census.take(page_of(page, number))
            first = {row[0]: row for row in reversed(page) if row[0] not in seen}
            new = {job_id for job_id in first if job_id not in before}
            changed = {
                job_id
                for job_id, (_, status, duration) in first.items()
                if job_id in before
                and (status != before[job_id][1] or steps_back(before[job_id][2], duration))
            }
            assert {state(news.sighting, row) for row in news.new} == {first[job_id] for job_id in new}
            assert {news.sighting.rows.ids[row] for row, *_ in news.changed} == changed
            for row, page_before, row_before in news.changed:
                assert state(page_before, row_before) == before[news.sighting.rows.ids[row]]
            shown |= first
            seen |= first.keys()
        rest = census.rest()
        lacking = {job_id: row for job_id, row in before.items() if job_id not in seen}
        assert {state(page, row) for page in rest for row in range(len(page.rows))} == set(lacking.values())
        census.close(rest if keeps_rest else ())
        known = shown | (lacking if keeps_rest else {})
        assert census.size == len(known)
        for job_id in IDS:
            place = census.find(job_id)
            assert (None if place is None else state(*place)) == known.get(job_id)


@pytest.mark.parametrize("after", DURATIONS)
@pytest.mark.parametrize("before", DURATIONS)
def test_durations_of_any_two_widths_compare_as_numbers(before: int | None, after: int | None) -> None:
    """A job without a duration is the same job whatever the others of its page have."""
    census = Census()
    census.take(page_of([(1, 8, None), (2, 8, before)]))
    census.close()
    news = census.take(page_of([(1, 8, None), (2, 8, after)]))
    assert census._moved is None
    assert [row for row, *_ in news.changed] == ([1] if steps_back(before, after) else [])


def test_the_same_ids_of_two_widths_are_the_same_jobs() -> None:
    """What is left of a page keeps its width, also where the job that needed it came twice."""
    census = Census()
    for page in ([(2**40, 8, 1)], [(2**40, 8, 1), (3, 8, 1)]):
        census.take(page_of(page))
    census.close()
    for page in ([(2**40, 8, 1)], [(3, 9, 1)]):
        news = census.take(page_of(page))
    assert census._moved is None
    assert (len(news.new), [row for row, *_ in news.changed]) == (0, [0])


def test_where_nothing_changes_nothing_is_made_for_a_row() -> None:
    census = Census()
    jobs: list[Any] = [(job_id, 8, 1) for job_id in range(1000)]
    assert len(census.take(page_of(jobs)).new) == 1000
    census.close()
    news = census.take(page_of([(job_id, 8, 2) for job_id in range(1000)]))
    assert (len(news.new), len(news.changed)) == (0, 0)
    assert census._moved is None


def test_the_pages_of_a_reading_take_the_place_of_those_before() -> None:
    """A listing of a million jobs is held once and not twice."""
    census = Census()
    pages = [[(number * 10 + row, 8, None) for row in range(10)] for number in range(5)]
    for _ in range(2):
        for number, page in enumerate(pages):
            census.take(page_of(page))
            assert len(census._pages) in {5, number + 1}
        census.close()
    assert census.size == 50
