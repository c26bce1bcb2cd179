"""The courier: takes what waits for one sink, in order, and delivers it until it is taken."""

from __future__ import annotations

from typing import Final

import attrs

from vizwatch.service.backlog import Entry
from vizwatch.service.outbox import Outbox
from vizwatch.service.progress import Progress, backoff
from vizwatch.service.sinks import DeliveryError, Sink

_BASE: Final = 1.0
_LONGEST: Final = 60.0
"""Of the pauses after failures that pass by themselves, in seconds."""
_REFUSED_BASE: Final = 30.0
_REFUSED_LONGEST: Final = 300.0
"""Of those after refusals, which do not: what was not delivered is kept for whoever mends the receiver."""
_RETRY_AFTER_MAX: Final = 300.0


@attrs.define(eq=False)
class Courier:
    """Of one sink."""

    name: str
    sink: Sink
    outbox: Outbox
    progress: Progress

    async def run(self) -> None:
        """Delivers until the service stops; a delivery in hand is brought to its end, and not tried again."""
        while (entry := await self.outbox.take(self.name)) is not None:
            while (pause := await self._attempt(entry)) is not None:
                await self.outbox.pause(self.name, pause)
                if self.outbox.is_stopping:
                    return
            await self.outbox.remove(self.name)

    async def _deliver(self, entry: Entry) -> None:
        try:
            await self.sink.deliver(entry)
        except DeliveryError:
            raise
        except Exception as error:  # a sink's surprise is its own, and ends no other
            raise DeliveryError(f"it failed: {type(error).__name__}", is_refusal=True) from error

    async def _attempt(self, entry: Entry) -> float | None:
        """Delivers it, and gives ``None``; or says what went wrong, and gives for how long to wait."""
        trouble, deliveries = self.progress.sinks[self.name], self.progress.deliveries
        try:
            await self._deliver(entry)
        except DeliveryError as error:
            trouble.failed(str(error), error.__cause__)
            deliveries[self.name, "refused" if error.is_refusal else "failed"] += 1
            terms = (_REFUSED_BASE, _REFUSED_LONGEST) if error.is_refusal else (_BASE, _LONGEST)
            asked = min(error.retry_after or 0.0, _RETRY_AFTER_MAX)
            return max(backoff(trouble.failures, *terms), asked)
        trouble.over()
        deliveries[self.name, "delivered"] += 1
        return None
