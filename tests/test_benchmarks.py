"""The benchmarks run, in a form too small to say anything about speed."""

from __future__ import annotations

import itertools
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


def found(folder: Path, name: str, options: str) -> tuple[str, dict[str, Any]]:
    """The table that a benchmark prints, and what it writes down in that folder."""
    table = run(
        "import pathlib\n"
        f"from benchmarks import {name}\n"
        f"report = {name}.run({options})\n"
        "print(report.table())\n"
        f"report.write(pathlib.Path({str(folder)!r}))\n"
    )
    written: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    assert written["machine"]["cores"]
    assert written["versions"]["vizwatch"]
    return table, written


@pytest.mark.parametrize(
    ("name", "options", "rows"),
    [("listing", "jobs=3000, runs=1", 10), ("importing", "runs=1", 2), ("delay", "lives=40, runs=1", 24)],
)
def test_tells_each_ratio_with_its_verdict_and_writes_it_down(
    tmp_path: Path, name: str, options: str, rows: int
) -> None:
    table, written = found(tmp_path, name, options)

    assert len(written["rows"]) == rows
    for row in written["rows"]:
        assert row["ratio"]["runs"] == [row["ours"]["runs"][0] / row["theirs"]["runs"][0]]
        expected = (
            "no budget"
            if row["budget"] is None
            else ("not met", "met")[row["ratio"]["median"] <= row["budget"]]
        )
        assert row["verdict"] == expected
        assert any(row["what"] in line and row["verdict"] in line for line in table.splitlines())


def test_a_change_is_seen_in_half_the_time_that_as_many_even_looks_take(tmp_path: Path) -> None:
    """The time is simulated and the chance is seeded, so that this holds on any machine."""
    _, written = found(tmp_path, "delay", "lives=150, runs=2")

    assert [row["verdict"] for row in written["rows"] if row["budget"] is not None] == ["met"]
    for point in written["curve"]:
        ours, fixed = point["vizwatch"], point["fixed"]
        assert ours["requests"] == pytest.approx(fixed["requests"], rel=0.002)
        assert fixed["interval"] <= ours["interval"]
    for before, after in itertools.pairwise(written["curve"]):
        for way in ("vizwatch", "fixed"):
            assert before[way]["requests"] > after[way]["requests"]
            assert before[way]["mean"] < after[way]["mean"]


def simulated(code: str) -> Any:
    """What the simulator of delays gives."""
    return json.loads(run(f"import json\nfrom benchmarks import delay\n{code}\nprint(json.dumps(given))"))


def test_even_looks_at_running_jobs_see_a_change_after_half_the_interval() -> None:
    mean = simulated(
        """lives = delay.drawn("running until somebody's stop", 2000, 1)\n"""
        "given = delay.watched(lives, delay.fixed(20.0), 20.0).mean"
    )
    assert mean == pytest.approx(10.0 * (1 + 0.2**2 / 3), rel=0.03)


def test_looks_that_are_leapt_over_are_counted() -> None:
    leapt, taken = simulated(
        "lives = delay.drawn('all lives', 30, 1)\n"
        "given = [delay.watched(lives, delay.ours(60.0), 60.0).requests]\n"
        "delay.Watch._leap = lambda self, at, pause: at\n"
        "given += [delay.watched(lives, delay.ours(60.0), 60.0).requests]"
    )
    assert leapt == pytest.approx(taken, rel=0.005)


def verdicts(table: str, written: dict[str, Any]) -> dict[str, str]:
    """What became of each check, which the table tells as it was written down."""
    for check in written["checks"]:
        assert any(check["what"] in line and check["verdict"] in line for line in table.splitlines())
    assert written["met"] == all(check["verdict"] != "not met" for check in written["checks"])
    return {check["what"]: check["verdict"] for check in written["checks"]}


@pytest.mark.fault("A5")
def test_an_hour_of_faults_outages_and_rotations_breaks_no_promise(tmp_path: Path) -> None:
    """The rates while down and after it are not held here: so few watches say nothing of them."""
    options = "soak.Plan(watches=30, hours=1, rotations=6)"
    checks = verdicts(*found(tmp_path, "soak", options))

    rates = {what for what in checks if what.startswith(("while down: ", "peak after: "))}
    assert len(rates) == 6
    assert [what for what in checks.keys() - rates if checks[what] == "not met"] == []
    assert sum(what.startswith("promise broken: ") for what in checks) == 8


def test_cycles_of_clients_pagers_and_watches_leave_nothing_behind(tmp_path: Path) -> None:
    checks = verdicts(*found(tmp_path, "leaks", "cycles=40, warm_up=40"))

    assert len(checks) == 8
    assert [what for what, verdict in checks.items() if verdict != "met"] == []


@pytest.mark.foreign
def test_both_clients_are_held_to_one_rule_against_the_same_servers(tmp_path: Path) -> None:
    table, written = found(tmp_path, "compare", "mebibytes=64")

    wrong = [line for line in written["lines"] if not line["ours"]["right"]]
    assert not wrong
    assert sum(not line["theirs"]["right"] for line in written["lines"]) > 20
    assert written["met"]
    rows = (tmp_path / "compare.md").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 2 + len(written["lines"])
    for line, row in zip(written["lines"], rows[2:], strict=True):
        assert line["what"] in row
        assert line["what"] in table
        assert row.count("✗") == (not line["theirs"]["right"])


def test_the_command_names_the_benchmarks_that_there_are() -> None:
    asked = [sys.executable, "-m", "benchmarks", "nonesuch"]
    refused = subprocess.run(asked, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)

    assert refused.returncode == 2
    assert "no benchmark is called nonesuch: there are listing, importing, compare, delay" in refused.stderr
