"""Async client for ModelArts visualization jobs: list, watch and wait.

::

    async with vizwatch.Client(endpoint, project_id, auth=token) as client:
        async for transition in client.watch(197):
            print(transition.previous, "->", transition.current)
"""

from typing import TYPE_CHECKING, Any

from vizwatch._flows.paging import JobPager
from vizwatch._flows.watching import Watch
from vizwatch._values.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ClockSkewError,
    ConfigError,
    ConflictError,
    ConnectError,
    DecodeError,
    JobEndedError,
    JobGoneError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    TransportError,
    VizwatchError,
    WatchError,
    WatchTimeoutError,
    WrongEndpointError,
)
from vizwatch._values.exchange import Outgoing
from vizwatch._values.models import Job, JobPage, Schedule, Transition
from vizwatch._values.settings import Settings
from vizwatch._values.statuses import JobStatus
from vizwatch._values.text import printable
from vizwatch._world.auth import AkSkAuth, Auth, RenewableAuth, TokenAuth
from vizwatch._world.iam import PasswordAuth
from vizwatch.client import Client

if TYPE_CHECKING:
    from vizwatch import emulator

__version__ = "0.1.0"

__all__ = [
    "AkSkAuth",
    "ApiError",
    "Auth",
    "AuthenticationError",
    "BadRequestError",
    "Client",
    "ClientClosedError",
    "ClockSkewError",
    "ConfigError",
    "ConflictError",
    "ConnectError",
    "DecodeError",
    "Job",
    "JobEndedError",
    "JobGoneError",
    "JobPage",
    "JobPager",
    "JobStatus",
    "NotFoundError",
    "OutcomeUnknownError",
    "Outgoing",
    "PasswordAuth",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "RenewableAuth",
    "RequestTimeoutError",
    "Schedule",
    "ServerError",
    "Settings",
    "TokenAuth",
    "Transition",
    "TransportError",
    "VizwatchError",
    "Watch",
    "WatchError",
    "WatchTimeoutError",
    "WrongEndpointError",
    "emulator",
    "printable",
]


def __getattr__(name: str) -> Any:
    """Imports :mod:`vizwatch.emulator` when it is first named: a client alone does not need a web server."""
    if name == "emulator":
        import vizwatch.emulator as module  # noqa: PLC0415 - see above

        return module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
