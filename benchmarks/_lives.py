"""Lives of jobs to be watched, drawn by chance.

No measurement of this service is public, so that every number here is an assumption. The shapes are those of
containers in shared clusters: a step of the start mostly takes seconds, with a heavy tail of minutes (a cold
image, a full queue), as a lognormal distribution has it, and runs spread over orders of magnitude, from
minutes to days. `Kind` says what can be varied, to see how far a result hangs on an assumption.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Final

import attrs

from vizwatch import JobStatus

_HOUR: Final = 3600.0
_ANSWERED_WITHIN: Final = 0.3
_SWEPT_EVERY: Final = 60.0
"""An automatic stop may be late by as much, in seconds."""
_LONGEST_RUN: Final = 120 * _HOUR

_START: Final = (
    # The median in seconds, and the spread: the standard deviation of the logarithm.
    (JobStatus.INIT, 2.0, 0.8),
    (JobStatus.IMAGE_CREATING, 20.0, 1.0),
    (JobStatus.SUBMIT_TRYING, 3.0, 1.0),
    (JobStatus.WAITING, 15.0, 1.5),
)
_KILLING: Final = (8.0, 0.8)
_OBEYED: Final = (1.0, 0.5)
"""From a write to its first effect on the status."""
_UNTIL_RESTART: Final = (1800.0, 1.5)
_FAILURES: Final = {
    JobStatus.IMAGE_CREATING: JobStatus.IMAGE_FAILED,
    JobStatus.SUBMIT_TRYING: JobStatus.SUBMIT_FAILED,
    JobStatus.WAITING: JobStatus.DEPLOY_SERVICE_FAILED,
}


def lognormal(chance: Random, median: float, spread: float) -> float:
    """Heavy-tailed: one of 100 is longer than `exp(2.3 * spread)` medians."""
    return chance.lognormvariate(math.log(median), spread)


def exponential(chance: Random, median: float, _: float) -> float:
    """Without memory: how long a status has lasted tells nothing of how long it will."""
    return chance.expovariate(math.log(2) / median)


@attrs.frozen(kw_only=True)
class Kind:
    """What kind of lives, as parts of them all."""

    created: float = 0.5
    """Created by the watching client."""
    found_new: float = 0.25
    """Of the others: found in their first status. The rest is found at any time of their life."""
    auto_stops: float = 0.25
    own_stops: float = 0.25
    """Stopped by the watching client."""
    others_stops: float = 0.25
    start_failures: float = 0.1
    """What remains fails while it runs."""
    restarts: float = 0.2
    """Restarted once after the end, which the watch waits for."""
    own_restarts: float = 0.1
    """Restarted by the watching client; counted in `restarts`."""
    run: tuple[float, float] = (_HOUR, 1.5)
    """The median of a run in seconds, and the spread."""
    passing: Callable[[Random, float, float], float] = lognormal
    """How long a passing status lasts: drawn by a median in seconds and a spread."""
    slowness: float = 1.0
    """How many times as long a start takes, against the medians above."""
    running_only: bool = False
    """Whether jobs are found at any time of their run, and watched until the next change alone."""


@attrs.frozen
class Stage:
    """A status, and when it begins."""

    status: JobStatus
    begins: float


@attrs.define
class Life:
    """A job's life, from the first look at it; all times in seconds since it was created."""

    stages: list[Stage] = attrs.field(factory=list)
    writes: list[float] = attrs.field(factory=list)
    """When the watching client wrote."""
    auto_stop_hours: int | None = None
    watched_from: float = 0.0


def life(kind: Kind, chance: Random) -> Life:
    """One life of that kind."""
    one = Life()
    if is_own := chance.random() < kind.created:
        one.writes.append(0.0)
    end = _run(one, kind, chance, 0.0)
    draw = chance.random()
    if draw < kind.restarts:
        again = end + lognormal(chance, *_UNTIL_RESTART)
        if draw < kind.own_restarts:
            one.writes.append(again)
        _run(one, kind, chance, again + lognormal(chance, *_OBEYED))
    if kind.running_only:
        return _running_only(one, chance)
    if is_own:
        one.watched_from = _ANSWERED_WITHIN
    elif chance.random() < kind.found_new:
        one.watched_from = chance.uniform(0.0, one.stages[1].begins)
    else:
        one.watched_from = chance.uniform(0.0, one.stages[-1].begins)
    return one


def _run(one: Life, kind: Kind, chance: Random, at: float) -> float:
    """Adds a run, from its first status to its end; gives when it ends."""
    way = chance.random() - kind.start_failures
    fails_in = chance.choice(list(_FAILURES)) if way < 0 else None
    for status, median, spread in _START:
        one.stages.append(Stage(status, at))
        at += kind.passing(chance, kind.slowness * median, spread)
        if status is fails_in:
            one.stages.append(Stage(_FAILURES[status], at))
            return at
    one.stages.append(Stage(JobStatus.RUNNING, at))
    return _end(one, kind, chance, at, way)


def _end(one: Life, kind: Kind, chance: Random, at: float, way: float) -> float:
    ran = min(lognormal(chance, *kind.run), _LONGEST_RUN)
    if 0 <= way < kind.auto_stops and one.auto_stop_hours is None:
        one.auto_stop_hours = min(max(round(ran / _HOUR), 1), 24)
    hours = one.auto_stop_hours
    if hours is not None and (way < kind.auto_stops or ran > hours * _HOUR):
        at += hours * _HOUR + chance.uniform(0.0, _SWEPT_EVERY)
    elif (way := way - kind.auto_stops) < kind.own_stops:
        one.writes.append(at + ran)
        at += ran + lognormal(chance, *_OBEYED)
    elif way - kind.own_stops < kind.others_stops:
        at += ran
    else:
        one.stages.append(Stage(JobStatus.FAILED, at + ran))
        return at + ran
    one.stages.append(Stage(JobStatus.KILLING, at))
    at += kind.passing(chance, *_KILLING)
    one.stages.append(Stage(JobStatus.KILLED, at))
    return at


def _running_only(one: Life, chance: Random) -> Life:
    place = next(i for i, stage in enumerate(one.stages) if stage.status is JobStatus.RUNNING)
    running, after = one.stages[place : place + 2]
    one.stages[:] = running, after
    one.watched_from = chance.uniform(running.begins, after.begins)
    return one
