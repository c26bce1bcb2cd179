"""What the command line prints: nothing of the server's controls a terminal, and machines get all of it."""

from __future__ import annotations

import datetime as dt
import io
import json
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from vizwatch import Job, JobStatus, Schedule, Transition
from vizwatch.cli._output import Output

HOSTILE = [
    "x\x1b[2J",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]8;;http://169.254.169.254/\x1b\\click\x1b]8;;\x1b\\",
    "\u202egnp.exe",
    "a\rb\nc\x00d\x85e\x9b2J",
    "[red]not markup[/red] [link=http://example.com]x[/link] :smile:",
    "\u2028\u2029\ufeff\U000e0001",
    "\ud800",
    "L" * 1_000_000,
    "日本語" * 30,
]
JOB = Job(job_id=197, status=JobStatus.RUNNING, job_name="tb", create_time=1565149736000, duration=3_723_000)
NOW = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)


def transition(job: Job = JOB, **changes: Any) -> Transition:
    made = Transition(
        id="p/197/1/1/none-8",
        project_id="p",
        job_id=job.job_id,
        previous=None,
        current=job.status,
        job=job,
        run=1,
        not_before=None,
        not_after=NOW,
    )
    return attrs.evolve(made, **changes)


class Terminal(io.StringIO):
    """A stdout that people look at."""

    def isatty(self) -> bool:
        return True


Show = Callable[[Output], None]


def printed(show: Show, *, as_json: bool = False, out: io.StringIO | None = None, **env: str) -> str:
    """What is printed to a pipe, or to another stdout, in an environment without COLUMNS and NO_COLOR."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        for name, value in env.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", out := out or io.StringIO())
        show(Output(as_json=as_json))
    return out.getvalue()


@pytest.mark.fault("X8")
@pytest.mark.parametrize("out", [io.StringIO, Terminal], ids=["pipe", "terminal"])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_tables_obey_nothing_that_the_server_says(text: str, out: type[io.StringIO]) -> None:
    job = attrs.evolve(
        JOB, job_name=text, job_desc=text, service_url=text, train_url=text, extra={text: text}
    )

    def show(output: Output) -> None:
        output.jobs([job, job])
        output.transition(transition(job))

    lines = printed(show, out=out(), COLUMNS="80", TERM="dumb").split("\n")
    assert len(lines) == 5
    assert all(line.isprintable() for line in lines)
    assert all(cell_len(line) <= 80 for line in lines)
    details = printed(lambda output: output.job(job), out=out(), COLUMNS="80", TERM="dumb")
    assert len(details) < 10_000
    assert all(line.isprintable() for line in details.split("\n"))


@pytest.mark.fault("X8")
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_json_is_one_ascii_line_that_gives_the_servers_text_back(text: str) -> None:
    job = attrs.evolve(JOB, job_name=text, service_url=text)
    line = printed(lambda output: output.jobs([job]), as_json=True)
    assert line.isascii()
    assert line[:-1].isprintable()
    assert line[-1] == "\n"
    assert json.loads(line)["job_name"] == text


@pytest.mark.fault("X8")
@given(st.text(st.characters()))
def test_no_text_becomes_an_escape_sequence(text: str) -> None:
    out = printed(lambda output: output.jobs([attrs.evolve(JOB, job_name=text)]))
    lines = out.split("\n")
    assert len(lines) == 3
    assert not {unicodedata.category(one) for line in lines for one in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_what_looks_like_markup_is_text() -> None:
    job = attrs.evolve(
        JOB, job_name="[red]a[/red]", job_desc="[link=http://example.com]b[/link]", job_type=":smile:"
    )

    def show(output: Output) -> None:
        output.jobs([job])
        output.job(job)
        output.transition(transition(job))

    out = printed(show)
    assert out.count("[red]a[/red]") == 3
    assert "[link=http://example.com]b[/link]" in out
    assert ":smile:" in out


@pytest.mark.parametrize("as_json", [False, True])
def test_each_line_is_flushed_at_once(*, as_json: bool) -> None:
    class Buffered(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed = len(self.getvalue())

    def show(output: Output) -> None:
        output.transition(transition())
        assert out.flushed == len(out.getvalue()) > 0

    printed(show, as_json=as_json, out=(out := Buffered()))


def test_a_pipe_sees_a_listing_uncut() -> None:
    url = f"https://example.com/{'a' * 80}"
    out = printed(lambda output: output.jobs([attrs.evolve(JOB, service_url=url)]))
    row = out.splitlines()[1].split()
    assert row == ["197", "tb", "RUNNING", "2019-08-07", "03:48:56", "1:02:03", url]


@pytest.mark.fault("X6")
def test_an_address_is_text_and_no_link_though_the_terminal_knows_links() -> None:
    job = attrs.evolve(JOB, service_url="http://169.254.169.254/latest/")

    def show(output: Output) -> None:
        output.jobs([job])
        output.job(job)

    out = printed(show, out=Terminal(), COLUMNS="200", TERM="xterm-256color")
    assert out.count("http://169.254.169.254/latest/") == 2
    assert "\x1b[32mRUNNING" in out
    assert "\x1b]8;" not in out


def test_a_narrow_screen_keeps_id_name_and_status() -> None:
    job = attrs.evolve(JOB, job_name="n" * 20, service_url="u" * 50)
    out = printed(lambda output: output.jobs([job]), COLUMNS="40")
    assert out.splitlines()[1].split() == ["197", "n" * 20, "RUNNING"]


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({}, "RUNNING"),
        ({"previous": JobStatus.WAITING}, "WAITING → RUNNING"),
        ({"previous": JobStatus.RUNNING, "current": None}, "RUNNING → deleted"),
        ({"current": JobStatus(99)}, "UNKNOWN(99)"),
        ({"run": 2}, "RUNNING  (run 2)"),
        ({"gap": True}, "RUNNING  (not all seen)"),
    ],
)
def test_a_change_is_one_line(change: dict[str, Any], shown: str) -> None:
    out = printed(lambda output: output.transition(transition(**change)))
    assert out == f"2026-03-04 05:06:07Z     197  {'tb':<20}  {shown}\n"


def test_a_long_change_is_not_cut_on_a_narrow_screen() -> None:
    before, after = JobStatus.CHECK_RUNNING_COMPLETED, JobStatus.DEPLOY_SERVICE_FAILED
    change = transition(previous=before, current=after)
    out = printed(lambda output: output.transition(change), COLUMNS="40")
    assert f"{before.name} → {after.name}\n" in out


def test_json_has_numbers_with_names_beside_them_and_iso_times() -> None:
    job = attrs.evolve(
        JOB, schedule=(Schedule(type="stop", time_unit="HOURS", duration=2),), extra={"a": [1]}
    )
    fields = json.loads(printed(lambda output: output.job(job), as_json=True))
    assert fields["status"] == 8
    assert fields["status_name"] == "RUNNING"
    assert fields["created_at"] == "2019-08-07T03:48:56+00:00"
    assert fields["schedule"] == [{"type": "stop", "time_unit": "HOURS", "duration": 2}]
    assert fields["extra"] == {"a": [1]}
    deleted = transition(job, previous=JobStatus(99), current=None)
    change = json.loads(printed(lambda output: output.transition(deleted), as_json=True))
    assert (change["previous"], change["previous_name"]) == (99, "UNKNOWN(99)")
    assert (change["current"], change["current_name"]) == (None, None)
    assert (change["not_before"], change["not_after"]) == (None, "2026-03-04T05:06:07+00:00")
    assert change["job"] == fields


def test_numbers_that_are_no_times_are_shown_as_they_are() -> None:
    odd = Job(job_id=1, status=JobStatus(99), create_time=15099239923, duration=2**62)

    def show(output: Output) -> None:
        output.jobs([odd, attrs.evolve(odd, create_time=None, duration=None)])
        output.job(odd)

    out = printed(show)
    assert out.count("15099239923") == 2
    assert "UNKNOWN(99) (99)" in out


def test_a_name_that_the_locale_cannot_say_does_not_end_the_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    job = attrs.evolve(JOB, job_name="日本")
    Output(as_json=False).transition(transition(job, previous=JobStatus.WAITING))
    sys.stdout.flush()
    assert rb"\u65e5\u672c" in raw.getvalue()
