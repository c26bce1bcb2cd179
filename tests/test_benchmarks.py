"""The benchmarks run, in a form too small to say anything about speed."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from children import unmeasured

from benchmarks import plots
from benchmarks._frame import Report, Row, Sample, promised
from benchmarks._server import asked, canned_server

ROOT = Path(__file__).parent.parent


def run(code: str) -> str:
    """What the code prints in a process of its own, where nothing of the tests is measured along."""
    command = [sys.executable, "-c", code]
    ran = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120, env=unmeasured()
    )
    return ran.stdout


def found(folder: Path, name: str, options: str, function: str = "") -> tuple[str, dict[str, Any]]:
    """The table that a benchmark prints, and what it writes down in that folder."""
    function = function or f"{name}.run"
    table = run(
        "import pathlib\n"
        f"from benchmarks import {function.partition('.')[0]}\n"
        f"report = {function}({options})\n"
        "print(report.table())\n"
        f"report.write(pathlib.Path({str(folder)!r}))\n"
    )
    written: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    assert written["machine"]["cores"]
    assert written["versions"]["vizwatch"]
    return table, written


SMALL = "watches=20, interval=0.1, intervals=3, runs=1"


@pytest.mark.parametrize(
    ("name", "function", "options", "rows"),
    [
        ("listing", "", "jobs=3000, runs=1", 10),
        ("importing", "", "runs=1", 2),
        ("delay", "", "lives=40, runs=1", 24),
        ("watching", "watching.together", SMALL, 3),
        ("polling", "watching.one_by_one", f"{SMALL}, projects=5", 3),
        ("idling", "watching.idle", "watches=200, projects=2, runs=1", 1),
        ("fleet", "", "projects=3, jobs=1500, interval=0.3, runs=1", 6),
        ("keeping", "", "projects=(3, 5), jobs=5, interval=0.3, runs=1", 4),
        ("sharding", "", "projects=6, jobs=5, interval=0.3, shards=(2,), runs=1", 4),
        ("scaling", "", "jobs=(10, 100), watches=(1, 3), projects=(3,), interval=0.1, runs=1", 5),
        pytest.param("foreign", "", "ours=1500, theirs=1500, runs=1", 1, marks=pytest.mark.foreign),
    ],
)
def test_tells_each_ratio_with_its_verdict_and_writes_it_down(
    tmp_path: Path, name: str, function: str, options: str, rows: int
) -> None:
    table, written = found(tmp_path, name, options, function)

    assert len(written["rows"]) == rows
    for row in written["rows"]:
        assert row["ratio"]["runs"] == [row["ours"]["runs"][0] / row["theirs"]["runs"][0]]
        bounds = [(row["ratio"], row["budget"]), (row["ours"], row["at_most"])]
        kept = [figure["median"] <= bound for figure, bound in bounds if bound is not None]
        assert row["verdict"] == (("met" if all(kept) else "not met") if kept else "no budget")
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
        "delay.Watch._leap = lambda self, at: at\n"
        "given += [delay.watched(lives, delay.ours(60.0), 60.0).requests]"
    )
    assert leapt == pytest.approx(taken, rel=0.005)


def row(what: str, ours: float, theirs: float | None = None, **bounds: Any) -> Row:
    beside = None if theirs is None else Sample([theirs])
    return Row(what=what, unit="ms", ours=Sample([ours]), theirs=beside, **bounds)


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (row("", 3, 2), "no budget"),
        (row("", 3, 2, budget=1.5), "met"),
        (row("", 3, 2, budget=1.4), "not met"),
        (row("", 3, at_most=3), "met"),
        (row("", 3, at_most=2), "not met"),
        (row("", 3, 2, budget=1.4, at_most=3), "not met"),
        (row("", 3, 2, budget=1.5, at_most=2), "not met"),
    ],
)
def test_a_budget_is_met_where_each_bound_is_kept(one: Row, verdict: str) -> None:
    assert one.verdict == verdict


def test_the_last_table_has_each_row_that_has_a_budget_and_counts_those_met() -> None:
    rows = [row("kept", 1, 1, budget=1), row("told", 1, 1), row("missed", 3, at_most=2)]
    table = promised([Report(name="one", title="", rows=rows, seconds=0)])

    assert [line.split()[1] for line in table.splitlines() if line.startswith("one ")] == ["kept", "missed"]
    assert table.endswith("1 of 2 budgets met.")


def read(endpoint: str, path: str) -> Any:
    with urllib.request.urlopen(f"{endpoint}/v1/{path}", timeout=30) as answer:
        return json.load(answer)


def test_the_canned_server_counts_what_it_is_asked_and_times_the_reads_of_one_job_alone() -> None:
    page = "visualization-jobs?per_page=2&page=2"
    with canned_server() as endpoint:
        rows = read(endpoint, f"running-3-other/{page}")["jobs"]
        for which, job_id in (
            ("timed-1", 2),
            ("timed-1", 2),
            ("timed-1", 3),
            ("timed-2", 2),
            *[("other", 2)] * 2,
        ):
            assert read(endpoint, f"running-3-{which}/visualization-jobs/{job_id}")["job_id"] == job_id
        first, second = asked(endpoint), asked(endpoint)

    assert [(one["job_id"], one["status"]) for one in rows] == [(3, 8)]
    assert (first.lists, first.details, len(first.gaps)) == (1, 6, 1)
    assert (second.lists, second.details, len(second.gaps)) == (0, 0, 0)


def test_each_curve_that_was_written_down_is_drawn_with_a_line_a_series(tmp_path: Path) -> None:
    assert plots.drawn(tmp_path) == []

    points = [[10, 2.0, 1.0, 3.0], [1000, 40.0, 30.0, 50.0]]
    cost = {"name": "jobs", "x": "jobs <listed>", "y": "ms", "series": {"a & b": points, "c": points}}
    (tmp_path / "scaling.json").write_text(json.dumps({"curves": [cost]}), encoding="utf-8")
    late = {"interval": 15, "requests": 9.5, "mean": 1, "p95": 3}
    curve = [{"vizwatch": late, "fixed": {**late, "mean": 7.5, "p95": 14}}]
    (tmp_path / "delay.json").write_text(json.dumps({"curve": curve}), encoding="utf-8")

    drawn = {path.name: ET.parse(path) for path in plots.drawn(tmp_path)}
    lines = {name: drawn[name].findall("{*}polyline") for name in drawn}
    assert {name: len(found) for name, found in lines.items()} == {"cost-of-jobs.svg": 2, "delay.svg": 4}
    places = {line.attrib["points"] for line in lines["delay.svg"]}
    assert len(places) == 4, "each figure of each is another line"
    ends = [place.split(",") for place in lines["cost-of-jobs.svg"][0].attrib["points"].split()]
    assert [float(x) for x, _ in ends] == sorted(float(x) for x, _ in ends)
    assert float(ends[0][1]) > float(ends[1][1]), "more is further up"
    texts = [text.text for text in drawn["cost-of-jobs.svg"].findall("{*}text")]
    assert {"jobs <listed>", "a & b", "c"} <= set(texts)


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


def test_an_hour_of_faults_breaks_no_promise_of_watches_that_share_their_reads(tmp_path: Path) -> None:
    options = "soak.Plan(watches=30, hours=1, rotations=6, shared=True)"
    checks = verdicts(*found(tmp_path, "soak", options))

    assert [what for what, verdict in checks.items() if verdict == "not met"] == []
    assert sum(what.startswith("promise broken: ") for what in checks) == 8


def test_cycles_of_clients_pagers_and_watches_leave_nothing_behind(tmp_path: Path) -> None:
    checks = verdicts(*found(tmp_path, "leaks", "cycles=40, warm_up=40"))

    assert len(checks) == 8
    assert [what for what, verdict in checks.items() if verdict != "met"] == []


@pytest.mark.fault("D1", "D2")
def test_a_watcher_that_is_killed_again_and_again_tells_one_story(tmp_path: Path) -> None:
    checks = verdicts(*found(tmp_path, "kills", "kills=12"))

    assert len(checks) == 7
    assert [what for what, verdict in checks.items() if verdict == "not met"] == []


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
    assert "no benchmark is called nonesuch: there are listing, " in refused.stderr
