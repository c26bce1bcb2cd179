"""Decoding: tolerant where the documents disagree, strict where an error would be hidden."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vizwatch import DecodeError, Job, JobPage, Schedule
from vizwatch._rules import codec
from vizwatch._values.exchange import Failure
from vizwatch._values.rows import Rows

MINIMAL = {"job_id": 197, "status": 8}


def decoded(**fields: Any) -> Job:
    job = codec.decode_job(json.dumps({**MINIMAL, **fields}).encode())
    assert isinstance(job, Job)
    return job


def refused(body: bytes | dict[str, Any]) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        codec.decode_job(body if isinstance(body, bytes) else json.dumps(body).encode())
    return caught.value


@pytest.mark.fault("J8")
@pytest.mark.parametrize("job_id", [0, 197, "197", 2**63 - 1])
def test_job_id_is_a_number_or_its_digits(job_id: object) -> None:
    assert decoded(job_id=job_id).job_id == int(str(job_id))


@pytest.mark.fault("J8")
@pytest.mark.parametrize(
    "job_id", [197.0, 2**63, -1, True, None, "", "1e3", "+1", "-1", "१", [], {}, "9" * 30]
)
def test_other_job_ids_are_refused_with_their_place(job_id: object) -> None:
    assert refused({"job_id": job_id, "status": 8}).path == "$.job_id"


@pytest.mark.fault("J9")
@pytest.mark.parametrize(
    ("status", "code"), [(8, 8), ("8", 8), (8.0, 8), (99, 99), (-1, -1), ("22", 22), (2**40, 2**40)]
)
def test_status_is_a_number_in_any_form_known_or_not(status: object, code: int) -> None:
    job = decoded(status=status)
    assert int(job.status) == code
    assert job.status.is_known == (code in {8, 22})


@pytest.mark.fault("J9")
@pytest.mark.parametrize("status", [None, True, "", "running", 8.5, [], {}, 2**64])
def test_other_statuses_are_refused_with_their_place(status: object) -> None:
    assert refused({"job_id": 197, "status": status}).path == "$.status"


@pytest.mark.fault("J9")
@pytest.mark.parametrize("field", ["job_id", "status"])
def test_identity_and_status_are_never_made_up(field: str) -> None:
    error = refused({name: value for name, value in MINIMAL.items() if name != field})
    assert error.path == f"$.{field}"
    assert "missing" in str(error)


OPTIONAL = [
    "job_name",
    "create_time",
    "duration",
    "job_desc",
    "job_type",
    "service_url",
    "train_url",
    "resource_id",
    "remaining_duration",
]


@pytest.mark.fault("J13")
@pytest.mark.parametrize("field", OPTIONAL)
@pytest.mark.parametrize("fields", [{}, {"create_time": "1"}], ids=["fast", "tolerant"])
def test_null_is_none_and_never_text(field: str, fields: dict[str, Any]) -> None:
    assert getattr(decoded(**{**fields, field: None}), field) is None


@pytest.mark.parametrize(
    "field", ["job_name", "job_desc", "service_url", "train_url", "resource_id", "job_type"]
)
@pytest.mark.parametrize("value", [1, True, [], {"a": 1}])
def test_text_is_text(field: str, value: object) -> None:
    assert refused({**MINIMAL, field: value}).path == f"$.{field}"


@pytest.mark.fault("J6")
@pytest.mark.parametrize("field", ["duration", "create_time", "remaining_duration"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "1.5", '"x"', "true", "[1]"])
def test_times_are_whole_numbers(field: str, value: str) -> None:
    refused(f'{{"job_id":197,"status":8,"{field}":{value}}}'.encode())


@pytest.mark.fault("J15")
@pytest.mark.parametrize(
    ("create_time", "is_known"),
    [
        (1565149736000, True),
        (1565149736, False),
        (15099239923, False),
        (0, False),
        (-1, False),
        (253402300800000, False),
        (2**62, False),
    ],
)
def test_create_time_is_kept_and_dated_only_if_it_can_be_milliseconds(
    create_time: int, is_known: bool
) -> None:
    job = decoded(create_time=create_time)
    assert job.create_time == create_time
    assert (job.created_at is not None) == is_known


@pytest.mark.parametrize(
    "schedule",
    [
        [{"type": "stop", "timeUnit": "HOURS", "duration": 1}],
        [{"type": "stop", "time_unit": "HOURS", "duration": "1"}],
        {"type": "stop", "timeUnit": "HOURS", "duration": 1},
    ],
    ids=["China sample", "request", "table"],
)
def test_schedule_is_read_in_every_form(schedule: object) -> None:
    assert decoded(schedule=schedule).schedule == (Schedule("stop", "HOURS", 1),)


@pytest.mark.parametrize("schedule", [None, []])
def test_no_schedule_is_an_empty_one(schedule: object) -> None:
    assert decoded(schedule=schedule).schedule == ()


@pytest.mark.parametrize("schedule", ["stop", [1], [{"duration": []}], [{"type": 1}]])
def test_a_broken_schedule_is_refused_with_its_place(schedule: object) -> None:
    assert refused({**MINIMAL, "schedule": schedule}).path == "$.schedule"


@pytest.mark.parametrize("more", [{}, {"new": 1}])
def test_a_status_that_is_no_long_is_refused_on_both_ways(more: dict[str, int]) -> None:
    row = {**MINIMAL, "status": 2**64 - 1, **more}
    assert refused(row).path == "$.status"
    with pytest.raises(DecodeError) as caught:
        codec.decode_page(json.dumps({"jobs": [row]}).encode(), 1)
    assert caught.value.path == "$.jobs[0].status"


def weight(decode: Callable[[], object]) -> int:
    """What Python held at most, in bytes."""
    tracemalloc.start()
    try:
        with contextlib.suppress(DecodeError):
            decode()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("row", [b"[]", b"{}", b"1", b'{"job_id":1,"status":8}', b'[[],"ab"]'])
@pytest.mark.parametrize("size", [20_000, 520_000, 8_000_000])
def test_what_decompresses_to_many_rows_weighs_little(row: bytes, size: int) -> None:
    body = b'{"jobs":[' + b",".join([row] * (size // (len(row) + 1))) + b"]}"
    for decode in (
        lambda: codec.decode_page(body, 1),
        lambda: codec.decode_page(body, 1, skips_bad_rows=True),
        lambda: codec.decode_rows(body),
    ):
        assert weight(decode) < 16 * 2**20


def test_rows_that_are_none_are_not_looked_at_one_by_one_for_long() -> None:
    body = b'{"jobs":[' + b"1," * 60_000 + b"1]}"
    with pytest.raises(DecodeError, match="more than 50,000 rows are no page of jobs") as caught:
        codec.decode_page(body, 1, skips_bad_rows=True)
    assert caught.value.path == "$.jobs"


def test_what_nobody_documented_weighs_no_more_than_a_job_may() -> None:
    assert decoded(more="x" * 60_000).extra == {"more": "x" * 60_000}
    many = {**MINIMAL, "more": [[]] * 40_000}
    assert "fields that nobody documented have more than 65,536 bytes" in str(refused(many))
    huge = json.dumps({**MINIMAL, "more": [[]] * 1_000_000}).encode()
    assert weight(lambda: codec.decode_job(huge)) < 16 * 2**20


@pytest.mark.fault("J13")
def test_unknown_fields_survive() -> None:
    job = decoded(flavor={"code": "x"}, extra=1, error_code=None)
    assert job.extra == {"flavor": {"code": "x"}, "extra": 1}


@pytest.mark.fault("H9", "J12")
@pytest.mark.parametrize(
    "body", [b"", b" \n", b"[]", b'"x"', b"null", b"7", b"{", b"\xff", b"<html>", b'{"a":"\xff"}']
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    refused(body)


@pytest.mark.fault("J4", "J5")
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"job_id":' + b"1" * 5000 + b',"status":8}',
        b'{"a":' + b"9" * 5000 + b"}",
    ],
    ids=["deep array", "deep object", "long id", "long number"],
)
def test_hostile_json_is_refused_in_a_short_text(body: bytes) -> None:
    assert len(str(refused(body))) < 500


HALVES = ["\\ud800", "\\udfff", "\\ud800x", "\\uD83D\\ud83d\\ude00", "\\\\\\ud800"]


@pytest.mark.parametrize("text", HALVES)
def test_half_a_character_in_one_jobs_text_leaves_the_others_readable(text: str) -> None:
    body = b'{"jobs": [%s, {"job_id": 2, "status": 8}]}' % (
        b'{"job_id": 1, "status": 8, "job_name": "%s", "schedule": []}' % text.encode()
    )
    page, rows = codec.decode_page(body, 1), codec.decode_rows(body)
    assert isinstance(page, JobPage)
    assert isinstance(rows, Rows)
    assert [job.job_id for job in page.jobs] == [rows.job(row).job_id for row in range(2)] == [1, 2]
    assert rows.job(0) == page.jobs[0]
    assert "\ufffd" in (page.jobs[0].job_name or "")
    (page.jobs[0].job_name or "").encode()


@given(st.text())
def test_a_text_that_is_whole_is_not_mended(text: str) -> None:
    """Escaped or not, with whatever looks like half a character and is none."""
    for is_ascii in (False, True):
        encoded = json.dumps({"job_id": 1, "status": 8, "job_name": text}, ensure_ascii=is_ascii)
        job = codec.decode_job(
            encoded.encode("utf-8", "surrogatepass").replace(b'"status": 8', b'"status": "8"')
        )
        assert isinstance(job, Job)
        assert job.job_name == text


@pytest.mark.fault("J16")
@pytest.mark.parametrize("value", ["false", 0, 1, None, []])
def test_is_success_is_a_boolean(value: object) -> None:
    assert refused({**MINIMAL, "is_success": value}).path == "$.is_success"


@pytest.mark.fault("S3")
def test_a_progress_code_beside_success_is_no_failure() -> None:
    assert decoded(is_success=True, error_code="ModelArts.0001") == decoded()


@pytest.mark.fault("S3")
def test_an_error_code_beside_a_payload_is_no_failure_either() -> None:
    assert decoded(error_code="ModelArts.0001") == decoded()


# --- pages ----------------------------------------------------------------------------------------------


def decode_page(document: Any, *, skips_bad_rows: bool = False) -> JobPage | Failure:
    return codec.decode_page(json.dumps(document).encode(), page=3, skips_bad_rows=skips_bad_rows)


@pytest.mark.fault("J14")
def test_jobs_null_is_an_empty_page() -> None:
    assert decode_page({"jobs": None}) == JobPage((), 3)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({}, "$.jobs"),
        ({"jobs": {}}, "$.jobs"),
        ({"jobs": "x"}, "$.jobs"),
        ({"jobs": [3]}, "$.jobs[0]"),
        ({"jobs": [MINIMAL, {"job_id": 1}]}, "$.jobs[1].status"),
        ({"jobs": [MINIMAL, {**MINIMAL, "schedule": [5]}]}, "$.jobs[1].schedule"),
        ({"jobs": [], "quotas": "many"}, "$.quotas"),
    ],
)
def test_a_bad_page_is_refused_with_the_place(document: object, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_page(document)
    assert caught.value.path == path


BAD_ROWS = [
    3,
    None,
    {},
    {"job_id": 1},
    {"job_id": True, "status": 8},
    {**MINIMAL, "schedule": [5]},
    {**MINIMAL, "duration": "long"},
]


@pytest.mark.fault("J14")
@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_bad_row_among_a_hundred_is_refused_or_left_out_and_counted(bad: object) -> None:
    good = [{**MINIMAL, "job_id": number, "more": number} for number in range(99)]
    document = {"jobs": [*good[:7], bad, *good[7:]], "job_total_count": "100"}
    with pytest.raises(DecodeError, match=r"- at \$\.jobs\[7\]"):
        decode_page(document)
    page = decode_page(document, skips_bad_rows=True)
    assert isinstance(page, JobPage)
    assert [job.job_id for job in page.jobs] == list(range(99))
    assert [job.extra for job in page.jobs] == [{"more": number} for number in range(99)]
    assert (page.skipped, page.job_total_count, page.page) == (1, 100, 3)


@pytest.mark.fault("J14")
@pytest.mark.parametrize("document", [{}, {"jobs": {}}, {"jobs": [MINIMAL], "quotas": "many"}, [], "x"])
def test_what_is_wrong_beside_the_rows_is_refused_also_where_bad_rows_are_left_out(document: object) -> None:
    with pytest.raises(DecodeError):
        decode_page(document, skips_bad_rows=True)


@given(st.lists(st.sampled_from([*BAD_ROWS, MINIMAL, {**MINIMAL, "status": "8"}]), max_size=9))
def test_every_row_is_given_or_counted(rows: list[Any]) -> None:
    page = decode_page({"jobs": rows}, skips_bad_rows=True)
    assert isinstance(page, JobPage)
    assert page.skipped == sum(row in BAD_ROWS for row in rows)
    assert len(page.jobs) == len(rows) - page.skipped
    assert decode_page({"jobs": None}, skips_bad_rows=True) == JobPage((), 3)


def test_numbers_of_an_envelope_may_be_strings_or_missing() -> None:
    page = decode_page({"jobs": [], "job_total_count": "7", "job_count_limit": -1})
    assert page == JobPage((), 3, job_total_count=7, job_count_limit=-1, quotas=None)


# --- both ways give the same ----------------------------------------------------------------------------

texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
whole = st.none() | st.integers(-(2**63) + 1, 2**63 - 1)
schedules = st.none() | st.lists(
    st.fixed_dictionaries(
        {}, optional={"type": texts, "timeUnit": texts, "duration": st.none() | st.integers(0, 24)}
    ),
    max_size=2,
)
rows = st.fixed_dictionaries(
    {"job_id": st.integers(0, 2**63 - 1), "status": st.integers(-5, 60)},
    optional={
        **dict.fromkeys(
            ("job_name", "job_desc", "job_type", "service_url", "train_url", "resource_id"), texts
        ),
        **dict.fromkeys(("create_time", "duration", "remaining_duration"), whole),
        "schedule": schedules,
    },
)
envelopes = st.fixed_dictionaries(
    {"jobs": st.lists(rows, max_size=4)},
    optional={
        "is_success": st.just(value=True),
        "job_total_count": whole,
        "job_count_limit": whole,
        "quotas": whole,
    },
)


@given(envelopes)
def test_documented_pages_decode_alike_on_both_ways(document: dict[str, Any]) -> None:
    """The fast way takes every documented page, and the tolerant way gives the same values."""
    body = json.dumps(document).encode()
    fast = codec.decode_page(body, 1)
    assert codec._PAGE.decode(body) is not None  # the fast way did take it
    assert fast == codec._tolerant_page(codec._document(body), 1)
    assert isinstance(fast, JobPage)
    assert [job.job_id for job in fast.jobs] == [row["job_id"] for row in document["jobs"]]


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
wild_rows = st.dictionaries(
    st.sampled_from([*OPTIONAL, "job_id", "status", "schedule", "is_success", "error_code", "more"]), anything
)


@given(wild_rows, st.booleans())
def test_any_json_gives_a_job_a_failure_or_a_decode_error(row: dict[str, Any], complete: bool) -> None:
    """Nothing else escapes, and where the fast way takes a body the tolerant one agrees."""
    body = json.dumps({**row, **MINIMAL} if complete else row).encode()
    try:
        fast = codec.decode_job(body)
    except DecodeError as error:
        assert error.path.startswith("$")
        return
    document = codec._document(body)
    tolerant = codec._failure_in(document, payload="job_id") or codec._structured(document, Job, "$")
    assert fast == tolerant
    if isinstance(fast, Job):
        assert fast.extra == getattr(tolerant, "extra", None)
        assert hash(fast) == hash(tolerant)


@pytest.mark.fault("J12")
@given(st.binary(max_size=200))
def test_any_bytes_give_a_decode_error_or_a_value(body: bytes) -> None:
    for decode in (codec.decode_job, codec.decode_done, lambda body: codec.decode_page(body, 1)):
        with contextlib.suppress(DecodeError):
            decode(body)
    assert isinstance(codec.decode_failure(body), Failure)


# --- failures -------------------------------------------------------------------------------------------


@pytest.mark.fault("S2")
@pytest.mark.parametrize("text", ["error_message", "error_msg", "errorMsg", "message"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_failures_text_is_found_under_every_name(text: str, nested: bool) -> None:
    said = {text: "what happened", "error_code": "ModelArts.0104", "request_id": "r"}
    body = json.dumps({"error": said} if nested else said).encode()
    assert codec.decode_failure(body) == Failure("ModelArts.0104", "what happened", "r")


def test_a_failure_that_is_no_json_is_its_own_text() -> None:
    assert codec.decode_failure(b"upstream \xff gone") == Failure(message="upstream \ufffd gone")


@pytest.mark.fault("H9")
@pytest.mark.parametrize("body", [b"", b"  ", b"{}", b'{"is_success": true}'])
def test_a_write_that_answers_nothing_has_succeeded(body: bytes) -> None:
    assert codec.decode_done(body) is None


@pytest.mark.parametrize("body", [b'{"is_success": false}', b'{"error_code": "ModelArts.0105"}'])
def test_a_write_that_states_a_failure_has_failed(body: bytes) -> None:
    assert isinstance(codec.decode_done(body), Failure)
