"""What one reading of a whole listing shows to be different from the one before."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from itertools import count, islice, repeat
from typing import Final

import attrs

from vizwatch._values.rows import Sighting

_NONE_YET: Final = -1


@attrs.frozen
class News:
    """What a page tells that was not known."""

    sighting: Sighting
    """The page, without the rows that an earlier page of the same reading has shown already."""
    new: Sequence[int]
    """The rows of jobs that were not known."""
    changed: Sequence[tuple[int, Sighting, int]]
    """The rows whose status is another one, or whose duration began anew; and the page and the row before."""


@attrs.define
class Census:
    """The rows of a listing as it was last read, page by page.

    Pages whose jobs are those of the page before it are compared column by column, and nothing is made for
    a row that is as it was. Where jobs came or went, the others have moved: from that page on they are
    looked up by their ids, until the reading is over.

    The pages of a reading take the place of those before it one by one, so that a listing is held once.
    """

    _pages: list[Sighting] = attrs.field(factory=list, init=False)
    """Those of the reading under way, as many as :attr:`_taken`, then those of the reading before it."""
    _taken: int = attrs.field(default=0, init=False)
    _moved: dict[int, tuple[Sighting, int]] | None = attrs.field(default=None, init=False)
    """Where the jobs were that the reading has not shown yet, once they have moved."""
    _highest: int = attrs.field(default=_NONE_YET, init=False)
    """The highest id that the reading has shown, while its ids ascend and no set of them is needed."""
    _shown: set[int] | None = attrs.field(default=None, init=False)
    _forgotten: set[int] = attrs.field(factory=set, init=False)
    """The jobs whose rows count no more."""

    @property
    def size(self) -> int:
        """How many jobs are known."""
        moved = 0 if self._moved is None else len(self._moved)
        return moved + sum(len(page.rows) for page in self._pages) - len(self._forgotten)

    def take(self, sighting: Sighting) -> News:
        """The next page of the reading."""
        ids = sighting.rows.ids
        if not len(ids):
            return News(sighting, (), ())
        if self._moved is None and not self._forgotten and self._taken < len(self._pages):
            before = self._pages[self._taken]
            if before.rows.ids == ids:
                self._pages[self._taken] = sighting
                self._taken += 1
                changed = sighting.rows.changed_since(before.rows)
                return News(sighting, (), [(row, before, row) for row in changed])
        return self._looked_up(sighting)

    def _looked_up(self, sighting: Sighting) -> News:
        if self._moved is None:
            self._move()
        first = self._first_shown(sighting.rows.ids)
        if len(first) < len(sighting.rows):
            sighting = attrs.evolve(sighting, rows=sighting.rows.only(first))
        self._pages.append(sighting)
        self._taken += 1
        rows = sighting.rows
        if not self._moved:
            return News(sighting, range(len(rows)), ())
        new: list[int] = []
        changed: list[tuple[int, Sighting, int]] = []
        for row, job_id in enumerate(rows.ids):
            before = self._moved.pop(job_id, None)
            if before is None:
                new.append(row)
            elif rows.is_changed(row, before[0].rows, before[1]):
                changed.append((row, *before))
        return News(sighting, new, changed)

    def _move(self) -> None:
        """From now on jobs are looked up by their ids."""
        self._moved = {}
        for page in self._pages[self._taken :]:
            self._moved.update(zip(page.rows.ids, zip(repeat(page), count()), strict=False))
        del self._pages[self._taken :]
        for job_id in [*self._forgotten]:
            if self._moved.pop(job_id, None) is not None:
                self._forgotten.discard(job_id)
        self._highest = max((max(page.rows.ids) for page in self._pages), default=_NONE_YET)

    def _first_shown(self, ids: Sequence[int]) -> Sequence[int]:
        """The rows of the jobs that no earlier row of the reading has shown."""
        if self._shown is None:
            if ids[0] > self._highest and all(map(operator.lt, ids, islice(ids, 1, None))):
                self._highest = ids[-1]
                return range(len(ids))
            self._shown = {job_id for page in self._pages for job_id in page.rows.ids}
        first: list[int] = []
        for row, job_id in enumerate(ids):
            if job_id not in self._shown:
                self._shown.add(job_id)
                first.append(row)
        return first

    def rest(self) -> list[Sighting]:
        """What was known, and the reading has not shown."""
        if self._moved is None and self._forgotten:
            self._move()
        if self._moved is None:
            return self._pages[self._taken :]
        rows_of: dict[Sighting, list[int]] = {}
        for page, row in self._moved.values():
            rows_of.setdefault(page, []).append(row)
        return [attrs.evolve(page, rows=page.rows.only(rows)) for page, rows in rows_of.items()]

    def close(self, keep: Iterable[Sighting] = ()) -> None:
        """The reading is over, or broken off; `keep` is what is still held for true beside what it showed."""
        del self._pages[self._taken :]
        self._pages.extend(keep)
        self._taken, self._moved, self._shown = 0, None, None

    def find(self, job_id: int) -> tuple[Sighting, int] | None:
        """Where a job was last seen; ``None`` where it was not, or is forgotten."""
        if job_id in self._forgotten:
            return None
        if self._moved is not None and job_id in self._moved:
            return self._moved[job_id]
        for page in self._pages:
            if job_id in page.rows.ids:
                return page, page.rows.ids.index(job_id)
        return None

    def forget(self, job_id: int) -> None:
        """The job is no more: a reading that shows it shows a new one."""
        if self._moved is not None and self._moved.pop(job_id, None) is not None:
            return
        if self.find(job_id) is not None:
            self._forgotten.add(job_id)
