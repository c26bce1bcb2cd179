"""A checkpoint in a file, by SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import itertools
import os
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from vizwatch._rules.records import LONGEST
from vizwatch._values import checks
from vizwatch._values.errors import CheckpointError
from vizwatch._values.text import printable
from vizwatch._world.batching import Batches, parts
from vizwatch._world.checkpoint import Stream

P = ParamSpec("P")
T = TypeVar("T")

_FORMAT: Final = 1
_PROGRAM: Final = 0x76697A77  # "vizw"
_SMALLEST: Final = 512
"""How many bytes a database has at least."""
_BUSY: Final = 2.0
"""How long to wait for another process that has the file just now, in seconds."""
_READ, _WRITTEN = 300, 3_000
"""How many rows are read as one, and written by a statement. For each row that comes, and after each
statement, this thread waits until that of the event loop lets it go on: for milliseconds, or many, if that is
busy."""
_TABLES: Final = {
    "stream": """CREATE TABLE stream (
    number INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL,
    project_id TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    UNIQUE (project_id, workspace_id, endpoint)
)""",
    "record": """CREATE TABLE record (
    stream INTEGER NOT NULL REFERENCES stream,
    job_id INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (stream, job_id)
) WITHOUT ROWID""",
}
_RECORDS: Final = """SELECT group_concat(
    CASE WHEN typeof(job_id) = 'integer' AND typeof(record) = 'blob' AND length(record) <= ?
        THEN job_id || ' ' || hex(record) ELSE '?' END, ';'
) FROM (SELECT job_id, record FROM record WHERE stream = ? AND """
_AFTER: Final = _RECORDS + "job_id > ? ORDER BY job_id LIMIT ?)"
_OF_JOBS: Final = _RECORDS + "job_id IN (%s))"
_KEEP: Final = "INSERT OR REPLACE INTO record (stream, job_id, record) VALUES %s"
_FORGET: Final = "DELETE FROM record WHERE stream = ? AND job_id IN (%s)"
_NEW: Final = f"""BEGIN IMMEDIATE;
{";".join(_TABLES.values())};
PRAGMA application_id = {_PROGRAM};
PRAGMA user_version = {_FORMAT};
COMMIT;"""
_DAMAGED: Final = "it is damaged, and was left as it is: use a copy of it, or another file"
_IS_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_IS_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class SqliteCheckpoint:
    """The places of consumers in a file, for one process at a time.

    ::

        async for transition in client.watch_jobs(checkpoint=vizwatch.SqliteCheckpoint("jobs.sqlite")):
            ...

    The file is made where there is none, for its owner alone, and is locked while a client or a fleet uses
    it. It is SQLite's, with a write-ahead log beside it: a process that is killed at any moment leaves what
    it had before a write, or after it. If the whole machine fails, that may be some seconds old.

    Args:
        path: The file. Its directory has to be there, and on a disk of this machine.
        window: How long what has come is gathered before it is written, in seconds, one at most. As nothing
            is given before it is written, a transition may come two windows later for that.

    Raises:
        ConfigError: An argument is wrong.
    """

    def __init__(self, path: str | os.PathLike[str], *, window: float = 0.2) -> None:
        place = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        if not isinstance(place, str) or place in {"", ":memory:"} or "\0" in place:
            raise checks.refused("path", path, "the path of a file")
        self.path = Path(path)
        self.window = checks.seconds("window", window, high=1)
        self._numbers: dict[Stream, int] = {}
        """The open streams, by which the tables know them."""
        self._thread: ThreadPoolExecutor | None = None
        """The one that knows the file."""
        self._connection: sqlite3.Connection | None = None
        self._place: tuple[int, int] | None = None
        """Which file of this machine it is."""
        self._batches = Batches(self.window, self._commit)

    async def open(self, stream: Stream) -> None:
        """Opens the file if need be, and takes the stream. As of :class:`Checkpoint`."""
        if stream in self._numbers:
            raise self._refused(
                f"{stream}: are watched with it already; share one client, or give each a file of its own"
            )
        self._numbers[stream] = -1
        try:
            self._numbers[stream] = await self._in_thread(self._take, stream)
        except BaseException:
            await self.close(stream)
            raise

    async def load(self, stream: Stream, job_ids: Collection[int] | None) -> Mapping[int, bytes]:
        """The records. As of :class:`Checkpoint`."""
        return await self._in_thread(self._read, self._numbers[stream], job_ids)

    async def save(self, records: Mapping[Stream, Mapping[int, bytes | None]]) -> None:
        """Keeps records, with all that others save within the window in one transaction."""
        await self._batches.put(records)

    async def _commit(self, batches: Sequence[Mapping[Stream, Mapping[int, bytes | None]]]) -> None:
        newest: dict[int, dict[int, bytes | None]] = {}
        for records in batches:
            for stream, by_job in records.items():
                if stream in self._numbers:  # else it was given up meanwhile
                    newest.setdefault(self._numbers[stream], {}).update(by_job)
        await self._in_thread(self._write, newest)

    async def close(self, stream: Stream) -> None:
        """Gives the stream up, and closes the file after the last one."""
        self._numbers.pop(stream, None)
        if self._numbers or self._thread is None:
            return
        await self._batches.aclose()
        await self._in_thread(self._disconnect)
        thread, self._thread = self._thread, None
        thread.shutdown()

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "vizwatch-checkpoint")
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, functools.partial(work, *args, **kwargs)
        )

    # --- in the thread -----------------------------------------------------------------------------------

    def _take(self, stream: Stream) -> int:
        with self._explained():
            connection = self._connected()
            rows = connection.execute(
                "SELECT number, endpoint, workspace_id FROM stream WHERE project_id = ?", (stream.project_id,)
            ).fetchall()
            for _, endpoint, _ in rows:
                if endpoint != stream.endpoint:
                    was = printable(str(endpoint), 100)
                    raise self._refused(
                        f"project {stream.project_id} was watched at {was}, and is to be at "
                        f"{stream.endpoint} now; give it that endpoint back, or move the file away, without "
                        "which all is found anew"
                    )
            for number, _, workspace_id in rows:
                if workspace_id == (stream.workspace_id or ""):
                    return int(number)
            made = connection.execute(
                "INSERT INTO stream (endpoint, project_id, workspace_id) VALUES (?, ?, ?)",
                (stream.endpoint, stream.project_id, stream.workspace_id or ""),
            )
        assert made.lastrowid is not None  # noqa: S101 - an insert has one
        return made.lastrowid

    def _read(self, number: int, job_ids: Collection[int] | None) -> dict[int, bytes]:
        kept: dict[int, bytes] = {}
        with self._explained():
            if job_ids is None:
                page = self._page(_AFTER, number, -(2**63), _READ)
                while page:
                    kept |= page
                    page = self._page(_AFTER, number, max(page), _READ)
                return kept
            for some in parts(job_ids, _READ):
                kept |= self._page(_OF_JOBS % _marks("?", some), number, *some)
        return kept

    def _page(self, query: str, *values: int) -> dict[int, bytes]:
        (rows,) = self._connected().execute(query, (LONGEST, *values)).fetchone()
        try:
            pairs = (row.split(" ") for row in rows.split(";")) if rows else ()
            return {int(job_id): bytes.fromhex(record) for job_id, record in pairs}
        except ValueError:
            raise self._refused(_DAMAGED) from None

    def _write(self, newest: Mapping[int, Mapping[int, bytes | None]]) -> None:
        connection = self._connected()
        if self._found() != self._place:
            raise self._refused(
                "it was removed, or another file was put in its place: what is watched is not kept"
            )
        most = min(_WRITTEN, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // 3)
        connection.execute("BEGIN IMMEDIATE")
        try:
            for number, by_job in newest.items():
                forgotten = (job_id for job_id, record in by_job.items() if record is None)
                for some in parts(forgotten, most):
                    connection.execute(_FORGET % _marks("?", some), (number, *some))
            kept = (
                (number, job_id, record)
                for number, by_job in newest.items()
                for job_id, record in by_job.items()
                if record is not None
            )
            for rows in parts(kept, most):
                connection.execute(_KEEP % _marks("(?, ?, ?)", rows), [*itertools.chain.from_iterable(rows)])
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            made = self._made()
            try:
                self._check(made)
                made.execute("PRAGMA journal_mode = WAL")
                made.execute("PRAGMA synchronous = NORMAL")
            except BaseException:
                made.close()
                raise
            self._connection, self._place = made, self._found()
        return self._connection

    def _found(self) -> tuple[int, int] | None:
        try:
            about = self.path.stat()
        except OSError:
            return None
        return about.st_dev, about.st_ino

    def _made(self) -> sqlite3.Connection:
        try:
            if 0 < self._size() < _SMALLEST:
                raise self._refused(_DAMAGED)  # SQLite would take it for an empty one
        except OSError as error:
            raise self._refused(f"it cannot be opened: {error.strerror}") from None
        return sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)

    def _size(self) -> int:
        """How many bytes the file has; makes one where there is none.

        One that is there is not opened: to close it would give up the locks that this process has on it.
        """
        try:
            # Whatever the process's mask is, others have no business with it.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            about = self.path.stat()
            if stat.S_ISDIR(about.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
            return about.st_size
        return 0

    def _check(self, connection: sqlite3.Connection) -> None:
        """Raises unless the file is a checkpoint, and sound; makes one of an empty file."""
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA trusted_schema = OFF")
        tables = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))
        (program,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not tables and not program:
            connection.executescript(_NEW)
            return
        if program != _PROGRAM:
            raise self._refused("it is a file of another program")
        if version > _FORMAT:
            raise self._refused(
                f"it is of a newer version of vizwatch: of format {version}, and this one knows {_FORMAT}"
            )
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if tables != _TABLES or version < 1 or state != "ok":
            raise self._refused(_DAMAGED)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Says what an error of SQLite means for who wants to use the file."""
        try:
            yield
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _IS_BUSY:
                raise self._refused(
                    "it is in use, most likely by another process: a file is for one client or fleet; close "
                    "that, or use another file"
                ) from None
            if code in _IS_DAMAGED or "UTF-8" in str(error) or "utf-8" in str(error):
                raise self._refused(_DAMAGED) from None
            raise self._refused(f"it cannot be used: {printable(str(error), 200)}") from None

    def _refused(self, reason: str) -> CheckpointError:
        return CheckpointError(f"checkpoint {printable(str(self.path), 200)}: {reason}")

    def __reduce__(self) -> tuple[type[SqliteCheckpoint], tuple[Path], dict[str, float]]:
        return type(self), (self.path,), {"window": self.window}

    def __repr__(self) -> str:
        return f"SqliteCheckpoint({os.fspath(self.path)!r})"


def _marks(one: str, items: Sized) -> str:
    return ", ".join([one] * len(items))
