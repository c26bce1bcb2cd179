"""Records: what a checkpoint keeps of a job, the last transition that its consumer was given, as JSON."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import attrs
import msgspec

from vizwatch._values.models import Job, Schedule, Transition
from vizwatch._values.statuses import JobStatus
from vizwatch._values.text import printable

LONGEST: Final = 2**18
"""How many bytes a record has at most; no reader of one trusts that it is ours."""
_LONGEST_TEXT: Final = 4_096


@attrs.frozen
class Given:
    """The last transition of a job that a consumer was given."""

    transition: Transition
    is_delivered: bool
    """Whether the consumer has asked for the next one."""


class _Schedule(msgspec.Struct, omit_defaults=True, gc=False):
    type: str | None = None
    time_unit: str | None = None
    duration: int | None = None


class _Job(msgspec.Struct, omit_defaults=True, gc=False):
    """The fields of :class:`Job` by their names, but for those that no document knows."""

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


class _Record(msgspec.Struct, omit_defaults=True, gc=False):
    """The fields of :class:`Transition` by their names, but for those that say which job it is of."""

    id: str
    run: int
    job: _Job
    not_after: dt.datetime
    previous: int | None = None
    current: int | None = None
    not_before: dt.datetime | None = None
    read_at: dt.datetime | None = None
    gap: bool = False
    skipped: int = 0
    is_terminal: bool = False
    is_delivered: bool = False


_OF_JOB: Final = [name for name in _Job.__struct_fields__ if name not in {"status", "schedule"}]
_OF_TRANSITION: Final = ("id", "run", "not_after", "not_before", "read_at", "gap", "skipped", "is_terminal")
_DECODER: Final = msgspec.json.Decoder(_Record)


def encode(given: Given) -> bytes:
    """The record. Of a job, texts of more than 4,096 characters and what no document knows are left out."""
    transition, job = given.transition, given.transition.job
    fields = {name: _bounded(getattr(job, name)) for name in _OF_JOB}
    schedule = tuple(
        _Schedule(_bounded(one.type), _bounded(one.time_unit), one.duration) for one in job.schedule[:100]
    )
    return msgspec.json.encode(
        _Record(
            job=_Job(status=int(job.status), schedule=schedule, **fields),
            previous=_number(transition.previous),
            current=_number(transition.current),
            is_delivered=given.is_delivered,
            **{name: getattr(transition, name) for name in _OF_TRANSITION},
        )
    )


def decode(record: bytes, project_id: str, job_id: int) -> Given:
    """What was encoded. Raises :class:`ValueError` for anything else."""
    if len(record) > LONGEST:
        raise ValueError(f"it has {len(record)} bytes, and no record has more than {LONGEST}")
    try:
        told = _DECODER.decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(printable(str(error), 200)) from None
    times = (told.not_after, told.not_before, told.read_at)
    if any(time is not None and time.tzinfo is None for time in times):
        raise ValueError("it has a time without a time zone")
    schedule = tuple(Schedule(one.type, one.time_unit, one.duration) for one in told.job.schedule)
    fields = {name: getattr(told.job, name) for name in _OF_JOB}
    transition = Transition(
        project_id=project_id,
        job_id=job_id,
        job=Job(job_id, JobStatus(told.job.status), schedule=schedule, **fields),
        previous=_status(told.previous),
        current=_status(told.current),
        **{name: getattr(told, name) for name in _OF_TRANSITION},
    )
    return Given(transition, told.is_delivered)


def _bounded(value: Any) -> Any:
    return None if isinstance(value, str) and len(value) > _LONGEST_TEXT else value


def _number(status: JobStatus | None) -> int | None:
    return None if status is None else int(status)


def _status(number: int | None) -> JobStatus | None:
    return None if number is None else JobStatus(number)
