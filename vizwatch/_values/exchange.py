"""What goes over the wire: a request, its answer, and the service's own account of a failure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import attrs


class Operation(enum.Enum):
    """The API's seven operations, by the name they have in errors."""

    LIST = "list jobs"
    GET = "get job"
    CREATE = "create job"
    UPDATE = "update job"
    STOP = "stop job"
    RESTART = "restart job"
    DELETE = "delete job"

    @property
    def is_read(self) -> bool:
        """Whether the operation changes nothing."""
        return self in _READS


_READS: Final = frozenset({Operation.LIST, Operation.GET})


@attrs.frozen
class Request:
    """One request, without endpoint and credentials."""

    operation: Operation
    method: str
    path: str
    """From the endpoint's root, percent-encoded."""
    query: str = ""
    """Percent-encoded, without the question mark."""
    body: bytes = b""
    """JSON, or nothing."""

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path


@attrs.frozen
class Answer:
    """One complete answer."""

    status: int
    headers: Mapping[str, str]
    """Looked up without regard to case."""
    body: bytes = attrs.field(repr=False)

    @property
    def is_success(self) -> bool:
        """Whether the HTTP status is any of 2xx: the documents name none."""
        return 200 <= self.status < 300


@attrs.frozen
class Failure:
    """What an answer's body says of a failure; every part may be missing."""

    error_code: str | None = None
    message: str = ""
    request_id: str | None = None
