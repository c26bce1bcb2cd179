"""Bytes to values: strictly and fast where an answer is as documented, tolerantly and with a path where not.

A page is decoded by msgspec into jobs, out of rows of exactly the documented types. Whatever it refuses -
numbers as strings, fields nobody documented, a failure, plain garbage - is decoded again by cattrs, which
tolerates what the documents disagree on and names the place of what it cannot take.
Both ways give the same values.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import itertools
import re
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

import attrs
import msgspec

from vizwatch._values.errors import ConfigError, DecodeError
from vizwatch._values.exchange import Answer, Failure, Token
from vizwatch._values.models import Job, JobPage, Schedule, Schedules
from vizwatch._values.rows import NO_DURATION, Rows, compact
from vizwatch._values.secrets import hidden, secret
from vizwatch._values.statuses import JobStatus
from vizwatch._values.structs import LONG_MAX, JobId, Long
from vizwatch._values.text import printable

if TYPE_CHECKING:
    import cattrs

T = TypeVar("T")

_SHORT_LIFE: Final = 3600.0
_HARMLESS: Final = 2**19
"""How many bytes any answer may have, whatever they are."""
_MOST_VALUES: Final = 150_000
"""How many values a larger one may have, about ten times what a page of a thousand jobs has."""
_MOST_ROWS: Final = 50_000
"""As many rows as these can be jobs; a row that is none costs more time."""
_MOST_EXTRA: Final = 2**16
"""How many bytes of JSON a job's fields may have that nobody documented: each watch holds a job."""


def decode_page(body: bytes, page: int, *, skips_bad_rows: bool = False) -> JobPage | Failure:
    """The list envelope. Raises :class:`DecodeError` with the path of what is wrong.

    With `skips_bad_rows` a row that is no job is left out and counted, and only the rest must be right.
    """
    _check_bounds(body)
    try:
        envelope = _PAGE.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        envelope = None
    if envelope is None or not envelope.is_success:
        return _tolerant_page(_document(body), page, skips_bad_rows=skips_bad_rows)
    return JobPage(
        envelope.jobs,
        page,
        envelope.job_total_count,
        envelope.job_count_limit,
        envelope.quotas,
    )


def decode_rows(body: bytes) -> Rows | Failure:
    """The list envelope, of whose rows only identity, status and duration are read until a job is asked for.

    A row without them is left out and counted. Raises :class:`DecodeError` as :func:`decode_page` does.
    """
    _check_bounds(body)
    try:
        envelope = _ROWS.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        envelope = None
    if envelope is None or not envelope.is_success:
        return _tolerant_rows(body)
    whole_jobs = _WholeJobs(body, range(len(envelope.jobs)))
    return _columns(envelope.jobs, envelope.job_total_count, 0, whole_jobs)


def decode_job(body: bytes) -> Job | Failure:
    """A job at top level, as details and create answer. Raises :class:`DecodeError`."""
    _check_bounds(body)
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        fields = _ANY.decode(body)
        if fields.pop("is_success", True) is True:
            return msgspec.convert(fields, Job, dec_hook=_decode_schedules)
    document = _document(body)
    return _failure_in(document, payload="job_id") or _structured(document, Job, "$")


def decode_done(body: bytes) -> Failure | None:
    """The answer of an operation that gives nothing: an empty body is as good as ``is_success``."""
    if not body.strip():
        return None
    return _failure_in(_document(body), payload=None)


def decode_token(answer: Answer) -> Token | Failure:
    """The answer of the token call: the token in a header, its times in the body."""
    value = hidden(answer.headers.get("X-Subject-Token", ""))
    if not value:
        raise DecodeError("the answer has no header X-Subject-Token")
    about = _document(answer.body).get("token")
    about = about if isinstance(about, dict) else {}
    project = about.get("project")
    project_id = project.get("id") if isinstance(project, dict) else None
    try:
        token = secret("X-Subject-Token", value)
    except ConfigError as error:
        raise DecodeError(str(error)) from None
    return Token(
        token,
        _lifetime(about),
        project_id if isinstance(project_id, str) else None,
    )


def _lifetime(times: dict[str, Any]) -> float:
    """By the server's own two times, so that no clock of ours matters; short where they are missing."""
    try:
        begins, ends = (dt.datetime.fromisoformat(times[name]) for name in ("issued_at", "expires_at"))
        return max((ends - begins).total_seconds(), 0.0)
    except (KeyError, TypeError, ValueError, OverflowError):
        return _SHORT_LIFE


def decode_failure(body: bytes) -> Failure:
    """Whatever can be read of a failed answer's body; never raises."""
    try:
        document = _document(body)
    except DecodeError:
        return Failure(message=body[:2000].decode("utf-8", "replace"))
    return _failure(document)


# --- as documented: msgspec -----------------------------------------------------------------------------


class _Glance(msgspec.Struct, gc=False):
    """What a poller looks at first; the other fields are skipped unread."""

    job_id: JobId
    status: Long
    duration: Long | None = None


class _Page(msgspec.Struct, Generic[T]):
    jobs: tuple[T, ...]
    is_success: bool = True
    job_total_count: int | None = None
    job_count_limit: int | None = None
    quotas: int | None = None


class _RawPage(msgspec.Struct):
    jobs: msgspec.Raw


def _columns(rows: Sequence[_Glance | Job], total: int | None, skipped: int, whole_jobs: _WholeJobs) -> Rows:
    return Rows(
        compact([row.job_id for row in rows]),
        compact([row.status for row in rows]),
        compact([NO_DURATION if row.duration is None else row.duration for row in rows]),
        total,
        skipped,
        whole_jobs,
    )


def _decode_schedules(_type: type, value: object) -> Schedules:
    return Schedules(_schedules(value))


_PAGE: Final = msgspec.json.Decoder(_Page[Job], dec_hook=_decode_schedules)
_ROWS: Final = msgspec.json.Decoder(_Page[_Glance])
_JOB: Final = msgspec.json.Decoder(Job, dec_hook=_decode_schedules)
_JOBS: Final = msgspec.json.Decoder(list[Job], dec_hook=_decode_schedules)
_RAW_PAGE: Final = msgspec.json.Decoder(_RawPage)
_RAW_ROWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ANY: Final = msgspec.json.Decoder(dict[str, Any])


@attrs.define(eq=False)
class _WholeJobs:
    """The jobs of a page, decoded out of its bytes when they are asked for."""

    _text: bytes
    """The answer, until a job is asked for; then the array in it."""
    _places: Sequence[int]
    """Which of the array's rows are jobs."""
    _numbers: Sequence[int] | None = None
    """Which they were in the answer, if these are not all of them."""
    _starts: array[int] | None = None
    """Where each row begins, in a number each: as many views of bytes would weigh a fifth of the answer."""

    def all(self) -> tuple[Job, ...] | None:
        try:
            jobs = _PAGE.decode(self._text).jobs if self._starts is None else _JOBS.decode(self._text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return tuple([jobs[place] for place in self._places])

    def one(self, index: int) -> Job:
        row = self._row(index)
        try:
            return _JOB.decode(row)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            path = f"$.jobs[{self._number(index)}]"
            return _structured(_document(row, path), Job, path)

    def only(self, indices: Sequence[int]) -> _WholeJobs:
        rows = [self._row(index) for index in indices]
        text = b"[" + b",".join(rows) + b"]"
        starts = array("q", itertools.accumulate([len(row) + 1 for row in rows], initial=1))
        numbers = array("q", [self._number(index) for index in indices])
        return _WholeJobs(text, range(len(rows)), numbers, starts)

    def _number(self, index: int) -> int:
        return (self._places if self._numbers is None else self._numbers)[index]

    def _row(self, index: int) -> bytes:
        starts = self._find_starts() if self._starts is None else self._starts
        place = self._places[index]
        return self._text[starts[place] : starts[place + 1]].rstrip(b", \t\r\n]")

    def _find_starts(self) -> array[int]:
        text = bytes(_RAW_PAGE.decode(self._text).jobs)
        starts, end = array("q"), 1
        for raw in _RAW_ROWS.decode(text):
            row = memoryview(raw)
            # Between two rows stand a comma and spaces, none of which begins a row.
            starts.append(text.index(row[0], end))
            end = starts[-1] + len(row)
        starts.append(len(text))
        self._text, self._starts = text, starts
        return starts


# --- whatever else: cattrs ------------------------------------------------------------------------------

_EXACT_FLOAT: Final = 2**53
_HALF: Final = rb"\\u[dD][%s][0-9a-fA-F]{2}"
_ESCAPED: Final = re.compile(rb"(\\\\|%s%s)|%s" % (_HALF % b"89abAB", _HALF % b"c-fC-F", _HALF % b"89a-fA-F"))
"""A backslash, or a character by its two halves; or else a half alone."""
_KNOWN: Final = {field.name for field in attrs.fields(Job)} - {"extra"} | {
    "is_success",
    "error_code",
    "error_message",
    "error_msg",
}


def _mended(body: bytes) -> bytes:
    """The JSON without halves of characters, which one job's text may have, and which no string can hold."""
    return _ESCAPED.sub(lambda found: found[1] or rb"\ufffd", body)


def _check_bounds(body: bytes) -> None:
    """Refuses what has so many values that they weigh many times what it has itself."""
    if len(body) > _HARMLESS and sum(map(body.count, (b"[", b"{", b","))) > _MOST_VALUES:
        raise DecodeError(f"the answer has more than {_MOST_VALUES:,} values, which no page of jobs has")


def _document(body: bytes, path: str = "$") -> dict[str, Any]:
    _check_bounds(body)
    try:
        return _ANY.decode(_mended(body))
    except RecursionError:
        raise DecodeError("the JSON is nested too deeply", path=path) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        reason, _, place = str(error).partition(" - at `$")
        raise DecodeError(
            printable(f"not this API's JSON: {reason}"), path=path + place.rstrip("`")
        ) from None


def _integer(value: object, _type: object = None) -> int:
    """An integer, as itself, as decimal digits in a string, or as a whole float."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_FLOAT:
        value = int(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LONG_MAX:
        _refuse("an integer", value)
    return value


def _job_id(value: object, _type: object = None) -> int:
    if isinstance(value, float) or (number := _integer(value)) < 0:
        _refuse(f"an integer from 0 to {LONG_MAX}", value)
    return number


def _string(value: object, _type: object = None) -> str:
    if not isinstance(value, str):
        _refuse("a string", value)
    return value


def _schedules(value: object, _type: object = None) -> tuple[Schedule, ...]:
    """One schedule or an array of them, with `timeUnit` or `time_unit`: samples and tables differ."""
    if value is None:
        return ()
    rows = value if isinstance(value, list) else [value]
    return tuple([_schedule(row) for row in rows])


def _schedule(row: object) -> Schedule:
    if not isinstance(row, dict):
        _refuse("an object", row)
    kind, unit, duration = row.get("type"), row.get("timeUnit", row.get("time_unit")), row.get("duration")
    return Schedule(
        None if kind is None else _string(kind),
        None if unit is None else _string(unit),
        None if duration is None else _integer(duration),
    )


def _refuse(expected: str, value: object) -> NoReturn:
    shown = printable(repr(value)) if isinstance(value, bool | int | float | str) else type(value).__name__
    raise ValueError(f"expected {expected}, got {shown}")


@functools.cache
def _converter() -> cattrs.Converter:
    import cattrs  # noqa: PLC0415 - slow to import, and not needed while answers are as documented
    from cattrs.gen import make_dict_structure_fn  # noqa: PLC0415 - as above

    converter = cattrs.Converter()
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(str, _string)
    converter.register_structure_hook(JobStatus, lambda value, _type: JobStatus(_integer(value)))
    structure_fields = make_dict_structure_fn(
        Job,
        converter,
        job_id=cattrs.override(struct_hook=_job_id),
        schedule=cattrs.override(struct_hook=_schedules),
        extra=cattrs.override(struct_hook=lambda value, _type: value),
    )
    converter.register_structure_hook(Job, lambda row, _type: structure_fields(_with_extra(row), Job))
    return converter


def _with_extra(row: object) -> dict[str, Any]:
    if not isinstance(row, dict):
        _refuse("an object", row)
    extra = {name: value for name, value in row.items() if name not in _KNOWN}
    if extra and len(msgspec.json.encode(extra)) > _MOST_EXTRA:
        raise ValueError(f"its fields that nobody documented have more than {_MOST_EXTRA:,} bytes")
    return {**row, "extra": extra or None}


@attrs.frozen
class _Envelope:
    job_total_count: int | None = None
    job_count_limit: int | None = None
    quotas: int | None = None


def _tolerant_page(document: dict[str, Any], page: int, *, skips_bad_rows: bool = False) -> JobPage | Failure:
    failure = _failure_in(document, payload="jobs")
    if failure is not None:
        return failure
    if document.get("jobs", ...) is None:
        document = {**document, "jobs": []}
    elif not isinstance(document.get("jobs", []), list):
        raise DecodeError("expected an array", path="$.jobs")
    rows = document.get("jobs")
    if rows is None:
        raise DecodeError("the field is missing", path="$.jobs")
    if len(rows) > _MOST_ROWS:
        raise DecodeError(f"more than {_MOST_ROWS:,} rows are no page of jobs", path="$.jobs")
    envelope = _structured(document, _Envelope, "$")
    # One by one: a converter of all would make an error for each row before it gives the first one.
    jobs = list[Job]()
    for number, row in enumerate(rows):
        try:
            jobs.append(_structured(row, Job, f"$.jobs[{number}]"))
        except DecodeError:
            if not skips_bad_rows:
                raise
    return JobPage(
        tuple(jobs),
        page,
        envelope.job_total_count,
        envelope.job_count_limit,
        envelope.quotas,
        len(rows) - len(jobs),
    )


def _tolerant_rows(body: bytes) -> Rows | Failure:
    body = _mended(body)
    document = _document(body)
    page = _tolerant_page(document, 1, skips_bad_rows=True)
    if isinstance(page, Failure):
        return page
    rows = document["jobs"] or ()
    places = [place for place, row in enumerate(rows) if not page.skipped or _is_job(row)]
    return _columns(page.jobs, page.job_total_count, page.skipped, _WholeJobs(body, array("q", places)))


def _is_job(row: object) -> bool:
    try:
        _structured(row, Job, "$")
    except DecodeError:
        return False
    return True


def _structured(document: object, kind: type[T], path: str) -> T:
    converter = _converter()
    try:
        return converter.structure(document, kind)
    except (ExceptionGroup, KeyError, ValueError) as error:
        place, reason = _first(error, path)
        raise DecodeError(printable(reason), path=printable(place)) from None


def _first(error: BaseException, path: str) -> tuple[str, str]:
    """The place and the reason of the first thing that cattrs refused."""
    import cattrs  # noqa: PLC0415 - as above

    if isinstance(error, cattrs.BaseValidationError):
        inner = error.exceptions[0]
        for note in getattr(inner, "__notes__", ()):
            if isinstance(note, cattrs.AttributeValidationNote):
                path += f".{note.name}"
            elif isinstance(note, cattrs.IterableValidationNote):
                path += f"[{note.index}]"
        return _first(inner, path)
    return path, "the field is missing" if isinstance(error, KeyError) else str(error)


# --- failures -------------------------------------------------------------------------------------------


def _failure_in(document: dict[str, Any], payload: str | None) -> Failure | None:
    """The failure that an answer of a successful HTTP status states, if it does."""
    is_success = document.get("is_success", ...)
    if is_success is ...:
        refused = document.get("error_code") is not None and (payload is None or payload not in document)
        return _failure(document) if refused else None
    if not isinstance(is_success, bool):
        raise DecodeError("expected true or false", path="$.is_success")
    return None if is_success else _failure(document)


def _failure(document: dict[str, Any]) -> Failure:
    nested = document.get("error")
    places = [document, nested] if isinstance(nested, dict) else [document]
    return Failure(
        _first_text(places, "error_code", "errorCode", "code"),
        _first_text(places, "error_message", "error_msg", "errorMsg", "message") or "",
        _first_text(places, "request_id"),
    )


def _first_text(places: list[dict[str, Any]], *names: str) -> str | None:
    for place in places:
        for name in names:
            value = place.get(name)
            if isinstance(value, str) and value:
                return value
    return None
