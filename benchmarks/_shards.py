"""What the benchmark of shards measures: a fleet on a cluster of Dask distributed, on this machine."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from distributed import Client, LocalCluster

import vizwatch
import vizwatch.dask
from benchmarks._child import Found
from benchmarks._server import asked
from benchmarks._sweeps import TOKEN, Projects

_QUIET: Final = {"dashboard_address": ":0", "silence_logs": 50, "asynchronous": True}


async def by_shards(workers: int, shards: int, sweeps: int, **options: Any) -> Found:
    """CPU seconds of all processes for the first transitions of all jobs, and then for one reading of them.

    The scheduler lives in the caller's process, and its CPU counts as the caller's.
    """
    projects = Projects(**options)
    targets = [vizwatch.Target(projects.endpoint, one, auth=TOKEN) for one in projects.ids]
    settings = vizwatch.Settings(
        poll_interval=projects.interval, poll_interval_min=min(1.0, projects.interval)
    )
    made: Any = LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, **_QUIET)
    async with made as cluster, _connected(cluster) as client:

        async def cpu() -> tuple[float, float]:
            """The caller's, and that of all workers."""
            of_workers = await client.run(time.process_time)
            return time.process_time(), sum(of_workers.values())

        before, wall = await cpu(), time.perf_counter()
        async with vizwatch.dask.watch_fleet(client, targets, shards=shards, settings=settings) as watch:
            for _ in range(projects.projects * projects.jobs):
                await anext(watch)
            wall, after = time.perf_counter() - wall, await cpu()
            following = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(projects.interval)
            await asyncio.to_thread(asked, projects.endpoint)
            steady = await cpu()
            await asyncio.sleep(projects.interval * sweeps)
            end, seen = await cpu(), await asyncio.to_thread(asked, projects.endpoint)
            if following.done():
                raise RuntimeError(f"a job that did not change came: {following.result()}")
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    a_reading = projects.pages / seen.lists
    return {
        "first": sum(after) - sum(before),
        "first_wall": wall,
        "steady": (sum(end) - sum(steady)) * a_reading,
        "steady_caller": (end[0] - steady[0]) * a_reading,
    }


def _connected(cluster: Any) -> Any:
    return Client(cluster, asynchronous=True)
