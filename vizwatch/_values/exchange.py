"""What goes over the wire: a request, its answer, and the service's own account of a failure."""

from __future__ import annotations

import datetime as dt
import enum
import math
from collections.abc import Mapping
from typing import Final

import attrs

from vizwatch._values.errors import CallError
from vizwatch._values.secrets import Secret

CLOCKS_DIFFER: Final = dt.timedelta(minutes=15)
"""How far the service's clock and this machine's may be apart: the gateway refuses signatures beyond that."""


class Operation(enum.Enum):
    """The API's seven operations and the token call, by the names that they have in errors."""

    LIST = "list jobs"
    GET = "get job"
    CREATE = "create job"
    UPDATE = "update job"
    STOP = "stop job"
    RESTART = "restart job"
    DELETE = "delete job"
    TOKEN = "get token"  # noqa: S105 - a name

    @property
    def is_read(self) -> bool:
        """Whether the operation changes nothing."""
        return self in _READS


_READS: Final = frozenset({Operation.LIST, Operation.GET, Operation.TOKEN})


@attrs.frozen
class Request:
    """One request, without endpoint and credentials."""

    operation: Operation
    method: str
    path: str
    """From the endpoint's root, percent-encoded."""
    query: str = ""
    """Percent-encoded, without the question mark."""
    body: bytes = attrs.field(default=b"", repr=False)
    """JSON, or nothing."""
    secrets: tuple[Secret, ...] = ()
    """What of the body must not be shown, should an answer repeat it."""

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path


@attrs.frozen
class Outgoing:
    """A request as its credentials see it."""

    method: str
    """`GET`, `POST`, `PUT` or `DELETE`."""
    url: str
    """The whole address, percent-encoded, with its query."""
    body: bytes = attrs.field(default=b"", repr=False)
    """The body as it will be sent; empty where there is none."""


@attrs.frozen
class Answer:
    """One complete answer."""

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    """Looked up without regard to case."""
    body: bytes = attrs.field(repr=False)
    sent_at: float = attrs.field(default=math.nan, repr=False)
    """When its request was sent, by the event loop's time."""

    @property
    def is_success(self) -> bool:
        """Whether the HTTP status is any of 2xx: the documents name none."""
        return 200 <= self.status < 300


@attrs.frozen
class Token:
    """A token, as the IAM token call gives it."""

    value: Secret
    lifetime: float
    """How long it lives, in seconds from the answer on."""
    project_id: str | None = None
    """The project that it is for, if it says so."""


@attrs.frozen
class Scope:
    """What credentials are for, where they say so themselves."""

    project_id: str | None
    """``None`` where the credentials do not tell."""
    endpoint: str | None = None
    """The address of ModelArts; ``None`` where the credentials do not tell."""


@attrs.frozen
class Failure:
    """What an answer's body says of a failure: as it came, and so perhaps with a secret in it.

    Every part may be missing.
    """

    error_code: str | None = attrs.field(default=None, repr=False)
    message: str = attrs.field(default="", repr=False)
    request_id: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class Stale:
    """What is known is older than its watch's `max_age`, as `Settings.on_stale` is told."""

    project_id: str
    job_id: int | None
    """The job, or ``None`` for a whole workspace."""
    age: float
    """How many seconds ago it was read."""
    max_age: float


@attrs.frozen(kw_only=True)
class Retry:
    """One retry, as `Settings.on_retry` is told of it before the wait."""

    operation: str
    """`get job`, for example."""
    attempt: int
    """How many attempts there were so far."""
    wait: float
    """Seconds until the next one, waiting for the account's pace not included."""
    error: CallError
    """What the last attempt came to."""
    was_sent: bool
    """Whether anything of it may have reached the service."""


@attrs.frozen(kw_only=True)
class Attempt:
    """One request that was sent, or tried to be, as `Settings.on_request` is told of it afterwards.

    Nothing but `error` tells a project, a job, or any text of the service's.
    """

    operation: str
    """`get job`, for example."""
    method: str
    """`GET`, `POST`, `PUT` or `DELETE`."""
    endpoint: str
    """`https://host[:port]`."""
    route: str
    """The path with `{project_id}` and `{job_id}` in the places of the ids."""
    attempt: int
    """Which of its call's requests it is, from 1."""
    http_status: int | None
    """The HTTP status of the answer; ``None`` where there was none."""
    error: BaseException | None
    """What it came to, unless it succeeded: mostly a :class:`VizwatchError`. An `asyncio.CancelledError` says
    that it was given up meanwhile: by its task or its client's closing, or for another project of a fleet."""
    started_at: dt.datetime
    """When it was sent, in UTC by this machine's clock."""
    seconds: float
    """How long it took, from asking for a connection until it was known what it came to."""
    received: int
    """How many bytes the answer's body has, after decompression; 0 where no complete one came."""
