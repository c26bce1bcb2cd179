"""Showing: the pages of a listing, to those who follow single jobs on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, compress

import attrs

from vizwatch._flows.following import Page
from vizwatch._flows.looking import Place, Places
from vizwatch._values.rows import Sighting


@attrs.define(eq=False)
class Showing:
    """The listing, page by page, as the sweeps show it to those who follow single jobs.

    A page with the jobs of the sweep before is compared with that one column by column, and noted once for
    all who rest on it: what costs time is a row that has changed, and a follower that does not rest.
    """

    _places: Places
    _roused: Callable[[Place], None]
    """Sees to it that a follower gets its next look that rests no longer."""
    _pages: list[Page] = attrs.field(factory=list, init=False)
    """Those of the sweep under way, as many as :attr:`_taken`, then those of the sweep before it."""
    _taken: int = attrs.field(default=0, init=False)
    _sweep: int = attrs.field(default=0, init=False)
    _loose: dict[int, None] = attrs.field(factory=dict, init=False)
    """The jobs of all who do not rest."""

    def joins(self, place: Place) -> None:
        """Somebody follows a job from now on."""
        if place.follower.page is None:
            self._loose[place.follower.job_id] = None

    def leaves(self, place: Place) -> None:
        """Somebody follows a job no longer."""
        place.follower.rouse()
        if not self._places.of(place.follower.job_id):
            self._loose.pop(place.follower.job_id, None)
        if not self._places:
            self.clear()

    def begins(self, sweep: int) -> None:
        """A sweep begins."""
        self._taken, self._sweep = 0, sweep

    def shows(self, sighting: Sighting) -> list[tuple[Place, Sighting, int]]:
        """The next page of the sweep: who is to be shown which of its rows, for they may tell something."""
        if not self._places:
            return []
        rows, by_job = sighting.rows, self._places.by_job
        followed = [*compress(range(len(rows)), map(by_job.__contains__, rows.ids))]
        if 2 * len(followed) < len(rows):
            # Whoever follows one of its jobs keeps the page.
            rows = rows.only(followed)
            sighting = attrs.evolve(sighting, rows=rows)
        before = self._pages[self._taken] if self._taken < len(self._pages) else None
        if before is not None and before.sighting.rows.ids == rows.ids:
            for row in rows.changed_since(before.sighting.rows):
                self._rouse(before, [rows.ids[row]])
            before.sighting, before.sweep = sighting, self._sweep
            loose = compress(range(len(rows)), map(self._loose.__contains__, rows.ids))
            told = [told for row in loose for told in self._shown(before, row, before)]
        else:
            page = Page(sighting, self._sweep, self._loose)
            told = [told for row in range(len(rows)) for told in self._shown(page, row, before)]
            self._pages[self._taken : self._taken + 1] = [page]
            if before is not None:
                self._rouse(before, before.sighting.rows.ids)
        self._taken += 1
        return told

    def _shown(self, page: Page, row: int, before: Page | None) -> list[tuple[Place, Sighting, int]]:
        """Shows a row to all who follow its job; those whom it may tell something."""
        job_id, told, is_elsewhere = page.sighting.rows.ids[row], [], False
        self._loose.pop(job_id, None)
        for place in self._places.of(job_id):
            # Its row may be shown next on another page with it, on which nobody will rest then.
            was_on_other = place.follower.page not in {None, page, before}
            is_elsewhere = is_elsewhere or was_on_other or place.follower.seen_in == page.sweep
            place.follower.was_listed(page.sweep)
            if not place.follower.rests_on(page, row):
                told.append((place, page.sighting, row))
        if told or is_elsewhere:
            self._loose[job_id] = None  # behind those that the sweep has not shown
        return told

    def _rouse(self, page: Page, job_ids: Iterable[int]) -> None:
        for job_id in job_ids:
            for place in self._places.of(job_id):
                if place.follower.page is page:
                    place.follower.rouse()
                    self._roused(place)

    def ends(self) -> None:
        """The sweep has come to the end of the listing."""
        for page in self._pages[self._taken :]:
            self._rouse(page, page.sighting.rows.ids)
        del self._pages[self._taken :]

    def unseen(self, sweep: int) -> Iterator[Place]:
        """Those that this sweep and all after it should have shown, and did not."""
        pages = (reversed(page.sighting.rows.ids) for page in reversed(self._pages[self._taken :]))
        asked: set[int] = set()
        for job_id in chain(self._loose, *pages):
            if job_id not in asked:
                asked.add(job_id)
                yield from (place for place in self._places.of(job_id) if place.is_unseen_since(sweep))

    def clear(self) -> None:
        """Nobody follows anything."""
        self._pages.clear()
        self._loose.clear()
        self._taken = 0
