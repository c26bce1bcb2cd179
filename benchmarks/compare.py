"""What vizwatch does where otcextensions, the one ready client of this API, was found wanting: side by side.

Both are used as their documents say against the same servers of raw sockets, and what they do is told as it
was seen: the value or the error that they gave, and the requests that came in. One rule for both says
whether that is right.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks._frame import RESULTS, aligned, peak_resident, where, written
from benchmarks._raw import RawServer, Reply, http, one_by_one
from benchmarks._trials import PROJECT, TOKEN, Outcome, Seen, Trial, details, new_job, our_details, trials
from vizwatch import Client, Settings

_ROOT: Final = Path(__file__).parent.parent
_BOMB: Final = 128
_SETTINGS: Final = Settings(backoff_base=0.01, backoff_max=0.05, poll_interval=0.05, poll_interval_min=0.01)


@attrs.frozen(kw_only=True)
class Line:
    """One behaviour, of both."""

    what: str
    theirs: Seen
    ours: Seen


@attrs.frozen(kw_only=True)
class Comparison:
    """All of them."""

    lines: Sequence[Line]
    seconds: float
    """How long all of it took."""
    name: str = "compare"
    title: str = "what otcextensions and vizwatch do"

    @property
    def verdict(self) -> str:
        """How many of each are right."""
        ours, theirs = (sum(seen) for seen in zip(*self._right, strict=True))
        total = len(self.lines)
        return f"right: otcextensions {theirs} of {total}, vizwatch {ours} of {total}"

    @property
    def is_met(self) -> bool:
        """Whether all of ours are right."""
        return all(line.ours.right for line in self.lines)

    @property
    def _right(self) -> list[tuple[bool, bool]]:
        return [(line.ours.right, line.theirs.right) for line in self.lines]

    def table(self) -> str:
        """A line a behaviour, and beneath them where they were seen."""
        cells = [("", "otcextensions", "vizwatch")]
        cells += [(line.what, str(line.theirs), str(line.ours)) for line in self.lines]
        total = f"{self.verdict}; {self.seconds:.0f} s in all."
        return "\n".join([f"{self.name}: {self.title}", "", *aligned(cells), "", total, *where()])

    def markdown(self) -> str:
        """The same as a table of Markdown."""
        lines = ["| | otcextensions | vizwatch |", "|---|---|---|"]
        for line in self.lines:
            cells = (line.what, str(line.theirs), str(line.ours))
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
        return "\n".join([*lines, ""])

    def write(self, folder: Path = RESULTS) -> Path:
        """Writes everything to `compare.json` in that folder, and the table to `compare.md`."""
        lines = [attrs.asdict(line) for line in self.lines]
        path = written(folder, self, lines=lines, verdict=self.verdict, met=self.is_met)
        path.with_suffix(".md").write_text(self.markdown(), encoding="utf-8")
        return path


# Use


def _connected(endpoint: str) -> Any:
    import openstack  # noqa: PLC0415 - half a second, and not needed to list the benchmarks
    from otcextensions import sdk  # noqa: PLC0415 - as above

    auth = {"endpoint": f"{endpoint}/v1/{PROJECT}", "token": TOKEN}
    connection: Any = openstack.connect(
        auth_type="admin_token", auth=auth, load_yaml_config=False, load_envvars=False
    )
    sdk.load(connection)
    return connection


def _theirs(endpoint: str, use: Callable[[Any], Any]) -> Any:
    with warnings.catch_warnings():
        # What openstacksdk will drop in its next major version, and otcextensions still uses.
        warnings.simplefilter("ignore")
        with _connected(endpoint) as connection:
            return use(connection.modelartsv1)


async def _ours(endpoint: str, use: Callable[[Client], Awaitable[Any]]) -> Any:
    async with Client(endpoint, PROJECT, auth=TOKEN, settings=_SETTINGS) as client:
        return await use(client)


async def _outcome(reply: Reply, trap: RawServer, used: Callable[[str], Awaitable[Any]]) -> Outcome:
    trap.requests.clear()
    async with RawServer(reply) as server:
        value, error, start = None, None, time.perf_counter()
        try:
            value = await used(server.endpoint)
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is what is compared
            error = raised
        seconds = time.perf_counter() - start
        return Outcome(server.endpoint, value, error, list(server.requests), list(trap.requests), seconds)


async def _line(trial: Trial, trap: RawServer) -> Line:
    theirs = await _outcome(
        trial.reply(), trap, lambda endpoint: asyncio.to_thread(_theirs, endpoint, trial.theirs)
    )
    ours = await _outcome(trial.reply(), trap, lambda endpoint: _ours(endpoint, trial.ours))
    return Line(what=trial.what, theirs=trial.judge(theirs), ours=trial.judge(ours))


# Memory, of which a process of its own tells


def _bomb(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    body = packer.compress(b'{"job_id": 7, "status": 8, "job_desc": "')
    for _ in range(mebibytes):
        body += packer.compress(b" " * 2**20)
    body += packer.compress(b'"}') + packer.flush()
    return http(None, "200 OK", "Content-Encoding: gzip", raw=body)


def bombed(who: str, endpoint: str) -> None:
    """Reads one job, and prints by how many MiB the most memory that was held grew, and the error."""
    if who == "theirs":
        _theirs("http://127.0.0.1:1", str)  # what importing takes is not counted

    before, said = peak_resident(), "no error"
    try:
        if who == "theirs":
            _theirs(endpoint, details)
        else:
            asyncio.run(_ours(endpoint, our_details))
    except Exception as error:  # noqa: BLE001 - as above
        said = type(error).__name__
    print(json.dumps([peak_resident() - before, said]))


async def _bombs(mebibytes: int) -> Line:
    body = _bomb(mebibytes)

    async def seen(who: str) -> Seen:
        async with RawServer(one_by_one(body)) as server:
            code = f"from benchmarks import compare; compare.bombed({who!r}, {server.endpoint!r})"
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, cwd=_ROOT, stdout=subprocess.PIPE
            )
            printed, _ = await child.communicate()
        grown, said = json.loads(printed)
        return Seen(f"{grown:,.0f} MiB of memory; {said}", grown < 32)

    what = f"details: {len(body) / 1024:.0f} KiB of gzip that are {mebibytes} MiB"
    return Line(what=what, theirs=await seen("theirs"), ours=await seen("ours"))


async def _lines(mebibytes: int) -> list[Line]:
    async with RawServer(one_by_one(http(new_job()))) as trap:
        lines = [await _line(trial, trap) for trial in trials(trap.endpoint)]
        return [*lines, await _bombs(mebibytes)]


def run(*, mebibytes: int = _BOMB) -> Comparison:
    """The comparison.

    Args:
        mebibytes: How large an answer becomes that was sent in a few kilobytes.
    """
    start = time.perf_counter()
    lines = asyncio.run(_lines(mebibytes))
    return Comparison(lines=lines, seconds=time.perf_counter() - start)


def main() -> None:
    """The command line."""
    comparison = run()
    print(comparison.table())
    comparison.write()
    sys.exit(0 if comparison.is_met else 1)


if __name__ == "__main__":
    main()
