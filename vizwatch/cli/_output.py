"""Results as they are printed: tables and lines for people, one JSON object a line for machines."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs
from rich.cells import set_cell_size
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from vizwatch import ConfigError, Job, JobStatus, Transition, printable
from vizwatch.service.payload import job_fields, json_line, transition_fields

_PIPED_WIDTH: Final = 240
_WIDE: Final = 76
_NAME: Final = 20
_SHORT: Final = 40
_URL: Final = 120
_LONG: Final = 1_000


class Terminal(Console):
    """A console that obeys nothing in what it prints, and that lets a broken pipe be seen."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False, highlight=False)
        if not self.file.isatty() and "COLUMNS" not in os.environ:
            # Nobody's screen is too narrow: `vizwatch list | grep` sees what a table has.
            self.width = _PIPED_WIDTH

    def on_broken_pipe(self) -> None:
        """Raises it, where the default would end the process with a code of its own."""
        raise BrokenPipeError


def check_stdout() -> None:
    """Raises :class:`ConfigError` where stdout is closed, as all that is printed were lost without a word."""
    if sys.stdout is None:
        raise ConfigError("stdout is closed, and nothing can be printed: give it a place, such as a file")


class Output:
    """Where a command's results go, each flushed at once."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Terminal()
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A name that the locale's encoding cannot say must not end the listing.
            sys.stdout.reconfigure(errors="backslashreplace")

    @property
    def is_live(self) -> bool:
        """Whether what was printed can be drawn over."""
        return not self.as_json and self.console.file.isatty() and not self.console.is_dumb_terminal

    def object(self, value: Mapping[str, Any]) -> None:
        """Prints one JSON object in one line; in ASCII, so that control characters are escaped."""
        file = self.console.file
        file.write(json_line(value) + "\n")
        file.flush()

    def text(self, renderable: RenderableType) -> None:
        """Prints something for people."""
        self.console.print(renderable)

    def done(self, what: str, job_id: str) -> None:
        """Prints that the service took a request that it answers with nothing."""
        if self.as_json:
            self.object({"operation": what, "job_id": int(job_id)})
        else:
            self.text(Text(f"{what}: job {printable(job_id, _SHORT)}, accepted"))

    def job(self, job: Job) -> None:
        """Prints all that is known of a job."""
        if self.as_json:
            self.object(job_fields(job))
        else:
            self.text(job_table(job))

    def jobs(self, jobs: Iterable[Job]) -> None:
        """Prints a listing."""
        if self.as_json:
            for job in jobs:
                self.object(job_fields(job))
        else:
            self.text(jobs_table(jobs, self.console.width))

    def transition(self, transition: Transition) -> None:
        """Prints a change of a job's status, in one line."""
        if self.as_json:
            self.object(transition_fields(transition))
        else:
            # Too long a line is left to the terminal to wrap: what would be cut is the new status.
            self.console.print(transition_line(transition), soft_wrap=True)


def table(*columns: str, flexible: tuple[str, ...] = ()) -> Table:
    """An empty table without lines; where the screen is too narrow, flexible columns give way first."""
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name, no_wrap=name not in flexible, overflow="ellipsis")
    return made


def cell(text: object, limit: int = _SHORT, style: str = "") -> Text:
    """A server's or a user's text, made harmless, in one line."""
    shown = "-" if text is None else printable(str(text), limit)
    return Text(shown, style=style, no_wrap=True, overflow="ellipsis")


def status_cell(status: JobStatus | None) -> Text:
    """A status's name in its colour; ``None`` is a deleted job's."""
    return cell("deleted" if status is None else status.name, style=_style(status))


def _style(status: JobStatus | None) -> str:
    if status is None:
        return "magenta"
    if status.is_failure:
        return "red"
    if status.is_running:
        return "green"
    return "cyan" if status.is_terminal else "yellow"


def jobs_table(jobs: Iterable[Job], width: int) -> Table:
    """A listing, with the columns that a screen of this width has room for."""
    columns = ("ID", "NAME", "STATUS", "CREATED (UTC)", "DURATION", "URL")[: 6 if width >= _WIDE else 3]
    made = table(*columns, flexible=("NAME", "URL"))
    for job in jobs:
        cells = (
            cell(job.job_id),
            cell(job.job_name),
            status_cell(job.status),
            cell(_created(job)),
            cell(_duration(job)),
            cell(job.service_url, _URL),
        )
        made.add_row(*cells[: len(columns)])
    return made


def job_table(job: Job) -> Table:
    """All that is known of one job, a field a row."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    rows: dict[str, object] = attrs.asdict(job, recurse=False) | {
        "status": f"{job.status.name} ({int(job.status)})",
        "create_time": _created(job),
        "duration": _duration(job),
        "schedule": ", ".join(f"{one.type} after {one.duration} {one.time_unit}" for one in job.schedule)
        or None,
        "extra": json.dumps(job.extra) if job.extra else None,
    }
    for name, value in rows.items():
        if value not in {None, ""}:
            style = _style(job.status) if name == "status" else ""
            made.add_row(name, Text(printable(str(value), _LONG), style=style))
    return made


def transition_line(transition: Transition) -> Text:
    """A change as one line: when, which job, from what to what."""
    job = transition.job
    name = "-" if job.job_name is None else printable(job.job_name, _NAME)
    line = Text(f"{transition.not_after:%Y-%m-%d %H:%M:%SZ}  {transition.job_id:>6}  ")
    line.append(set_cell_size(name, _NAME)).append("  ")
    if transition.previous is not None:
        line.append_text(status_cell(transition.previous)).append(" → ")
    line.append_text(status_cell(transition.current))
    if transition.run > 1:
        line.append(f"  (run {transition.run})")
    if transition.gap:
        line.append("  (not all seen)")
    return line


def _created(job: Job) -> object:
    return job.create_time if job.created_at is None else f"{job.created_at:%Y-%m-%d %H:%M:%S}"


def _duration(job: Job) -> str | None:
    if job.duration is None:
        return None
    minutes, seconds = divmod(job.duration // 1000, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
