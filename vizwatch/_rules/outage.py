"""Whether a service is down, as all watches of a client see it together, and how often many clients ask."""

from __future__ import annotations

import math
from typing import Final

import attrs

FAILURES_TO_BE_DOWN: Final = 5
_SHARE: Final = 0.015
_LEAST, _MOST = 0.5, 10.0
_QUICKER: Final = 2.0
_SLOWER: Final = 2.0**0.25


@attrs.define
class Outage:
    """Counts failures in a row over all reads, and says when the next one is worth it, in seconds.

    A few failures among many reads are the weather; five in a row, with no answer since they were begun, are
    an outage: a read that hangs while others are answered has no more to say of the service than of its job.
    Then one read at a time asks whether it is over, after pauses that grow from `backoff_base` to
    `backoff_max`, each the whole or a random part down to half of it.
    """

    backoff_base: float
    backoff_max: float
    failures: int = attrs.field(default=0, init=False)
    """How many reads in a row have failed."""
    _probes: int = attrs.field(default=0, init=False)
    _answered_at: float = attrs.field(default=-math.inf, init=False)
    probe_at: float = attrs.field(default=-math.inf, init=False)
    """When to ask again whether it is over."""

    def is_down(self) -> bool:
        """Whether nothing but a probe should be sent."""
        return self.failures >= FAILURES_TO_BE_DOWN

    def answered(self, now: float) -> None:
        """Any answer of the service, a refusal too: it is there."""
        self.failures = self._probes = 0
        self._answered_at = now

    def failed(self, begun: float, now: float, chance: float, *, is_probe: bool = False) -> None:
        """A read that was begun at a time got no answer; `chance` is a random number from [0, 1)."""
        if begun < self._answered_at:
            return
        self.failures += 1
        if is_probe or self.failures == FAILURES_TO_BE_DOWN:
            pause = min(self.backoff_max, self.backoff_base * 2.0 ** min(self._probes, 60))
            self._probes += 1
            self.probe_at = now + pause * (0.5 + 0.5 * chance)


@attrs.define
class RetryRate:
    """How many reads a second are sent of those that failed the last time, over many clients.

    Each client takes to asking every half a minute on its own, which is half of what a fleet asks in health.
    So all of them together ask half as often after four reads without an answer, and twice as often after
    each that gets one: where most projects stay down, those that are back are found quickly among them. What
    it takes to ask all that wait once in an interval is the most, or ten a second, and 1.5 % of it the least,
    or one in two seconds.
    """

    _rate: float = attrs.field(default=math.inf, init=False)
    _sent_at: float = attrs.field(default=-math.inf, init=False)

    def wait(self, now: float, spread: float) -> float:
        """How long the next one waits, in seconds, where `spread` a second would be all in an interval."""
        self._rate = min(max(self._rate, _LEAST, _SHARE * spread), max(_MOST, spread))
        return self._sent_at + 1.0 / self._rate - now

    def sent(self, now: float) -> None:
        """One is sent."""
        self._sent_at = now

    def answered(self) -> None:
        """One was answered, be it by a refusal."""
        self._rate *= _QUICKER

    def failed(self) -> None:
        """One was not."""
        self._rate /= _SLOWER
