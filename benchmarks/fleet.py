"""Watching all jobs of many projects from one process, where nothing changes, beside the same by hand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks._child import Figure, Found, in_turn, measured, sample
from benchmarks._frame import Report, Row
from benchmarks._server import canned_server
from benchmarks._sweeps import by_fleet, by_hand

_CPU_OF_A_MILLION: Final = 4.0
_BY_HAND: Final = "aiohttp + orjson, statuses in dicts"


def run(
    *, projects: int = 1_000, jobs: int = 1_000, interval: float = 10.0, sweeps: int = 1, runs: int = 1
) -> Report:
    """The benchmark, against a server of its own; each run is of a process of its own.

    Args:
        projects: How many.
        jobs: How many in each.
        interval: Seconds between two looks at a job.
        sweeps: For how many intervals to measure the steady state, in each run.
        runs: How often each thing is measured.
    """
    start = time.perf_counter()
    with canned_server() as endpoint:
        load: Mapping[str, Any] = {
            "endpoint": endpoint,
            "projects": projects,
            "jobs": jobs,
            "interval": interval,
            "sweeps": sweeps,
        }
        still, ageing, hand = in_turn(
            runs,
            lambda: measured(by_fleet, kind="running", **load),
            lambda: measured(by_fleet, kind="ageing", **load),
            lambda: measured(by_hand, kind="running", **load),
        )

    def row(what: str, unit: str, ours: Sequence[Found], figure: Figure, at_most: float | None = None) -> Row:
        return Row(
            what=what,
            against=_BY_HAND,
            unit=unit,
            ours=sample(ours, figure),
            theirs=sample(hand, figure),
            at_most=at_most,
        )

    cpu = _CPU_OF_A_MILLION * projects * jobs / 1e6
    return Report(
        name="fleet",
        title=f"{projects * jobs:,} jobs in {projects:,} projects, watched by one process",
        rows=[
            row("first sweep", "s CPU", still, lambda found: found["first"]),
            row("first sweep", "s", still, lambda found: found["first_wall"]),
            row("steady sweep", "s CPU", still, lambda found: found["steady"], cpu),
            row("steady sweep, durations grow", "s CPU", ageing, lambda found: found["steady"], cpu),
            row("most held", "MiB", still, lambda found: found["peak"], 400.0),
            row("most held, durations grow", "MiB", ageing, lambda found: found["peak"], 400.0),
        ],
        seconds=time.perf_counter() - start,
    )
