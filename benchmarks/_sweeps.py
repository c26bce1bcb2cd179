"""What the benchmark of a fleet measures, in a process of its own: ours, and the same by hand."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import attrs
import orjson

import vizwatch
from benchmarks._child import Found
from benchmarks._frame import peak_resident
from benchmarks._server import asked

TOKEN: Final = "the-token-of-a-benchmark"
_PER_PAGE: Final = 1000
_POOL: Final = 100


@attrs.frozen(kw_only=True)
class Projects:
    """Projects of one server, with as many jobs each."""

    endpoint: str
    projects: int
    jobs: int
    kind: str
    interval: float
    """Seconds between two looks at a job."""

    @property
    def ids(self) -> list[str]:
        """The projects' ids."""
        return [f"{self.kind}-{self.jobs}-{number}" for number in range(self.projects)]

    @property
    def pages(self) -> int:
        """How many full pages all jobs are."""
        return self.projects * -(-self.jobs // _PER_PAGE)


async def by_fleet(sweeps: int, *, is_kept: bool = False, **options: Any) -> Found:
    """CPU seconds of the first sweep, of one in steady state, and of the end; and the most memory held.

    Args:
        sweeps: For how many intervals the steady state is measured.
        is_kept: Whether a checkpoint keeps the places.
        options: Of the projects.
    """
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = vizwatch.SqliteCheckpoint(Path(directory, "checkpoint.sqlite")) if is_kept else None
        return await _by_fleet(Projects(**options), sweeps, checkpoint)


async def _by_fleet(projects: Projects, sweeps: int, checkpoint: vizwatch.Checkpoint | None) -> Found:
    targets = [vizwatch.Target(projects.endpoint, one, auth=TOKEN) for one in projects.ids]
    settings = vizwatch.Settings(
        poll_interval=projects.interval, poll_interval_min=min(1.0, projects.interval)
    )
    left, all_seen = projects.projects * projects.jobs, asyncio.Event()

    async with vizwatch.Fleet(targets, settings=settings) as fleet:

        async def follow() -> None:
            nonlocal left
            async for _transition in fleet.watch_jobs(checkpoint=checkpoint):
                left -= 1
                if not left:
                    all_seen.set()

        cpu, wall = time.process_time(), time.perf_counter()
        following = asyncio.ensure_future(follow())
        waiting = asyncio.ensure_future(all_seen.wait())
        await asyncio.wait([following, waiting], return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            await following
            raise RuntimeError("the fleet ended before it had shown all jobs")
        first = {"first": time.process_time() - cpu, "first_wall": time.perf_counter() - wall}
        await asyncio.sleep(projects.interval)
        steady = await _steady(projects, lambda: asyncio.sleep(projects.interval * sweeps))
        if left:
            raise RuntimeError(f"{-left} transitions of jobs that did not change")
        cpu = time.process_time()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return {**first, **steady, "end": time.process_time() - cpu}


async def by_hand(sweeps: int, **options: Any) -> Found:
    """The same with aiohttp and orjson alone: the statuses of all jobs in dicts, page by page."""
    projects = Projects(**options)
    statuses: dict[str, dict[int, int]] = {project: {} for project in projects.ids}
    connector = aiohttp.TCPConnector(limit=_POOL)
    async with aiohttp.ClientSession(headers={"X-Auth-Token": TOKEN}, connector=connector) as session:

        async def sweep(project: str, places: asyncio.Semaphore) -> None:
            url, known = f"{projects.endpoint}/v1/{project}/visualization-jobs", statuses[project]
            for page in range(1, -(-projects.jobs // _PER_PAGE) + 1):
                query = {"per_page": str(_PER_PAGE), "page": str(page), "sortBy": "job_id", "order": "asc"}
                async with places, session.get(url, params=query) as response:
                    response.raise_for_status()
                    jobs = orjson.loads(await response.read())["jobs"]
                for job in jobs:
                    if known.get(job["job_id"]) != job["status"]:
                        known[job["job_id"]] = job["status"]

        async def sweep_all(times: int) -> None:
            for _ in range(times):
                places = asyncio.Semaphore(_POOL)
                await asyncio.gather(*[sweep(project, places) for project in projects.ids])

        cpu, wall = time.process_time(), time.perf_counter()
        await sweep_all(1)
        first = {"first": time.process_time() - cpu, "first_wall": time.perf_counter() - wall}
        return {**first, **await _steady(projects, lambda: sweep_all(sweeps))}


async def _steady(projects: Projects, work: Callable[[], Awaitable[None]]) -> Found:
    """CPU seconds of one sweep, by the pages that were asked for, since sweeps need not begin together."""
    gc.collect()
    await asyncio.to_thread(asked, projects.endpoint)
    cpu = time.process_time()
    await work()
    cpu = time.process_time() - cpu
    seen = await asyncio.to_thread(asked, projects.endpoint)
    return {"steady": cpu * projects.pages / seen.lists, "peak": peak_resident()}
