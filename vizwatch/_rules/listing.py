"""What to ask a listing for, which jobs of a page are new, and whether there is another page.

A pager reads a listing once, and a poller again and again, in sweeps.
"""

from __future__ import annotations

import operator
from array import array
from collections import deque
from collections.abc import Sequence
from itertools import chain, islice
from typing import Final

import attrs

from vizwatch._values.errors import ProtocolError
from vizwatch._values.models import Job, JobPage
from vizwatch._values.rows import compact


@attrs.frozen
class Limits:
    """How much a request may ask for: the documents disagree, and a service refuses what is too much."""

    per_page: int = 1000
    """1000 by today's REST documents, 100 by older ones and the SDK's."""
    search_content: int = 100
    """Characters: 100 by the SDK's document and one sample, 64 by the REST documents."""


_NARROWEST: Final = Limits(100, 64)


@attrs.define
class Dialect:
    """What a service turned out to allow, for all listings of one client."""

    limits: Limits = attrs.field(factory=Limits)
    totals_hold: bool = attrs.field(default=False, init=False)
    """Whether a listing was seen to end where its total says so."""
    totals_lie: bool = attrs.field(default=False, init=False)
    """Whether jobs were found that a listing did not show to the end that its total tells."""

    def learn(self, limits: Limits) -> None:
        """These were accepted, after wider ones were refused."""
        self.limits = Limits(*map(min, attrs.astuple(self.limits), attrs.astuple(limits)))


@attrs.frozen
class Ask:
    """What a listing asks for, before anything was refused."""

    page: int = 1
    per_page: int | None = None
    """``None`` for as many as the service allows."""
    limit: int | None = None
    """How many jobs are wanted at most."""
    search_content: str = ""

    def at_once(self, limits: Limits) -> int:
        """How many jobs to ask for in one request."""
        if self.per_page is not None:
            return self.per_page
        # A later page is counted in pages of the usual size, whatever the limit.
        few = self.limit is not None and self.page == 1
        return min(max(self.limit or 0, 1), limits.per_page) if few else limits.per_page

    def narrower(self, limits: Limits, message: str) -> Limits | None:
        """The limits to try after a refusal that says `message`; ``None`` where nothing is left to try.

        What the message names is narrowed first, or else the search, which costs nothing.
        """
        narrower: dict[str, Limits] = {}
        if len(self.search_content) > _NARROWEST.search_content < limits.search_content:
            narrower["search_content"] = attrs.evolve(limits, search_content=_NARROWEST.search_content)
        if self.per_page is None and self.at_once(limits) > _NARROWEST.per_page:
            narrower["per_page"] = attrs.evolve(limits, per_page=_NARROWEST.per_page)
        named = [limits for name, limits in narrower.items() if name in message]
        return next(iter([*named, *narrower.values()]), None)

    def first_page(self, limits: Limits) -> int:
        """The number of the page to begin with, where pages may be smaller than they were meant."""
        if self.per_page is not None or self.page == 1:
            return self.page
        return (self.page - 1) * (Limits().per_page // limits.per_page) + 1

    def found(self, jobs: tuple[Job, ...], limits: Limits) -> tuple[Job, ...]:
        """The jobs that have all of the text searched for, if the service was asked for its start alone."""
        if len(self.search_content) <= limits.search_content:
            return jobs
        text = self.search_content.casefold()
        return tuple([job for job in jobs if text in (job.job_name or "").casefold()])


_BARREN_PAGES_TO_END: Final = 2
_DOCUMENTED_CAPS: Final = frozenset({10, 100})  # a default, and one document's limit of `per_page`
_REMEMBERED: Final = 10_000
_UNREADABLE_PAGES: Final = 100


@attrs.define
class Seen:
    """The jobs that a listing has given already, so that none is given twice.

    In order of `job_id` a watermark tells old from new, and memory stays constant: beside it, the last ids
    are kept, since a page that breaks the order (a server may ignore `sortBy`) needs them to be judged. From
    then on, and in every other order from the start, all ids are kept.
    """

    ascending: bool | None
    """True or False for a listing by `job_id`; None for any other order."""
    _watermark: int | None = attrs.field(default=None, init=False)
    _recent: deque[array[int]] = attrs.field(factory=deque, init=False)
    """The last ids, page by page."""
    _count: int = attrs.field(default=0, init=False)
    """How many these are."""
    _all: set[int] | None = attrs.field(default=None, init=False)
    _forgot: bool = attrs.field(default=False, init=False)
    is_unsure: bool = attrs.field(default=False, init=False)
    """Whether jobs were left out that were not given, maybe: their ids are older than those it remembers."""

    def __attrs_post_init__(self) -> None:
        if self.ascending is None:
            self._all = set()

    def take(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """The jobs that are new, in their order."""
        ids = [job.job_id for job in jobs]
        if self._all is None and self._in_order(ids):
            self._remember(ids)
            self._watermark = ids[-1] if ids else self._watermark
            return jobs
        if self._all is None and self._forgot:
            return self._beyond_watermark(jobs)
        if self._all is None:
            self._all = {*chain.from_iterable(self._recent)}
        new = {job.job_id: job for job in reversed(jobs) if job.job_id not in self._all}
        self._all.update(new)
        return list(reversed(new.values()))

    def _remember(self, ids: list[int]) -> None:
        self._recent.append(compact(ids))
        self._count += len(ids)
        while self._count > _REMEMBERED:
            self._count -= len(self._recent.popleft())
            self._forgot = True

    def _in_order(self, ids: list[int]) -> bool:
        follows = operator.lt if self.ascending else operator.gt
        if ids and self._watermark is not None and not follows(self._watermark, ids[0]):
            return False
        return all(map(follows, ids, islice(ids, 1, None)))

    def _beyond_watermark(self, jobs: Sequence[Job]) -> Sequence[Job]:
        follows = operator.lt if self.ascending else operator.gt
        new: list[Job] = []
        for job in jobs:
            if self._watermark is None or follows(self._watermark, job.job_id):
                self._watermark = job.job_id
                new.append(job)
            elif not any(job.job_id in page for page in self._recent):
                self.is_unsure = True
        return new


@attrs.define
class Listing:
    """Follows a listing from page to page.

    `job_total_count` can be wrong, so it ends a listing only together with a page shorter than asked for,
    and it prolongs one, past pages that bring nothing new, only a little: a server may cap `per_page`, ignore
    `page`, and answer an empty page in the middle. Rows that were left out are on the page and in the total.
    """

    seen: Seen
    per_page: int
    page: int = 1
    """The next page to ask for."""
    count: int = attrs.field(default=0, init=False)
    """How many jobs were given so far."""
    ended: bool = attrs.field(default=False, init=False)
    _skipped: int = attrs.field(default=0, init=False)
    _barren: int = attrs.field(default=0, init=False)
    _unreadable: int = attrs.field(default=0, init=False)
    _from_the_start: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # A listing that starts at a later page has not seen the jobs before it, which the total counts.
        self._from_the_start = self.page == 1

    def take(self, page: JobPage) -> JobPage:
        """The page with only its new jobs."""
        new = self.seen.take(page.jobs)
        self.count += len(new)
        self._skipped += page.skipped
        self.page += 1
        # Whether rows without an id are new, none can tell: they are where nothing else is on the page.
        is_unreadable = page.skipped > 0 and not page.jobs
        self._unreadable = self._unreadable + 1 if is_unreadable else 0
        if self._unreadable > _UNREADABLE_PAGES:
            raise ProtocolError(f"list jobs: not one row of {self._unreadable} pages in succession is a job")
        self._barren = 0 if new or is_unreadable else self._barren + 1
        self.ended = self._is_last(len(page.jobs) + page.skipped, page.job_total_count)
        if self.ended and self.seen.is_unsure:
            self._check_all_came(page.job_total_count)
        if len(new) == len(page.jobs):
            return page
        return attrs.evolve(page, jobs=tuple(new))

    def _check_all_came(self, total: int | None) -> None:
        if not self._from_the_start or total is None or total > self.count + self._skipped:
            raise ProtocolError(
                f"list jobs: not in the order of job_id, and after {self.count:,} jobs it is not known which "
                "came before, so that some may be missing: list them in another order (sort_by)"
            )

    def _is_last(self, came: int, total: int | None) -> bool:
        if self._barren:
            has_more = total is not None and (total > self.count if self._from_the_start else came > 0)
            return self._barren >= _BARREN_PAGES_TO_END or not has_more
        return _is_short(came, self.per_page) and self._from_the_start and total == self.count + self._skipped


@attrs.define
class Sweep:
    """Follows one reading of a whole listing from page to page.

    It ends where the total says so. A total that lies hides jobs; of those that are watched, the details are
    read then. Whoever wants all jobs has the page after a full last one read, too, until a total held once.
    """

    number: int
    per_page: int
    trusts_total: bool = True
    page: int = attrs.field(default=1, init=False)
    """The next page to ask for."""
    pages: int = attrs.field(default=1, init=False)
    """How many pages the listing seems to have."""
    ended: bool = attrs.field(default=False, init=False)
    total_held: bool = attrs.field(default=False, init=False)
    """Whether there was nothing beyond what the total says."""
    _count: int = attrs.field(default=0, init=False)
    _barren: int = attrs.field(default=0, init=False)

    @property
    def left(self) -> int:
        """How many more pages the listing seems to have, if it has not ended."""
        return max(self.pages - self.page + 1, 1)

    def take(self, came: int, total: int | None) -> None:
        """A page had so many rows, and said that the listing has so many."""
        self._count += came
        self._barren = 0 if came else self._barren + 1
        is_all = total is not None and self._count >= total
        if self._barren:
            self.ended = is_all or total is None or self._barren >= _BARREN_PAGES_TO_END
            self.total_held = self._count == total and self.page > 1
        elif is_all:
            holds = self.trusts_total and self._count == total
            self.ended = holds or _is_short(came, self.per_page)
        self.pages = max(self.page, -(-(total or 0) // self.per_page))
        if self._barren and self.page > 1:
            self.pages = self.page - 1
        self.page += 1


def is_sweep_cheaper(due: int, watched: int, pages: int) -> bool:
    """Whether to read the whole listing rather than the details of the jobs that are due.

    Args:
        due: How many jobs are to be looked at now.
        watched: How many jobs are watched in all: one alone is read by its details.
        pages: How many requests the listing takes.
    """
    return watched > 1 and due >= pages


_FEW: Final = 3


@attrs.define
class Absence:
    """Whether the jobs that a sweep lacks are taken to be absent.

    A page may come out empty, and pages shift while they are read. Where more jobs are lacking than a few,
    and than another sweep costs requests, only those are absent that the next one lacks as well.
    """

    _doubted: int | None = attrs.field(default=None, init=False)

    @property
    def is_doubted(self) -> bool:
        """Whether the last sweep was not believed, and another one has to say so, too."""
        return self._doubted is not None

    def since(self, sweep: int) -> int:
        """The number of the first of the sweeps that have to lack a job, the last of which is this one."""
        return sweep if self._doubted is None else self._doubted

    def is_believed(self, sweep: int, lacking: int, pages: int) -> bool:
        """Whether a whole sweep is believed that lacks so many jobs; one that follows a doubted one is."""
        is_doubtful = self._doubted is None and lacking > max(_FEW, pages)
        self._doubted = sweep if is_doubtful else None
        return not is_doubtful


def _is_short(came: int, per_page: int) -> bool:
    """Whether a page has fewer rows than were asked for, and is not cut short by a cap."""
    return came < per_page and came not in _DOCUMENTED_CAPS
