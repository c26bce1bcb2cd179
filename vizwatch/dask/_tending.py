"""Tending: has the task of each shard run somewhere, as workers come and go."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from vizwatch.dask._cluster import Client, KilledWorker, cancelled
from vizwatch.dask._commanding import Commands
from vizwatch.dask._health import Health
from vizwatch.dask._placement import Shard, least_loaded, to_move
from vizwatch.dask._shard import watch_shard

_MISSING: Final = 2


@attrs.define(eq=False)
class Tending:
    """The tasks of all shards."""

    _cluster: Client
    _shards: Sequence[Shard]
    _commands: Commands
    _health: Health
    _fail: Callable[[BaseException], object]
    """Ends the watch."""

    def submit(self, shard: Shard, worker: str | None) -> None:
        """Has a shard begin, with that worker if there is one."""
        key = f"{self._commands.run}-{shard.number}-{uuid.uuid4().hex[:8]}"
        self._commands.retire(shard.incarnation)
        shard.incarnation, shard.moves_to, shard.missing, shard.worker = None, None, 0, worker
        shard.future = self._cluster.submit(
            watch_shard,
            self._commands.run,
            shard.number,
            key,
            key=key,
            pure=False,
            workers=None if worker is None else [worker],
            # Without that one, somewhere else.
            allow_other_workers=worker is not None,
        )

    async def submit_again(self) -> None:
        """Has all shards begin again, where they were."""
        shards = [shard for shard in self._shards if not shard.is_over]
        await cancelled(self._cluster, [shard.future for shard in shards])
        for shard in shards:
            self.submit(shard, shard.worker)

    async def tend(self, workers: Sequence[str]) -> None:
        """Has shards begin again whose task failed, and moves them to where there are fewer."""
        for shard in self._shards:
            if not shard.is_over:
                await self._revive(shard, workers)
        self._bring_back(workers)
        self._balance(workers)

    async def _revive(self, shard: Shard, workers: Sequence[str]) -> None:
        """Has a shard begin again that the scheduler gave up, or does not begin."""
        # Once there was no worker at all, a task that was to be with one waits for that one alone.
        shard.missing = 0 if shard.worker is None or shard.worker in workers else shard.missing + 1
        if shard.future.status == "error":
            error = await shard.future.exception()
            # A shard that several workers died with is no more to blame than any other.
            if not isinstance(error, KilledWorker):
                self._fail(error)
                return
        elif shard.future.status not in {"cancelled", "lost"} and shard.missing < _MISSING:
            return
        await cancelled(self._cluster, [shard.future])
        self.submit(shard, least_loaded(self._shards, workers))

    def _bring_back(self, workers: Sequence[str]) -> None:
        """Has shards begin again all of whose targets were refused, as long as others watch."""
        now = asyncio.get_running_loop().time()
        if all(shard.is_over for shard in self._shards):
            return
        for shard in self._shards:
            if shard.is_over and now >= shard.comes_back_at:
                shard.is_over = False
                self._health.expects(shard.places)
                self.submit(shard, least_loaded(self._shards, workers))

    def _balance(self, workers: Sequence[str]) -> None:
        """Moves one shard, if that makes things more even; the next one when that has begun again."""
        move = to_move(self._shards, workers)
        if move is not None:
            shard, worker = move
            shard.moves_to = worker
            self._commands.send(shard.incarnation, "stop")
