"""What the benchmarks of watches measure, in a process of its own: ours, and the same by hand."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import aiohttp
import attrs
import orjson

from benchmarks._child import Found
from benchmarks._frame import resident
from benchmarks._server import asked
from vizwatch import Client, Settings

_TOKEN: Final = "the-token-of-a-benchmark"
_JITTER: Final = 0.2
_POOL: Final = 200
_IDLE: Final = 600.0
"""Seconds that no measurement takes; the canned jobs have run for so long that no earlier look is wanted."""
_TIMED_OF: Final = 10


@attrs.frozen(kw_only=True)
class Load:
    """Watches, spread evenly over projects of one server."""

    endpoint: str
    watches: int
    projects: int
    kind: str = "running"
    interval: float = _IDLE
    """Seconds between two looks at a job."""
    intervals: int = 1
    """For how many of them to measure."""
    is_shared: bool = True
    """Whether watches of one project may be served by listing it."""
    pool: int = 100
    """How many connections a client of ours may have; the default of its settings."""

    def project(self, number: int) -> str:
        """One project's id. Every tenth is timed, and its watches have no jitter, so that lag shows."""
        sort = "other" if self.jitter(number) else "timed"
        return f"{self.kind}-{self.watches // self.projects}-{sort}-{number}"

    @staticmethod
    def jitter(number: int) -> float:
        """The part of the interval by which pauses in that project are longer or shorter."""
        return _JITTER if number % _TIMED_OF else 0.0

    def place(self, watch: int) -> tuple[int, int]:
        """Which project and which job a watch is of."""
        return watch % self.projects, watch // self.projects + 1


@contextlib.asynccontextmanager
async def running(
    count: int, watch: Callable[[int, Callable[[], None]], Awaitable[None]]
) -> AsyncIterator[None]:
    """That many watches, each a task of its own, once all have said that they have seen their job."""
    left, all_seen = count, asyncio.Event()

    def seen() -> None:
        nonlocal left
        left -= 1
        if not left:
            all_seen.set()

    tasks = [asyncio.ensure_future(watch(number, seen)) for number in range(count)]
    try:
        waiting = asyncio.ensure_future(all_seen.wait())
        await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise RuntimeError("a watch ended before all had begun")
        yield
    finally:
        for task in [waiting, *tasks]:
            task.cancel()
        await asyncio.gather(waiting, *tasks, return_exceptions=True)


# How to watch


@contextlib.asynccontextmanager
async def ours(load: Load, *, spread: bool = True) -> AsyncIterator[None]:
    """As one would with this package: a client a project, and a task a watch."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                Client(load.endpoint, load.project(number), auth=_TOKEN, settings=_settings(load, number))
            )
            for number in range(load.projects)
        ]

        async def watch(number: int, seen: Callable[[], None]) -> None:
            if spread:
                await asyncio.sleep(load.interval * number / load.watches)
            project, job_id = load.place(number)
            async for transition in clients[project].watch(job_id):
                if transition.previous is None:
                    seen()

        async with running(load.watches, watch):
            yield


def _settings(load: Load, project: int) -> Settings:
    return Settings(
        poll_interval=load.interval,
        poll_interval_min=min(1.0, load.interval),
        poll_jitter=load.jitter(project),
        shared_reads=load.is_shared,
        pool_size=load.pool,
    )


@contextlib.asynccontextmanager
async def by_hand(load: Load, *, spread: bool = True) -> AsyncIterator[None]:
    """As one would with aiohttp alone: one session with a pool, and a task a watch that asks for details."""
    connector = aiohttp.TCPConnector(limit=_POOL)
    async with aiohttp.ClientSession(headers={"X-Auth-Token": _TOKEN}, connector=connector) as session:

        async def watch(number: int, seen: Callable[[], None]) -> None:
            if spread:
                await asyncio.sleep(load.interval * number / load.watches)
            project, job_id = load.place(number)
            url = f"{load.endpoint}/v1/{load.project(project)}/visualization-jobs/{job_id}"
            jitter, status = load.jitter(project), None
            while True:
                async with session.get(url) as response:
                    response.raise_for_status()
                    found = orjson.loads(await response.read())["status"]
                if found != status:
                    status = found
                    seen()
                await asyncio.sleep(load.interval * random.uniform(1 - jitter, 1 + jitter))

        async with running(load.watches, watch):
            yield


@contextlib.asynccontextmanager
async def asleep(load: Load, *, spread: bool = False) -> AsyncIterator[None]:  # noqa: ARG001 - as the others
    """One sleeping task a watch: what no watch can go below that has one."""

    async def watch(_number: int, seen: Callable[[], None]) -> None:
        seen()
        await asyncio.sleep(_IDLE)

    async with running(load.watches, watch):
        yield


_WATCHING: Final[Mapping[str, Callable[..., contextlib.AbstractAsyncContextManager[None]]]] = {
    "ours": ours,
    "by_hand": by_hand,
    "asleep": asleep,
}


# What to measure


async def polling(who: str, **options: Any) -> Found:
    """CPU and requests of watches in steady state, where nothing changes, and how late they look."""
    load = Load(**options)
    async with _WATCHING[who](load):
        await asyncio.sleep(load.interval)
        gc.collect()
        await asyncio.to_thread(asked, load.endpoint)
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.sleep(load.interval * load.intervals)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        seen = await asyncio.to_thread(asked, load.endpoint)
    lags = [gap - load.interval for gap in seen.gaps]
    return {
        "cpu": cpu,
        "wall": wall,
        "lists": seen.lists,
        "details": seen.details,
        "lag": statistics.quantiles(lags, n=100)[98] if len(lags) > 1 else 0.0,
        "server": seen.cpu / wall,
    }


async def idling(who: str, **options: Any) -> Found:
    """Memory that watches take which wait for their next look."""
    load = Load(**options)
    # What the first watches of all take is not a watch's: code, buffers, connections.
    async with _WATCHING[who](attrs.evolve(load, watches=load.projects), spread=False):
        pass
    gc.collect()
    before = resident()
    async with _WATCHING[who](load, spread=False):
        gc.collect()
        return {"kibibytes": (resident() - before) * 1024 / load.watches}
