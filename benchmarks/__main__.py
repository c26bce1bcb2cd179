"""Runs the benchmarks, all or those named: a table of each, and `benchmarks/results/NAME.json` beside it.

`python -m benchmarks.soak` and `python -m benchmarks.leaks`, which take longer, are commands of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from benchmarks import compare, delay, importing, listing


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
    "importing": importing.run,
    "compare": compare.run,
    "delay": delay.run,
}
_REPEATED: Final = ("listing", "importing", "delay")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(BENCHMARKS)}; by default, all")
    parser.add_argument("--runs", type=int, help="how often each thing is measured, instead of its default")
    arguments = parser.parse_args()
    if unknown := set(arguments.name) - set(BENCHMARKS):
        parser.error(
            f"no benchmark is called {', '.join(sorted(unknown))}: there are {', '.join(BENCHMARKS)}"
        )
    if arguments.runs is not None and arguments.runs < 1:
        parser.error("--runs must be at least 1")
    options = {} if arguments.runs is None else {"runs": arguments.runs}
    for name in arguments.name or BENCHMARKS:
        report = BENCHMARKS[name](**(options if name in _REPEATED else {}))
        print(report.table(), end="\n\n", flush=True)
        report.write()


if __name__ == "__main__":
    main()
