"""How late a change is seen, beside looking at a fixed interval that costs as many requests.

The time is simulated: lives of jobs drawn by chance (see `_lives`), answers that take no time and never lag.
A change is seen at the first look after it, even where that look already finds the next one.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs

from benchmarks._frame import RESULTS, Report, Row, Sample, written
from benchmarks._lives import Kind, Life, exponential, life
from vizwatch import Job, JobStatus, Settings
from vizwatch._rules import rhythm
from vizwatch._rules.cadence import Cadence
from vizwatch._values.models import Schedule

_HOUR: Final = 3600.0
_INTERVALS: Final = (5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0)
_SETTINGS: Final = Settings()
_WORTH_A_LEAP: Final = 40
_PASSING: Final = "another passing status"
_END: Final = "an end"
_INTO: Final = (_PASSING, JobStatus.RUNNING.name, JobStatus.KILLING.name, _END)
_ALL: Final = "all lives"
_KINDS: Final[Mapping[str, Kind]] = {
    _ALL: Kind(),
    "all, no tails": Kind(passing=exponential),
    "all, runs of minutes": Kind(run=(300.0, 1.0)),
    "all, starts ten times as slow": Kind(slowness=10.0),
    "found at any time of their life": Kind(created=0.0, found_new=0.0),
    "no own writes or auto-stops": Kind(
        created=0.0, auto_stops=0.0, own_stops=0.0, others_stops=0.75, own_restarts=0.0
    ),
    "running until somebody's stop": Kind(
        created=0.0,
        auto_stops=0.0,
        own_stops=0.0,
        others_stops=0.8,
        start_failures=0.0,
        restarts=0.0,
        own_restarts=0.0,
        running_only=True,
    ),
    "running until an auto-stop": Kind(
        created=0.0, auto_stops=1.0, start_failures=0.0, restarts=0.0, own_restarts=0.0, running_only=True
    ),
}

Pause = Callable[[Job, float | None, float | None], float]
"""Seconds before jitter: of the job, since it changed, since this client wrote."""


@attrs.frozen(kw_only=True)
class _Curved(Report):
    """With what a plot of delay against requests is drawn from.

    Each point has both ways at as many requests a life; intervals and delays are in seconds.
    """

    curve: Sequence[Mapping[str, Any]]

    def write(self, folder: Path = RESULTS) -> Path:
        rows = [row.document() for row in self.rows]
        return written(folder, self, rows=rows, curve=list(self.curve))


@attrs.define
class Seen:
    """What the looks at some lives have seen, and what they cost."""

    requests: int = 0
    delays: dict[str, list[float]] = attrs.field(factory=dict)
    """In seconds, by what the change leads to."""
    unseen: int = 0
    """Statuses that came and went between two looks."""

    @property
    def all(self) -> list[float]:
        """The delays of all changes."""
        return [delay for some in self.delays.values() for delay in some]

    @property
    def mean(self) -> float:
        """The mean delay."""
        return statistics.fmean(self.all)

    @property
    def p95(self) -> float:
        """The delay that one change in twenty exceeds."""
        return sorted(self.all)[math.ceil(0.95 * len(self.all)) - 1]


def fixed(interval: float) -> Pause:
    """The same pause always."""
    return lambda _job, _change, _write: interval


def ours(interval: float) -> Pause:
    """The pause of this library's watches."""
    shortest = rhythm.shortest_of(interval, _SETTINGS.poll_interval_min)
    return lambda job, change, write: rhythm.pause(
        job, interval=interval, shortest=shortest, since_change=change, since_write=write
    )


@attrs.define
class Watch:
    """Looks at one life, to its end."""

    life: Life
    pause: Pause
    longest: float
    chance: Random
    woken: bool
    """Whether a write cuts the pause short that it falls into."""
    seen: Seen
    place: int = 0
    changed: float | None = None
    _jitter: Cadence = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        backoff = _SETTINGS.watch_backoff_base, _SETTINGS.watch_backoff_max
        self._jitter = Cadence(1.0, _SETTINGS.poll_jitter, *backoff)

    def run(self) -> None:
        """From the first look to the one that sees the last stage."""
        at = self.life.watched_from
        while self.place + 1 < len(self.life.stages) and self.life.stages[self.place + 1].begins <= at:
            self.place += 1
        while self._look(at):
            pause = self._pause(at)
            at = self._leap(at, pause)
            after = at + self._jittered(pause)
            if self.woken:
                write = next((write for write in self.life.writes if at < write < after), None)
                if write is not None:
                    after = min(after, write + self._jittered(self._pause(write)))
            at = after

    def _look(self, at: float) -> bool:
        stages, seen = self.life.stages, self.seen
        seen.requests += 1
        before = self.place
        while self.place + 1 < len(stages) and stages[self.place + 1].begins <= at:
            self.place += 1
            stage = stages[self.place]
            seen.delays.setdefault(_into(stage.status), []).append(at - stage.begins)
        if self.place > before:
            self.changed = at
            seen.unseen += self.place - before - 1
        return self.place + 1 < len(stages)

    def _pause(self, at: float) -> float:
        stage, hours = self.life.stages[self.place], self.life.auto_stop_hours
        running = stage.status is JobStatus.RUNNING
        job = Job(
            1,
            stage.status,
            duration=round((at - stage.begins) * 1000) if running else None,
            schedule=() if hours is None else (Schedule("stop", "HOURS", hours),),
        )
        write = max((write for write in self.life.writes if write <= at), default=None)
        change = None if self.changed is None else at - self.changed
        return self.pause(job, change, None if write is None else at - write)

    def _jittered(self, pause: float) -> float:
        return pause * self._jitter.after_read(0.0, self.chance.random())

    def _leap(self, at: float, pause: float) -> float:
        """Takes many looks at once that see nothing and have nothing to shorten the pause between them.

        Their sum is drawn from the normal distribution, since there are as many as 10,000 in a row.
        """
        if pause < self.longest:
            return at
        stage = self.life.stages[self.place]
        events = [self.life.stages[self.place + 1].begins, *self.life.writes]
        if self.life.auto_stop_hours is not None and stage.status is JobStatus.RUNNING:
            events.append(stage.begins + self.life.auto_stop_hours * _HOUR - 2.0 * self.longest)
        looks = (min(event for event in events if event > at) - at) / pause
        spread = _SETTINGS.poll_jitter / math.sqrt(3.0)
        looks = math.floor(looks - 4.0 - 5.0 * spread * math.sqrt(looks))
        if looks < _WORTH_A_LEAP:
            return at
        self.seen.requests += looks
        return at + pause * (looks + self.chance.gauss(0.0, spread * math.sqrt(looks)))


def _into(status: JobStatus) -> str:
    if status.is_terminal:
        return _END
    return status.name if status in {JobStatus.RUNNING, JobStatus.KILLING} else _PASSING


def watched(lives: Sequence[Life], pause: Pause, longest: float, *, woken: bool = False) -> Seen:
    """What is seen of these lives with these pauses, the longest of which is given."""
    seen, chance = Seen(), Random(0)
    for one in lives:
        Watch(one, pause, longest, chance, woken, seen).run()
    return seen


@attrs.frozen
class Pair:
    """Both ways at the same lives, with as many requests."""

    interval: float
    ours: Seen
    fixed_interval: float
    """The one that costs as many requests, in seconds."""
    fixed: Seen


def paired(lives: Sequence[Life], interval: float, *, woken: bool = False) -> Pair:
    """Ours at an interval, beside the fixed one that makes as many requests, to one in a thousand."""
    seen = watched(lives, ours(interval), interval, woken=woken)
    every = interval
    for _ in range(8):
        beside = watched(lives, fixed(every), every)
        if abs(beside.requests - seen.requests) <= 0.001 * seen.requests:
            break
        every *= beside.requests / seen.requests
    return Pair(interval, seen, every, beside)


def drawn(name: str, lives: int, seed: int) -> list[Life]:
    """That many lives of the kind with that name."""
    chance = Random(f"{name}/{seed}")
    return [life(_KINDS[name], chance) for _ in range(lives)]


def run(*, runs: int = 5, lives: int = 600) -> _Curved:
    """The benchmark: each run draws other lives.

    Unless a row says otherwise, a write of the client's does not cut short the pause that it falls into.
    """
    start = time.perf_counter()
    interval = _SETTINGS.poll_interval
    populations = {name: [drawn(name, lives, seed) for seed in range(runs)] for name in _KINDS}
    pairs = {name: [paired(some, interval) for some in of] for name, of in populations.items()}
    woken = [paired(some, interval, woken=True) for some in populations[_ALL]]
    same = [watched(some, fixed(interval), interval).requests for some in populations[_ALL]]
    rows = [
        _row(f"mean: {_ALL}", pairs[_ALL], lambda seen: seen.mean, budget=0.5),
        *(
            _row(f"mean: {name}", some, lambda seen: seen.mean)
            for name, some in pairs.items()
            if name != _ALL
        ),
        _row(f"mean: {_ALL}, woken by writes", woken, lambda seen: seen.mean),
        *(_row(f"mean: {_ALL}, to {into}", pairs[_ALL], _mean_into(into)) for into in _INTO),
        *(_row(f"p95: {name}", some, lambda seen: seen.p95) for name, some in pairs.items()),
        _row(f"unseen statuses: {_ALL}", pairs[_ALL], lambda seen: seen.unseen, unit="count"),
        _row(f"requests: {_ALL}", pairs[_ALL], lambda seen: seen.requests, unit="count"),
        Row(
            what=f"requests: {_ALL}",
            against=f"every {interval:.3g} s",
            unit="count",
            ours=Sample([pair.ours.requests for pair in pairs[_ALL]]),
            theirs=Sample(same),
        ),
    ]
    return _Curved(
        name="delay",
        title=f"from a change to the first look after it; interval {interval:g} s, {lives} lives a run",
        rows=rows,
        curve=[_point(one, populations[_ALL]) for one in _INTERVALS],
        seconds=time.perf_counter() - start,
    )


def _row(
    what: str,
    pairs: Sequence[Pair],
    figure: Callable[[Seen], float],
    *,
    unit: str = "s",
    budget: float | None = None,
) -> Row:
    every = statistics.median(pair.fixed_interval for pair in pairs)
    return Row(
        what=what,
        against=f"every {every:.3g} s",
        unit=unit,
        ours=Sample([figure(pair.ours) for pair in pairs]),
        theirs=Sample([figure(pair.fixed) for pair in pairs]),
        budget=budget,
    )


def _mean_into(into: str) -> Callable[[Seen], float]:
    return lambda seen: statistics.fmean(seen.delays[into])


def _point(interval: float, populations: Sequence[Sequence[Life]]) -> dict[str, Any]:
    """The medians of all runs at one interval."""
    pairs = [paired(lives, interval) for lives in populations]

    def median(figure: Callable[[Pair], float]) -> float:
        return statistics.median(figure(pair) for pair in pairs)

    lives = len(populations[0])
    return {
        "vizwatch": {
            "interval": interval,
            "requests": median(lambda pair: pair.ours.requests / lives),
            "mean": median(lambda pair: pair.ours.mean),
            "p95": median(lambda pair: pair.ours.p95),
        },
        "fixed": {
            "interval": median(lambda pair: pair.fixed_interval),
            "requests": median(lambda pair: pair.fixed.requests / lives),
            "mean": median(lambda pair: pair.fixed.mean),
            "p95": median(lambda pair: pair.fixed.p95),
        },
    }
