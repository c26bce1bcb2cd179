"""What a caller asks for, checked before anything is asked of a cluster."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from vizwatch._rules.choice import chosen
from vizwatch._rules.rhythm import interval_of, max_age_of
from vizwatch._values import checks
from vizwatch._values.errors import ConfigError
from vizwatch._values.settings import Settings, given_or_default
from vizwatch._values.text import printable
from vizwatch._world.checkpoint import Checkpoint
from vizwatch.client import Seconds, Statuses
from vizwatch.dask._cluster import Client, address_of
from vizwatch.dask._memory import Memory
from vizwatch.dask._plan import plans, streams_of
from vizwatch.dask._watching import ShardedWatch
from vizwatch.fleet import Target, WatchOptions, several_of

_ADDRESS: Final = re.compile(r"((?:tls|tcp|wss?|ucx)://)?(?:\[[0-9A-Za-z:.%]+\]|[\w.-]+):([0-9]{1,5})")
"""As distributed takes it from whoever is in another process than the scheduler."""


def watch_fleet(
    client: Client,
    targets: Iterable[Target],
    *,
    checkpoint: Checkpoint | None = None,
    shards: int | None = None,
    settings: Settings | None = None,
    status: Statuses | None = None,
    search_content: str | None = None,
    workspace_id: str | None = None,
    interval: Seconds | None = None,
    max_age: Seconds | None = None,
) -> ShardedWatch:
    """The transitions of all jobs of all targets, watched by the workers of a cluster.

    ::

        async with distributed.Client("tls://scheduler:8786", security=…, asynchronous=True) as cluster:
            async with vizwatch.dask.watch_fleet(cluster, targets, checkpoint=checkpoint) as watch:
                async for transition in watch:
                    print(transition.project_id, transition.job_id, transition.current)

    The targets are divided into shards, each of which is one task, that waits on its worker's event loop and
    takes none of its threads. Where a worker dies, its shards go on elsewhere, after the last transition that
    came from them; where one joins, some move there. The checkpoint is read and written by the caller alone,
    so that a file will do. Should the caller die, the shards stop a second later, or half a minute where the
    scheduler does not notice it, and nothing is left there, unless a worker dies in the same moment. A target
    that is refused for good is tried again every five minutes, as in a fleet, for as long as any other one is
    watched.

    Workers need vizwatch as the caller has it. Credentials are told to them by way of the scheduler, in the
    clear where it is not reached by TLS.

    Args:
        client: An asynchronous `distributed.Client`, which is not closed here.
        targets: The projects, each with endpoint and project id, and without an account of its own.
        checkpoint: As of :meth:`Fleet.watch_jobs`. Without one, what was told is kept in memory, since shards
            that move go on after it.
        shards: How many there are; by default four for each worker that there is at the beginning.
        settings: Of all targets. `requests_per_second` is the budget of each account, and divided among the
            shards that have targets of it. Hooks are called where the requests are made: on the workers.
        status: As of :meth:`Fleet.watch_jobs`, as is all else.
        search_content: As there.
        workspace_id: As there.
        interval: As there.
        max_age: As there.

    Raises:
        ConfigError: An argument is wrong, or credentials would travel in the clear beyond this machine. While
            iterated, also: the checkpoint cannot be used, or two targets are the same.
    """
    settings = given_or_default(settings)
    several: list[Target] = []
    for target in several_of(targets):
        if not isinstance(target, Target):
            raise ConfigError(f"targets must be Targets, and one is of type {type(target).__name__}")
        several.append(target)
    if not several:
        raise ConfigError("targets must be one at least")
    if not isinstance(client, Client) or not client.asynchronous:
        raise ConfigError("client must be a distributed.Client made with asynchronous=True")
    _check_secure(address_of(client), settings)
    chosen(None, status, search_content)
    interval_of(settings, interval, max_age_of(settings, max_age))
    if workspace_id is not None:
        workspace_id = checks.identifier("workspace_id", workspace_id)
    options = WatchOptions(status=status, search_content=search_content, interval=interval, max_age=max_age)
    return ShardedWatch(
        client,
        several,
        streams_of(several, settings, workspace_id),
        Memory() if checkpoint is None else checkpoint,
        None if shards is None else checks.whole("shards", shards, low=1, high=100_000),
        functools.partial(plans, several, settings=settings, options=options),
    )


def check_address(address: str, settings: Settings) -> None:
    """Checks the address of a scheduler, without asking it.

    Raises:
        ConfigError: It is none, or credentials would travel in the clear to it.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[2]) < 65_536:
        raise ConfigError(
            "a scheduler's address must be such as tls://scheduler:8786 (tls, tcp, wss, ws or ucx, a host, "
            f"and a port), not {printable(address, 100)}"
        )
    _check_secure(address if found[1] else f"tcp://{address}", settings)


def _check_secure(address: str, settings: Settings) -> None:
    """Raises where credentials would travel in the clear."""
    parts = urlsplit(address)
    if parts.scheme in {"tls", "inproc", "wss", "ucx"} or settings.allow_insecure:
        return
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(parts.hostname or "").is_loopback:
            return
    raise ConfigError(
        f"credentials would travel in the clear to {printable(address, 100)}: secure the cluster by TLS "
        "(distributed.security.Security), or set Settings(allow_insecure=True) where nobody listens"
    )
