"""The log of a service, on stderr: written by a thread, so that whoever does not read it holds up nothing."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue
import sys
import time
from collections.abc import Iterator
from typing import Final

_FORMAT: Final = "vizwatch: %(levelname)s: %(message)s"
_MOST: Final = 10_000
"""How many lines may wait; those beyond are left out."""
_EVERY: Final = 60.0


class _Handler(logging.handlers.QueueHandler):
    """Hands lines to the thread that writes."""

    _left_out = 0
    """How many, since the last one that was handed over."""

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self._left_out:
                self.queue.put_nowait(self._about(self._left_out))
                self._left_out = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._left_out += 1

    @staticmethod
    def _about(left_out: int) -> logging.LogRecord:
        text = f"{left_out} lines are left out, as nobody read those before"
        return logging.LogRecord("vizwatch.service", logging.WARNING, __file__, 0, text, None, None)


class _Listener(logging.handlers.QueueListener):
    """Writes the lines."""

    def __init__(self, lines: queue.Queue[logging.LogRecord | None], writer: logging.Handler) -> None:
        super().__init__(lines, writer)
        self._lines = lines

    def enqueue_sentinel(self) -> None:
        self._lines.put(None)  # behind as many lines as may wait


class _Others(logging.Filter):
    """Of what other libraries say, the same once a minute: they may say it a thousand times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == "vizwatch":
            return True
        key, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._said_at.get(key, -_EVERY) < _EVERY:
            return False
        if len(self._said_at) >= _MOST:
            self._said_at.clear()
        self._said_at[key] = now
        return True


@contextlib.contextmanager
def logged_to_stderr() -> Iterator[None]:
    """Logs what this package says, and warnings of others, until the block ends."""
    lines: queue.Queue[logging.LogRecord | None] = queue.Queue(_MOST)
    writer = logging.StreamHandler(sys.stderr)
    writer.setFormatter(logging.Formatter(_FORMAT))
    listener = _Listener(lines, writer)
    handler = _Handler(lines)
    handler.addFilter(_Others())
    root = logging.getLogger()
    before, root.handlers[:] = root.handlers[:], [handler]
    logging.getLogger("vizwatch").setLevel(logging.INFO)
    listener.start()
    try:
        yield
    finally:
        root.handlers[:] = before
        listener.stop()
