"""The catalogue of faults is met, row by row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import faults
from children import unmeasured

ROOT = Path(__file__).parent.parent


def test_every_row_of_the_catalogue_has_a_test() -> None:
    command = [sys.executable, "-m", "tests.faults", "--collect-only"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=unmeasured())
    *_, last = done.stdout.splitlines()
    assert last.endswith("without a test: none"), done.stdout
    assert done.returncode == 0
    for row in faults.CATALOGUE:
        assert f"\n{row} " in done.stdout


def test_a_row_without_a_test_is_told() -> None:
    table = faults.Table()
    table.rows["N1"].append("tests/test_x.py::test_y[1]")
    lines = list(table.lines())
    assert lines[0].split()[:3] == ["N1", "not", "run"]
    assert lines[1].strip() == "tests/test_x.py::test_y"
    assert "NO TEST" in next(line for line in lines if line.startswith("N2 "))
    assert " later " in next(line for line in lines if line.startswith("X11 "))
    table.outcomes["tests/test_x.py::test_y[1]"] = "failed"
    assert next(table.lines()).split()[1] == "failed"
    assert "N2" in table.missing
    assert "X11" not in table.missing
