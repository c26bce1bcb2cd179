"""Pages of a listing that were never bytes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from vizwatch import Job


@attrs.frozen(eq=False)
class Kept:
    """Whole jobs as they are."""

    jobs: Sequence[Job]

    def one(self, index: int) -> Job:
        return self.jobs[index]

    def all(self) -> None:
        return None

    def only(self, indices: Sequence[int]) -> Kept:
        return Kept([self.jobs[index] for index in indices])
