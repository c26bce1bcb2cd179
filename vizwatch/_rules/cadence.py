"""When to look again: given what was seen of a job, and when."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

import attrs

from vizwatch._values.exchange import Operation

_HEALTHY_AFTER: Final = 120.0
_LONGEST_PAUSE: Final = 600.0
_LAST_LOOK: Final = 1.0


@attrs.define
class Cadence:
    """The pauses between the looks of one watch, in seconds.

    After a good read, the interval, shorter or longer by up to `jitter`, so that many watches spread.
    After a failed one, a random pause that doubles with each failure, and that short health does not forget:
    a service that fails every second read is spared too.
    """

    interval: float
    jitter: float
    backoff_base: float
    backoff_max: float
    _failures: int = attrs.field(default=0, init=False)
    _healthy_since: float | None = attrs.field(default=None, init=False)

    def after_read(self, now: float, chance: float) -> float:
        """The pause after a read that succeeded; `chance` is a random number from [0, 1)."""
        if self._healthy_since is None:
            self._healthy_since = now
        if now - self._healthy_since >= _HEALTHY_AFTER:
            self._failures = 0
        return self.jittered(self.interval, chance)

    def jittered(self, pause: float, chance: float) -> float:
        """A pause, shorter or longer by a random part."""
        return pause * (1.0 + self.jitter * (2.0 * chance - 1.0))

    def after_failure(self, chance: float, retry_after: float | None = None) -> float:
        """The pause after a read that failed, at least what the service asked for (up to ten minutes)."""
        self._healthy_since = None
        self._failures += 1
        longest = min(self.backoff_max, self.backoff_base * 2.0 ** min(self._failures - 1, 60))
        return chance * longest + min(retry_after or 0.0, _LONGEST_PAUSE)

    def last_look(self, deadline: float, timeout: float) -> float:
        """When to look for the last time before a deadline, however long the interval is."""
        return deadline - min(_LAST_LOOK, timeout / 10)

    @property
    def longest(self) -> float:
        """The longest pause after a good read: data older than this, and a request's time, is stale."""
        return self.interval * (1.0 + self.jitter)


def on_beat(now: float, interval: float, phase: float) -> float:
    """The next time at `phase` seconds after a multiple of the interval, half an interval from now at least.

    Many that read at an interval each, and have other phases, stay spread, whatever keeps them for a while.
    """
    return phase + interval * (math.floor((now - phase) / interval + 0.5) + 1)


ABSENCES_TO_CONFIRM: Final = 3
SETTLES_WITHIN: Final = 60.0
CONFIRMS_AFTER: Final = 5.0
"""How soon a step back is read again, in seconds: replicas mostly lag less."""
_FIRST_DOUBT: Final = 1.0
_PATIENCE: Final = 20
"""How many intervals lie at most between looks for a job that may come some day."""


@attrs.define
class Doubt:
    """Whether what a read says of a job can be believed: the service answers from replicas that lag.

    A job that was seen is gone once three reads in a row, an interval apart, did not find it. One that was
    never seen is looked for three times as well, but within seconds, since that is mostly a mistyped id; one
    that this client has just created is waited for, up to a minute. For as long, the end of a job that this
    client has just restarted is taken for the end of the run before. One that this client has deleted is
    expected to go, and confirmed within seconds.
    """

    created_at: float | None = None
    """When this client created the job, if it did."""
    restarted_at: float | None = None
    """When this client restarted the job, if it did."""
    is_deleted: bool = False
    """Whether this client deleted the job."""
    is_awaited: bool = False
    """Whether a job that was never seen is waited for, however long."""
    _misses: int = attrs.field(default=0, init=False)
    _doubts: int = attrs.field(default=0, init=False)
    _was_seen: bool = attrs.field(default=False, init=False)

    def found(self) -> None:
        """The job was there, and what was said of it is believed."""
        self._misses = self._doubts = 0
        self._was_seen = True

    def missed(self, now: float) -> bool:
        """The job was not found; tells whether it is gone."""
        self._misses += 1
        self._doubts += 1
        if not self._was_seen and (self.is_awaited or _is_recent(self.created_at, now)):
            return False
        return self._misses >= ABSENCES_TO_CONFIRM

    def is_old(self, is_terminal: bool, now: float) -> bool:  # noqa: FBT001 - of the status that was read
        """Whether a status is that of the run before an own restart."""
        is_old = is_terminal and not self._was_seen and _is_recent(self.restarted_at, now)
        if is_old:
            self._misses = 0
            self._doubts += 1
        return is_old

    def pause(self, interval: float) -> float:
        """How long to wait after a read that was not believed, given the pause after a good one."""
        if self._was_seen and not self.is_deleted:
            return interval
        longest = min(interval * _PATIENCE, _LONGEST_PAUSE) if self.is_awaited else interval
        return min(longest, _FIRST_DOUBT * 2.0 ** min(self._doubts - 1, 60))


def _is_recent(since: float | None, now: float) -> bool:
    return since is not None and now - since < SETTLES_WITHIN


_REMEMBERED: Final = 1024


@attrs.define
class OwnWrites:
    """When a client last created, restarted and deleted which jobs; what :class:`Doubt` has to know."""

    _times: dict[Operation, OrderedDict[int, float]] = attrs.field(factory=dict, init=False)

    def note(self, operation: Operation, job_id: int, now: float) -> None:
        """The client wrote, or may have."""
        if operation is Operation.STOP:
            # An end seen from now on is this one's, and not the end before a restart.
            self._of(Operation.RESTART).pop(job_id, None)
            return
        times = self._of(operation)
        times[job_id] = now
        times.move_to_end(job_id)
        if len(times) > _REMEMBERED:
            times.popitem(last=False)

    def doubt(self, job_id: int, *, is_awaited: bool = False) -> Doubt:
        """What to doubt of a job's reads; `is_awaited` as of :class:`Doubt`."""
        return Doubt(
            self._of(Operation.CREATE).get(job_id),
            self._of(Operation.RESTART).get(job_id),
            job_id in self._of(Operation.DELETE),
            is_awaited,
        )

    def _of(self, operation: Operation) -> OrderedDict[int, float]:
        return self._times.setdefault(operation, OrderedDict())
