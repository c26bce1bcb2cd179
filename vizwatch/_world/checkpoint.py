"""Checkpoints: where the places of consumers are kept, so that another process goes on with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import attrs


@attrs.frozen
class Stream:
    """Transitions of one consumer, whose place in them is kept job by job."""

    endpoint: str
    """The service's address."""
    project_id: str
    workspace_id: str | None
    """The workspace, of which all jobs are watched; ``None`` for jobs that are watched by their ids."""

    def __str__(self) -> str:
        what = "its single jobs" if self.workspace_id is None else f"its workspace {self.workspace_id}"
        return f"project {self.project_id} at {self.endpoint}, {what}"


class Checkpoint(Protocol):
    """Where the places of consumers are kept.

    What is kept of a job is a *record*, bytes that mean nothing here: a line of JSON of some 500 bytes.
    Every method may raise :class:`CheckpointError`, which says what is wrong and what to do about it; what
    cannot be used is left as it is. That ends the watches, which raise it. Whatever else :meth:`save` raises
    is told in the log and tried again, with growing pauses, while the watches go on; what :meth:`open` and
    :meth:`load` raise reaches whoever watches. All are called in one event loop, also for several clients
    that share a checkpoint.
    """

    async def open(self, stream: Stream) -> None:
        """Takes a stream for this process, before anything else is asked of it; watches wait for that.

        Raises:
            CheckpointError: It is taken, or was kept for another endpoint, or what is kept cannot be read.
        """
        ...

    async def load(self, stream: Stream, job_ids: Collection[int] | None) -> Mapping[int, bytes]:
        """The records of these jobs, as far as there are any, or for ``None`` of all, by the jobs' ids.

        A stream's records may be loaded again for each watch, also while others are saved.
        """
        ...

    async def save(self, records: Mapping[Stream, Mapping[int, bytes | None]]) -> None:
        """Keeps records instead of those before, or for ``None`` forgets them: all durably, or none.

        Nothing is given to a consumer before it is kept: while this waits, watches do.

        Not called again by the same client or fleet before it has returned. Cancelled when that closes and
        three seconds were not enough: what happens then is all the same, if it is all or none.
        """
        ...

    async def close(self, stream: Stream) -> None:
        """Gives a stream up, after all else. Closing a client waits for it, so it is not to take long."""
        ...
