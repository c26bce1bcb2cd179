"""Reading a whole listing again and again: when that is worth it, and where it ends."""

from __future__ import annotations

from typing import Final

import attrs

from vizwatch._values.rows import Rows

_DOCUMENTED_CAPS: Final = frozenset({10, 100})  # a default, and one document's limit of `per_page`
_BARREN_PAGES_TO_END: Final = 2


@attrs.frozen(eq=False)
class Sighting:
    """A page of a listing, and when it was read, in seconds of any one clock."""

    rows: Rows
    asked: float
    """When the read was begun: what it says was true then or later."""
    at: float
    """When its answer had come."""


def is_sweep_cheaper(due: int, watched: int, pages: int) -> bool:
    """Whether to read the whole listing rather than the details of the jobs that are due.

    Args:
        due: How many jobs are to be looked at now.
        watched: How many jobs are watched in all: one alone is read by its details.
        pages: How many requests the listing takes.
    """
    return watched > 1 and due >= pages


@attrs.define
class Sweep:
    """Follows one reading of a whole listing from page to page.

    It ends where the total says so. A total that lies hides jobs; of those that are watched, the details are
    read then.
    """

    number: int
    per_page: int
    page: int = attrs.field(default=1, init=False)
    """The next page to ask for."""
    pages: int = attrs.field(default=1, init=False)
    """How many pages the listing seems to have."""
    ended: bool = attrs.field(default=False, init=False)
    _count: int = attrs.field(default=0, init=False)
    _barren: int = attrs.field(default=0, init=False)

    def take(self, came: int, total: int | None) -> None:
        """A page had so many rows, and said that the listing has so many."""
        self._count += came
        self._barren = 0 if came else self._barren + 1
        is_all = total is not None and self._count >= total
        is_short = came < self.per_page and came not in _DOCUMENTED_CAPS
        if self._barren:
            self.ended = is_all or total is None or self._barren >= _BARREN_PAGES_TO_END
        elif is_all:
            self.ended = is_short or self._count == total
        self.pages = max(self.page, -(-(total or 0) // self.per_page))
        if self._barren and self.page > 1:
            self.pages = self.page - 1
        self.page += 1
