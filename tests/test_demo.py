"""The demonstration: what it shows, that it notices when something goes otherwise, and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from vizwatch import JobStatus
from vizwatch.cli._demo import FATES, Step, demonstrate
from vizwatch.cli._output import Output

ROOT = Path(__file__).parent.parent
STOPPED, FAILING, DELETED, RESTARTED = FATES
COMMAND = [sys.executable, "-W", "error", "-m", "vizwatch", "demo"]


@contextlib.contextmanager
def demo(*options: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, with the usual buffering; never outlives its test."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [*COMMAND, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def objects(text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    *transitions, summary = map(json.loads, text.splitlines())
    return transitions, summary


@pytest.mark.looptime
async def test_every_job_is_seen_from_its_start_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert await demonstrate(Output(as_json=True)) == 0
    transitions, summary = objects(capsys.readouterr().out)
    assert summary["as_scripted"] is True
    for story, fate in zip(summary["summary"], FATES, strict=True):
        scripted = ["deleted" if step.status is None else step.status.name for step in fate.steps]
        assert story["seen"] == scripted
        own = [one for one in transitions if one["job_id"] == story["job_id"]]
        assert [one["current_name"] or "deleted" for one in own] == scripted
        assert [one["previous_name"] for one in own] == [None, *scripted[:-1]]


def test_the_demonstration_is_over_in_well_under_a_minute_and_says_that_all_went_well() -> None:
    with demo() as process:
        out, err = process.communicate(timeout=40)
    assert (process.returncode, err) == (0, "")
    assert "Everything went as scripted" in out
    assert "\x1b" not in out


@pytest.mark.looptime
async def test_for_people_it_lists_the_jobs_then_each_change_then_a_summary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await demonstrate(Output(as_json=False), (STOPPED, DELETED)) == 0
    head, watching, summary, end = capsys.readouterr().out.split("\n\n")
    assert [line.split()[:3] for line in head.splitlines()[2:]] == [
        ["1", "to-be-stopped", "INIT"],
        ["2", "to-be-deleted", "INIT"],
    ]
    assert len(watching.splitlines()) == 1 + len(STOPPED.steps) + len(DELETED.steps)
    assert watching.splitlines()[-1].endswith("KILLING → deleted")
    assert [line.split()[0] for line in summary.splitlines()] == ["ID", "1", "2"]
    assert end.startswith("Everything went as scripted, in ")


@pytest.mark.looptime
async def test_in_a_terminal_the_table_is_drawn_anew_with_each_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", out := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    assert await demonstrate(Output(as_json=False), (FAILING,)) == 0
    shown = out.getvalue()
    assert "INIT → SUBMIT_TRYING → WAITING → RUNNING → FAILED" in shown
    assert shown.count("SEEN") >= len(FAILING.steps)
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


@pytest.mark.looptime
async def test_it_fails_and_says_so_when_a_job_goes_another_way(capsys: pytest.CaptureFixture[str]) -> None:
    other = attrs.evolve(FAILING, steps=(*FAILING.steps[:-1], Step(JobStatus.COMPLETED)))
    assert await demonstrate(Output(as_json=False), (other, STOPPED)) == 1
    out = capsys.readouterr().out
    assert "no: FAILED was not to come" in out
    assert "Not everything went as scripted" in out


@pytest.mark.looptime
async def test_it_fails_when_a_job_does_not_end(capsys: pytest.CaptureFixture[str]) -> None:
    endless = attrs.evolve(
        STOPPED, steps=(*STOPPED.steps[:3], Step(JobStatus.RUNNING), Step(JobStatus.KILLED))
    )
    assert await demonstrate(Output(as_json=True), (endless,)) == 1
    (story,) = objects(capsys.readouterr().out)[1]["summary"]
    assert "did not end within 40 s" in story["went_wrong"]


@pytest.mark.looptime
async def test_it_fails_when_a_job_is_gone_too_early(capsys: pytest.CaptureFixture[str]) -> None:
    early = attrs.evolve(DELETED, steps=(*DELETED.steps[:-1], Step(JobStatus.KILLED), Step(None)))
    gone = attrs.evolve(early, steps=(*early.steps, Step(JobStatus.RUNNING)))
    assert await demonstrate(Output(as_json=True), (gone,)) == 1
    (story,) = objects(capsys.readouterr().out)[1]["summary"]
    assert story["went_wrong"] == "ended before RUNNING"


def test_ctrl_c_ends_it_without_a_word() -> None:
    with demo("--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["current_name"] == "INIT"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
    assert (process.returncode, err) == (130, "")
