"""The backlog: what was seen and not delivered yet, for each sink, in a file that outlives the process."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from vizwatch.service.payload import json_line, merged

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE waiting (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    job_id INTEGER NOT NULL,
    payload TEXT NOT NULL
);
CREATE INDEX of_job ON waiting (sink, project_id, job_id, seq);
CREATE INDEX in_order ON waiting (sink, seq);
"""
_AT_ONCE: Final = 100
"""How many are in hand at most."""
_LOCKED_FOR: Final = 1.0
"""How many seconds to wait for another process's lock, before it is an error."""


@attrs.frozen
class Entry:
    """A transition that waits for a sink."""

    seq: int
    """Its place in the order."""
    id: str
    """The transition's."""
    payload: str
    """The transition as JSON, in one line of ASCII."""


class Backlog:
    """The transitions that wait for each sink, in order, none of them twice in a row of its job's.

    Beyond a sink's bound, those of one job that wait become one: from the status before the first to the
    status after the last, in the place of the first, under the last one's id. So it holds as many as the
    bound, and one more for each job at most, and never loses what became of a job. Those in hand stay.

    All of this blocks, and raises `sqlite3.Error` where the file cannot be read or written; then nothing has
    changed.

    Args:
        file: The SQLite database; it is made if it is missing.
        bounds: How many may wait, by each sink's name.
    """

    def __init__(self, file: Path, bounds: Mapping[str, int]) -> None:
        self._file, self._bounds = file, bounds
        self._in_hand: dict[str, int] = {}
        """Up to which one they were taken, by sink."""
        self._sizes: Counter[str] = Counter()
        self.merged: Counter[str] = Counter()
        """How many transitions became one with another, by sink, since the start."""
        file.touch(mode=0o600)  # what was seen is for its owner alone
        self._db = sqlite3.connect(file, timeout=_LOCKED_FOR, isolation_level=None, check_same_thread=False)
        try:
            self._open()
            self._place = self._found()
            """Which file of this machine it is."""
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        # Each transaction is on the disk before the watch counts its transition as delivered.
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            self._db.execute(f"PRAGMA {pragma}")
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if version == 0 and tables:
                raise sqlite3.DatabaseError("it is a database of another program")
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"it is of version {version}, and this program knows {_VERSION}")
        self._sizes.update(dict(self._db.execute("SELECT sink, count(*) FROM waiting GROUP BY sink")))

    def _found(self) -> tuple[int, int] | None:
        try:
            about = self._file.stat()
        except OSError:
            return None
        return about.st_dev, about.st_ino

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many wait for each sink; for those, too, that are not configured any more."""
        return {**dict.fromkeys(self._bounds, 0), **self._sizes}

    def put(self, news: Sequence[tuple[Sequence[str], Mapping[str, Any]]]) -> None:
        """Keeps transitions, as JSON, each for its sinks, in one transaction.

        A job's last one that waits is no news; one before that is: the job has changed meanwhile.
        """
        if self._found() != self._place:
            # What is written into a file without a name is gone with the process.
            raise sqlite3.OperationalError(
                "it was removed, or another file was put in its place: end the service, and start it anew"
            )
        sizes, counts = self._sizes.copy(), self.merged.copy()
        with self._transaction():
            for sinks, transition in news:
                for sink in sinks:
                    self._put(sink, transition, sizes, counts)
        self._sizes, self.merged = sizes, counts

    def _put(
        self, sink: str, transition: Mapping[str, Any], sizes: Counter[str], counts: Counter[str]
    ) -> None:
        key = (sink, transition["project_id"], transition["job_id"])
        last = self._db.execute(
            "SELECT id FROM waiting"
            " WHERE sink = ? AND project_id = ? AND job_id = ? ORDER BY seq DESC LIMIT 1",
            key,
        ).fetchone()
        if last == (transition["id"],):
            return
        rows = []
        if sizes[sink] >= self._bounds[sink]:
            rows = self._db.execute(
                "SELECT seq, payload FROM waiting"
                " WHERE sink = ? AND project_id = ? AND job_id = ? AND seq > ? ORDER BY seq",
                (*key, self._in_hand.get(sink, 0)),
            ).fetchall()
        seq = rows[0][0] if rows else None
        one, *others = [*(json.loads(payload) for _, payload in rows), transition]
        for other in others:
            one = merged(one, other)
        self._db.executemany("DELETE FROM waiting WHERE seq = ?", [(number,) for number, _ in rows])
        self._db.execute(
            "INSERT INTO waiting (seq, sink, project_id, job_id, id, payload) VALUES (?, ?, ?, ?, ?, ?)",
            (seq, *key, one["id"], json_line(one)),
        )
        sizes[sink] += 1 - len(rows)
        counts[sink] += len(rows)

    def take(self, sink: str) -> list[Entry]:
        """The oldest ones that wait for a sink, which are in hand from now on."""
        limit = min(_AT_ONCE, self._bounds[sink])
        rows = self._db.execute(
            "SELECT seq, id, payload FROM waiting WHERE sink = ? AND seq > ? ORDER BY seq LIMIT ?",
            (sink, self._in_hand.get(sink, 0), limit),
        ).fetchall()
        entries = [Entry(*row) for row in rows]
        if entries:
            self._in_hand[sink] = entries[-1].seq
        return entries

    def remove(self, sink: str, entries: Sequence[Entry]) -> None:
        """They are delivered."""
        with self._transaction():
            self._db.executemany(
                "DELETE FROM waiting WHERE sink = ? AND seq = ?", [(sink, entry.seq) for entry in entries]
            )
        # A new one, since others read it meanwhile.
        self._sizes = self._sizes - Counter({sink: len(entries)})

    def close(self) -> None:
        """Closes the file."""
        self._db.close()
