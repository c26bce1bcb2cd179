"""What the service says, as values: jobs, pages of jobs, and the transitions of a job."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import attrs

from vizwatch._values.statuses import JobStatus
from vizwatch._values.structs import JobId, Long, Nothing, laid_out

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

# Below this a number is not milliseconds: one published sample has 11 digits, and seconds have 10.
_YEAR_2000_MS: Final = 946_684_800_000
_YEAR_9999_MS: Final = 253_402_300_799_999


@attrs.frozen
class Schedule:
    """What the service will do to a job by itself; today only ``type="stop"`` is documented."""

    type: str | None = None
    time_unit: str | None = None
    """The unit of :attr:`duration`; only ``"HOURS"`` is documented."""
    duration: int | None = None
    """How long after its start the job is stopped, in :attr:`time_unit`; 0 to 24."""


class Schedules(tuple[Schedule, ...]):
    """A type of its own, so that the decoder asks how schedules are read: documents know several forms."""

    __slots__ = ()


@laid_out(
    job_id=JobId,
    create_time=Long | None,
    duration=Long | None,
    remaining_duration=Long | None,
    schedule=Schedules,
    extra=Nothing,
)
@attrs.frozen(weakref_slot=False)
class Job:
    """A visualization job as one answer of the service described it.

    Only ``job_id`` and ``status`` are always there. Every other field is ``None`` where the answer
    lacked it or gave null: documents and operations differ in what they send.
    """

    job_id: int
    status: JobStatus
    job_name: str | None = None
    create_time: int | None = None
    """When the job was created, as sent: milliseconds since 1970 by the documents; see :attr:`created_at`."""
    duration: int | None = None
    """How long the job has run, in milliseconds."""
    job_desc: str | None = None
    job_type: str | None = None
    """``tensorboard`` or ``mindinsight``; in no documented answer."""
    service_url: str | None = None
    """Where the job's web page is. The server's text: never fetched by this library."""
    train_url: str | None = None
    """The OBS path of the logs that are shown."""
    resource_id: str | None = None
    """The charged resource's ID."""
    remaining_duration: int | None = None
    """In no table of the documents, and null in every sample."""
    schedule: tuple[Schedule, ...] = ()
    extra: Mapping[str, Any] | None = attrs.field(default=None, eq=False)
    """The fields of the answer that this version does not know, as decoded JSON; mostly there are none."""

    @property
    def created_at(self) -> dt.datetime | None:
        """:attr:`create_time` in UTC, or ``None`` where that number cannot be milliseconds since 1970.

        >>> Job(job_id=197, status=JobStatus.WAITING, create_time=1565149736000).created_at
        datetime.datetime(2019, 8, 7, 3, 48, 56, tzinfo=datetime.timezone.utc)
        >>> Job(job_id=1, status=JobStatus.INIT, create_time=15099239923).created_at is None
        True
        """
        if self.create_time is None or not _YEAR_2000_MS <= self.create_time <= _YEAR_9999_MS:
            return None
        return _EPOCH + dt.timedelta(milliseconds=self.create_time)


@attrs.frozen
class JobPage:
    """One page of a listing, with the numbers the service sent beside the jobs."""

    jobs: tuple[Job, ...]
    page: int
    """The page's number as asked for, from 1."""
    job_total_count: int | None = None
    """How many jobs the service says the listing has: a hint, never relied on alone."""
    job_count_limit: int | None = None
    """How many jobs can be created; how many *more*, by the China document."""
    quotas: int | None = None
    """How many visualization jobs may run, by the China document; elsewhere, the maximum of training jobs."""
    skipped: int = 0
    """How many of the page's rows were left out since they are no jobs, with ``on_bad_row="skip"``."""


@attrs.frozen(kw_only=True)
class Transition:
    """A change of a job's status, between two reads of it.

    ``previous`` is ``None`` for the status found first; ``current`` is ``None`` once the job is
    deleted, and ``job`` is then the job as last read.
    """

    id: str
    """Names the change: two watches that begin with the same status and see the same changes agree on it.

    The id of a run's end has the duration that was read with it, so that two ends differ even where their
    count does not: who lost what came last counts anew.
    """
    project_id: str
    job_id: int
    previous: JobStatus | None
    current: JobStatus | None
    job: Job
    run: int
    """Which run of the job this belongs to, from 1 for the one found first; grows with each restart seen."""
    not_before: dt.datetime | None
    """When the old status was last read (UTC); ``None`` for the first status found."""
    not_after: dt.datetime
    """When the new status was first read (UTC): when the answer had come."""
    read_at: dt.datetime | None = None
    """When that read was begun (UTC): what it says was true then or later. ``None`` where nobody knows."""
    gap: bool = False
    """Whether something provably happened between the two reads that no read saw."""
    skipped: int = 0
    """How many changes just before were seen and left out, since the consumer was slow: see `backlog`."""
    is_terminal: bool = False
    """Whether the job has come to its end with this: a terminal status, or deleted."""
