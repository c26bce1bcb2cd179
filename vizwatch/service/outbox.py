"""The backlog as tasks use it: in a thread of its own, and tried again until it works."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import sqlite3
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import attrs

from vizwatch import Checkpoint, ConfigError, Stream, printable
from vizwatch.service.backlog import Backlog, Entry
from vizwatch.service.progress import Progress, Trouble, backoff

T = TypeVar("T")

_BASE: Final = 0.5
_LONGEST: Final = 15.0
_AHEAD: Final = 1_000
"""How many may wait to be written before whoever has more does, too."""
_WRITES_WITHIN: Final = 0.5
"""How long to wait at the end for what is being written, in seconds."""
_CLEARS_AFTER: Final = 0.2
"""How often what is delivered is taken off the disk while there is more to deliver, in seconds."""


class Outbox:
    """What waits for each sink, and a bell that rings for it when more comes.

    What comes is written together with all that came while the write before it was under way, and what is
    delivered is taken out together: a write is a matter of the disk's, and there may be thousands a second.

    A disk that is full, or a database that is locked, holds up whoever calls, until it is not any more; the
    trouble says so meanwhile.

    Args:
        file: The backlog's.
        bounds: How many may wait, by each sink's name.
        progress: Where to say what is wrong.

    Raises:
        ConfigError: When entered: the file is no backlog.
        OSError: When entered: it cannot be opened just now.
    """

    def __init__(self, file: Path, bounds: Mapping[str, int], progress: Progress) -> None:
        self._file, self._bounds = file, bounds
        self._troubles = progress.backlog
        self.broken: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        """What a write has raised that none should: nothing more is kept."""
        self._bells = {name: asyncio.Event() for name in bounds}
        self._stopping = False
        self._thread = ThreadPoolExecutor(1, "vizwatch-backlog")
        self._news: list[tuple[list[str], Mapping[str, Any]]] = []
        """What is not on the disk yet."""
        self._writing: asyncio.Task[None] | None = None
        self._count = self._kept = 0
        """How many were put, and how many of them are on the disk."""
        self._taken: dict[str, deque[Entry]] = {name: deque() for name in bounds}
        """What was read for each sink, and is not delivered yet."""
        self._delivered: defaultdict[str, list[Entry]] = defaultdict(list)
        """What is, and is on the disk still."""
        self._cleared_at: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        try:
            self._backlog = await self._in_thread(functools.partial(Backlog, self._file, self._bounds))
        except (sqlite3.Error, OSError) as error:
            self._thread.shutdown()
            # Locked, or no room: what may be over when it is tried again.
            kind, remedy = (
                (OSError, "see who else has it open, to its rights, and to the disk")
                if isinstance(error, sqlite3.OperationalError | OSError)
                else (ConfigError, "move it away, with what waits in it, or give another state.path")
            )
            where = f"the backlog {printable(str(self._file))} cannot be opened"
            raise kind(f"{where}: {printable(str(error))}; {remedy}") from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=_WRITES_WITHIN)
            self._writing.cancel()
        await self._in_thread(self._backlog.close)
        self._thread.shutdown()

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many wait for each sink."""
        return self._backlog.sizes

    @property
    def merged(self) -> Mapping[str, int]:
        """How many became one with another, by sink."""
        return self._backlog.merged

    async def put(self, sinks: list[str], transition: Mapping[str, Any]) -> None:
        """Takes a transition for these sinks; waits while many are not on the disk yet."""
        if len(self._news) >= _AHEAD:
            await self.written()
        self._check()
        self._news.append((sinks, transition))
        self._count += 1
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def written(self) -> None:
        """Waits until all that was put is on the disk."""
        wanted = self._count
        while self._kept < wanted and self._writing is not None:
            await asyncio.shield(self._writing)
            self._check()

    def _check(self) -> None:
        if self.broken.done():
            raise self.broken.result()

    async def _write(self) -> None:
        """Writes all that has come, and then all that has come meanwhile."""
        while self._news:
            news, self._news = self._news, []
            try:
                await self._insist("write", functools.partial(self._backlog.put, news))
            except Exception as error:  # noqa: BLE001 - which ends the service
                if not self.broken.done():
                    self.broken.set_result(error)
                return
            self._kept += len(news)
            for name in {name for sinks, _ in news for name in sinks}:
                self._bells[name].set()

    async def take(self, sink: str) -> Entry | None:
        """The oldest one that waits for a sink, as soon as there is one; ``None`` once the service stops."""
        taken = self._taken[sink]
        while not (taken or self._stopping):
            self._bells[sink].clear()
            taken.extend(await self._insist("read", functools.partial(self._backlog.take, sink)))
            if not (taken or self._stopping):
                await self._bells[sink].wait()
        if self._stopping:
            await self._clear(sink)
            return None
        return taken[0]

    async def remove(self, sink: str) -> None:
        """What was taken is delivered: soon that is on the disk, too, and until then it may come again."""
        self._delivered[sink].append(self._taken[sink].popleft())
        now = asyncio.get_running_loop().time()
        if not self._taken[sink] or now >= self._cleared_at.get(sink, -math.inf) + _CLEARS_AFTER:
            await self._clear(sink)

    async def _clear(self, sink: str) -> None:
        delivered = self._delivered.pop(sink, None)
        self._cleared_at[sink] = asyncio.get_running_loop().time()
        if delivered:
            await self._insist("clear", functools.partial(self._backlog.remove, sink, delivered))

    async def pause(self, sink: str, seconds: float) -> None:
        """Waits, but not beyond the moment in which the service stops."""
        await self._clear(sink)
        deadline = asyncio.get_running_loop().time() + seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while not self._stopping:
                    self._bells[sink].clear()
                    await self._bells[sink].wait()

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more is to be taken."""
        return self._stopping

    def stop(self) -> None:
        """Nothing more is to be taken."""
        self._stopping = True
        for bell in self._bells.values():
            bell.set()

    async def _insist(self, what: str, work: Callable[[], T]) -> T:
        trouble = self._troubles[what]
        while True:
            try:
                done = await self._in_thread(work)
            except sqlite3.Error as error:
                trouble.failed(str(error) or type(error).__name__)
            else:
                trouble.over()
                return done
            await asyncio.sleep(backoff(trouble.failures, _BASE, _LONGEST))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


@attrs.define(eq=False)
class AfterOutbox:
    """A checkpoint in which nothing counts as delivered that is not in the backlog, on the disk."""

    _checkpoint: Checkpoint
    _outbox: Outbox
    _trouble: Trouble
    """Where to say that it cannot be written."""

    async def open(self, stream: Stream) -> None:
        """As of the checkpoint."""
        await self._checkpoint.open(stream)

    async def load(self, stream: Stream, job_ids: Collection[int] | None) -> Mapping[int, bytes]:
        """As of the checkpoint."""
        return await self._checkpoint.load(stream, job_ids)

    async def save(self, records: Mapping[Stream, Mapping[int, bytes | None]]) -> None:
        """As of the checkpoint, after what was handed over before is written."""
        await self._outbox.written()
        try:
            await self._checkpoint.save(records)
        except Exception as error:
            # The others' texts may name a server, and the watch's own line of the log has them.
            text = str(error) if isinstance(error, sqlite3.Error) else ""
            self._trouble.failed(text or type(error).__name__)
            raise
        self._trouble.over()

    async def close(self, stream: Stream) -> None:
        """As of the checkpoint."""
        await self._checkpoint.close(stream)
