"""A canned server in a process of its own: documented answers, encoded once, and what was asked counted.

The project in the address says what it has: `plain-100000` has 100,000 jobs, `schedule-100000` as many with
a schedule each, `running-100000` as many that all run and never change, `ageing-100000` the same with a
duration that grows second by second. What follows a further hyphen tells projects of one kind apart; of those
where it begins with `timed`, the times between the reads of each job are kept. Run as a program it prints its
port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import subprocess
import sys
import time
import urllib.request
import uuid
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

_ROOT: Final = Path(__file__).parent.parent
_STATUSES: Final = (10, 10, 8, 12, 10, 11, 8, 10, 7, 10)
_RUNNING: Final = 8
_FIRST_CREATED: Final = 1_565_149_736_000
_ENDS: Final = b"\r\n\r\n"


@contextlib.contextmanager
def canned_server() -> Iterator[str]:
    """A running server's endpoint."""
    command = [sys.executable, "-m", "benchmarks._server"]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            port = int(child.stdout.readline())
            yield f"http://127.0.0.1:{port}"
        finally:
            child.kill()


@attrs.frozen
class Asked:
    """What a server was asked since it was last asked for this."""

    lists: int
    details: int
    gaps: array[float]
    """Seconds between two reads of one job's details, of all jobs of the timed projects, in no order."""
    cpu: float
    """Seconds of the server's own CPU, which must not be all that there is."""


def asked(endpoint: str) -> Asked:
    """What that server was asked; it begins to count anew."""
    with urllib.request.urlopen(f"{endpoint}/asked", timeout=30) as answer:
        told = json.load(answer)
    return Asked(told["lists"], told["details"], array("d", told["gaps"]), told["cpu"])


def _row(number: int, kind: str, second: int) -> dict[str, Any]:
    """A job with all the fields of the published list samples, at lengths that are typical of them."""
    lasting = kind in {"running", "ageing"}
    row: dict[str, Any] = {
        "job_id": number,
        "job_name": f"visualization-{number % 1_000_000}",
        "status": _RUNNING if lasting else _STATUSES[number % len(_STATUSES)],
        "create_time": _FIRST_CREATED + number * 61_007,
        "resource_id": str(uuid.uuid5(uuid.NAMESPACE_URL, str(number))),
        "duration": 1_502_323 + number + second * 1000,
        "job_desc": "This is a visualization job",
        "service_url": f"https://console.huaweicloud.com/modelarts/tensorboard/xxxx/{number}",
        "train_url": f"/obs/name/{number}/",
        "remaining_duration": None,
    }
    if kind == "schedule":
        row["schedule"] = [{"type": "stop", "timeUnit": "HOURS", "duration": 1 + number % 24}]
    return row


def _http(document: dict[str, Any]) -> bytes:
    body = json.dumps(document, separators=(",", ":")).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@functools.lru_cache(1024)
def _page(kind: str, total: int, per_page: int, page: int, second: int) -> bytes:
    start = (page - 1) * per_page + 1
    numbers = range(start, min(start + per_page, total + 1))
    return _http(
        {
            "quotas": 100,
            "is_success": True,
            "job_total_count": total,
            "job_count_limit": 999,
            "jobs": [_row(number, kind, second) for number in numbers],
        }
    )


@functools.lru_cache(100_000)
def _details(kind: str, number: int, second: int) -> bytes:
    return _http({**_row(number, kind, second), "is_success": True})


_TARGET: Final = re.compile(
    r"/v1/(?P<kind>plain|schedule|running|ageing)-(?P<total>[0-9]+)(?P<which>-[^/]*)?/visualization-jobs"
    r"(?:/(?P<number>[0-9]+))?"
)


class _Log:
    """What was asked so far."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._at: dict[str, float] = {}
        self._forget()

    def _forget(self) -> None:
        self._lists = self._details = 0
        self._gaps = array("d")
        self._cpu = time.process_time()

    def answer_to(self, head: bytes) -> bytes:
        """A whole HTTP answer."""
        target = head.split(b" ", 2)[1].decode()
        path, _, query = target.partition("?")
        if path == "/asked":
            return self._told()
        found = _TARGET.fullmatch(path)
        if found is None:
            raise ValueError(f"there is nothing at {path}")
        kind, total, which, number = found.groups()
        now = time.monotonic()
        second = int(now - self._started) if kind == "ageing" else 0
        if number is not None:
            self._details += 1
            if which is not None and which.startswith("-timed"):
                self._note(path, now)
            return _details(kind, int(number), second)
        self._lists += 1
        options = dict(option.split("=") for option in query.split("&"))
        return _page(kind, int(total), int(options["per_page"]), int(options["page"]), second)

    def _note(self, path: str, now: float) -> None:
        before = self._at.get(path)
        self._at[path] = now
        if before is not None:
            self._gaps.append(now - before)

    def _told(self) -> bytes:
        told = {
            "lists": self._lists,
            "details": self._details,
            "gaps": self._gaps.tolist(),
            "cpu": time.process_time() - self._cpu,
        }
        self._forget()
        return _http(told)


class _Connection(asyncio.Protocol):
    """Answers one request after the other, without a task: the server must not be what is measured."""

    def __init__(self, log: _Log) -> None:
        self._log = log
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *heads, self._head = (self._head + data).split(_ENDS)
        for head in heads:
            self._transport.write(self._log.answer_to(head))


async def _main() -> None:
    log = _Log()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(log), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The parent holds the other end, so that even one that was killed leaves no server behind.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main())
