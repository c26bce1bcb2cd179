"""A listing from its last page to its first, which skips no job that exists throughout.

Why none is skipped. Jobs are listed by `job_id`, ascending, and ids grow: a new job comes after all others.
So a job's place, the number of jobs before it, never grows: only a deletion before it moves it, to an earlier
place. Let page E be empty at some moment, with no job behind it: each job that exists then is on a page
before E, and can only move towards the first one. Now the pages E-1, E-2, …, 1 are read, in this order. When
page p is read, a job that was on none of the pages read so far is on page p or on an earlier one; if it is
not on p it is on p-1 or before, and still is when p-1 is read. Before page 1 there is none. How E was found,
and what happened until then, does not matter.

Why none comes twice, and all come in order. Once page p was read, every job that exists throughout has been
shown if its id is not below the lowest one on that page. A row with such an id on a page that is read later
is a repetition, or a job created meanwhile, and neither is given.

That jobs are in this order is looked at: within a page, and where one has an id above all that were read. A
job that was created meanwhile has come there only if all behind it are newer still: that page is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import attrs

from vizwatch._values.checks import refused
from vizwatch._values.errors import ConfigError, ProtocolError
from vizwatch._values.models import JobPage

LAST_PAGE: Final = 2**31
"""The highest number of a page that is asked for."""

_MEMBERSHIP: Final = (
    "may change, and a job that comes into the listing moves others to pages already read: "
    "choose among the jobs that are given"
)
_ALLOWED: Final[Mapping[str, tuple[object, str]]] = {
    "status": (None, f"a job's status {_MEMBERSHIP}"),
    "search_content": ("", f"what a text is searched in is not documented, so what it finds {_MEMBERSHIP}"),
    "sort_by": ("job_id", "new jobs come last in the order of job_id alone, and a job keeps its id"),
    "page": (1, "jobs before that page would be skipped"),
    "limit": (None, "jobs beyond a limit would be skipped: break the iteration off instead"),
    "on_bad_row": ("raise", "a row that is left out would be a job skipped"),
}


def check_complete(given: Mapping[str, object]) -> None:
    """Raises :class:`ConfigError` for what a complete listing cannot keep its promise with, and says why."""
    for name, (allowed, why) in _ALLOWED.items():
        if given[name] != allowed:
            raise ConfigError(f"{refused(name, given[name], f'{allowed!r} with complete=True')}: {why}")


@attrs.define
class CompleteListing:
    """Says which page to read next: first for an empty page with no job behind it, then from there to page 1.

    The empty page is looked for by `job_total_count` as long as that proves right, else by doubling and
    halving. One empty page is believed, unless the total is missing or says that there are jobs: then the
    next one has to be empty, too. A service may give fewer jobs than a page was asked for, and count pages
    by the one size or by the other: after the first answer, pages are asked for in the size that came.
    """

    per_page: int
    """How many jobs to ask for at once."""
    page: int = attrs.field(default=1, init=False)
    """The next page to ask for."""
    ended: bool = attrs.field(default=False, init=False)
    _size: int | None = attrs.field(default=None, init=False)
    """How many jobs a page has, by the first one."""
    _filled: int = attrs.field(default=0, init=False)
    """The last page that was found to have jobs …"""
    _first_id: int = attrs.field(default=-1, init=False)
    """… and the id it began with."""
    _empty: int | None = attrs.field(default=None, init=False)
    """The first page that was found empty, with no job behind it."""
    _doubted: int | None = attrs.field(default=None, init=False)
    """A page that came empty, while the one after it is asked for."""
    _last_by_total: int | None = attrs.field(default=None, init=False)
    _trusts_total: bool = attrs.field(default=True, init=False)
    _stride: int = attrs.field(default=1, init=False)
    _goes_back: bool = attrs.field(default=False, init=False)
    _lowest: int | None = attrs.field(default=None, init=False)
    """The lowest id that was given."""
    _highest: int | None = attrs.field(default=None, init=False)
    """The highest id on the pages that were read."""
    _below: int | None = attrs.field(default=None, init=False)
    """What all ids have to be above on the page that is read again."""

    def take(self, page: JobPage) -> JobPage | None:
        """The page with only its new jobs, by their ids; ``None`` for a page read to find the last one."""
        if any(one.job_id >= other.job_id for one, other in pairwise(page.jobs)):
            raise ProtocolError("list jobs: not in the order of job_id, so the listing cannot be complete")
        if self._goes_back or (page.jobs and self._empty is not None and self.page == self._empty - 1):
            self._goes_back = True
            return self._given(page)
        self._learn(page)
        if page.jobs:
            self._found_jobs(page)
        elif self._is_doubtful(page):
            self._doubted = self.page
            self.page += 1
            return None
        else:
            self._found_empty(self._doubted or self.page)
        self._doubted = None
        self.page = self._where_to_look()
        self.ended = self._empty == 1
        return None

    def _given(self, page: JobPage) -> JobPage:
        ids, below, self._below = [job.job_id for job in page.jobs], self._below, None
        if below is not None:
            if ids and ids[0] <= below:
                raise ProtocolError(
                    f"list jobs: job {ids[0]} is on page {self.page}, behind job {below}: not in the order "
                    "of job_id, so the listing cannot be complete"
                )
            self.page -= 2
            self.ended = self.page == 0
            return attrs.evolve(page, jobs=())
        if ids and self._highest is not None and ids[-1] > self._highest:
            # Created meanwhile, and then all others behind it were as well; or the order is another.
            self._below = ids[-1]
        self._highest = max(self._highest or 0, *ids, 0)
        lowest = self._lowest
        new = page.jobs if lowest is None else tuple(job for job in page.jobs if job.job_id < lowest)
        if new:
            self._lowest = new[0].job_id
        self.page += -1 if self._below is None else 1
        self.ended = self.page == 0
        return page if len(new) == len(page.jobs) else attrs.evolve(page, jobs=new)

    def _learn(self, page: JobPage) -> None:
        expected = self._last_by_total is None or (self.page <= self._last_by_total) == bool(page.jobs)
        self._trusts_total = self._trusts_total and expected
        if self._size is None and page.jobs:
            self._size = len(page.jobs)
            if self.page == 1:
                self.per_page = min(self.per_page, self._size)
        total = page.job_total_count
        if total is None or self._size is None or total // self._size >= LAST_PAGE:
            self._trusts_total = False
        else:
            self._last_by_total = -(-total // self._size)

    def _found_jobs(self, page: JobPage) -> None:
        first_id = page.jobs[0].job_id
        if first_id <= self._first_id:
            raise ProtocolError(
                f"list jobs: page {self.page} begins with job {first_id}, and page {self._filled} with job "
                f"{self._first_id}: pages do not follow each other, so the listing cannot be complete"
            )
        self._filled, self._first_id = self.page, first_id

    def _found_empty(self, number: int) -> None:
        self._empty = number
        if number <= self._filled:  # the jobs that were there have gone or moved
            self._filled, self._first_id = 0, -1

    def _is_doubtful(self, page: JobPage) -> bool:
        if self._doubted is not None or self.page + 1 == self._empty:
            return False
        total = page.job_total_count
        return total is None or total > (self.page - 1) * (self._size or self.per_page)

    def _where_to_look(self) -> int:
        last = self._last_by_total if self._trusts_total else None
        if self._empty is None:
            if last is not None and last >= self._filled:
                return last + 1
            page = self._filled + self._stride
            self._stride *= 2
            if page > LAST_PAGE:
                raise ProtocolError(f"list jobs: page {self._filled} is not the last one, and none was found")
            return page
        filled = min(self._filled, self._empty - 1)
        if last is not None:
            return min(max(last, filled) + 1, self._empty - 1)
        return (filled + self._empty) // 2
