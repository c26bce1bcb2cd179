"""A watcher that is killed again and again, and what it has told of the jobs when all is over.

`python -m benchmarks.kills` lets jobs of an emulated cloud go from status to status, be made and deleted,
while a process watches all of them with a checkpoint, and writes down each transition once it has dealt with
it. That process is killed by SIGKILL at moments left to chance, five hundred times, and each time another one
goes on. In the end, what they wrote down together must be one story of each job: every transition goes on
where the one before it ended, what came twice was the same both times, and the last one of each job is how it
is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks._frame import Check, Verdict
from vizwatch.emulator import Emulator

_ROOT: Final = Path(__file__).parent.parent
_JOBS: Final = 60
_STATUSES: Final = (1, 4, 7, 8, 9, 10, 11, 12, 14)
_CHANGES_EACH: Final = 0.01
_LONGEST: Final = 0.4
_AT_LAST: Final = 30.0
# The watcher. It is forked off a process that has everything imported, which a fresh one would spend most of
# its life on.
_WATCH: Final = """
import asyncio, json, os, signal, sys
import vizwatch
from vizwatch._flows import arriving, delivering, surveying
from vizwatch._world import journal, sqlite

endpoint, project_id, token, checkpoint, log = sys.argv[1:]
settings = vizwatch.Settings(poll_interval=0.1, poll_interval_min=0.01, watch_backoff_base=0.05)

async def watch():
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    async with vizwatch.Client(endpoint, project_id, auth=token, settings=settings) as client:
        jobs = client.watch_jobs(checkpoint=vizwatch.SqliteCheckpoint(checkpoint, window=0.01))
        async for one in jobs:
            told = [one.id, one.job_id, one.previous, one.current, one.run, one.not_after.isoformat()]
            os.write(file, (json.dumps(told) + "\\n").encode())

for _ in sys.stdin:
    child = os.fork()
    if not child:
        try:
            asyncio.run(watch())
        finally:
            os._exit(1)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""

Told = tuple[str, int, int | None, int | None, int, str]
"""A transition that was dealt with: its id, job, previous and current status, run, and when it was read."""


@attrs.frozen
class Story:
    """What all watchers together wrote down, and what is wrong with it."""

    told: Sequence[Told]
    truth: Mapping[int, int]
    """The jobs that there are in the end, and their statuses."""

    @property
    def repeats(self) -> int:
        """How many came more than once."""
        return len(self.told) - len({one[0] for one in self.told})

    def by_job(self) -> dict[int, list[Told]]:
        """The transitions of each job, those that came once more left out."""
        jobs: defaultdict[int, list[Told]] = defaultdict(list)
        for one in self.told:
            if not jobs[one[1]] or jobs[one[1]][-1] != one:
                jobs[one[1]].append(one)
        return jobs

    def broken(self) -> list[str]:
        """Transitions that do not go on where the one before them ended."""
        return [
            f"job {job_id}: {before} was followed by {after}"
            for job_id, told in self.by_job().items()
            for before, after in pairwise([("", job_id, None, None, 0, ""), *told])
            if before[3] != after[2]
        ]

    def ambiguous(self) -> list[str]:
        """Ids under which different things were told."""
        said: defaultdict[str, set[Told]] = defaultdict(set)
        for one in self.told:
            said[one[0]].add(one)
        return [f"{name}: {sorted(ones, key=str)}" for name, ones in said.items() if len(ones) > 1]

    def lost(self) -> list[str]:
        """Jobs whose last transition is not what they are."""
        last = {job_id: told[-1][3] for job_id, told in self.by_job().items()}
        return [
            f"job {job_id}: is {self.truth.get(job_id)}, told {last.get(job_id)}"
            for job_id in self.truth.keys() | last.keys()
            if self.truth.get(job_id) != last.get(job_id)
        ]


@attrs.define
class _Cloud:
    """Jobs that change all the time."""

    emulator: Emulator
    rng: random.Random
    jobs: dict[int, int] = attrs.field(factory=dict)

    def add(self, count: int = 1) -> None:
        status = self.rng.choice(_STATUSES)
        self.jobs.update(dict.fromkeys(self.emulator.add_jobs(count, status=status), status))

    async def change(self) -> None:
        """Changes one after the other, until it is cancelled."""
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / _CHANGES_EACH))
            job_id = self.rng.choice([*self.jobs])
            if self.rng.random() < 0.05:
                self.emulator.set_status(job_id, None)
                del self.jobs[job_id]
                self.add()
            else:
                self.jobs[job_id] = self.rng.choice(_STATUSES)
                self.emulator.set_status(job_id, self.jobs[job_id])


@contextlib.contextmanager
def _watchers(cloud: Emulator, folder: Path) -> Iterator[subprocess.Popen[str]]:
    where = (cloud.endpoint, cloud.project_id, cloud.token)
    files = (str(folder / "jobs.sqlite"), str(folder / "log"))
    command = [sys.executable, "-c", _WATCH, *where, *files]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        yield parent
        assert parent.stdin is not None
        parent.stdin.close()


@contextlib.asynccontextmanager
async def _watcher(watchers: subprocess.Popen[str], codes: list[int]) -> AsyncIterator[int]:
    """One of them, killed in the end; notes its exit code."""
    assert watchers.stdin is not None
    assert watchers.stdout is not None
    watchers.stdin.write("another one\n")
    watchers.stdin.flush()
    process = int(await asyncio.to_thread(watchers.stdout.readline))
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        codes.append(int(await asyncio.to_thread(watchers.stdout.readline)))


def _told(folder: Path) -> list[Told]:
    text = (folder / "log").read_text(encoding="utf-8")
    return [tuple(json.loads(line)) for line in text.splitlines()]


async def _story(kills: int, seed: int, folder: Path) -> tuple[Story, list[int]]:
    rng, codes = random.Random(seed), list[int]()
    async with Emulator(request_log=10) as emulator:
        cloud = _Cloud(emulator, rng)
        cloud.add(_JOBS)
        with _watchers(emulator, folder) as watchers:
            changing = asyncio.create_task(cloud.change())
            for _ in range(kills):
                async with _watcher(watchers, codes):
                    await asyncio.sleep(rng.uniform(0, _LONGEST))
            changing.cancel()
            async with _watcher(watchers, codes):
                deadline = time.monotonic() + _AT_LAST
                story = Story(_told(folder), cloud.jobs)
                while story.lost() and time.monotonic() < deadline:
                    await asyncio.sleep(0.2)
                    story = Story(_told(folder), cloud.jobs)
    return story, codes


def run(*, kills: int = 500, seed: int = 0) -> Verdict:
    """The trial.

    Args:
        kills: How often the watcher is killed.
        seed: Of what is left to chance.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        story, codes = asyncio.run(_story(kills, seed, Path(folder)))
    wrong: Sequence[tuple[str, list[Any]]] = (
        ("transitions that do not go on where the last one ended", story.broken()),
        ("ids under which two things were told", story.ambiguous()),
        ("jobs whose last transition is not what they are", story.lost()),
        ("watchers that ended by themselves", [code for code in codes if code != -signal.SIGKILL]),
    )
    checks = [
        Check(what="kills", found=len(codes) - 1, at_least=kills),
        Check(what="transitions dealt with", found=len(story.told), at_least=kills),
        Check(what="  of them more than once", found=story.repeats, note="as they were not delivered yet"),
        *(Check(what=what, found=len(found), at_most=0) for what, found in wrong),
    ]
    examples = [f"{what}: {one}" for what, found in wrong for one in found[:3]]
    title = f"a watcher of {_JOBS} jobs, killed {kills:,} times"
    seconds = time.perf_counter() - start
    return Verdict(name="kills", title=title, checks=checks, seconds=seconds, examples=examples)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description="What kills lose.")
    parser.add_argument("--kills", type=int, default=500, help="how often the watcher is killed")
    parser.add_argument("--seed", type=int, default=0, help="of what is left to chance")
    verdict = run(**vars(parser.parse_args()))
    print(verdict.table())
    verdict.write()
    sys.exit(0 if verdict.is_met else 1)


if __name__ == "__main__":
    main()
