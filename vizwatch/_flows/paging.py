"""Listings: jobs and pages as asynchronous iterators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Self

import attrs

from vizwatch._rules import wire
from vizwatch._rules.complete import CompleteListing
from vizwatch._rules.listing import Ask, Dialect, Limits, Listing, Seen
from vizwatch._rules.merging import Merge
from vizwatch._rules.wire import Query
from vizwatch._values.errors import BadRequestError, CallError, ConfigError
from vizwatch._values.models import Job, JobPage

FetchPage = Callable[[Query, int, int], Awaitable[JobPage]]
"""Reads one page: of this query, of this number, with up to so many jobs."""


@attrs.define
class JobPager:
    """A listing that is read while it is iterated, a page at a time.

    ::

        async for job in client.list_jobs(status=8): ...
        async for page in client.list_jobs().pages(): ...
        jobs = await client.list_jobs().collect()

    Each iteration reads the listing anew, and holds one page at a time. Nothing is left open when it is
    broken off. A job is given once, however the pages drift; one that other jobs' deletion moves to a page
    already read is missed, unless the listing is :attr:`complete`.

    An error comes after the jobs of the pages before it, and its `page` and `per_page` say which page could
    not be read (of several statuses, a page of one of their listings). Going on with the same iterator of
    :meth:`pages` reads that page again. So does a new listing with this `page` and this `per_page`, where
    neither is a complete one nor of several statuses; it does not know which jobs were given before.
    """

    _fetch: FetchPage
    _queries: Sequence[Query]
    """One for each status asked for."""
    _ask: Ask
    _dialect: Dialect
    complete: bool = False
    """Whether no job that exists from the first read to the last is skipped; see :meth:`Client.list_jobs`."""

    def __aiter__(self) -> AsyncIterator[Job]:
        """The jobs, one by one."""
        return _Jobs(self.pages())

    def pages(self) -> AsyncIterator[JobPage]:
        """The pages with their new jobs, each as :class:`JobPage`; a page may have none.

        Of several statuses, they are the merged listing's: as many jobs as are settled by one more request,
        with the sum of the totals.
        """
        query = self._queries[0]
        if self.complete:
            query_up = attrs.evolve(query, order="asc")
            backwards = _Pages(self._fetch, query_up, self._ask, self._dialect, complete=True)
            return _Ascending(backwards) if query.order == "asc" else _Descending(backwards)
        listings = [_Pages(self._fetch, query, self._ask, self._dialect) for query in self._queries]
        if len(listings) == 1:
            return listings[0]
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
    _complete: bool = False
    _limits: Limits = attrs.field(factory=Limits, init=False)
    _listing: Listing | CompleteListing | None = attrs.field(default=None, init=False)
    _given: int = attrs.field(default=0, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobPage:
        left = None if self._ask.limit is None else self._ask.limit - self._given
        page = None
        while page is None:
            if left == 0 or (self._listing is not None and self._listing.ended):
                raise StopAsyncIteration
            page = await self._next()
        jobs = self._ask.found(page.jobs, self._limits)[:left]
        self._given += len(jobs)
        return page if len(jobs) == len(page.jobs) else attrs.evolve(page, jobs=jobs)

    async def _next(self) -> JobPage | None:
        if self._listing is not None:
            return await self._read(self._listing)
        self._limits = self._dialect.limits
        while True:
            listing = self._begun()
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

    def _begun(self) -> Listing | CompleteListing:
        per_page = self._ask.at_once(self._limits)
        if self._complete:
            return CompleteListing(per_page)
        return Listing(Seen(_ascending(self._query)), per_page, self._ask.first_page(self._limits))

    async def _read(self, listing: Listing | CompleteListing) -> JobPage | None:
        query = self._query
        if query.search_content is not None:
            query = attrs.evolve(query, search_content=query.search_content[: self._limits.search_content])
        try:
            return listing.take(await self._fetch(query, listing.page, listing.per_page))
        except CallError as error:
            error.page, error.per_page = listing.page, listing.per_page
            raise


@attrs.define
class _Descending:
    """The pages of a complete listing as they are read, each with its last job first."""

    _pages: AsyncIterator[JobPage]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobPage:
        page = await anext(self._pages)
        return attrs.evolve(page, jobs=page.jobs[::-1])


@attrs.define
class _Ascending:
    """The pages of a complete listing from the first to the last: held, since the first is read last."""

    _pages: AsyncIterator[JobPage]
    _held: list[JobPage] = attrs.field(factory=list, init=False)
    _is_read: bool = attrs.field(default=False, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobPage:
        if not self._is_read:
            async for page in self._pages:
                self._held.append(page)
            self._is_read = True
        if not self._held:
            raise StopAsyncIteration
        return self._held.pop()


@attrs.define
class _MergedPages:
    _listings: Sequence[_Pages]
    _merge: Merge
    _seen: Seen
    """A job whose status changes meanwhile is in two listings."""
    _limit: int | None
    _latest: dict[int, JobPage] = attrs.field(factory=dict, init=False)
    """The last page of each listing."""
    _skipped: int = attrs.field(default=0, init=False)
    """The rows left out of the pages that were read since the last one was given."""
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
            if jobs or self._skipped:
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
            self._skipped += page.skipped

    def _page(self, jobs: tuple[Job, ...]) -> JobPage:
        self._number += 1
        totals = [page.job_total_count for page in self._latest.values()]
        known = [total for total in totals if total is not None]
        *_, latest = self._latest.values()
        skipped, self._skipped = self._skipped, 0
        return attrs.evolve(
            latest,
            jobs=jobs,
            page=self._number,
            skipped=skipped,
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
