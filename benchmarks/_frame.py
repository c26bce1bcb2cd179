"""What all benchmarks share: what was measured, what is promised of it, and how both are told.

A `Report` has two things measured in turn, their ratio and its budget; a `Verdict`, counts and bounds.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import attrs

import vizwatch

RESULTS: Final = Path(__file__).parent / "results"
HEAD: Final = ("what", "unit", "vizwatch", "beside", "", "ratio", "budget", "verdict")
_PACKAGES: Final = ("aiohttp", "attrs", "cattrs", "msgspec", "multidict", "orjson", "yarl")


@attrs.frozen
class Sample:
    """The runs of one thing, each as one number."""

    runs: Sequence[float]

    @property
    def median(self) -> float:
        """The run in the middle."""
        return statistics.median(self.runs)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest."""
        return min(self.runs), max(self.runs)

    def __str__(self) -> str:
        low, high = self.spread
        return f"{_figure(self.median)} [{_figure(low)}..{_figure(high)}]"


@attrs.frozen(kw_only=True)
class Row:
    """Ours beside theirs; the i-th runs of both were taken one after the other."""

    what: str
    against: str = ""
    unit: str
    ours: Sample
    theirs: Sample | None = None
    """None where nobody else does it."""
    budget: float | None = None
    """The greatest ratio that is promised; None where the ratio is only told."""
    at_most: float | None = None
    """The greatest figure of ours that is promised, in the row's unit."""
    wall: tuple[Sample, Sample] | None = None
    """The same runs by the clock, where the unit is CPU time."""

    @property
    def ratio(self) -> Sample | None:
        """Ours by theirs, run by run."""
        if self.theirs is None:
            return None
        return Sample([a / b for a, b in zip(self.ours.runs, self.theirs.runs, strict=True)])

    @property
    def bounds(self) -> str:
        """What is promised, as the table says it."""
        given = ((self.budget, " times"), (self.at_most, f" {self.unit}"))
        return ", ".join(f"{bound:.4g}{unit}" for bound, unit in given if bound is not None)

    @property
    def verdict(self) -> str:
        """Whether the medians keep to what is promised."""
        if not self.bounds:
            return "no budget"
        exceeds = self.ratio is not None and self.budget is not None and self.ratio.median > self.budget
        exceeds = exceeds or (self.at_most is not None and self.ours.median > self.at_most)
        return "not met" if exceeds else "met"

    def cells(self) -> tuple[str, ...]:
        """The row as a table shows it, under :data:`HEAD`."""
        theirs, ratio = ("" if sample is None else str(sample) for sample in (self.theirs, self.ratio))
        return (self.what, self.unit, str(self.ours), self.against, theirs, ratio, self.bounds, self.verdict)

    def document(self) -> dict[str, Any]:
        """All of it, for JSON."""
        wall = (
            None
            if self.wall is None
            else dict(zip(("ours", "theirs"), map(_document, self.wall), strict=True))
        )
        return {
            "what": self.what,
            "against": self.against,
            "unit": self.unit,
            "ours": _document(self.ours),
            "theirs": None if self.theirs is None else _document(self.theirs),
            "ratio": None if self.ratio is None else _document(self.ratio),
            "budget": self.budget,
            "at_most": self.at_most,
            "verdict": self.verdict,
            "wall": wall,
        }


@attrs.frozen(kw_only=True)
class Report:
    """What one benchmark found."""

    name: str
    title: str
    rows: Sequence[Row]
    seconds: float
    """How long all of it took."""

    def table(self) -> str:
        """The rows under a head, and beneath them where they were taken."""
        cells: list[tuple[str, ...]] = [(*HEAD, "wall")]
        for row in self.rows:
            wall = "" if row.wall is None else " / ".join(_figure(sample.median) for sample in row.wall)
            cells.append((*row.cells(), wall))
        runs = " or ".join(map(str, sorted({len(row.ours.runs) for row in self.rows})))
        taken = f"Medians of {runs} runs, in turn, with [least..greatest]; {self.seconds:.0f} s in all."
        return "\n".join([f"{self.name}: {self.title}", "", *aligned(cells), "", taken, *where()])

    def write(self, folder: Path = RESULTS) -> Path:
        """Writes everything, each run included, to `NAME.json` in that folder."""
        return written(folder, self, rows=[row.document() for row in self.rows])


@attrs.frozen(kw_only=True)
class Check:
    """Something counted or measured, and its bounds."""

    what: str
    found: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""
    """What helps to read it."""

    @property
    def bounds(self) -> str:
        """As the table says it; empty where it is only told."""
        given = (("at most", self.at_most), ("at least", self.at_least))
        return ", ".join(f"{word} {_count(bound)}" for word, bound in given if bound is not None)

    @property
    def verdict(self) -> str:
        """Whether it keeps to its bounds."""
        if not self.bounds:
            return "no bound"
        below = self.at_most is None or self.found <= self.at_most
        above = self.at_least is None or self.found >= self.at_least
        return "met" if below and above else "not met"


@attrs.frozen(kw_only=True)
class Verdict:
    """What a trial found, check by check."""

    name: str
    title: str
    checks: Sequence[Check]
    seconds: float
    """How long all of it took."""
    examples: Sequence[str] = ()
    """Some of what was wrong, in words."""

    @property
    def is_met(self) -> bool:
        """Whether every check keeps to its bounds."""
        return all(check.verdict != "not met" for check in self.checks)

    def table(self) -> str:
        """The checks under a head, and beneath them where they were made."""
        cells = [("what", "found", "unit", "bounds", "verdict", "")]
        cells += [
            (check.what, _count(check.found), check.unit, check.bounds, check.verdict, check.note)
            for check in self.checks
        ]
        total = f"{'All met' if self.is_met else 'Not all met'}; {self.seconds:.0f} s in all."
        head = f"{self.name}: {self.title}"
        return "\n".join([head, "", *aligned(cells), "", *self.examples, total, *where()])

    def write(self, folder: Path = RESULTS) -> Path:
        """Writes everything to `NAME.json` in that folder."""
        checks = [{**attrs.asdict(check), "verdict": check.verdict} for check in self.checks]
        return written(folder, self, checks=checks, examples=list(self.examples), met=self.is_met)


def promised(reports: Sequence[Report]) -> str:
    """All rows of these reports that have a budget, as one table."""
    rows = [(report.name, *row.cells()) for report in reports for row in report.rows if row.bounds]
    missed = sum(verdict == "not met" for *_, verdict in rows)
    total = f"{len(rows) - missed} of {len(rows)} budgets met."
    return "\n".join(["All budgets", "", *aligned([("benchmark", *HEAD), *rows]), "", total])


class _Told(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def seconds(self) -> float: ...


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose first one is its head."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def where() -> list[str]:
    """The machine and the versions, a line each."""
    return [", ".join(f"{name} {value}" for name, value in of.items()) for of in (machine(), versions())]


def written(folder: Path, told: _Told, **rest: Any) -> Path:
    """Writes what was found to `NAME.json` in that folder."""
    document = {
        "name": told.name,
        "title": told.title,
        "machine": machine(),
        "versions": versions(),
        "seconds": round(told.seconds, 3),
        **rest,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{told.name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


async def timed(
    ours: Callable[[], Awaitable[int]],
    theirs: Callable[[], Awaitable[int]],
    *,
    runs: int,
    count: int,
    **row: Any,
) -> Row:
    """Both in turn, in microseconds of this process's CPU a thing, after one run of each that is not counted.

    Args:
        ours: Does the work once, and gives how many things it did.
        theirs: As ours.
        runs: How many counted runs of each.
        count: How many things each must do: a faster one that does less is no peer.
        row: The rest of the row.
    """
    taken: tuple[list[tuple[float, float]], ...] = ([], [])
    for _ in range(runs + 1):
        for work, times in zip((ours, theirs), taken, strict=True):
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            done = await work()
            times.append((time.process_time() - cpu, time.perf_counter() - wall))
            if done != count:
                raise RuntimeError(f"{row}: {done} done instead of {count}")
    samples = [
        [Sample([run * 1e6 / count for run in kind]) for kind in zip(*times[1:], strict=True)]
        for times in taken
    ]
    (our_cpu, our_wall), (their_cpu, their_wall) = samples
    return Row(ours=our_cpu, theirs=their_cpu, wall=(our_wall, their_wall), **row)


def resident() -> float:
    """MiB of memory that this process has now; Linux alone tells."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_resident() -> float:
    """MiB of memory that this process had at most so far."""
    # Not getrusage: there a child begins with what its parent had.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (peak,) = re.findall(r"VmHWM:\s+([0-9]+) kB", status)
    return int(peak) / 1024


def machine() -> dict[str, str]:
    """What the runs were taken on."""
    return {
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        platform.python_implementation(): platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Of this project and of what it stands beside."""
    return {
        "vizwatch": vizwatch.__version__,
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def _document(sample: Sample) -> dict[str, Any]:
    return {"median": sample.median, "spread": sample.spread, "runs": sample.runs}


def _count(value: float) -> str:
    """A count as it is, any other number to four digits."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def _figure(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
