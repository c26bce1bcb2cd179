"""How the watch of each target is getting on, as far as the caller hears of its shard."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from vizwatch._values.errors import TransportError
from vizwatch._values.text import printable
from vizwatch.dask._shard import PULSE
from vizwatch.fleet import Outcome, Target

_LOG: Final = logging.getLogger("vizwatch")
_SILENT: Final = 3 * PULSE
"""After how many seconds a shard that says nothing may be no more."""
_EPISODE: Final = 600.0
"""For how long all has to be well before it is logged again that something is not, in seconds."""


@attrs.define(eq=False)
class Health:
    """What was heard of the targets, each of which is known by its place among all."""

    _targets: Sequence[Target]
    _scheduler: str
    """Its address."""
    _reported: dict[int, tuple[Outcome, float]] = attrs.field(factory=dict, init=False)
    """How a target was getting on, and when that was heard."""
    _heard_at: dict[int, float] = attrs.field(factory=dict, init=False)
    """When anything was heard last of each target of which something should be."""
    _workers: int | None = attrs.field(default=None, init=False)
    """How many there were when the scheduler answered last."""
    _answered_at: float = attrs.field(default=-math.inf, init=False)
    _was_silent: bool = attrs.field(default=False, init=False)
    _logged_at: float = attrs.field(default=-math.inf, init=False)

    def expects(self, places: Iterable[int]) -> None:
        """Something was heard of these targets, or should soon be."""
        self._heard_at.update(dict.fromkeys(places, _now()))

    def ended(self, places: Iterable[int]) -> None:
        """Nothing more will be heard of them."""
        for place in places:
            self._heard_at.pop(place, None)

    def reported(self, place: int, outcome: Outcome) -> None:
        """A shard says how one of its targets is getting on."""
        self._reported[place] = outcome, _now()

    def answered(self, workers: int) -> None:
        """The scheduler says how many workers there are."""
        self._workers, self._answered_at = workers, _now()

    def outcomes(self) -> dict[str, Outcome]:
        """By the targets' names."""
        return {target.name: self._outcome(place, target) for place, target in enumerate(self._targets)}

    def _outcome(self, place: int, target: Target) -> Outcome:
        now = _now()
        outcome, reported_at = self._reported.get(place, (Outcome(target), now))
        seconds, silence = now - reported_at, now - self._heard_at.get(place, now)
        return attrs.evolve(
            outcome,
            complete=outcome.complete and seconds < _SILENT,  # after long, nobody knows
            age=None if outcome.age is None else outcome.age + seconds,
            error=outcome.error if silence < _SILENT else self._error(silence),
        )

    def _error(self, silence: float) -> TransportError:
        return TransportError(f"nothing was heard of its shard for {silence:.0f} s: {self._reason()}")

    def _reason(self) -> str:
        """What is amiss with the cluster, and what to do about it."""
        if _now() - self._answered_at >= _SILENT:
            address = printable(self._scheduler, 100)
            return f"the scheduler at {address} does not answer: see whether it runs and can be reached"
        if not self._workers:
            return "the cluster has no worker: start one that has vizwatch as the caller has it"
        return f"see what the {self._workers} workers of the cluster are busy with, and their logs"

    async def watch(self) -> None:
        """Logs once that targets are not heard of, until that was not so for long."""
        while True:
            await asyncio.sleep(PULSE)
            self._look()

    def _look(self) -> None:
        now = _now()
        silent = sum(now - heard_at >= _SILENT for heard_at in self._heard_at.values())
        # Not the first time: this process itself may have stood still, and will hear of them at once.
        if silent and self._was_silent:
            if now - self._logged_at >= _EPISODE:
                _LOG.warning(
                    "nothing is heard of %d of %d targets: %s", silent, len(self._targets), self._reason()
                )
            self._logged_at = now
        self._was_silent = silent > 0


def _now() -> float:
    return asyncio.get_running_loop().time()
