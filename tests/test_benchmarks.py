"""The benchmarks run, in a form too small to say anything about speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def run(code: str) -> str:
    """What the code prints in a process of its own, where nothing of the tests is measured along."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.parametrize(
    ("name", "options", "rows"),
    [("listing", "jobs=3000, runs=1", 10), ("importing", "runs=1", 2)],
)
def test_tells_each_ratio_with_its_verdict_and_writes_it_down(
    tmp_path: Path, name: str, options: str, rows: int
) -> None:
    table = run(
        "import pathlib\n"
        f"from benchmarks import {name}\n"
        f"report = {name}.run({options})\n"
        "print(report.table())\n"
        f"report.write(pathlib.Path({str(tmp_path)!r}))\n"
    )
    written: dict[str, Any] = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))

    assert len(written["rows"]) == rows
    assert written["machine"]["cores"]
    assert written["versions"]["vizwatch"]
    for row in written["rows"]:
        assert row["ratio"]["runs"] == [row["ours"]["runs"][0] / row["theirs"]["runs"][0]]
        expected = (
            "no budget"
            if row["budget"] is None
            else ("not met", "met")[row["ratio"]["median"] <= row["budget"]]
        )
        assert row["verdict"] == expected
        assert any(row["what"] in line and row["verdict"] in line for line in table.splitlines())


def test_the_command_names_the_benchmarks_that_there_are() -> None:
    asked = [sys.executable, "-m", "benchmarks", "nonesuch"]
    refused = subprocess.run(asked, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)

    assert refused.returncode == 2
    assert "no benchmark is called nonesuch: there are listing, importing" in refused.stderr
