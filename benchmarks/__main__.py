"""Runs the benchmarks, all or those named: a table of each, one of all budgets, and `benchmarks/results/`.

There each has its figures in `NAME.json`, and each curve is an SVG. `python -m benchmarks.soak`, `leaks` and
`kills`, which say what breaks and not what it costs, are commands of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks import (
    compare,
    delay,
    fleet,
    foreign,
    importing,
    keeping,
    listing,
    plots,
    scaling,
    sharding,
    watching,
)
from benchmarks._frame import Report, promised


class Result(Protocol):
    """What a benchmark found."""

    def table(self) -> str:
        """To be read."""
        ...

    def write(self) -> Path:
        """Writes it down."""
        ...


BENCHMARKS: Final[Mapping[str, Callable[..., Result]]] = {
    "listing": listing.run,
    "foreign": foreign.run,
    "importing": importing.run,
    "watching": watching.together,
    "polling": watching.one_by_one,
    "idling": watching.idle,
    "fleet": fleet.run,
    "keeping": keeping.run,
    "sharding": sharding.run,
    "scaling": scaling.run,
    "compare": compare.run,
    "delay": delay.run,
}
_UNTIMED: Final = ("compare",)
_FULL: Final[Mapping[str, Mapping[str, Any]]] = {
    "foreign": {"theirs": 10_000},
    "polling": {"watches": 10_000, "interval": 10.0, "intervals": 6},
    "idling": {"watches": 100_000, "projects": 100},
    "fleet": {"sweeps": 3, "runs": 5},
    "keeping": {"projects": (1_000, 10_000), "runs": 5},
    "scaling": {"jobs": (100, 1_000, 10_000, 100_000, 1_000_000), "watches": (1, 10, 100, 1_000, 10_000)},
}
"""The sizes that the budgets are for, where those take longer than two minutes."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(BENCHMARKS)}; by default, all")
    parser.add_argument("--runs", type=int, help="how often each thing is timed, instead of its default")
    parser.add_argument("--full", action="store_true", help="at full size, which takes up to 12 minutes each")
    arguments = parser.parse_args()
    if unknown := set(arguments.name) - set(BENCHMARKS):
        parser.error(
            f"no benchmark is called {', '.join(sorted(unknown))}: there are {', '.join(BENCHMARKS)}"
        )
    if arguments.runs is not None and arguments.runs < 1:
        parser.error("--runs must be at least 1")
    reports = []
    for name in arguments.name or BENCHMARKS:
        options = dict(_FULL.get(name, {})) if arguments.full else {}
        if arguments.runs is not None and name not in _UNTIMED:
            options["runs"] = arguments.runs
        report = BENCHMARKS[name](**options)
        print(report.table(), end="\n\n", flush=True)
        report.write()
        if isinstance(report, Report):
            reports.append(report)
    plots.drawn()
    if any(row.bounds for report in reports for row in report.rows):
        print(promised(reports))


if __name__ == "__main__":
    main()
