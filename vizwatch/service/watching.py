"""Who watches for the service: a fleet in this process, or the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from vizwatch import Checkpoint, Fleet, Outcome, Settings, Transition, VizwatchError, printable
from vizwatch.service.options import Configuration

if TYPE_CHECKING:
    from vizwatch.dask import ShardedWatch

_CONNECTED_WITHIN: Final = 60.0
"""Seconds; distributed itself waits for ever where something listens and says nothing."""


class Watcher(Protocol):
    """Watches all targets."""

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """How it is getting on, by the targets' names."""
        ...

    def transitions(self, checkpoint: Checkpoint) -> AbstractAsyncContextManager[AsyncIterator[Transition]]:
        """The transitions of all jobs of all targets, after what the checkpoint has."""
        ...


@attrs.define(eq=False)
class Here:
    """A fleet of this process's own."""

    _configuration: Configuration
    _settings: Settings
    _fleet: Fleet = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._fleet = Fleet(self._configuration.targets, settings=self._settings)

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """As of :class:`Fleet`."""
        return self._fleet.outcomes

    @contextlib.asynccontextmanager
    async def transitions(self, checkpoint: Checkpoint) -> AsyncIterator[AsyncIterator[Transition]]:
        """As of :meth:`Fleet.watch_jobs`."""
        async with self._fleet as fleet, self._configuration.watch.begin(fleet, checkpoint) as watch:
            yield watch


@attrs.define(eq=False)
class OnCluster:
    """The workers of a Dask cluster. Requests are made there, and not counted here."""

    _configuration: Configuration
    _address: str
    """The scheduler's."""
    _watch: ShardedWatch | None = attrs.field(default=None, init=False)

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """As of :class:`vizwatch.dask.ShardedWatch`."""
        if self._watch is None:
            return {target.name: Outcome(target) for target in self._configuration.targets}
        return self._watch.outcomes

    @contextlib.asynccontextmanager
    async def transitions(self, checkpoint: Checkpoint) -> AsyncIterator[AsyncIterator[Transition]]:
        """As of :func:`vizwatch.dask.watch_fleet`."""
        from vizwatch.dask import check_address, connected, watch_fleet  # noqa: PLC0415 - an extra

        check_address(self._address, self._configuration.settings)
        try:
            async with asyncio.timeout(_CONNECTED_WITHIN):
                cluster = await connected(self._address)
        except Exception as error:  # noqa: BLE001 - where HTTP is spoken it is a MemoryError, and so on
            reason = printable(str(error) or f"what is there does not answer as one ({type(error).__name__})")
            raise VizwatchError(f"no scheduler at {printable(self._address, 100)}: {reason}") from None
        async with cluster:
            self._watch = watch_fleet(
                cluster,
                self._configuration.targets,
                checkpoint=checkpoint,
                settings=self._configuration.settings,
                **self._configuration.watch.options,
            )
            async with self._watch as watch:
                yield watch
