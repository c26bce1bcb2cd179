"""How late a change is seen, beside looking at a fixed interval that costs as many requests.

The time is simulated: lives of jobs drawn by chance (see `_lives`), answers that take no time and never lag.
A change is seen at the first look after it, even where that look already finds the next one; by this library,
which drives its own watches here, at the first one that is believed.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

import attrs

from benchmarks._frame import RESULTS, Report, Row, Sample, written
from benchmarks._lives import Kind, Life, exponential, life
from vizwatch import Job, JobStatus, Settings
from vizwatch._flows.following import Follower, Terms
from vizwatch._rules.cadence import Cadence, OwnWrites
from vizwatch._rules.rhythm import shortest_of
from vizwatch._rules.transitions import Tracker
from vizwatch._values.exchange import Operation
from vizwatch._values.models import Schedule
from vizwatch._values.statuses import TERMINAL
from vizwatch._world.report import Report as Log

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


class Looks(Protocol):
    """How one watch looks at its job; all times in seconds since the job was created."""

    @property
    def is_steady(self) -> bool:
        """Whether the pauses are the longest ones."""
        ...

    def saw(self, job: Job, at: float) -> bool:
        """Takes what a look showed, and tells whether it is believed."""
        ...

    def next_look(self, at: float) -> float:
        """When to look again."""
        ...

    def wrote(self, at: float) -> None:
        """This client wrote to the job."""
        ...

    def woken(self, at: float) -> None:
        """The write cuts the pause short."""
        ...


MakeLooks = Callable[[Random], Looks]


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


@attrs.define
class _Fixed:
    """The same pause always, but for its jitter."""

    cadence: Cadence
    chance: Random
    is_steady: bool = True

    def saw(self, job: Job, at: float) -> bool:  # noqa: ARG002 - what it shows makes no difference
        return True

    def next_look(self, at: float) -> float:
        return at + self.cadence.jittered(self.cadence.interval, self.chance.random())

    def wrote(self, at: float) -> None: ...

    def woken(self, at: float) -> None: ...


@attrs.define
class _Ours:
    """The follower that every watch of this library has."""

    follower: Follower
    writes: OwnWrites

    @property
    def is_steady(self) -> bool:
        return not self.follower.is_hurried

    def saw(self, job: Job, at: float) -> bool:
        self.follower.saw(job, at, at)
        return not self.follower.tracker.holds

    def next_look(self, at: float) -> float:
        return self.follower.next_look(at)

    def wrote(self, at: float) -> None:
        self.writes.note(Operation.STOP, self.follower.job_id, at)

    def woken(self, at: float) -> None:
        self.follower.hurry(at)


def _cadence(interval: float, shortest: float) -> Cadence:
    backoff = _SETTINGS.watch_backoff_base, _SETTINGS.watch_backoff_max
    return Cadence(interval, shortest, _SETTINGS.poll_jitter, *backoff)


def fixed(interval: float) -> MakeLooks:
    """Looks at the same interval always."""
    cadence = _cadence(interval, 0.0)
    return lambda chance: _Fixed(cadence, chance)


def ours(interval: float) -> MakeLooks:
    """Looks as this library's watches."""
    cadence = _cadence(interval, shortest_of(interval, _SETTINGS.poll_interval_min))

    def made(chance: Random) -> Looks:
        writes = OwnWrites()
        terms = Terms(cadence, writes, Log(), chance.random, request_time=0.0)
        return _Ours(Follower(Tracker("", 1, TERMINAL, follow_restarts=True), terms), writes)

    return made


@attrs.define
class Watch:
    """Looks at one life, to its end."""

    life: Life
    looks: Looks
    longest: float
    chance: Random
    is_woken: bool
    """Whether a write cuts the pause short that it falls into."""
    seen: Seen
    place: int = 0
    """The latest stage that began before the last look."""
    told: int = 0
    """The latest stage that was seen."""

    def run(self) -> None:
        """From the first look to the one that sees the last stage."""
        at = self.life.watched_from
        self.told = self._place(at)
        while self._look(at):
            after = self.looks.next_look(at)
            leapt = self._leap(at)
            at, after = leapt, after + (leapt - at)
            for write in self.life.writes:
                if self.is_woken and at < write < after:
                    self.looks.wrote(write)
                    self.looks.woken(write)
                    after = self.looks.next_look(write)
            at = after

    def _place(self, at: float) -> int:
        while self.place + 1 < len(self.life.stages) and self.life.stages[self.place + 1].begins <= at:
            self.place += 1
        return self.place

    def _look(self, at: float) -> bool:
        seen, stages = self.seen, self.life.stages
        seen.requests += 1
        for write in self.life.writes:
            if write <= at:
                self.looks.wrote(write)
        stage, hours = stages[self._place(at)], self.life.auto_stop_hours
        running = stage.status is JobStatus.RUNNING
        job = Job(
            1,
            stage.status,
            duration=round((at - stage.begins) * 1000) if running else None,
            schedule=() if hours is None else (Schedule("stop", "HOURS", hours),),
        )
        if self.looks.saw(job, at) and self.place > self.told:
            for one in stages[self.told + 1 : self.place + 1]:
                seen.delays.setdefault(_into(one.status), []).append(at - one.begins)
            seen.unseen += self.place - self.told - 1
            self.told = self.place
        return self.told + 1 < len(stages)

    def _leap(self, at: float) -> float:
        """Takes many looks at once that see nothing and have nothing to shorten the pause between them.

        Their sum is drawn from the normal distribution, since there are as many as 10,000 in a row.
        """
        stage = self.life.stages[self.place]
        events = [one.begins for one in self.life.stages[self.place + 1 : self.place + 2]] + self.life.writes
        if self.life.auto_stop_hours is not None and stage.status is JobStatus.RUNNING:
            events.append(stage.begins + self.life.auto_stop_hours * _HOUR - 2.0 * self.longest)
        to_come = min((event for event in events if event > at), default=at)
        looks = (to_come - at) / self.longest
        spread = _SETTINGS.poll_jitter / math.sqrt(3.0)
        looks = math.floor(looks - 4.0 - 5.0 * spread * math.sqrt(looks))
        if looks < _WORTH_A_LEAP or not self.looks.is_steady:
            return at
        self.seen.requests += looks
        return at + self.longest * (looks + self.chance.gauss(0.0, spread * math.sqrt(looks)))


def _into(status: JobStatus) -> str:
    if status.is_terminal:
        return _END
    return status.name if status in {JobStatus.RUNNING, JobStatus.KILLING} else _PASSING


def watched(lives: Sequence[Life], make: MakeLooks, longest: float, *, woken: bool = False) -> Seen:
    """What is seen of these lives by such looks, whose longest pause is given."""
    seen, chance = Seen(), Random(0)
    for one in lives:
        Watch(one, make(chance), longest, chance, woken, seen).run()
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
