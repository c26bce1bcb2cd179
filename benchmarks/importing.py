"""The time of the import alone, in new interpreters, beside that of the HTTP library beneath."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks._frame import Report, Row, Sample

_ROOT: Final = Path(__file__).parent.parent
_TIMED: Final = """
import time
cpu, wall = time.process_time(), time.perf_counter()
{statement}
print(time.process_time() - cpu, time.perf_counter() - wall)
"""


def run(*, runs: int = 15) -> Report:
    """The benchmark, after one import of each that is not counted and leaves bytecode behind.

    The package imports a name when it is first named, so that what a user waits for is the second row.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as bytecode:
        rows = [
            _row("import vizwatch", "import aiohttp", runs, bytecode),
            _row("from vizwatch import Client", "import aiohttp", runs, bytecode),
        ]
    return Report(
        name="importing",
        title="the first import in a process",
        rows=rows,
        seconds=time.perf_counter() - start,
    )


def _row(what: str, against: str, runs: int, bytecode: str) -> Row:
    taken = [[_imported(what, bytecode), _imported(against, bytecode)] for _ in range(runs + 1)]
    ours, theirs = zip(*taken[1:], strict=True)
    (our_cpu, our_wall), (their_cpu, their_wall) = (
        map(Sample, zip(*times, strict=True)) for times in (ours, theirs)
    )
    return Row(
        what=what,
        against=against,
        unit="ms CPU",
        ours=our_cpu,
        theirs=their_cpu,
        budget=1.25,
        wall=(our_wall, their_wall),
    )


def _imported(statement: str, bytecode: str) -> tuple[float, float]:
    """Milliseconds of CPU, and by the clock."""
    command = [sys.executable, "-c", _TIMED.format(statement=statement)]
    # Where this environment writes no bytecode, what is not installed would be compiled anew each time.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    printed = subprocess.run(
        command,
        cwd=_ROOT,
        env={**kept, "PYTHONPYCACHEPREFIX": bytecode},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    cpu, wall = (float(seconds) * 1000 for seconds in printed.split())
    return cpu, wall
