"""A checkpoint of one's own, as a user may write it: in memory, and with what goes wrong."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Collection, Mapping, Sequence

import attrs

from vizwatch import CheckpointError, Stream


def altered(record: bytes, old: bytes, new: bytes) -> bytes:
    """The record with something else in it, and the checksum of that."""
    body = record[8:].replace(old, new, 1)
    return b"%08x" % zlib.crc32(body) + body


@attrs.define(eq=False)
class Memory:
    """Keeps records in memory."""

    records: dict[Stream, dict[int, bytes]] = attrs.field(factory=dict)
    writes: int = 0
    rows: int = 0
    fails: bool = False
    """Whether it cannot be written just now."""
    refusal: CheckpointError | None = None
    """What it refuses every write with."""
    takes: Sequence[float] = (0.0,)
    """How long a write takes, in seconds: the first one, the next one, and so on, and then anew."""
    loads_in: float = 0.0
    _open: set[Stream] = attrs.field(factory=set)

    async def open(self, stream: Stream) -> None:
        if stream in self._open:
            raise CheckpointError(f"{stream}: is taken")
        self._open.add(stream)

    async def load(self, stream: Stream, job_ids: Collection[int] | None) -> Mapping[int, bytes]:
        assert stream in self._open
        await asyncio.sleep(self.loads_in / 2)
        kept = self.records.get(stream, {})
        found = {one: record for one, record in kept.items() if job_ids is None or one in job_ids}
        await asyncio.sleep(self.loads_in / 2)
        return found

    async def save(self, records: Mapping[Stream, Mapping[int, bytes | None]]) -> None:
        await asyncio.sleep(self.takes[self.writes % len(self.takes)])
        if self.refusal is not None:
            raise self.refusal
        if self.fails:
            raise OSError(28, "No space left on device")
        self.writes += 1
        for stream, by_job in records.items():
            assert stream in self._open
            kept = self.records.setdefault(stream, {})
            for job_id, record in by_job.items():
                self.rows += 1
                kept.pop(job_id, None)
                if record is not None:
                    kept[job_id] = record

    async def close(self, stream: Stream) -> None:
        self._open.remove(stream)

    def as_it_is(self) -> Memory:
        """What another process finds if this one is killed now."""
        return Memory({stream: {**kept} for stream, kept in self.records.items()})
