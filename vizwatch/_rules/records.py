"""Records: what a checkpoint keeps of a job, the last transition that its consumer was given, as JSON.

In arrays, as there are many: a thousand take a third of a megabyte. Who adds a field adds it as the last one.
Before it stands its checksum, the CRC-32 as eight digits: a byte that a disk has changed is no status.
"""

from __future__ import annotations

import datetime as dt
import zlib
from typing import Annotated, Any, Final

import attrs
import msgspec

from vizwatch._values.models import Job, Schedule, Transition
from vizwatch._values.statuses import JobStatus
from vizwatch._values.text import printable

LONGEST: Final = 2**18
"""How many bytes a record has at most; no reader of one trusts that it is ours."""
_CHECKSUM: Final = 8
_LONGEST_TEXT: Final = 4_096
_SCHEDULES: Final = 20
_SHORT: Final = 256
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_Time = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_000_000)]
"""Microseconds since 1970, until the year 9999."""


@attrs.frozen
class Given:
    """The last transition of a job that a consumer was given."""

    transition: Transition
    is_delivered: bool
    """Whether the consumer has asked for the next one."""


class _Schedule(msgspec.Struct, array_like=True, gc=False):
    type: str | None = None
    time_unit: str | None = None
    duration: int | None = None


class _Job(msgspec.Struct, array_like=True, gc=False):
    """The fields of :class:`Job`, but for those that no document knows."""

    status: int
    job_name: str | None = None
    create_time: int | None = None
    duration: int | None = None
    job_desc: str | None = None
    job_type: str | None = None
    service_url: str | None = None
    train_url: str | None = None
    resource_id: str | None = None
    remaining_duration: int | None = None
    schedule: tuple[_Schedule, ...] = ()


class _Record(msgspec.Struct, array_like=True, gc=False):
    """The fields of :class:`Transition`, but for those that say which job it is of; times in microseconds."""

    is_delivered: bool
    change: str
    """What its id says beyond that."""
    run: int
    previous: int | None
    current: int | None
    not_before: _Time | None
    not_after: _Time
    read_at: _Time | None
    gap: bool
    skipped: int
    is_terminal: bool
    job: _Job


_OF_JOB: Final = [name for name in _Job.__struct_fields__ if name not in {"status", "schedule"}]
_OF_TRANSITION: Final = ("run", "gap", "skipped", "is_terminal")
_DECODER: Final = msgspec.json.Decoder(_Record)


def encode(given: Given) -> bytes:
    """The record, of `LONGEST` bytes at most, whatever the server says.

    Left out are texts of a job of more than 4,096 characters, schedules beyond 20, and what no document
    knows.
    """
    transition, job = given.transition, given.transition.job
    fields = {name: _bounded(getattr(job, name)) for name in _OF_JOB}
    schedule = tuple(
        _Schedule(_bounded(one.type, _SHORT), _bounded(one.time_unit, _SHORT), one.duration)
        for one in job.schedule[:_SCHEDULES]
    )
    body = msgspec.json.encode(
        _Record(
            is_delivered=given.is_delivered,
            change=transition.id.removeprefix(_of(transition.project_id, transition.job_id)),
            previous=_number(transition.previous),
            current=_number(transition.current),
            not_before=_time(transition.not_before),
            not_after=_microseconds(transition.not_after),
            read_at=_time(transition.read_at),
            job=_Job(status=int(job.status), schedule=schedule, **fields),
            **{name: getattr(transition, name) for name in _OF_TRANSITION},
        )
    )
    return _checksum(body) + body


def decode(record: bytes, project_id: str, job_id: int) -> Given:
    """What was encoded. Raises :class:`ValueError` for anything else."""
    if not isinstance(record, bytes):
        raise ValueError(f"it is of type {type(record).__name__}, and a record is bytes")  # noqa: TRY004 - as all else
    if len(record) > LONGEST:
        raise ValueError(f"it has {len(record)} bytes, and no record has more than {LONGEST}")
    checksum, body = record[:_CHECKSUM], record[_CHECKSUM:]
    if checksum != _checksum(body):
        raise ValueError("it is not what was written, by its checksum")
    try:
        told = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(printable(str(error), 200)) from None
    schedule = tuple(Schedule(one.type, one.time_unit, one.duration) for one in told.job.schedule)
    fields = {name: getattr(told.job, name) for name in _OF_JOB}
    transition = Transition(
        id=_of(project_id, job_id) + told.change,
        project_id=project_id,
        job_id=job_id,
        job=Job(job_id, JobStatus(told.job.status), schedule=schedule, **fields),
        previous=_status(told.previous),
        current=_status(told.current),
        not_before=_moment(told.not_before),
        not_after=_EPOCH + told.not_after * _MICROSECOND,
        read_at=_moment(told.read_at),
        **{name: getattr(told, name) for name in _OF_TRANSITION},
    )
    return Given(transition, told.is_delivered)


def _checksum(body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(body)


def _of(project_id: str, job_id: int) -> str:
    return f"{project_id}/{job_id}/"


def _microseconds(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _time(moment: dt.datetime | None) -> int | None:
    return None if moment is None else _microseconds(moment)


def _moment(time: int | None) -> dt.datetime | None:
    return None if time is None else _EPOCH + time * _MICROSECOND


def _bounded(value: Any, limit: int = _LONGEST_TEXT) -> Any:
    return None if isinstance(value, str) and len(value) > limit else value


def _number(status: JobStatus | None) -> int | None:
    return None if status is None else int(status)


def _status(number: int | None) -> JobStatus | None:
    return None if number is None else JobStatus(number)
