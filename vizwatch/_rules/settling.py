"""What a job's details say of a write whose answer was lost."""

from __future__ import annotations

import enum
from typing import Final

from vizwatch._values.exchange import Operation
from vizwatch._values.models import Job
from vizwatch._values.statuses import JobStatus


class Settled(enum.Enum):
    """What became of a write."""

    DONE = "carried out, or as good as"
    NEEDED = "not carried out, as far as the details tell: to be sent again"
    UNCLEAR = "the details do not tell"


SETTLED_BY_DETAILS: Final = frozenset({Operation.STOP, Operation.RESTART, Operation.DELETE})


def settled(operation: Operation, job: Job | None) -> Settled:
    """What the details say of the write; `job` is ``None`` where there is none.

    A stop or delete that is still needed may be sent again: twice is the same as once. A restart never is,
    since a replica that lags shows the end before it, and a second restart would run the job anew.
    """
    if job is None:
        return Settled.DONE if operation is Operation.DELETE else Settled.UNCLEAR
    ending = job.status is JobStatus.KILLING
    match operation:
        case Operation.STOP:
            return Settled.DONE if ending or job.status.is_terminal else Settled.NEEDED
        case Operation.DELETE:
            return Settled.DONE if ending else Settled.NEEDED
        case Operation.RESTART:
            return Settled.UNCLEAR if ending or job.status.is_terminal else Settled.DONE
        case _:
            return Settled.UNCLEAR
