"""The statuses of a visualization job, as an enumeration that stays open."""

from __future__ import annotations

import enum
from typing import Final


class JobStatus(enum.IntEnum):
    """The status of a visualization job: the service's own numbers, without its ``JOBSTAT_`` prefix.

    The enumeration is open: a number that no document names keeps its value, is called
    ``UNKNOWN(99)``, and is neither terminal nor a failure.

    >>> JobStatus(8)
    <JobStatus.RUNNING: 8>
    >>> JobStatus(99).name, int(JobStatus(99)), JobStatus(99).is_terminal
    ('UNKNOWN(99)', 99, False)

    Source: the publishers' page "Job Statuses"; ``MOUNT_FAILED`` stands on the ModelArts SDK's page only.
    """

    UNKNOWN = 0
    INIT = 1
    IMAGE_CREATING = 2
    IMAGE_FAILED = 3
    SUBMIT_TRYING = 4
    SUBMIT_FAILED = 5
    DELETE_FAILED = 6
    WAITING = 7
    RUNNING = 8
    KILLING = 9
    COMPLETED = 10
    FAILED = 11
    KILLED = 12
    CANCELED = 13
    LOST = 14
    SCALING = 15
    SUBMIT_MODEL_FAILED = 16
    DEPLOY_SERVICE_FAILED = 17
    CHECK_INIT = 18
    CHECK_RUNNING = 19
    CHECK_RUNNING_COMPLETED = 20
    CHECK_FAILED = 21
    MOUNT_FAILED = 22

    @classmethod
    def _missing_(cls, value: object) -> JobStatus | None:
        if type(value) is not int or abs(value) > _MAX_NUMBER:
            return None
        unknown = _unknown.get(value)
        if unknown is None:
            unknown = int.__new__(cls, value)
            unknown._name_ = f"UNKNOWN({value})"
            unknown._value_ = value
            # Members are shared so that ``is`` holds, up to a bound: the numbers are the server's.
            if len(_unknown) < _MAX_UNKNOWN:
                _unknown[value] = unknown
        return unknown

    @property
    def is_known(self) -> bool:
        """Whether a document names this number."""
        return self._value_ in type(self)._value2member_map_

    @property
    def is_terminal(self) -> bool:
        """Whether a job in this status has come to its end, by this project's default.

        No document says which statuses are terminal; ``watch(terminal=…)`` takes another set.
        A restarted job leaves even a terminal status.
        """
        return self in TERMINAL

    @property
    def is_failure(self) -> bool:
        """Whether a job in this status has ended otherwise than it was asked to."""
        return self in FAILURES

    @property
    def is_running(self) -> bool:
        """Whether the job's service can be used."""
        return self is JobStatus.RUNNING


_MAX_NUMBER: Final = 2**63 - 1
"""A long of Java's: beyond it are no statuses."""
_MAX_UNKNOWN: Final = 256
_unknown: Final[dict[int, JobStatus]] = {}

FAILURES: Final = frozenset(
    {
        JobStatus.IMAGE_FAILED,
        JobStatus.SUBMIT_FAILED,
        JobStatus.DELETE_FAILED,
        JobStatus.FAILED,
        JobStatus.LOST,
        JobStatus.SUBMIT_MODEL_FAILED,
        JobStatus.DEPLOY_SERVICE_FAILED,
        JobStatus.CHECK_FAILED,
        JobStatus.MOUNT_FAILED,
    }
)

TERMINAL: Final = FAILURES | {JobStatus.COMPLETED, JobStatus.KILLED, JobStatus.CANCELED}
