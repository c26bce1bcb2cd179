"""What a configuration says, as values: which projects are watched, and what goes to which sink."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from vizwatch import Checkpoint, Fleet, JobStatus, JobsWatch, Settings, Target, Transition, WatchOptions


@attrs.frozen(kw_only=True)
class Filter:
    """Which transitions a sink takes; ``None`` is any."""

    targets: frozenset[str] | None = None
    statuses: frozenset[JobStatus | None] | None = None
    """Those that a transition leads to; ``None`` among them is a deleted job's."""
    terminal_only: bool = False

    def takes(self, transition: Transition, target: str) -> bool:
        """Whether a transition of this target passes."""
        return (
            (self.targets is None or target in self.targets)
            and (self.statuses is None or transition.current in self.statuses)
            and (transition.is_terminal or not self.terminal_only)
        )


@attrs.frozen
class Stdout:
    """One JSON object a line."""


@attrs.frozen
class Webhook:
    """Where to post, and the key of its signatures."""

    url: str = attrs.field(repr=False)
    """May hold a secret in its path or query."""
    key: hmac.HMAC = attrs.field(repr=False)
    """Made ready to sign: the secret itself is not kept."""


@attrs.frozen
class RedisStream:
    """A stream of a Redis server."""

    url: str = attrs.field(repr=False)
    """May hold a password."""
    stream: str
    max_length: int | None
    """About how many entries the stream keeps; ``None`` for all."""


@attrs.frozen
class PythonCall:
    """A function that takes the JSON object of a transition, decoded."""

    name: str
    function: Callable[[dict[str, Any]], object]


Destination = Stdout | Webhook | RedisStream | PythonCall


@attrs.frozen(kw_only=True)
class SinkOptions:
    """One sink."""

    name: str
    destination: Destination
    filter: Filter
    backlog: int
    """How many transitions wait for it before those of one job become one."""
    timeout: float
    """For one delivery, in seconds."""


@attrs.frozen(kw_only=True)
class Watching:
    """Which transitions are watched, and how often is looked: as of :meth:`Fleet.watch_jobs`."""

    status: frozenset[JobStatus] | None = None
    search_content: str | None = None
    interval: float | None = None
    max_age: float | None = None

    @property
    def options(self) -> WatchOptions:
        """The same, as its arguments."""
        return WatchOptions(
            status=self.status,
            search_content=self.search_content,
            interval=self.interval,
            max_age=self.max_age,
        )

    def begin(self, fleet: Fleet, checkpoint: Checkpoint | None = None) -> JobsWatch:
        """The watch, which asks nothing before its first step. Raises :class:`ConfigError`."""
        return fleet.watch_jobs(**self.options, checkpoint=checkpoint)


@attrs.frozen(kw_only=True)
class Configuration:
    """All that the service is told."""

    state: Path
    checkpoint: Checkpoint | None = None
    """Where the watch keeps its place; ``None`` for a file in `state`."""
    settings: Settings
    watch: Watching
    listen: tuple[str, int]
    """Where health and metrics are served: host and port."""
    targets: tuple[Target, ...]
    sinks: tuple[SinkOptions, ...]
