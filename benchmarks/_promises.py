"""The promises of a watch, each with a checker of its own, held against what the jobs truly went through."""

from __future__ import annotations

import datetime as dt
import traceback
from collections import Counter
from collections.abc import Collection
from typing import Final

import attrs

from vizwatch import Settings, Transition

PROMISES: Final = (
    "ordered",
    "no echo",
    "no invention",
    "final state",
    "freshness",
    "times of changes",
    "write at most once",
    "no secret out",
)
_EPSILON: Final = 0.01
_EXAMPLES: Final = 8

Status = int | None
"""`None`: deleted."""


@attrs.frozen
class Life:
    """What a job truly goes through: pairs of a moment and the status from then on, the oldest first."""

    steps: tuple[tuple[float, Status], ...]

    @property
    def end(self) -> tuple[float, Status]:
        """The last of them."""
        return self.steps[-1]

    def within(self, start: float, end: float) -> set[Status]:
        """The statuses that were true at some moment between the two."""
        started = [(at, status) for at, status in self.steps if at <= end]
        before = [status for at, status in started if at <= start]
        return {*before[-1:], *(status for at, status in started if at >= start)}

    def enters(self, status: Status, start: float, end: float) -> bool:
        """Whether that status began between the two."""
        return any(start <= at <= end for at, entered in self.steps if entered == status)


@attrs.define
class Promises:
    """What was checked, and what was broken.

    Args:
        settings: The client's, from which the bounds follow.
    """

    settings: Settings
    secrets: Collection[str] = attrs.field(default=(), repr=False)
    """What must be in no text."""
    checked: Counter[str] = attrs.field(factory=Counter, init=False)
    broken: Counter[str] = attrs.field(factory=Counter, init=False)
    examples: list[str] = attrs.field(factory=list, init=False)
    troubles: list[tuple[float, float]] = attrs.field(factory=list, init=False)
    """Spans in which the cloud is out of order, recovery included: ends may then come later."""
    slowest: float = attrs.field(default=0.0, init=False)
    """The longest that an end took to be delivered while all was well."""

    @property
    def longest(self) -> float:
        """The longest pause between two reads of a healthy watch."""
        return self.settings.poll_interval * (1 + self.settings.poll_jitter)

    def hold(self, promise: str, *, kept: bool, otherwise: str) -> None:
        """Notes whether a promise was kept; otherwise, in which way not."""
        self.checked[promise] += 1
        if not kept:
            self.broken[promise] += 1
            if self.broken[promise] <= _EXAMPLES // 2:
                self.examples.append(f"{promise}: {otherwise}")

    def keep_secret(self, *shown: object) -> None:
        """None of the secrets is in these values as they are shown, or in these errors' tracebacks."""
        texts = [
            "".join(traceback.format_exception(one)) if isinstance(one, BaseException) else f"{one!r} {one}"
            for one in shown
        ]
        kept = not any(secret in text for secret in self.secrets for text in texts)
        self.hold("no secret out", kept=kept, otherwise=f"in what a {type(shown[0]).__name__} shows")

    def was_calm(self, start: float, end: float) -> bool:
        """Whether the cloud was in order between the two."""
        return not any(start < after and since < end for since, after in self.troubles)

    def calm_from(self, moment: float, seconds: float) -> float:
        """The first moment from this one on after which the cloud is in order for so long."""
        for since, after in sorted(self.troubles):
            if since - seconds < moment < after:
                moment = after
        return moment

    def delivered(self, life: Life, now: float) -> None:
        """The end of a life was delivered."""
        since, status = life.end
        if self.was_calm(since, now):
            self.slowest = max(self.slowest, now - since)
            late = now - since > self._allowed(status)
            self.hold("final state", kept=not late, otherwise=f"{status} after {now - since:.1f} s")

    def pending(self, life: Life, now: float) -> None:
        """The end of a life was not delivered yet."""
        since, status = life.end
        if now - since > self._allowed(status) and self.was_calm(since, now):
            self.hold("final state", kept=False, otherwise=f"{status} not within {now - since:.1f} s")

    def _allowed(self, status: Status) -> float:
        # A deletion is believed once three reads in a row have confirmed it.
        return self.longest * (3 if status is None else 1) + self.settings.call_timeout


@attrs.define
class Witness:
    """Watches one watch: holds each transition against the job's life and the transitions before it."""

    promises: Promises
    life: Life
    last: Transition | None = attrs.field(default=None, init=False)
    _wall: dt.datetime | None = attrs.field(default=None, init=False)
    _began: float = attrs.field(default=0.0, init=False)

    def saw(self, new: Transition, now: float) -> None:
        """The watch gave a transition."""
        last, hold = self.last, self.promises.hold
        if self._wall is None:
            self._wall, self._began = new.not_after, now
        chained = new.previous == (None if last is None else last.current)
        after = last is None or (new.not_after >= last.not_after and new.id != last.id)
        between = new.not_before is None or new.not_before <= new.not_after
        hold("ordered", kept=chained and after and between, otherwise=f"{last} then {new}")
        alike = last is not None and (last.run, last.current) == (new.run, new.current)
        hold("no echo", kept=not alike, otherwise=f"{last} then {new}")
        current = None if new.current is None else int(new.current)
        oldest = now - self.promises.settings.attempt_timeout - _EPSILON
        true = current in self.life.within(oldest, now + _EPSILON)
        hold("no invention", kept=true, otherwise=f"{current} at {now:.1f} of {self.life.steps}")
        if new.not_before is not None:
            # The status found first may have begun at any time; every other one between the two reads.
            start, end = self._at(new.not_before) - _EPSILON, self._at(new.not_after) + _EPSILON
            entered = self.life.enters(current, start, end)
            otherwise = f"{current} did not begin in {start:.1f}..{end:.1f}: {self.life.steps}"
            hold("times of changes", kept=entered, otherwise=otherwise)
        self.last = new

    def _at(self, moment: dt.datetime) -> float:
        assert self._wall is not None
        return self._began + (moment - self._wall).total_seconds()

    def look(self, now: float, *, stale: bool) -> None:
        """At any moment: the watch is at most a read behind, or says that it is stale."""
        if stale or self.last is None:
            return
        current = None if self.last.current is None else int(self.last.current)
        lag = self.promises.longest + self.promises.settings.attempt_timeout
        true = self.life.within(now - lag - _EPSILON, now)
        self.promises.hold(
            "freshness", kept=current in true, otherwise=f"{current} shown as fresh, {true} true, {now:.1f}"
        )
