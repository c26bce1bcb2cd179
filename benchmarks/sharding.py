"""Watching all jobs of many projects from two processes of a cluster, beside one process without it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks._child import Found, in_turn, measured, sample
from benchmarks._frame import Report, Row
from benchmarks._server import canned_server
from benchmarks._shards import by_shards
from benchmarks._sweeps import by_fleet

_ONE: Final = "one process, without a cluster"


def run(
    *,
    projects: int = 10_000,
    jobs: int = 10,
    interval: float = 15.0,
    shards: Sequence[int] = (2, 8, 32),
    workers: int = 2,
    sweeps: int = 1,
    runs: int = 1,
) -> Report:
    """The benchmark, against a server of its own; each run is of processes of its own.

    Args:
        projects: How many.
        jobs: How many in each.
        interval: Seconds between two looks at a job.
        shards: Into how many the projects are divided, one after the other.
        workers: How many processes there are beside the caller's.
        sweeps: For how many intervals to measure the steady state, in each run.
        runs: How often each thing is measured.
    """
    start = time.perf_counter()
    with canned_server() as endpoint:
        load: Mapping[str, Any] = {
            "endpoint": endpoint,
            "projects": projects,
            "jobs": jobs,
            "kind": "running",
            "interval": interval,
            "sweeps": sweeps,
        }
        one, *many = in_turn(
            runs,
            lambda: measured(by_fleet, **load),
            *(
                lambda count=count: measured(by_shards, workers=workers, shards=count, **load)
                for count in shards
            ),
        )

    def row(what: str, unit: str, ours: Sequence[Found], mine: str, beside: str) -> Row:
        return Row(
            what=what,
            against=_ONE,
            unit=unit,
            ours=sample(ours, lambda found: found[mine]),
            theirs=sample(one, lambda found: found[beside]),
        )

    rows = []
    for count, found in zip(shards, many, strict=True):
        rows += [
            row(f"{count} shards: first transitions", "s CPU", found, "first", "first"),
            row(f"{count} shards: first transitions", "s", found, "first_wall", "first_wall"),
            row(f"{count} shards: a reading", "s CPU", found, "steady", "steady"),
            row(f"{count} shards: the caller's part of it", "s CPU", found, "steady_caller", "steady"),
        ]
    return Report(
        name="sharding",
        title=f"{projects * jobs:,} jobs in {projects:,} projects, watched by {workers} workers",
        rows=rows,
        seconds=time.perf_counter() - start,
    )
