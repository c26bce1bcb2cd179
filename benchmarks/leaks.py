"""What stays behind of clients, pagers and watches that are made, used, cancelled and closed.

`python -m benchmarks.leaks` runs cycles against an emulated cloud in a process of its own, where one request
in seven meets a fault. Each cycle ends everything that it began, often by a cancellation at a moment left to
chance. What this process holds is compared with what it held after a warm-up: memory as the system sees it,
then, in as many cycles again, as Python does, which is slower and would disturb the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import json
import logging
import random
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import attrs

from benchmarks._frame import Check, Verdict, resident
from vizwatch import Auth, Client, PasswordAuth, Settings, TokenAuth, VizwatchError

_ROOT: Final = Path(__file__).parent.parent
_JOBS: Final = 60
_LONGEST: Final = 0.05
_FAULTS: Final[Sequence[tuple[str, dict[str, Any]]]] = (
    ("status", {"status": 503, "retry_after": 0}),
    ("status", {"status": 429, "retry_after": 0}),
    ("status", {"status": 401, "code": "ModelArts.0202"}),
    ("status", {"status": 404, "code": "ModelArts.0015"}),
    ("drop", {"performed": True}),
    ("truncate", {"bytes": 10}),
    ("latency", {"seconds": 0.02}),
    ("latency", {"seconds": 10.0}),
    ("body", {"text": "<html>log in</html>", "content_type": "text/html"}),
    ("drift", {"match": {"operation": "list"}}),
)
_SETTINGS: Final = Settings(
    poll_interval=0.005,
    poll_interval_min=0.001,
    watch_backoff_base=0.002,
    watch_backoff_max=0.01,
    backoff_base=0.002,
    backoff_max=0.01,
    connect_timeout=0.2,
    attempt_timeout=0.2,
    call_timeout=0.4,
    write_timeout=0.4,
    pool_size=8,
)
# The server, in a process of its own: what it holds must not be counted along.
_SERVE: Final = """
import asyncio, json, logging, sys
from vizwatch.emulator import Emulator

# That a client has gone before its answer is what this is about.
logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)

async def main():
    async with Emulator(jobs={jobs}, request_log=100) as cloud:
        for number, (kind, params) in enumerate({faults!r}):
            cloud.fault(kind, **params, every=7 * {count}, after=7 * number)
        print(json.dumps([cloud.endpoint, cloud.project_id, cloud.token,
            cloud.user, cloud.password, cloud.domain, cloud.project_name]), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


@attrs.frozen
class Cloud:
    """Where the emulated cloud is, and what it asks for."""

    endpoint: str
    project_id: str
    token: str = attrs.field(repr=False)
    user: str
    password: str = attrs.field(repr=False)
    domain: str
    project_name: str

    def password_auth(self) -> PasswordAuth:
        """Credentials that fetch a token of their own."""
        return PasswordAuth(
            self.endpoint,
            username=self.user,
            password=self.password,
            domain_name=self.domain,
            project_name=self.project_name,
            settings=_SETTINGS,
        )


@contextlib.contextmanager
def _cloud() -> Iterator[Cloud]:
    code = _SERVE.format(jobs=_JOBS, faults=_FAULTS, count=len(_FAULTS))
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            yield Cloud(*json.loads(child.stdout.readline()))
        finally:
            child.kill()


# What is done in a cycle. Errors are expected: they too must leave nothing behind.


async def _reads(client: Client) -> None:
    await asyncio.gather(*(client.get_job(number) for number in (1, 2, 3, 999_999)), return_exceptions=True)


async def _writes(client: Client) -> None:
    job = await client.create_job("leaks", "/obs/leaks/")
    await client.update_job(job.job_id, "described")
    await client.stop_job(job.job_id, wait=0.05)
    await client.delete_job(job.job_id)


async def _lists(client: Client) -> None:
    await client.list_jobs(per_page=10, status=(1, 4, 7, 8)).collect()


async def _breaks_off_a_list(client: Client) -> None:
    async for _job in client.list_jobs(per_page=5):
        break


async def _breaks_off_pages(client: Client) -> None:
    pages = client.list_jobs(per_page=10).pages()
    await anext(pages)
    await anext(pages)


async def _watches(client: Client) -> None:
    async with client.watch(1, timeout=0.03) as watch:
        async for _transition in watch:
            pass


async def _breaks_off_a_watch(client: Client) -> None:
    async for _transition in client.watch(2):
        break


async def _forgets_a_watch(client: Client) -> None:
    watch = client.watch(3)
    await anext(watch)


async def _waits(client: Client) -> None:
    await client.wait(4, until=10, timeout=0.02)


async def _watches_beyond_the_close(client: Client) -> None:
    watch = client.watch(5)
    await anext(watch)

    async def step() -> None:
        with contextlib.suppress(StopAsyncIteration, VizwatchError):
            await anext(watch)

    async with asyncio.TaskGroup() as group:
        group.create_task(step())
        await asyncio.sleep(0)
        await client.aclose()


_WORKS: Final[Sequence[Callable[[Client], Awaitable[None]]]] = (
    _reads,
    _writes,
    _lists,
    _breaks_off_a_list,
    _breaks_off_pages,
    _watches,
    _breaks_off_a_watch,
    _forgets_a_watch,
    _waits,
    _watches_beyond_the_close,
)


@attrs.define
class Cycles:
    """Cycles against one cloud, and what they came to."""

    cloud: Cloud
    rng: random.Random
    done: int = 0
    failed: int = 0
    cancelled: int = 0

    async def run(self, count: int) -> None:
        """Runs so many more."""
        for _ in range(count):
            await self._cycle()

    async def _cycle(self) -> None:
        task = asyncio.create_task(self._use())
        if self.rng.random() < 0.5:
            await asyncio.wait([task], timeout=self.rng.uniform(0, _LONGEST))
            task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, asyncio.CancelledError):
            self.cancelled += 1
        elif isinstance(outcome, BaseException):
            raise outcome
        self.done += 1

    async def _use(self) -> None:
        token = self.rng.random() < 0.5
        auth: Auth = TokenAuth(self.cloud.token) if token else self.cloud.password_auth()
        async with contextlib.AsyncExitStack() as stack:
            session = None
            if self.rng.random() < 0.2:
                session = await stack.enter_async_context(aiohttp.ClientSession())
            endpoint, project_id = self.cloud.endpoint, self.cloud.project_id
            client = Client(endpoint, project_id, auth=auth, settings=_SETTINGS, session=session)
            await stack.enter_async_context(client)
            works = [work(client) for work in self.rng.sample(_WORKS, 4)]
            for outcome in await asyncio.gather(*works, return_exceptions=True):
                if isinstance(outcome, VizwatchError | StopAsyncIteration):
                    self.failed += 1
                elif isinstance(outcome, BaseException):
                    raise outcome


@attrs.frozen
class Held:
    """What this process holds."""

    sockets: int
    tasks: int
    resident: float
    """MiB."""
    traced: float
    """MiB, of which Python knows; zero where it does not trace."""

    @classmethod
    async def now(cls) -> Held:
        """After everything that can go has gone."""
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()
        traced = tracemalloc.get_traced_memory()[0] / 2**20 if tracemalloc.is_tracing() else 0.0
        return cls(_sockets(), len(asyncio.all_tasks()), resident(), traced)


def _sockets() -> int:
    links = [_target(path) for path in Path("/proc/self/fd").iterdir()]
    return sum(link.startswith("socket:") for link in links)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # the directory's own descriptor, closed since
        return ""


class _Complaints(logging.Handler):
    """Warnings, errors that nobody awaited, and what is logged above INFO."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "vizwatch" and record.levelno == logging.WARNING:
            return  # it says that reads of watches failed, as they are made to
        self.texts.append(f"{record.name}: {record.getMessage()}")

    def unraisable(self, hooked: sys.UnraisableHookArgs) -> None:
        """As `sys.unraisablehook`."""
        self.texts.append(f"unraisable: {hooked.exc_value!r}")

    def warned(self, message: Warning | str, *_place: object, **_more: object) -> None:
        """As `warnings.showwarning`."""
        self.texts.append(f"warning: {message!r}")


@contextlib.contextmanager
def _complaints() -> Iterator[_Complaints]:
    found, root, hook = _Complaints(), logging.getLogger(), sys.unraisablehook
    root.addHandler(found)
    sys.unraisablehook = found.unraisable
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = found.warned
            yield found
            gc.collect()
    finally:
        sys.unraisablehook = hook
        root.removeHandler(found)


async def _checks(cloud: Cloud, count: int, warm_up: int, seed: int) -> tuple[Sequence[Check], Sequence[str]]:
    cycles = Cycles(cloud, random.Random(seed))
    at_first = await Held.now()
    with _complaints() as complaints:
        await cycles.run(warm_up)
        before = await Held.now()
        await cycles.run(count)
        after = await Held.now()
        tracemalloc.start()
        await cycles.run(warm_up)
        traced_before = await Held.now()
        await cycles.run(count)
        traced_after = await Held.now()
        tracemalloc.stop()
    grown = functools.partial(
        Check, unit="MiB", at_most=1, note=f"in {count:,} cycles, after {warm_up:,} to warm up"
    )
    of_system, of_python = after.resident - before.resident, traced_after.traced - traced_before.traced
    checks = [
        Check(what="cycles", found=cycles.done, at_least=2 * (count + warm_up)),
        Check(what="  of them cancelled", found=cycles.cancelled, at_least=cycles.done / 10),
        Check(what="calls that failed in them", found=cycles.failed, at_least=cycles.done / 10),
        grown(what="memory grown, of the system's (RSS)", found=of_system),
        grown(what="memory grown, of Python's (traced)", found=of_python),
        Check(what="sockets left open", found=traced_after.sockets - at_first.sockets, at_most=0),
        Check(what="tasks left", found=traced_after.tasks - at_first.tasks, at_most=0),
        Check(what="warnings and unheard errors", found=len(complaints.texts), at_most=0),
    ]
    return checks, complaints.texts[:8]


def run(*, cycles: int = 500, warm_up: int = 100, seed: int = 0) -> Verdict:
    """The trial, in this process.

    Args:
        cycles: How many are measured, of each kind of memory.
        warm_up: How many come before.
        seed: Of what is left to chance.
    """
    start = time.perf_counter()
    with _cloud() as cloud:
        checks, examples = asyncio.run(_checks(cloud, cycles, warm_up, seed))
    title = f"{cycles:,} cycles of clients, pagers and watches made, used and closed"
    seconds = time.perf_counter() - start
    return Verdict(name="leaks", title=title, checks=checks, seconds=seconds, examples=examples)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaks", description="What stays behind.")
    parser.add_argument("--cycles", type=int, default=500, help="how many are measured")
    parser.add_argument("--warm-up", type=int, default=100, help="how many come before")
    parser.add_argument("--seed", type=int, default=0, help="of what is left to chance")
    verdict = run(**vars(parser.parse_args()))
    print(verdict.table())
    verdict.write()
    sys.exit(0 if verdict.is_met else 1)


if __name__ == "__main__":
    main()
