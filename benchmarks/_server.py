"""A canned server in a process of its own: pages of documented rows, encoded once.

The project in the address says what is listed: `plain-100000` has 100,000 jobs, and `schedule-100000` as
many with a schedule each. Run as a program it prints its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parent.parent
_STATUSES: Final = (10, 10, 8, 12, 10, 11, 8, 10, 7, 10)
_FIRST_CREATED: Final = 1_565_149_736_000


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


def _row(number: int, kind: str) -> dict[str, Any]:
    """A job with all the fields of the published list samples, at lengths that are typical of them."""
    row: dict[str, Any] = {
        "job_id": number,
        "job_name": f"visualization-{number % 1_000_000}",
        "status": _STATUSES[number % len(_STATUSES)],
        "create_time": _FIRST_CREATED + number * 61_007,
        "resource_id": str(uuid.uuid5(uuid.NAMESPACE_URL, str(number))),
        "duration": 1_502_323 + number,
        "job_desc": "This is a visualization job",
        "service_url": f"https://console.huaweicloud.com/modelarts/tensorboard/xxxx/{number}",
        "train_url": f"/obs/name/{number}/",
        "remaining_duration": None,
    }
    if kind == "schedule":
        row["schedule"] = [{"type": "stop", "timeUnit": "HOURS", "duration": 1 + number % 24}]
    return row


@functools.cache
def _answer(kind: str, total: int, per_page: int, page: int) -> bytes:
    """A whole HTTP answer."""
    start = (page - 1) * per_page + 1
    envelope = {
        "quotas": 100,
        "is_success": True,
        "job_total_count": total,
        "job_count_limit": 999,
        "jobs": [_row(number, kind) for number in range(start, min(start + per_page, total + 1))],
    }
    body = json.dumps(envelope, separators=(",", ":")).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _answer_to(head: bytes) -> bytes:
    target = head.split(b" ", 2)[1].decode()
    path, _, query = target.partition("?")
    project = re.fullmatch(r"/v1/(plain|schedule)-([0-9]+)/visualization-jobs", path)
    if project is None:
        raise ValueError(f"nothing is listed at {path}")
    options = dict(option.split("=") for option in query.split("&"))
    return _answer(project[1], int(project[2]), int(options["per_page"]), int(options["page"]))


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
        while True:
            writer.write(_answer_to(await reader.readuntil(b"\r\n\r\n")))
            await writer.drain()


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The parent holds the other end, so that even one that was killed leaves no server behind.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main())
