"""How fast an account's requests may follow each other: its budget, and what a 429 leaves of it."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import attrs

_MEASURED_OVER: Final = 10.0
_REST: Final = 5.0
_LONGEST_REST: Final = 600.0
_GROWTH: Final = 0.01
_LOWEST: Final = 0.1
_BURST: Final = 1.0
_HASTE_A_SECOND: Final = 10.0
_HASTE_FOR_A_USUAL: Final = 0.5
_HASTE_MOST: Final = 20.0
_NOTHING: Final = 1e-6  # less than a clock can tell, so that nobody waits for ever


@attrs.define
class Pace:
    """The pace of one account's requests, in seconds of any one clock.

    Until the service says 429 it is what the user set, or not bounded at all. Then nothing is sent for as
    long as the service asks (ten minutes at most), or for five seconds if it does not say; after that, half
    as many requests as were sent before, growing by one percent of those a second, until nobody has waited
    at twice that rate. Requests that were under way together are one refusal, however many of them are
    refused; another one within ten seconds of the rest halves what it begins with, and not how fast it grows.
    """

    budget: float | None = None
    """Requests a second; ``None`` for no bound."""
    _rests_until: float = attrs.field(default=-math.inf, init=False)
    _fell_at: float = attrs.field(default=-math.inf, init=False)
    _before: float = attrs.field(default=math.inf, init=False)
    """The rate that was too high."""
    _start: float = attrs.field(default=math.inf, init=False)
    """The rate at the end of the last rest."""
    _due: float = attrs.field(default=-math.inf, init=False)
    """When the next request is due, if they are evenly spread."""
    _sent: deque[float] = attrs.field(factory=lambda: deque(maxlen=1024), init=False)

    def rate(self, now: float) -> float | None:
        """Requests a second; ``None`` for no bound."""
        if math.isinf(self._before):
            return self.budget
        grown = max(self._start + _GROWTH * self._before * self._since_rest(now), _LOWEST)
        # Without a bound, all that wait would go at once.
        has_recovered = grown >= 2 * self._before and now > self._due + 1.0 / grown
        if has_recovered or grown >= (self.budget or math.inf):
            self._before = math.inf
            return self.budget
        return grown

    def _since_rest(self, now: float) -> float:
        return max(now - max(self._rests_until, self._fell_at), 0.0)

    @property
    def is_open(self) -> bool:
        """Whether nothing bounds it."""
        return self.budget is None and math.isinf(self._before)

    def rest(self, now: float) -> float:
        """For how long nothing may be sent at all."""
        return max(self._rests_until - now, 0.0)

    def wait(self, now: float) -> float:
        """How long to wait before the next request; ask again afterwards, since a 429 may have come."""
        rate, wait = self.rate(now), self.rest(now)
        if rate is not None:
            # A budget that was never exceeded may be spent in bursts of a second's worth.
            leeway = max(_BURST - 1.0 / rate, 0.0) if math.isinf(self._before) else 0.0
            wait = max(wait, self._due - leeway - now)
        return wait if wait > _NOTHING else 0.0

    def sent(self, now: float) -> None:
        """A request is sent, at a time when it was due."""
        self._sent.append(now)
        rate = self.rate(now)
        if rate is not None:
            self._due = max(self._due, now) + 1.0 / rate

    def throttled(
        self, now: float, sent_at: float, retry_after: float | None, allowed: float | None = None
    ) -> None:
        """A request was refused for its rate.

        Args:
            now: The time.
            sent_at: When it was sent.
            retry_after: How long the service asks to wait.
            allowed: How many requests a second the service says that it allows.
        """
        rate, since_rest = self.rate(now), self._since_rest(now)
        if retry_after is not None:
            self._rests_until = max(self._rests_until, now + min(retry_after, _LONGEST_REST))
        if sent_at <= self._fell_at:
            return
        if math.isinf(self._before) or since_rest >= _MEASURED_OVER:
            self._before = min(self._measured(now), rate or math.inf, allowed or math.inf)
            self._start = self._before / 2
        else:
            self._before = min(self._before, allowed or math.inf)
            self._start = min(self._start, self._before) / 2
        self._fell_at = now
        if retry_after is None:
            self._rests_until = max(self._rests_until, now + _REST)
        self._due = max(self._rests_until, now)

    def _measured(self, now: float) -> float:
        recent = [at for at in self._sent if at > now - _MEASURED_OVER]
        return max(len(recent), 1) / max(now - recent[0] if recent else 0.0, 1.0)


@attrs.define
class Haste:
    """Whether a look may come sooner than at its interval, over all watches of an account.

    A few always may. Where thousands change at once, as a service is back, these looks are half as many as
    those at the interval, and ten a second more: together less than twice what the watches cost else.
    """

    _credit: float = attrs.field(default=_HASTE_MOST, init=False)
    _at: float = attrs.field(default=-math.inf, init=False)

    def may(self, now: float) -> bool:
        """Whether a look may come sooner, which counts."""
        self._credit = min(_HASTE_MOST, self._credit + _HASTE_A_SECOND * max(now - self._at, 0.0))
        self._at = max(now, self._at)
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    def waits(self) -> None:
        """A look comes at its interval."""
        self._credit = min(_HASTE_MOST, self._credit + _HASTE_FOR_A_USUAL)
