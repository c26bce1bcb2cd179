"""What it costs to keep the places in a checkpoint, by the number of projects, beside a watch without one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._child import Found, in_turn, measured, sample
from benchmarks._frame import Report, Row
from benchmarks._server import canned_server
from benchmarks._sweeps import by_fleet


def run(
    *, projects: Sequence[int] = (300, 3_000), jobs: int = 10, interval: float = 10.0, runs: int = 1
) -> Report:
    """The benchmark, against a server of its own; each run is of a process of its own.

    Args:
        projects: How many, one after the other.
        jobs: How many in each, each of which is a transition to begin with.
        interval: Seconds between two looks at a job.
        runs: How often each thing is measured.
    """
    start = time.perf_counter()
    ways = [(count, is_kept) for count in projects for is_kept in (True, False)]
    with canned_server() as endpoint:
        load: Mapping[str, Any] = {
            "endpoint": endpoint,
            "jobs": jobs,
            "kind": "running",
            "interval": interval,
            "sweeps": 1,
        }
        found = dict(
            zip(
                ways,
                in_turn(
                    runs,
                    *(
                        lambda count=count, is_kept=is_kept: measured(
                            by_fleet, projects=count, is_kept=is_kept, **load
                        )
                        for count, is_kept in ways
                    ),
                ),
                strict=True,
            )
        )

    def row(what: str, count: int, figure: str) -> Row:
        def of_a_project(found: Found) -> float:
            return found[figure] / count * 1e3

        return Row(
            what=f"{count:,} projects: {what}",
            against="without a checkpoint",
            unit="ms CPU a project",
            ours=sample(found[count, True], of_a_project),
            theirs=sample(found[count, False], of_a_project),
        )

    return Report(
        name="keeping",
        title=f"{jobs} jobs a project, watched by one process with a SqliteCheckpoint",
        rows=[
            row(what, count, figure)
            for count in projects
            for what, figure in (("first transitions", "first"), ("the end", "end"))
        ],
        seconds=time.perf_counter() - start,
    )
