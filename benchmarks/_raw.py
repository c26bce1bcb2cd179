"""A server of raw sockets, which answers as no HTTP library would, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

import attrs


@attrs.frozen
class Asked:
    """A request that came in."""

    method: str
    path: str
    query: Mapping[str, str]
    head: str
    """Request line and headers, as sent."""


Reply = Callable[[Asked], bytes]
"""From a request to the bytes of its answer; a connection that was answered with none is closed."""


def http(
    body: Any = None,
    status: str = "200 OK",
    *headers: str,
    raw: bytes | None = None,
    kind: str = "application/json",
) -> bytes:
    """A whole HTTP/1.1 answer with `body` as JSON, or with the bytes `raw`."""
    content = json.dumps(body).encode() if raw is None else raw
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *headers, f"Content-Length: {len(content)}"]
    return "\r\n".join([*head, "", ""]).encode() + content


def one_by_one(*replies: bytes) -> Reply:
    """Answers the n-th request with the n-th reply, and every later one with the last."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


class RawServer:
    """Answers each request as it is told; listens while its ``async with`` block runs."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[Asked] = []

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        self._tasks.discard(task)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
        if length:
            await reader.readexactly(int(length[0].partition(":")[2]))
        method, target, _ = head.partition("\r\n")[0].split(" ")
        path, _, query = target.partition("?")
        asked = Asked(method, path, dict(parse_qsl(query)), head)
        self.requests.append(asked)
        answer = self._reply(asked)
        writer.write(answer)
        await writer.drain()
        return bool(answer) and not _is_cut(answer)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        tasks: Sequence[asyncio.Task[None]] = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()


def cut(answer: bytes, missing: int) -> bytes:
    """The answer without its last bytes, after which the connection is closed."""
    return answer[:-missing]


def _is_cut(answer: bytes) -> bool:
    head, _, content = answer.partition(b"\r\n\r\n")
    announced = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
    return not announced or int(announced[0].partition(b": ")[2]) > len(content)
