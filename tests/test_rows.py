"""The columns of a page: what a poller reads of each row, and each whole job when it asks for it."""

from __future__ import annotations

import json
import tracemalloc
from array import array
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_codec import BAD_ROWS, MINIMAL, anything, envelopes, texts, wild_rows

from vizwatch import DecodeError, Job, JobPage
from vizwatch._rules import codec
from vizwatch._values.exchange import Failure
from vizwatch._values.rows import NO_DURATION, Rows, compact


def read(document: object) -> Rows:
    rows = codec.decode_rows(json.dumps(document).encode())
    assert isinstance(rows, Rows)
    return rows


def page_of(document: object) -> JobPage:
    page = codec.decode_page(json.dumps(document).encode(), 1, skips_bad_rows=True)
    assert isinstance(page, JobPage)
    return page


def jobs_of(rows: Rows) -> list[Job]:
    jobs = [rows.job(index) for index in range(len(rows))]
    at_once = rows.jobs()
    assert at_once is None or list(at_once) == jobs
    return jobs


def assert_alike(rows: Rows, page: JobPage) -> None:
    assert jobs_of(rows) == list(page.jobs)
    assert [job.extra for job in jobs_of(rows)] == [job.extra for job in page.jobs]
    assert rows.ids == array("q", [job.job_id for job in page.jobs])
    assert rows.statuses == array("q", [job.status for job in page.jobs])
    durations = [NO_DURATION if job.duration is None else job.duration for job in page.jobs]
    assert rows.durations == array("q", durations)
    assert (rows.job_total_count, rows.skipped) == (page.job_total_count, page.skipped)


spaces = st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n\t", " :\n")])


@given(envelopes, spaces)
def test_documented_pages_have_the_same_rows_and_jobs(document: Any, separators: tuple[str, str]) -> None:
    body = json.dumps(document, separators=separators).encode()
    page, rows = codec.decode_page(body, 1), codec.decode_rows(body)
    assert isinstance(page, JobPage)
    assert isinstance(rows, Rows)
    assert rows.jobs() == page.jobs
    assert_alike(rows, page)


DIALECT_ROWS: list[dict[str, Any]] = [
    MINIMAL,
    {**MINIMAL, "job_id": "198", "duration": "0"},
    {**MINIMAL, "status": "8"},
    {**MINIMAL, "duration": 7.0},
    {**MINIMAL, "duration": None, "more": [{"job_id": 5}, "}, {]"]},
    {**MINIMAL, "create_time": "1", "job_name": "}],[{"},
    {**MINIMAL, "schedule": {"type": "stop", "time_unit": "HOURS", "duration": "1"}},
]


@given(
    st.lists(st.sampled_from([*DIALECT_ROWS, *BAD_ROWS, "{", "}, {", []]), max_size=9),
    st.dictionaries(st.sampled_from(["more", "error_code"]), texts),
    spaces,
)
def test_pages_of_every_dialect_have_the_same_rows_and_jobs(
    some: list[Any], beside: dict[str, Any], separators: tuple[str, str]
) -> None:
    """However a bad row is found: as the columns are read, or as its job is asked for."""
    body = json.dumps({**beside, "jobs": some}, separators=separators).encode()
    page, rows = codec.decode_page(body, 1, skips_bad_rows=True), codec.decode_rows(body)
    assert isinstance(page, JobPage)
    assert isinstance(rows, Rows)
    good = [index for index in range(len(rows)) if is_job(rows, index)]
    assert len(rows) - len(good) + rows.skipped == page.skipped
    assert_alike(rows.only(good), attrs.evolve(page, skipped=rows.skipped))


def is_job(rows: Rows, index: int) -> bool:
    try:
        rows.job(index)
    except DecodeError:
        return False
    return True


@given(
    st.lists(wild_rows | st.sampled_from(DIALECT_ROWS), max_size=3),
    st.dictionaries(
        st.sampled_from(["is_success", "error_code", "job_total_count", "quotas", "job_count_limit", "jobs"]),
        anything,
    ),
)
def test_any_page_has_the_same_rows_failure_or_error(some: list[Any], beside: dict[str, Any]) -> None:
    body = json.dumps({"jobs": some, **beside}).encode()
    try:
        page = codec.decode_page(body, 1, skips_bad_rows=True)
    except DecodeError as error:
        with pytest.raises(DecodeError) as caught:
            codec.decode_rows(body)
        assert str(caught.value) == str(error)
        return
    rows = codec.decode_rows(body)
    if isinstance(page, Failure):
        assert rows == page
        return
    assert isinstance(rows, Rows)
    assert [rows.job(index) for index in range(len(rows)) if is_job(rows, index)] == list(page.jobs)


@pytest.mark.parametrize(
    "document", [{"jobs": None}, {"jobs": []}, {"jobs": [], "is_success": True, "job_total_count": "7"}]
)
def test_a_page_without_rows_is_empty(document: object) -> None:
    assert_alike(read(document), page_of(document))


@pytest.mark.fault("S1")
@pytest.mark.parametrize("jobs", [{}, {"jobs": None}, {"jobs": [MINIMAL]}], ids=["none", "null", "some"])
def test_a_failure_is_the_same_failure(jobs: dict[str, Any]) -> None:
    body = json.dumps({**jobs, "is_success": False, "error_code": "ModelArts.0104"}).encode()
    assert codec.decode_rows(body) == codec.decode_page(body, 1) == Failure("ModelArts.0104")


@pytest.mark.fault("J14")
def test_bad_rows_are_left_out_and_counted() -> None:
    document = {"jobs": [3, MINIMAL, {**MINIMAL, "duration": "long"}, {**MINIMAL, "job_id": 5}]}
    rows = read(document)
    assert rows.skipped == 2
    assert_alike(rows, page_of(document))


@pytest.mark.fault("J14")
def test_a_row_that_is_wrong_elsewhere_is_refused_with_its_place_when_it_is_asked_for() -> None:
    rows = read({"jobs": [MINIMAL, {**MINIMAL, "job_name": 3}]})
    assert len(rows) == 2
    for some, index in ((rows, 1), (rows.only([1]), 0), (rows.only([1]), 0)):
        with pytest.raises(DecodeError) as caught:
            some.job(index)
        assert caught.value.path == "$.jobs[1].job_name"


def test_a_row_of_bytes_that_are_no_text_is_refused_with_its_place() -> None:
    rows = codec.decode_rows(b'{"jobs":[{"job_id":1,"status":8,"job_name":"\xff"}]}')
    assert isinstance(rows, Rows)
    with pytest.raises(DecodeError) as caught:
        rows.job(0)
    assert caught.value.path.startswith("$.jobs[0]")


@pytest.mark.parametrize("number", [2**63, -(2**63), 2**64])
@pytest.mark.parametrize("field", ["job_id", "status", "duration"])
def test_numbers_have_the_limits_of_a_job(field: str, number: int) -> None:
    document = {"jobs": [{**MINIMAL, field: number}, {**MINIMAL, field: 2**63 - 1}]}
    rows = read(document)
    assert (len(rows), rows.skipped) == (1, 1)
    assert getattr(rows.job(0), field) == 2**63 - 1


@pytest.mark.parametrize("status", [0, 8, 22, 99, -1, 2**40])
def test_a_status_is_known_or_not(status: int) -> None:
    rows = read({"jobs": [{**MINIMAL, "status": status}]})
    assert list(rows.statuses) == [status]
    assert rows.job(0).status == status


def width(values: list[int]) -> int:
    if all(-(2**7) <= value < 2**7 for value in values):
        return 1
    return 4 if all(-(2**31) <= value < 2**31 for value in values) else 8


edges = st.sampled_from([edge + near for edge in (-(2**31), -(2**7), 2**7, 2**31) for near in (-1, 0, 1)])
numbers = edges | st.integers(-(2**7), 2**7) | st.integers(-(2**31), 2**31) | st.integers(-(2**63), 2**63 - 1)


@given(st.lists(numbers))
@example([-(2**7), 2**7 - 1])
@example([-(2**31), 2**31 - 1])
@example([-(2**63), 2**63 - 1])
def test_a_column_has_its_values_in_the_fewest_bytes(values: list[int]) -> None:
    column = compact(values)
    assert list(column) == values
    assert column.itemsize == width(values)


longs = numbers.filter(lambda number: number > -(2**63))


@given(st.lists(st.tuples(longs.filter(lambda number: number >= 0), longs, st.none() | longs)))
def test_the_columns_of_a_page_have_its_values_in_the_fewest_bytes(
    some: list[tuple[int, int, int | None]],
) -> None:
    jobs = [{"job_id": job_id, "status": status, "duration": duration} for job_id, status, duration in some]
    rows = read({"jobs": jobs})
    expected = (
        [job_id for job_id, _, _ in some],
        [status for _, status, _ in some],
        [NO_DURATION if duration is None else duration for _, _, duration in some],
    )
    for column, values in zip((rows.ids, rows.statuses, rows.durations), expected, strict=True):
        assert list(column) == values
        assert column.itemsize == width(values)
    assert [rows.job(index).duration for index in range(len(rows))] == [duration for *_, duration in some]


@pytest.mark.parametrize(
    ("job_id", "duration", "widths"),
    [
        (2**31 - 1, None, (4, 1, 4)),
        (2**31 - 1, 2**31 - 1, (4, 1, 4)),
        (2**31, None, (8, 1, 4)),
        (2**31 - 1, 2**31, (4, 1, 8)),
        (2**63 - 1, 2**63 - 1, (8, 1, 8)),
    ],
)
def test_one_great_number_widens_its_column_alone(
    job_id: int, duration: int | None, widths: tuple[int, int, int]
) -> None:
    rows = read({"jobs": [{**MINIMAL, "duration": 500}, {**MINIMAL, "job_id": job_id, "duration": duration}]})
    assert (rows.ids.itemsize, rows.statuses.itemsize, rows.durations.itemsize) == widths


@given(st.lists(st.sampled_from(DIALECT_ROWS), min_size=1), st.data())
def test_a_part_has_the_same_columns_and_jobs(some: list[Any], data: st.DataObject) -> None:
    rows = read({"jobs": some, "job_total_count": 9})
    indices = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    part = rows.only(indices)
    assert jobs_of(part) == [rows.job(index) for index in indices]
    assert [*zip(part.ids, part.statuses, part.durations, strict=True)] == [
        (rows.ids[index], rows.statuses[index], rows.durations[index]) for index in indices
    ]
    assert (part.job_total_count, part.skipped) == (9, rows.skipped)


def test_a_part_does_not_keep_the_rest() -> None:
    tracemalloc.start()
    try:
        rows = read({"jobs": [{**MINIMAL, "job_desc": "x" * 1000} for _ in range(1000)]})
        part = rows.only([5, 995])
        del rows
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10_000
    assert [job.job_desc for job in jobs_of(part)] == ["x" * 1000] * 2


def test_a_page_holds_its_bytes_and_eighteen_a_row() -> None:
    """Nine for its columns, and as many for where it begins."""
    body = json.dumps({"jobs": [{**MINIMAL, "job_id": 10**9 + number} for number in range(1000)]}).encode()
    codec.decode_rows(body)
    tracemalloc.start()
    try:
        rows = codec.decode_rows(body)
        assert isinstance(rows, Rows)
        assert rows.job(999).job_id == 10**9 + 999
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < len(body) + 1000 * 18 + 4096
