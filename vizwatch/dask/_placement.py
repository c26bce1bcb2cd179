"""Placement: which worker each shard is with, and which one it should move to."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import attrs

from vizwatch.dask._plan import Plan
from vizwatch.dask._shard import Reported


@attrs.define(eq=False)
class Shard:
    """A shard, as the caller sees it."""

    number: int
    plan: Plan
    future: Any = None
    """That of its task."""
    incarnation: str | None = None
    """Which of them counts: one whose worker was taken for dead may go on reporting."""
    worker: str | None = None
    """Where that is, or is to be."""
    missing: int = 0
    """How many looks in succession found no such worker."""
    moves_to: str | None = None
    """Where it is to go on, once it has stopped."""
    is_over: bool = False
    comes_back_at: float = math.inf
    """When one that is over begins again, as somebody may have mended what its targets are refused for."""
    ready: deque[Reported] = attrs.field(factory=deque, init=False)
    """What it has reported, and is not prepared yet."""

    @property
    def places(self) -> list[int]:
        """Those of its targets among all."""
        return [project.index for project in self.plan.projects]

    def reported_of(self, place: int) -> dict[int, bytes | None]:
        """What it has reported last of each job of a target, of what is not prepared yet."""
        return {job_id: record for of, job_id, record in self.ready if of == place}


def counts(shards: Sequence[Shard], workers: Sequence[str]) -> Counter[str]:
    """How many shards are with each worker."""
    found = Counter(dict.fromkeys(workers, 0))
    placed = [one.worker for one in shards if one.worker is not None and not one.is_over]
    found.update(worker for worker in placed if worker in found)
    return found


def least_loaded(shards: Sequence[Shard], workers: Sequence[str]) -> str:
    """The worker with the fewest shards."""
    found = counts(shards, workers)
    return min(workers, key=lambda worker: found[worker])


def to_move(shards: Sequence[Shard], workers: Sequence[str]) -> tuple[Shard, str] | None:
    """A shard, and where it should be, if that makes things more even and no other one is on its way."""
    shards = [shard for shard in shards if not shard.is_over]
    if not workers or any(shard.incarnation is None or shard.moves_to is not None for shard in shards):
        return None
    found = counts(shards, workers).most_common()
    (most, highest), (least, lowest) = found[0], found[-1]
    if highest - lowest <= 1:
        return None
    return next(shard for shard in shards if shard.worker == most), least
