"""The service: one watch of all targets, a backlog for each sink, and couriers that deliver it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from vizwatch import Outcome, SqliteCheckpoint, VizwatchError, printable
from vizwatch.service.courier import Courier
from vizwatch.service.health import Health
from vizwatch.service.metrics import Snapshot
from vizwatch.service.options import Configuration, PythonCall, RedisStream, SinkOptions, Stdout, Webhook
from vizwatch.service.outbox import AfterOutbox, Outbox
from vizwatch.service.payload import transition_fields
from vizwatch.service.progress import LOG, Progress
from vizwatch.service.sinks import PythonSink, Sink, StdoutSink
from vizwatch.service.watching import Here, OnCluster, Watcher
from vizwatch.service.webhook import WebhookSink

_IN_HAND: Final = 3.0
"""How many seconds deliveries in hand have once the service is to end."""


async def serve(configuration: Configuration, *, dask: str | None = None) -> None:
    """Watches and delivers until it is cancelled; then brings to its end what is in hand, within 5 seconds.

    Args:
        configuration: What to watch, and where to deliver.
        dask: The address of a Dask scheduler, whose workers watch; ``None`` for this process.

    Raises:
        ConfigError: The backlog or the checkpoint is none.
        OSError: The folder or the backlog cannot be used, or nobody can listen at the address for health and
            metrics.
        VizwatchError: Another service uses the folder; or no target can be watched any more, and the error
            is that of one of them.
    """
    names = [sink.name for sink in configuration.sinks]
    progress = Progress.of(names)
    bounds = {sink.name: sink.backlog for sink in configuration.sinks}
    settings = attrs.evolve(configuration.settings, on_request=progress.requested)
    with _alone(configuration.state):
        async with Outbox(configuration.state / "backlog.sqlite", bounds, progress) as outbox:
            _warn_of_orphans(outbox.sizes, names)
            watcher = Here(configuration, settings) if dask is None else OnCluster(configuration, dask)
            await _Service(configuration, watcher, outbox, progress).run()


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Makes the folder, and keeps others from using it: two services would both deliver one backlog."""
    where = printable(str(state))
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = (state / "lock").open("wb")
    except OSError as error:
        raise OSError(f"state.path cannot be written: {where}: {error.strerror}; see to its rights") from None
    with opened as lock:
        if sys.platform != "win32":
            import fcntl  # noqa: PLC0415 - of POSIX alone

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                used = f"state.path is in use by another service: {where}"
                raise VizwatchError(f"{used}; end that, or give each a folder of its own") from None
            except OSError as error:
                why = f"state.path cannot be locked: {where}: {error.strerror}"
                raise OSError(f"{why}; give a folder of this machine") from None
        yield


def _warn_of_orphans(sizes: Mapping[str, int], names: list[str]) -> None:
    for name, size in sizes.items():
        if size and name not in names:
            LOG.warning("%d transitions wait for sink %s, which is not configured: they are kept", size, name)


def _made(options: SinkOptions) -> Sink:
    match options.destination:
        case Stdout():
            return StdoutSink(options.timeout)
        case PythonCall() as call:
            return PythonSink(call, options.timeout)
        case Webhook() as webhook:
            return WebhookSink(webhook, options.timeout)
        case RedisStream() as stream:
            from vizwatch.service.streams import RedisSink  # noqa: PLC0415 - an extra

            return RedisSink(stream, options.timeout)


@attrs.define(eq=False)
class _Service:
    configuration: Configuration
    watcher: Watcher
    outbox: Outbox
    progress: Progress

    async def run(self) -> None:
        """Until it is cancelled, or something ends that must not."""
        sinks = {options.name: _made(options) for options in self.configuration.sinks}
        couriers = [
            asyncio.create_task(Courier(name, sink, self.outbox, self.progress).run(), name=f"sink {name}")
            for name, sink in sinks.items()
        ]
        watching = asyncio.create_task(self._watch(), name="watch")
        look = functools.partial(self._snapshot, watching)
        try:
            async with Health(self.configuration.listen, look):
                ends: list[asyncio.Future[Any]] = [watching, *couriers, self.outbox.broken]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending = asyncio.create_task(self._end(watching, couriers, [*sinks.values()]))
            while not ending.done():
                with contextlib.suppress(asyncio.CancelledError):  # a signal asks for what is under way
                    await asyncio.wait([ending])
            ending.result()

    async def _end(
        self, watching: asyncio.Task[None], couriers: list[asyncio.Task[None]], sinks: list[Sink]
    ) -> None:
        """Raises what ended the service, or one of its tasks at the end."""
        await self._stop(watching, couriers)
        await asyncio.gather(*(sink.aclose() for sink in sinks), return_exceptions=True)
        if self.outbox.broken.done():
            raise self.outbox.broken.result()
        for task in (watching, *couriers):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _snapshot(self, watching: asyncio.Task[None]) -> Snapshot:
        return Snapshot(
            outcomes=self.watcher.outcomes,
            sizes=self.outbox.sizes,
            merged=self.outbox.merged,
            progress=self.progress,
            is_watching=not watching.done(),
        )

    async def _stop(self, watching: asyncio.Task[None], couriers: list[asyncio.Task[None]]) -> None:
        """Nothing new is taken; what is in hand is brought to its end, if that does not take too long."""
        LOG.info("to end: deliveries in hand have %g s", _IN_HAND)
        watching.cancel()
        self.outbox.stop()
        await asyncio.wait([watching, *couriers], timeout=_IN_HAND)
        late = [task for task in couriers if not task.done()]
        if late:
            LOG.warning("deliveries in hand are broken off, and will be repeated: %d", len(late))
        for task in late:
            task.cancel()
        await asyncio.wait([watching, *couriers])

    async def _watch(self) -> None:
        """Hands each transition over, to be kept before it is delivered. Raises what ends the watch."""
        configured = self.configuration
        targets = {target.project_id: target.name for target in configured.targets}
        kept = configured.checkpoint or SqliteCheckpoint(configured.state / "checkpoint.sqlite")
        checkpoint = AfterOutbox(kept, self.outbox, self.progress.checkpoint)
        async with self.watcher.transitions(checkpoint) as transitions:
            async for transition in transitions:
                target = targets[transition.project_id]
                self.progress.saw(target, transition)
                takers = [sink.name for sink in configured.sinks if sink.filter.takes(transition, target)]
                if takers:
                    await self.outbox.put(takers, transition_fields(transition))
            raise _over(self.watcher.outcomes)


def _over(outcomes: Mapping[str, Outcome]) -> VizwatchError:
    """Why a watch that does not end by itself has ended.

    It is no :class:`ConfigError`, whatever the targets' errors are: another start may come to something else.
    """
    errors = {name: outcome.error for name, outcome in outcomes.items() if outcome.error is not None}
    for name, error in errors.items():
        LOG.error("target %s cannot be watched any more: %s", name, error)
    first = next(iter(errors.values()), "they ended")
    return VizwatchError(f"no target can be watched any more: {first}")
