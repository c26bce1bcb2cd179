"""Listing jobs beside otcextensions, the one ready client of this API in public code.

Its own paging ends after the first page, so that it is asked for one page after the other.
"""

from __future__ import annotations

import gc
import time
import warnings
from typing import Any, Final

from benchmarks._child import Found, in_turn, measured, sample
from benchmarks._frame import Report, Row
from benchmarks._server import canned_server
from benchmarks.listing import Listing

_PER_PAGE: Final = 1000


def run(*, ours: int = 100_000, theirs: int = 2_000, runs: int = 5) -> Report:
    """The benchmark, against a server of its own; each run is a process of its own, which listed once before.

    Args:
        ours: How many jobs to list with this package.
        theirs: How many to list with otcextensions, whose cost a job does not depend on it.
        runs: How often each is timed.
    """
    start = time.perf_counter()
    with canned_server() as endpoint:
        # Where both are loaded, each full collection of ours would look through the other's objects.
        taken = in_turn(
            runs,
            lambda: measured(timed, who="ours", endpoint=endpoint, count=ours),
            lambda: measured(timed, who="theirs", endpoint=endpoint, count=theirs),
        )
    our_cpu, their_cpu = (sample(found, lambda one: one["cpu"]) for found in taken)
    our_wall, their_wall = (sample(found, lambda one: one["wall"]) for found in taken)
    row = Row(
        what="job by job",
        against=f"otcextensions, {theirs:,} jobs",
        unit="µs CPU a job",
        ours=our_cpu,
        theirs=their_cpu,
        budget=1 / 300,
        wall=(our_wall, their_wall),
    )
    return Report(
        name="foreign",
        title=f"listing {ours:,} jobs, {_PER_PAGE:,} a page",
        rows=[row],
        seconds=time.perf_counter() - start,
    )


async def timed(who: str, endpoint: str, count: int) -> Found:
    """Lists all jobs twice: microseconds a job of the second time, of CPU and by the clock."""
    listing = Listing(endpoint, count)
    for _ in range(2):
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        done = await listing.by_job() if who == "ours" else _pages(listing)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if done != count:
            raise RuntimeError(f"{done} jobs were listed instead of {count}")
    return {"cpu": cpu * 1e6 / count, "wall": wall * 1e6 / count}


def _pages(listing: Listing) -> int:
    with warnings.catch_warnings():
        # What openstacksdk will drop in its next major version, and otcextensions still uses.
        warnings.simplefilter("ignore")
        with _connected(listing) as connection:
            count, page = 0, 1
            while True:
                jobs = list(connection.modelartsv1.visualization_jobs(limit=_PER_PAGE, offset=page))
                count += len(jobs)
                if len(jobs) < _PER_PAGE:
                    return count
                page += 1


def _connected(listing: Listing) -> Any:
    import openstack  # noqa: PLC0415 - half a second, and not needed to list the benchmarks
    from otcextensions import sdk  # noqa: PLC0415 - as above

    auth = {"endpoint": f"{listing.endpoint}/v1/{listing.project_id}", "token": "the-token-of-a-benchmark"}
    connection: Any = openstack.connect(
        auth_type="admin_token", auth=auth, load_yaml_config=False, load_envvars=False
    )
    sdk.load(connection)
    return connection
