"""A server of raw sockets, for what an HTTP library would never send, and a client for it."""

from __future__ import annotations

import asyncio
import json
import ssl
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import vizwatch

Reply = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def http(
    body: Any = None,
    *,
    status: str = "200 OK",
    headers: Sequence[str] = ("Content-Type: application/json",),
    raw: bytes | None = None,
) -> bytes:
    """A whole HTTP/1.1 answer with `body` as JSON, or with the bytes `raw`."""
    content = json.dumps(body).encode() if raw is None else raw
    head = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(content)}"]
    return "\r\n".join([*head, "", ""]).encode() + content


def bomb(kind: int, size: int = 512) -> bytes:
    """JSON of `size` MiB, all of it blanks, compressed: gzip (31) or zlib (15) by zlib's `wbits`."""
    compressor = zlib.compressobj(1, wbits=kind)
    parts = [compressor.compress(part) for part in (b"[", *[b" " * 2**20] * size, b"]")]
    return b"".join([*parts, compressor.flush()])


class RawServer:
    """Answers the n-th request with the n-th reply, and every later one with the last.

    A reply is bytes to send as they are (an empty one closes the connection), or a function that is given
    reader and writer. `requests` has the head and body of each request, `seen` how many came for each method
    and path.
    """

    def __init__(self, *replies: Reply, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._replies = replies
        self._port = port
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[bytes] = []
        self.seen: Counter[tuple[str, str]] = Counter()
        self.connections = 0

    @property
    def endpoint(self) -> str:
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{'https' if self._tls else 'http'}://{host}:{port}"

    def close(self) -> None:
        """Stops listening, so that connections are refused."""
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            pass  # the server is closing; asyncio would report it as a failed callback
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
        self.requests.append(head + body)
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        self.seen[method, target.partition("?")[0]] += 1
        reply = self._replies[min(len(self.requests), len(self._replies)) - 1]
        if not isinstance(reply, bytes):
            await reply(reader, writer)
            return False
        writer.write(reply)
        await writer.drain()
        return bool(reply)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, ssl=self._tls, limit=2**18
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()


@asynccontextmanager
async def client_of(
    server: RawServer | str,
    *,
    project_id: str = "p1",
    auth: Any = "canary-token",
    session: Any = None,
    **settings: Any,
) -> AsyncIterator[vizwatch.Client]:
    """A client of the server, or of an endpoint, that hardly waits between its attempts."""
    endpoint = server if isinstance(server, str) else server.endpoint
    quick = vizwatch.Settings(**{"backoff_base": 0.01, "backoff_max": 0.01, **settings})
    async with vizwatch.Client(endpoint, project_id, auth=auth, settings=quick, session=session) as client:
        yield client
