"""Async client for ModelArts visualization jobs: list, watch and wait.

::

    async with vizwatch.Client(endpoint, project_id, auth=token) as client:
        async for transition in client.watch(197):
            print(transition.previous, "->", transition.current)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vizwatch import compat, dask, doctor, emulator, otel
    from vizwatch._flows.arriving import JobsWatch
    from vizwatch._flows.paging import JobPager
    from vizwatch._flows.watching import Watch
    from vizwatch._values.errors import (
        ApiError,
        AuthenticationError,
        BadRequestError,
        CheckpointError,
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
        TlsError,
        TransportError,
        VizwatchError,
        WatchError,
        WatchTimeoutError,
        WrongEndpointError,
    )
    from vizwatch._values.exchange import Attempt, Outgoing, Retry, Scope, Stale
    from vizwatch._values.models import Job, JobPage, Schedule, Transition
    from vizwatch._values.regions import Region, region
    from vizwatch._values.settings import Settings
    from vizwatch._values.statuses import JobStatus
    from vizwatch._values.text import printable
    from vizwatch._world.account import Account
    from vizwatch._world.auth import AkSkAuth, Auth, RenewableAuth, ScopedAuth, TokenAuth
    from vizwatch._world.checkpoint import Checkpoint, Stream
    from vizwatch._world.clouds import CloudsAuth
    from vizwatch._world.iam import PasswordAuth
    from vizwatch._world.redis import RedisCheckpoint
    from vizwatch._world.sqlite import SqliteCheckpoint
    from vizwatch.client import Client
    from vizwatch.fleet import Fleet, ListOptions, Outcome, Target, TargetJob, WatchOptions

__version__ = "0.1.0"

__all__ = [
    "Account",
    "AkSkAuth",
    "ApiError",
    "Attempt",
    "Auth",
    "AuthenticationError",
    "BadRequestError",
    "Checkpoint",
    "CheckpointError",
    "Client",
    "ClientClosedError",
    "ClockSkewError",
    "CloudsAuth",
    "ConfigError",
    "ConflictError",
    "ConnectError",
    "DecodeError",
    "Fleet",
    "Job",
    "JobEndedError",
    "JobGoneError",
    "JobPage",
    "JobPager",
    "JobStatus",
    "JobsWatch",
    "ListOptions",
    "NotFoundError",
    "Outcome",
    "OutcomeUnknownError",
    "Outgoing",
    "PasswordAuth",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "RedisCheckpoint",
    "Region",
    "RenewableAuth",
    "RequestTimeoutError",
    "Retry",
    "Schedule",
    "Scope",
    "ScopedAuth",
    "ServerError",
    "Settings",
    "SqliteCheckpoint",
    "Stale",
    "Stream",
    "Target",
    "TargetJob",
    "TlsError",
    "TokenAuth",
    "Transition",
    "TransportError",
    "VizwatchError",
    "Watch",
    "WatchError",
    "WatchOptions",
    "WatchTimeoutError",
    "WrongEndpointError",
    "compat",
    "dask",
    "doctor",
    "emulator",
    "otel",
    "printable",
    "region",
]

# Imported when first named: the pytest plugin is loaded in every run of a user's environment, and a command's
# `--help` needs no HTTP client.
_HOMES: Final = {
    "vizwatch._flows.paging": ("JobPager",),
    "vizwatch._flows.arriving": ("JobsWatch",),
    "vizwatch._flows.watching": ("Watch",),
    "vizwatch._values.errors": (
        "ApiError",
        "AuthenticationError",
        "BadRequestError",
        "CheckpointError",
        "ClientClosedError",
        "ClockSkewError",
        "ConfigError",
        "ConflictError",
        "ConnectError",
        "DecodeError",
        "JobEndedError",
        "JobGoneError",
        "NotFoundError",
        "OutcomeUnknownError",
        "PermissionDeniedError",
        "ProtocolError",
        "RateLimitError",
        "RequestTimeoutError",
        "ServerError",
        "TlsError",
        "TransportError",
        "VizwatchError",
        "WatchError",
        "WatchTimeoutError",
        "WrongEndpointError",
    ),
    "vizwatch._values.exchange": ("Attempt", "Outgoing", "Retry", "Scope", "Stale"),
    "vizwatch._values.models": ("Job", "JobPage", "Schedule", "Transition"),
    "vizwatch._values.regions": ("Region", "region"),
    "vizwatch._values.settings": ("Settings",),
    "vizwatch._values.statuses": ("JobStatus",),
    "vizwatch._values.text": ("printable",),
    "vizwatch._world.account": ("Account",),
    "vizwatch._world.auth": ("AkSkAuth", "Auth", "RenewableAuth", "ScopedAuth", "TokenAuth"),
    "vizwatch._world.checkpoint": ("Checkpoint", "Stream"),
    "vizwatch._world.clouds": ("CloudsAuth",),
    "vizwatch._world.iam": ("PasswordAuth",),
    "vizwatch._world.redis": ("RedisCheckpoint",),
    "vizwatch._world.sqlite": ("SqliteCheckpoint",),
    "vizwatch.client": ("Client",),
    "vizwatch.fleet": ("Fleet", "ListOptions", "Outcome", "Target", "TargetJob", "WatchOptions"),
}
_MODULES: Final = frozenset({"compat", "dask", "doctor", "emulator", "otel"})
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"vizwatch.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
