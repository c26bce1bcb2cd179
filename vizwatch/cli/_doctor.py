"""``vizwatch doctor``: what is found where, whether it works, and recordings of a real service."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
from rich.text import Text

from vizwatch import ConfigError
from vizwatch.cli._errors import ExitCode, exit_code
from vizwatch.cli._options import Connection
from vizwatch.cli._output import Output
from vizwatch.doctor import Finding, examine, record


async def diagnose(connection: Connection, file: Path | None, output: Output) -> int:
    """Prints what is found, and writes a recording if all is well and one is asked for."""
    if file is not None:
        _check_new(file)
    given = attrs.asdict(connection)
    async for finding in examine(**given):
        _print(finding, output)
        if finding.error is not None:
            return exit_code(finding.error)
    if file is not None:
        recording = await record(**given)
        _write(file, json.dumps(recording, indent=1, ensure_ascii=True) + "\n")
        text = f"{len(recording['exchanges'])} answers in {file}: read it before you pass it on"
        _print(Finding("recording", ok=True, text=text), output)
    return ExitCode.DONE


def _check_new(file: Path) -> None:
    if file.exists() or not file.parent.is_dir():
        raise ConfigError("--record must name a new file in a folder that exists")


def _print(finding: Finding, output: Output) -> None:
    if output.as_json:
        output.object({"check": finding.check, "ok": finding.ok, "text": finding.text})
        return
    line = Text("ok     " if finding.ok else "WRONG  ", style="green" if finding.ok else "bold red")
    output.console.print(line.append(f"{finding.check}: {finding.text}", style="default"), soft_wrap=True)


def _write(file: Path, text: str) -> None:
    # Never through a link, and readable by its owner alone.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(text)
