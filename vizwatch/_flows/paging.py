"""Listings: jobs and pages as asynchronous iterators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Self

import attrs

from vizwatch._rules.listing import Listing, Seen
from vizwatch._values.errors import ConfigError
from vizwatch._values.models import Job, JobPage

FetchPage = Callable[[int], Awaitable[JobPage]]


@attrs.define
class JobPager:
    """A listing that is read while it is iterated, a page at a time.

    ::

        async for job in client.list_jobs(status=8): ...
        async for page in client.list_jobs().pages(): ...
        jobs = await client.list_jobs().collect()

    Each iteration reads the listing anew, and holds one page at a time. Nothing is left open when it is
    broken off. A job is given once, however the pages drift; one that other jobs' deletion moves to a page
    already read is missed.
    """

    _fetch: FetchPage
    _per_page: int
    _page: int
    _limit: int | None
    _ascending: bool | None

    def __aiter__(self) -> AsyncIterator[Job]:
        """The jobs, one by one."""
        return _Jobs(self.pages())

    def pages(self) -> AsyncIterator[JobPage]:
        """The pages with their new jobs, each as :class:`JobPage`; a page may have none."""
        return _Pages(self._fetch, Listing(Seen(self._ascending), self._per_page, self._page), self._limit)

    async def collect(self) -> list[Job]:
        """All jobs of the listing, in a list."""
        return [job async for job in self]

    def __iter__(self) -> None:
        raise ConfigError("a listing is asynchronous: use `async for job in client.list_jobs()`")

    def __await__(self) -> None:
        raise ConfigError("a listing is iterated, not awaited: `async for job in …`, or `await ….collect()`")


@attrs.define
class _Pages:
    # A class and not an asynchronous generator: one that is broken off would stay open until collected.
    _fetch: FetchPage
    _listing: Listing
    _limit: int | None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobPage:
        left = None if self._limit is None else self._limit - self._listing.count
        if self._listing.ended or left == 0:
            raise StopAsyncIteration
        page = self._listing.take(await self._fetch(self._listing.page))
        if left is not None and len(page.jobs) >= left:
            self._listing.ended = True
            page = attrs.evolve(page, jobs=page.jobs[:left])
        return page


@attrs.define
class _Jobs:
    _pages: AsyncIterator[JobPage]
    _jobs: Iterator[Job] = attrs.field(factory=lambda: iter(()), init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Job:
        while True:
            for job in self._jobs:
                return job
            self._jobs = iter((await anext(self._pages)).jobs)
