"""A checkpoint for one process's life, where the caller gave none."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs

from vizwatch._world.checkpoint import Stream


@attrs.define(eq=False)
class Memory:
    """Keeps records in memory. As of :class:`vizwatch.Checkpoint`."""

    _records: dict[Stream, dict[int, bytes]] = attrs.field(factory=dict, init=False)

    async def open(self, stream: Stream) -> None:
        """Makes room for the stream."""
        self._records.setdefault(stream, {})

    async def load(self, stream: Stream, job_ids: Collection[int] | None) -> Mapping[int, bytes]:
        """The records."""
        kept = self._records[stream]
        return {**kept} if job_ids is None else {one: kept[one] for one in job_ids if one in kept}

    async def save(self, records: Mapping[Stream, Mapping[int, bytes | None]]) -> None:
        """Keeps records, or forgets them."""
        for stream, by_job in records.items():
            kept = self._records[stream]
            for job_id, record in by_job.items():
                if record is None:
                    kept.pop(job_id, None)
                else:
                    kept[job_id] = record

    async def close(self, stream: Stream) -> None:
        """Forgets the stream."""
        del self._records[stream]
