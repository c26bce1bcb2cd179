"""Listings: jobs and pages as asynchronous iterators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Self

import attrs

from vizwatch._rules import wire
from vizwatch._rules.listing import Ask, Limits, Listing, Seen
from vizwatch._rules.merging import Merge
from vizwatch._rules.wire import Query
from vizwatch._values.errors import BadRequestError, ConfigError
from vizwatch._values.models import Job, JobPage

FetchPage = Callable[[Query, int, int], Awaitable[JobPage]]
"""Reads one page: of this query, of this number, with up to so many jobs."""


@attrs.define
class Dialect:
    """What a service turned out to allow, for all listings of one client."""

    limits: Limits = attrs.field(factory=Limits)

    def learn(self, limits: Limits) -> None:
        """These were accepted, after wider ones were refused."""
        self.limits = Limits(*map(min, attrs.astuple(self.limits), attrs.astuple(limits)))


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
    _queries: Sequence[Query]
    """One for each status asked for."""
    _ask: Ask
    _dialect: Dialect

    def __aiter__(self) -> AsyncIterator[Job]:
        """The jobs, one by one."""
        return _Jobs(self.pages())

    def pages(self) -> AsyncIterator[JobPage]:
        """The pages with their new jobs, each as :class:`JobPage`; a page may have none.

        Of several statuses, they are the merged listing's: as many jobs as are settled by one more request,
        with the sum of the totals.
        """
        listings = [_Pages(self._fetch, query, self._ask, self._dialect) for query in self._queries]
        if len(listings) == 1:
            return listings[0]
        query = self._queries[0]
        merge = Merge(query.sort_by, query.order == "desc", len(listings))
        return _MergedPages(listings, merge, Seen(_ascending(query)), self._ask.limit)

    async def collect(self) -> list[Job]:
        """All jobs of the listing, in a list."""
        return [job async for job in self]

    def __iter__(self) -> None:
        raise ConfigError("a listing is asynchronous: use `async for job in client.list_jobs()`")

    def __await__(self) -> None:
        raise ConfigError("a listing is iterated, not awaited: `async for job in …`, or `await ….collect()`")


def _ascending(query: Query) -> bool | None:
    return query.order == "asc" if query.sort_by == "job_id" else None


@attrs.define
class _Pages:
    # A class and not an asynchronous generator: one that is broken off would stay open until collected.
    _fetch: FetchPage
    _query: Query
    _ask: Ask
    _dialect: Dialect
    _limits: Limits = attrs.field(factory=Limits, init=False)
    _listing: Listing | None = attrs.field(default=None, init=False)
    _given: int = attrs.field(default=0, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobPage:
        left = None if self._ask.limit is None else self._ask.limit - self._given
        if left == 0 or (self._listing is not None and self._listing.ended):
            raise StopAsyncIteration
        page = await self._next()
        jobs = tuple(job for job in page.jobs if self._ask.is_found(job, self._limits))[:left]
        self._given += len(jobs)
        return page if len(jobs) == len(page.jobs) else attrs.evolve(page, jobs=jobs)

    async def _next(self) -> JobPage:
        if self._listing is not None:
            return await self._read(self._listing)
        self._limits = self._dialect.limits
        while True:
            per_page, first = self._ask.at_once(self._limits), self._ask.first_page(self._limits)
            listing = Listing(Seen(_ascending(self._query)), per_page, first)
            try:
                page = await self._read(listing)
            except BadRequestError as error:
                narrower = self._ask.narrower(self._limits, error.message)
                if narrower is None or not wire.blames_a_parameter(error):
                    raise
                self._limits = narrower
            else:
                self._listing = listing
                self._dialect.learn(self._limits)
                return page

    async def _read(self, listing: Listing) -> JobPage:
        query = self._query
        if query.search_content is not None:
            query = attrs.evolve(query, search_content=query.search_content[: self._limits.search_content])
        return listing.take(await self._fetch(query, listing.page, listing.per_page))


@attrs.define
class _MergedPages:
    _listings: Sequence[_Pages]
    _merge: Merge
    _seen: Seen
    """A job whose status changes meanwhile is in two listings."""
    _limit: int | None
    _latest: dict[int, JobPage] = attrs.field(factory=dict, init=False)
    """The last page of each listing."""
    _number: int = attrs.field(default=0, init=False)
    _given: int = attrs.field(default=0, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobPage:
        left = None if self._limit is None else self._limit - self._given
        while left != 0:
            number = self._merge.needed()
            if number is not None:
                await self._read(number)
            jobs = tuple(self._seen.take(self._merge.settled()))[:left]
            if jobs:
                self._given += len(jobs)
                return self._page(jobs)
            if number is None:
                break
        raise StopAsyncIteration

    async def _read(self, number: int) -> None:
        page = await anext(self._listings[number], None)
        if page is None:
            self._merge.end(number)
        else:
            self._merge.add(number, page.jobs)
            self._latest[number] = page

    def _page(self, jobs: tuple[Job, ...]) -> JobPage:
        self._number += 1
        totals = [page.job_total_count for page in self._latest.values()]
        known = [total for total in totals if total is not None]
        *_, latest = self._latest.values()
        return attrs.evolve(
            latest,
            jobs=jobs,
            page=self._number,
            job_total_count=sum(known) if len(known) == len(totals) else None,
        )


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
