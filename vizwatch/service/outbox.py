"""The backlog as tasks use it: in a thread of its own, and tried again until it works."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from vizwatch import ConfigError, printable
from vizwatch.service.backlog import Backlog, Entry
from vizwatch.service.progress import Progress, backoff

T = TypeVar("T")

_BASE: Final = 0.5
_LONGEST: Final = 15.0


class Outbox:
    """What waits for each sink, and a bell that rings for it when more comes.

    A disk that is full, or a database that is locked, holds up whoever calls, until it is not any more; the
    trouble says so meanwhile.

    Args:
        make: Opens the backlog.
        sinks: The sinks' names.
        progress: Where to say what is wrong.
        file: Where the backlog is, for errors.

    Raises:
        ConfigError: When entered: the file is no backlog.
        OSError: When entered: it cannot be opened just now.
    """

    def __init__(
        self,
        make: Callable[[], Backlog],
        sinks: list[str],
        progress: Progress,
        file: Path = Path("backlog.sqlite"),
    ) -> None:
        self._make, self._file = make, file
        self._troubles = progress.backlog
        self._bells = {name: asyncio.Event() for name in sinks}
        self._stopping = False
        self._thread = ThreadPoolExecutor(1, "vizwatch-backlog")

    async def __aenter__(self) -> Self:
        try:
            self._backlog = await self._in_thread(self._make)
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
        """Keeps a transition for these sinks; it is on the disk when this returns."""
        await self._insist("write", functools.partial(self._backlog.put, sinks, transition))
        for name in sinks:
            self._bells[name].set()

    async def take(self, sink: str) -> Entry | None:
        """The oldest one that waits for a sink, as soon as there is one; ``None`` once the service stops."""
        while not self._stopping:
            self._bells[sink].clear()
            entry = await self._insist("read", functools.partial(self._backlog.first, sink))
            if entry is not None:
                return entry
            if not self._stopping:
                await self._bells[sink].wait()
        return None

    async def remove(self, sink: str, entry: Entry) -> None:
        """It is delivered."""
        await self._insist("clear", functools.partial(self._backlog.remove, sink, entry))

    async def pause(self, sink: str, seconds: float) -> None:
        """Waits, but not beyond the moment in which the service stops."""
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
