"""How long to leave a job alone: the longer nothing has happened to it, the longer."""

from __future__ import annotations

import math
from typing import Final

from vizwatch._values import checks
from vizwatch._values.models import Job
from vizwatch._values.settings import Settings
from vizwatch._values.statuses import JobStatus

_OF_PASSING: Final = 0.1
"""The pause as a share of the age, where a change is expected: of a passing status, a write, a due stop."""
_OF_RUNNING: Final = 0.5
"""The same of a status that may last for days."""
_OF_UNKNOWN: Final = 1 / 3
"""The pause as a share of the interval, for a passing status of which nothing tells the age.

What was already there has mostly been there for long, and many watches may begin together.
"""
_TO_STOP: Final = 0.5
"""The pause as a share of the time until a stop is due: not past it with any jitter, which is below 1."""
_UNKNOWN_FOR: Final = 10
"""For how many intervals a status of unknown age is looked at like that: it is at least as old then."""
_SHORTEST: Final = 1 / 15
_HOUR: Final = 3600.0
_FRESH: Final = 0.9
"""Which share of the age that is allowed the longest pause may take: a read takes time, too."""


def interval_of(settings: Settings, interval: object, max_age: float | None) -> float:
    """The longest pause of a watch, before jitter, in seconds.

    Args:
        settings: What holds where nothing is asked for.
        interval: What is asked for.
        max_age: How old what is known may become. Who asks for this alone is read no more often than that
            takes.

    Raises:
        ConfigError: The interval is no such number.
    """
    given = settings.poll_interval
    if interval is not None:
        given = checks.seconds("interval", interval, low=settings.poll_interval_min, high=86_400)
    if max_age is None:
        return given
    longest = _FRESH * max_age / (1.0 + settings.poll_jitter)
    return longest if interval is None else min(given, longest)


def max_age_of(settings: Settings, given: object) -> float | None:
    """How old what is known may become, in seconds; ``None`` for what comes of the interval.

    Raises:
        ConfigError: It is no number of seconds, or fewer than the shortest pause allows.
    """
    if given is None:
        return None
    low = settings.poll_interval_min * (1.0 + settings.poll_jitter) / _FRESH
    return checks.seconds("max_age", given, low=math.ceil(100 * low) / 100, high=86_400)


def before_stale(at: float, now: float, *, begun: float, max_age: float, shortest: float) -> float:
    """When to read the whole again: at a time, or earlier, if that were too late.

    Args:
        at: When it would be read.
        now: When the last reading was over.
        begun: When it was begun; the next one will take as long.
        max_age: How old what it showed may become, in seconds.
        shortest: The shortest pause, in seconds.
    """
    return min(at, max(begun + _FRESH * max_age - (now - begun), now + shortest))


def shortest_of(interval: float, least: float) -> float:
    """The shortest pause to take with an interval, in seconds; `least` is what must always be kept to.

    It grows with the interval: who asks for fewer requests gets fewer in a job's first moments, too.
    """
    return min(interval, max(least, _SHORTEST * interval))


def pause(
    job: Job,
    *,
    interval: float,
    shortest: float,
    since_change: float | None,
    since_write: float | None = None,
) -> float:
    """The pause before the next look at a job, in seconds before jitter, from `shortest` to `interval`.

    A status that has lasted long will mostly last long, so the pause is a share of its age: a small one for
    a passing status, a larger one for a running job, and the whole interval at once for an ended one. A
    write of this client's is looked after like a status that is as old as the write.

    An automatic stop is known ahead, by `schedule` and `duration`. No pause goes past the time when it is
    due, unless by `shortest`; once it is overdue, the job is looked at as if it were in a passing status of
    that age. `remaining_duration` is not used: no document tells its unit, and a wrong guess would be either
    useless or a look a second for hours.

    Args:
        job: The job as just read.
        interval: The longest pause.
        shortest: The shortest pause; not above `interval`.
        since_change: Seconds since this status was first seen; `None` where it was there at the first look.
            Then a running job's age is its `duration`, and any other's unknown.
        since_write: Seconds since this client created, stopped, restarted or deleted the job, if it did.
    """
    wanted = _by_status(job, interval, since_change)
    if since_write is not None:
        wanted = min(wanted, _OF_PASSING * since_write)
    due = _due_in(job)
    if due is not None:
        wanted = min(wanted, _TO_STOP * due if due > 0 else _OF_PASSING * -due)
    return max(shortest, min(interval, wanted))


def known_age(since_seen: float, interval: float, *, has_changed: bool) -> float | None:
    """How old a status is taken to be, in seconds; ``None`` for unknown.

    Args:
        since_seen: Seconds since it was first seen.
        interval: The longest pause.
        has_changed: Whether another status was seen before it.
    """
    return since_seen if has_changed or since_seen >= _UNKNOWN_FOR * interval else None


def changed_at(now: float, gap: float, longest: float) -> float:
    """When a change that is seen now is taken to have come about: a while ago, if nobody could look before.

    So that after an outage not all that changed meanwhile is looked at as if it were about to change again.

    Args:
        now: In any clock, in seconds.
        gap: How long ago the read before was begun.
        longest: The longest pause that a watch makes.
    """
    return now - max(gap - longest, 0.0) / 2


def hurries_in(job: Job, interval: float) -> float:
    """In how many seconds to look again, however fresh what is known is; infinite for never.

    A job that is left alone by :func:`pause` may be shown by reads meant for others, none of which is a
    reason to think about it anew. So the last interval before its automatic stop must come by itself.
    """
    due = _due_in(job)
    return math.inf if due is None or due < 2 * interval else due - interval


def _by_status(job: Job, interval: float, age: float | None) -> float:
    if job.status.is_terminal:
        return interval
    if job.status is JobStatus.RUNNING:
        # A service that always says 0 must not be asked once a second for that.
        if age is None and job.duration is not None and job.duration > 0:
            age = job.duration / 1000
        return interval if age is None else _OF_RUNNING * age
    return _OF_UNKNOWN * interval if age is None else _OF_PASSING * age


def _due_in(job: Job) -> float | None:
    """In how many seconds a running job's automatic stop is due, below 0 once it is overdue."""
    if job.status is not JobStatus.RUNNING or job.duration is None:
        return None
    hours = [
        one.duration
        for one in job.schedule
        # No document says what 0 hours mean; they are taken as no automatic stop.
        if one.type == "stop" and one.time_unit == "HOURS" and one.duration
    ]
    return min(hours) * _HOUR - job.duration / 1000 if hours else None
