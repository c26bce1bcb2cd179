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


@attrs.frozen
class Cadence:
    """The pauses between the looks of a watch, in seconds.

    Each pause after a good read is shorter or longer by up to `jitter`, so that many watches spread. After a
    failed read comes a random pause that doubles with each failure.
    """

    interval: float
    """The longest pause after a good read, before jitter."""
    shortest: float
    """The shortest pause after a good read, whatever the jitter."""
    jitter: float
    backoff_base: float
    backoff_max: float

    def jittered(self, pause: float, chance: float) -> float:
        """A pause, shorter or longer by a random part; `chance` is a random number from [0, 1)."""
        least = min(1.0, max(self.shortest / pause, 1.0 - self.jitter))
        return pause * (least + chance * (1.0 + self.jitter - least))

    def on_beat(self, now: float, phase: float) -> float:
        """The next time that is `phase` seconds after a multiple of the interval, and not too soon.

        Many that read at an interval each, and have other phases, stay spread, whatever keeps them for a
        while. No pause is longer than the longest with jitter, unless the shortest is longer than that adds.
        """
        least = min(max(self.shortest, self.longest - self.interval), self.interval / 2)
        return phase + self.interval * (math.floor((now + least - phase) / self.interval) + 1)

    def after_failures(self, failures: int, chance: float, retry_after: float | None = None) -> float:
        """The pause after a read that failed, as of :func:`backoff`."""
        return backoff(failures, chance, self.backoff_base, self.backoff_max, retry_after)

    def last_look(self, deadline: float, timeout: float) -> float:
        """When to look for the last time before a deadline, however long the interval is."""
        return deadline - min(_LAST_LOOK, timeout / 10)

    @property
    def spread(self) -> float:
        """By how much one pause after a good read may be longer than another, at most."""
        return 2.0 * self.interval * self.jitter

    @property
    def longest(self) -> float:
        """The longest pause after a good read: data older than this, and a request's time, is stale."""
        return self.interval * (1.0 + self.jitter)


def backoff(
    failures: int, chance: float, base: float, longest: float, retry_after: float | None = None
) -> float:
    """The pause after so many failures, at least what the service asked for (up to ten minutes).

    Args:
        failures: How many, the last one included.
        chance: A random number from [0, 1), by which it is shorter than it could be.
        base: The longest pause after the first failure; doubles with each further one.
        longest: What that grows to.
        retry_after: What the service asked for.
    """
    return chance * min(longest, base * 2.0 ** min(failures - 1, 60)) + min(
        retry_after or 0.0, _LONGEST_PAUSE
    )


@attrs.define
class Failures:
    """The failed reads of one kind, which short health does not forget.

    So a service that fails every second read is spared too.
    """

    count: int = attrs.field(default=0, init=False)
    """How many are not forgotten."""
    _healthy_since: float | None = attrs.field(default=None, init=False)

    @property
    def go_on(self) -> bool:
        """Whether the last read failed."""
        return self._healthy_since is None

    def failed(self) -> None:
        """A read failed."""
        self.count += 1
        self._healthy_since = None

    def succeeded(self, now: float) -> None:
        """A read succeeded."""
        if self._healthy_since is None:
            self._healthy_since = now
        if now - self._healthy_since >= _HEALTHY_AFTER:
            self.count = 0


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
    expected to go, and confirmed within seconds. The first read that is believed ends the doubt.
    """

    created_at: float | None = None
    """When this client created the job, if it did."""
    restarted_at: float | None = None
    """When this client restarted the job, if it did."""
    is_deleted: bool = False
    """Whether this client deleted the job."""
    was_seen: bool = False
    """Whether the job was read before, and what was said of it believed."""
    is_awaited: bool = False
    """Whether a job that was never seen is waited for, however long."""
    missed_at: float | None = attrs.field(default=None, init=False)
    """When the job was not found for the last time."""
    counts_from: float = attrs.field(default=-math.inf, init=False)
    """From when on a sweep of the listing that lacks it, too, counts as much as its details."""
    _misses: int = attrs.field(default=0, init=False)
    _doubts: int = attrs.field(default=0, init=False)

    def missed(self, now: float) -> bool:
        """The job was not found; tells whether it is gone."""
        self.missed_at = now
        self._misses += 1
        self._doubts += 1
        if not self.was_seen and (self.is_awaited or is_recent(self.created_at, now)):
            return False
        return self._misses >= ABSENCES_TO_CONFIRM

    def is_old(self, is_terminal: bool, now: float) -> bool:  # noqa: FBT001 - of the status that was read
        """Whether a status is that of the run before an own restart."""
        is_old = is_terminal and not self.was_seen and is_recent(self.restarted_at, now)
        if is_old:
            self._misses = 0
            self._doubts += 1
        return is_old

    @property
    def is_missed(self) -> bool:
        """Whether the details did not find a job that was seen before."""
        return self.was_seen and self._misses > 0

    @property
    def is_unexpected(self) -> bool:
        """Whether nothing is known that would explain it: then it is looked at no sooner than ever."""
        return self.was_seen and not self.is_deleted

    def pause(self, interval: float) -> float:
        """How long to wait after a read that was not believed, given the pause after a good one."""
        if self.is_unexpected:
            return interval
        longest = min(interval * _PATIENCE, _LONGEST_PAUSE) if self.is_awaited else interval
        return min(longest, _FIRST_DOUBT * 2.0 ** min(self._doubts - 1, 60))


def is_recent(since: float | None, now: float) -> bool:
    """Whether a write, if there was one, may not have come through to all replicas yet."""
    return since is not None and now - since < SETTLES_WITHIN


_REMEMBERED: Final = 1024


@attrs.define
class OwnWrites:
    """When a client last created, stopped, restarted and deleted which jobs."""

    _times: OrderedDict[int, dict[Operation, float]] = attrs.field(factory=OrderedDict, init=False)

    def note(self, operation: Operation, job_id: int, now: float) -> None:
        """The client wrote, or may have."""
        times = self._times.setdefault(job_id, {})
        self._times.move_to_end(job_id)
        times[operation] = now
        if operation is Operation.STOP:
            # An end seen from now on is this one's, and not the end before a restart.
            times.pop(Operation.RESTART, None)
        if len(self._times) > _REMEMBERED:
            self._times.popitem(last=False)

    def latest(self, job_id: int) -> float | None:
        """When the client last wrote to a job; ``None`` if it did not."""
        times = self._times.get(job_id)
        return None if times is None else max(times.values())

    def doubt(self, job_id: int, *, was_seen: bool = False, is_awaited: bool = False) -> Doubt:
        """What to doubt of a job's reads; the switches are those of :class:`Doubt`."""
        times = self._times.get(job_id, {})
        return Doubt(
            times.get(Operation.CREATE),
            times.get(Operation.RESTART),
            Operation.DELETE in times,
            was_seen,
            is_awaited,
        )
