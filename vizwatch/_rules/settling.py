"""What a job says of a write whose answer was lost."""

from __future__ import annotations

import enum

from vizwatch._values.errors import ConflictError, NotFoundError
from vizwatch._values.exchange import Operation
from vizwatch._values.statuses import JobStatus


class Settled(enum.Enum):
    """What became of a write."""

    DONE = "carried out, or as good as"
    NEEDED = "not carried out, as far as the details tell: to be sent again"
    UNCLEAR = "the details do not tell"


def settled(operation: Operation, status: JobStatus | None) -> Settled:
    """What a job's status says of the write; ``None`` where there is no such job.

    A stop or delete that is still needed may be sent again: twice is the same as once. A restart never is,
    since a replica that lags shows the end before it, and a second restart would run the job anew.
    """
    if status is None:
        return Settled.DONE if operation is Operation.DELETE else Settled.UNCLEAR
    is_ending = status is JobStatus.KILLING
    match operation:
        case Operation.STOP:
            return Settled.DONE if is_ending or status.is_terminal else Settled.NEEDED
        case Operation.DELETE:
            return Settled.DONE if is_ending else Settled.NEEDED
        case Operation.RESTART:
            return Settled.UNCLEAR if is_ending or status.is_terminal else Settled.DONE
        case _:
            return Settled.UNCLEAR


def settled_by_refusal(operation: Operation, refusal: Exception) -> Settled:
    """What the refusal of a second sending says of the first one: no replica that lags speaks there."""
    match refusal:
        case NotFoundError():
            return settled(operation, None)
        case ConflictError(status=JobStatus() as status):
            return settled(operation, status)
        case _:
            return Settled.UNCLEAR
