"""How cost grows with the number of jobs, watches and projects, beside the same by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks._child import Found, in_turn, measured, sample
from benchmarks._frame import RESULTS, Report, Row, timed, written
from benchmarks._server import canned_server
from benchmarks._watches import polling
from benchmarks.listing import Listing

_INTERVALS: Final = 3


@attrs.frozen(kw_only=True)
class Curve:
    """One cost, for a few numbers of things."""

    name: str
    x: str
    """What is counted."""
    y: str
    """What it costs, in which unit."""
    rows: Mapping[int, Row]

    def document(self) -> dict[str, Any]:
        """For JSON, as :mod:`benchmarks.plots` reads it."""
        against = next(iter(self.rows.values())).against
        return {
            "name": self.name,
            "x": self.x,
            "y": self.y,
            "series": {
                "vizwatch": [[x, row.ours.median, *row.ours.spread] for x, row in self.rows.items()],
                against: [
                    [x, row.theirs.median, *row.theirs.spread] for x, row in self.rows.items() if row.theirs
                ],
            },
        }


@attrs.frozen(kw_only=True)
class _Scaled(Report):
    """A report of all points of some curves."""

    curves: Sequence[Curve]

    def write(self, folder: Path = RESULTS) -> Path:
        """Writes everything to `scaling.json` in that folder."""
        rows = [row.document() for row in self.rows]
        return written(folder, self, rows=rows, curves=[curve.document() for curve in self.curves])


def run(
    *,
    jobs: Sequence[int] = (100, 1_000, 10_000, 100_000),
    watches: Sequence[int] = (1, 10, 100, 1_000),
    projects: Sequence[int] = (1, 10, 100),
    interval: float = 0.4,
    runs: int = 3,
) -> Report:
    """The benchmark, against a server of its own.

    Args:
        jobs: How many to list.
        watches: How many to have of one project.
        projects: Over how many to spread as many watches as are the most of one project.
        interval: Seconds between two looks at a job.
        runs: How often each is measured.
    """
    start = time.perf_counter()
    with canned_server() as endpoint:
        curves = [
            Curve(
                name="jobs",
                x="jobs listed",
                y="µs CPU a job",
                rows={number: asyncio.run(_listed(endpoint, number, runs)) for number in jobs},
            ),
            Curve(
                name="watches",
                x="watches of one project",
                y="ms CPU an interval",
                rows={number: _watched(endpoint, number, 1, interval, runs) for number in watches},
            ),
            Curve(
                name="projects",
                x=f"projects with {max(watches):,} watches in all",
                y="ms CPU an interval",
                rows={
                    number: _watched(endpoint, max(watches), number, interval, runs) for number in projects
                },
            ),
        ]
    return _Scaled(
        name="scaling",
        title="how cost grows",
        rows=[row for curve in curves for row in curve.rows.values()],
        curves=curves,
        seconds=time.perf_counter() - start,
    )


async def _listed(endpoint: str, jobs: int, runs: int) -> Row:
    listing = Listing(endpoint, jobs)
    return await timed(
        listing.by_job,
        listing.with_orjson,
        runs=runs,
        count=jobs,
        what=f"{jobs:,} jobs listed",
        against="aiohttp + orjson, dicts",
        unit="µs CPU a job",
    )


def _watched(endpoint: str, watches: int, projects: int, interval: float, runs: int) -> Row:
    load: Mapping[str, Any] = {
        "endpoint": endpoint,
        "watches": watches,
        "projects": projects,
        "interval": interval,
        "intervals": _INTERVALS,
    }
    ours, by_hand = in_turn(
        runs,
        lambda: measured(polling, who="ours", **load),
        lambda: measured(polling, who="by_hand", **load),
    )

    def cpu(found: Found) -> float:
        return found["cpu"] * 1e3 / _INTERVALS

    return Row(
        what=f"{watches:,} watches, {projects:,} projects",
        against="aiohttp, a task a job",
        unit="ms CPU an interval",
        ours=sample(ours, cpu),
        theirs=sample(by_hand, cpu),
    )
