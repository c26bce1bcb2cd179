"""Listing jobs, typed and each once, beside loops by hand over aiohttp."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
import attrs
import cattrs
import orjson

from benchmarks._frame import Report, Row, Sample, timed
from benchmarks._server import canned_server
from vizwatch import Client

_PER_PAGE: Final = 1000
_TOKEN: Final = "the-token-of-a-benchmark"
_MEMORY_RUNS: Final = 5

Work = Callable[[], Awaitable[int]]


def run(*, jobs: int = 100_000, runs: int = 9) -> Report:
    """The benchmark, against a server of its own.

    Args:
        jobs: How many to list.
        runs: How often each thing is timed; memory, which hardly varies, is taken at most five times.
    """
    start = time.perf_counter()
    with canned_server() as endpoint:
        rows = asyncio.run(_rows(endpoint, jobs, runs))
    title = f"listing {jobs:,} jobs, {_PER_PAGE:,} a page"
    return Report(name="listing", title=title, rows=rows, seconds=time.perf_counter() - start)


async def _rows(endpoint: str, jobs: int, runs: int) -> list[Row]:
    plain, scheduled = Listing(endpoint, jobs), Listing(endpoint, jobs, "schedule")
    by_job, by_page = "job by job", "page by page"
    compared: list[tuple[str, Work, str, Work, float | None]] = [
        (by_job, plain.by_job, "aiohttp + orjson, dicts", plain.with_orjson, 1.0),
        (by_page, plain.by_page, "aiohttp + orjson, dicts", plain.with_orjson, 1.0),
        (by_job, plain.by_job, "aiohttp + json, dicts", plain.with_json, 1.0),
        (by_job, plain.by_job, "aiohttp + orjson + cattrs", plain.with_cattrs, 1.0),
        (by_job, plain.by_job, "bytes, not decoded", plain.undecoded, None),
        (f"{by_job}, schedules", scheduled.by_job, "aiohttp + orjson, dicts", scheduled.with_orjson, None),
    ]
    rows = [
        await timed(
            ours,
            theirs,
            runs=runs,
            count=jobs,
            what=what,
            against=against,
            unit="µs CPU a job",
            budget=budget,
        )
        for what, ours, against, theirs, budget in compared
    ]
    return rows + await _memory(plain, Listing(endpoint, max(jobs // 10, 1)), min(runs, _MEMORY_RUNS))


async def _memory(many: Listing, few: Listing, runs: int) -> list[Row]:
    """What a listing holds at its peak: it must neither grow with the listing, nor pass two pages."""
    takes: list[Callable[[], Awaitable[float]]] = [
        lambda: _peak(many.by_job),
        lambda: _peak(many.by_page),
        lambda: _peak(few.by_job),
        lambda: _two_pages(many),
        lambda: _peak(many.with_orjson),
    ]
    taken = [[await take() for take in takes] for _ in range(runs)]
    by_job, by_page, of_few, two_pages, by_hand = map(Sample, zip(*taken, strict=True))
    compared = [
        ("peak, job by job", by_job, f"the same of {few.count:,} jobs", of_few, 1.1),
        ("peak, job by job", by_job, "two pages, bytes and jobs", two_pages, 1.0),
        ("peak, page by page", by_page, "two pages, bytes and jobs", two_pages, 1.0),
        ("peak, job by job", by_job, "aiohttp + orjson, dicts", by_hand, None),
    ]
    return [
        Row(what=what, ours=ours, against=against, theirs=theirs, unit="KiB", budget=budget)
        for what, ours, against, theirs, budget in compared
    ]


async def _peak(work: Work) -> float:
    """The most that Python held at once for this work, in KiB."""
    gc.collect()
    tracemalloc.start()
    try:
        await work()
        return tracemalloc.get_traced_memory()[1] / 1024
    finally:
        tracemalloc.stop()


async def _two_pages(listing: Listing) -> float:
    """What two pages weigh, in KiB: their answers' bytes, and their jobs."""
    async with aiohttp.ClientSession() as session:
        answered = sum([len(await listing.body(session, page)) for page in (1, 2)])
    async with Client(listing.endpoint, listing.project_id, auth=_TOKEN) as client:
        gc.collect()
        tracemalloc.start()
        try:
            kept = await client.list_jobs(limit=2 * _PER_PAGE).collect()
            gc.collect()
            weight, _ = tracemalloc.get_traced_memory()
            del kept
            return (answered + weight) / 1024
        finally:
            tracemalloc.stop()


@attrs.frozen
class _HandSchedule:
    type: str
    timeUnit: str  # noqa: N815 - the wire's word
    duration: int


@attrs.frozen
class _HandJob:
    """As one would write it from the published samples."""

    job_id: int
    job_name: str
    status: int
    create_time: int
    resource_id: str
    duration: int
    job_desc: str
    service_url: str
    train_url: str
    remaining_duration: int | None = None
    schedule: list[_HandSchedule] = attrs.field(factory=list)


@attrs.frozen
class _HandPage:
    jobs: list[_HandJob]


@attrs.frozen
class Listing:
    """One listing of a canned server, and the ways to read it; each gives how many jobs it read."""

    endpoint: str
    count: int
    kind: str = "plain"

    @property
    def project_id(self) -> str:
        """What the server knows the listing by."""
        return f"{self.kind}-{self.count}"

    async def by_job(self) -> int:
        """Ours, job by job."""
        count = 0
        async with Client(self.endpoint, self.project_id, auth=_TOKEN) as client:
            async for _job in client.list_jobs():
                count += 1
        return count

    async def by_page(self) -> int:
        """Ours, page by page."""
        count = 0
        async with Client(self.endpoint, self.project_id, auth=_TOKEN) as client:
            async for page in client.list_jobs().pages():
                for _job in page.jobs:
                    count += 1
        return count

    async def with_orjson(self) -> int:
        """By hand, to plain dicts."""
        return await self._by_hand(lambda body: orjson.loads(body)["jobs"])

    async def with_json(self) -> int:
        """By hand, to plain dicts."""
        return await self._by_hand(lambda body: json.loads(body)["jobs"])

    async def with_cattrs(self) -> int:
        """By hand, to an attrs class."""
        converter = cattrs.Converter()
        return await self._by_hand(lambda body: converter.structure(orjson.loads(body), _HandPage).jobs)

    async def _by_hand(self, jobs_of: Callable[[bytes], list[Any]]) -> int:
        count, page = 0, 1
        async with aiohttp.ClientSession(headers={"X-Auth-Token": _TOKEN}) as session:
            while True:
                jobs = jobs_of(await self.body(session, page))
                for _job in jobs:
                    count += 1
                if len(jobs) < _PER_PAGE:
                    return count
                page += 1

    async def undecoded(self) -> int:
        """The answers' bytes alone."""
        async with aiohttp.ClientSession(headers={"X-Auth-Token": _TOKEN}) as session:
            for page in range(1, self.count // _PER_PAGE + 2):
                await self.body(session, page)
        return self.count

    async def body(self, session: aiohttp.ClientSession, page: int) -> bytes:
        """One page's answer."""
        url = f"{self.endpoint}/v1/{self.project_id}/visualization-jobs"
        query: dict[str, str | int] = {
            "per_page": _PER_PAGE,
            "page": page,
            "sortBy": "job_id",
            "order": "asc",
        }
        async with session.get(url, params=query) as response:
            response.raise_for_status()
            return await response.read()
