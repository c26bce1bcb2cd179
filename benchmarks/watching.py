"""Watching jobs where nothing changes: requests, CPU, lag and memory, beside the same by hand.

Each figure is of a process of its own, and the server's CPU is in none of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks._child import Figure, Found, in_turn, measured, sample
from benchmarks._frame import Report, Row
from benchmarks._server import canned_server
from benchmarks._watches import idling, polling

_BY_HAND: Final = "aiohttp, a task a job"
_PER_PAGE: Final = 1000
_MEMORY_RUNS: Final = 3


def together(*, watches: int = 1000, interval: float = 0.5, intervals: int = 6, runs: int = 5) -> Report:
    """The benchmark of watches of one project, which its listing shows at once.

    Args:
        watches: How many; the project has as many jobs.
        interval: Seconds between two looks at a job.
        intervals: For how many of them to measure, in each run.
        runs: How often each thing is measured.
    """
    start = time.perf_counter()
    with canned_server() as endpoint:
        load: Mapping[str, Any] = {
            "endpoint": endpoint,
            "watches": watches,
            "projects": 1,
            "interval": interval,
            "intervals": intervals,
        }
        still, ageing, by_hand = in_turn(
            runs,
            lambda: measured(polling, who="ours", **load),
            lambda: measured(polling, who="ours", kind="ageing", **load),
            lambda: measured(polling, who="by_hand", **load),
        )

    def row(what: str, unit: str, ours: Sequence[Found], figure: Figure, at_most: float) -> Row:
        return Row(
            what=what,
            against=_BY_HAND,
            unit=unit,
            ours=sample(ours, figure),
            theirs=sample(by_hand, figure),
            at_most=at_most,
        )

    pages = math.ceil(watches / _PER_PAGE)

    def requests(found: Found) -> float:
        return (found["lists"] + found["details"]) / intervals

    def cpu(found: Found) -> float:
        # By what was looked at, since an interval may hold less than one look, or more.
        looks = found["details"] + found["lists"] * watches / pages
        return found["cpu"] * 1e6 / looks

    return Report(
        name="watching",
        title=f"{watches:,} watches of one project at {interval:g} s, an interval",
        rows=[
            row("nothing changes", "requests", still, requests, pages),
            row("nothing changes", "µs CPU a look", still, cpu, 2.5),
            row("durations grow", "µs CPU a look", ageing, cpu, 2.5),
        ],
        seconds=time.perf_counter() - start,
    )


def one_by_one(
    *, watches: int = 2000, projects: int = 100, interval: float = 2.0, intervals: int = 3, runs: int = 5
) -> Report:
    """The benchmark of watches that each read their own job's details.

    Args:
        watches: How many.
        projects: Over how many projects they are spread.
        interval: Seconds between two looks at a job.
        intervals: For how many of them to measure, in each run.
        runs: How often each thing is measured.
    """
    start = time.perf_counter()
    with canned_server() as endpoint:
        load: Mapping[str, Any] = {
            "endpoint": endpoint,
            "watches": watches,
            "projects": projects,
            "interval": interval,
            "intervals": intervals,
            "is_shared": False,
        }
        ours, by_hand = in_turn(
            runs,
            lambda: measured(polling, who="ours", **load),
            lambda: measured(polling, who="by_hand", **load),
        )

    def row(unit: str, figure: Figure, budget: float | None = None) -> Row:
        return Row(
            what="shared_reads off",
            against=f"{_BY_HAND}, pool of 200",
            unit=unit,
            ours=sample(ours, figure),
            theirs=sample(by_hand, figure),
            budget=budget,
        )

    return Report(
        name="polling",
        title=f"{watches:,} watches at {interval:g} s over {projects:,} projects, each by itself",
        rows=[
            row("µs CPU a poll", lambda found: found["cpu"] * 1e6 / found["details"], 1.1),
            row("ms lag, p99", lambda found: found["lag"] * 1e3, 1.1),
            row("polls a second", lambda found: found["details"] / found["wall"]),
        ],
        seconds=time.perf_counter() - start,
    )


def idle(*, watches: int = 20_000, projects: int = 20, runs: int = _MEMORY_RUNS) -> Report:
    """The benchmark of the memory of watches that wait for their next look.

    Args:
        watches: How many.
        projects: Over how many projects they are spread.
        runs: How often each thing is measured, three times at most: memory hardly varies.
    """
    start = time.perf_counter()
    with canned_server() as endpoint:
        # Few connections, since they are not what is weighed.
        load: Mapping[str, Any] = {"endpoint": endpoint, "watches": watches, "projects": projects, "pool": 4}
        ours, asleep = in_turn(
            min(runs, _MEMORY_RUNS),
            lambda: measured(idling, who="ours", **load),
            lambda: measured(idling, who="asleep", **load),
        )
    row = Row(
        what=f"{watches:,} idle watches",
        against="one sleeping task each",
        unit="KiB a watch",
        ours=sample(ours, lambda found: found["kibibytes"]),
        theirs=sample(asleep, lambda found: found["kibibytes"]),
        at_most=2.0,
    )
    return Report(
        name="idling",
        title=f"memory of watches on {projects:,} projects",
        rows=[row],
        seconds=time.perf_counter() - start,
    )
