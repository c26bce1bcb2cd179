"""Between client and emulated cloud in a soak: a network that can be down, and what counts the requests."""

from __future__ import annotations

import array
import asyncio
import contextlib
import enum
import errno
import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import attrs

_DUE: Final = 0.75
_TAKES: Final = 2.0
_RELAYED: Final = re.compile(rb"(?i)\r\nx-subject-token: *([^\r]+)")


class Cut(enum.Enum):
    """In which way a network is down."""

    REFUSED = "connections are refused"
    SILENT = "connections are never made"


class Network(aiohttp.TCPConnector):
    """A connector whose network goes down and comes back, and which counts the requests of each second.

    Args:
        seconds: For how long it counts.
        limit: How many connections it makes at most.
    """

    def __init__(self, seconds: int, limit: int) -> None:
        super().__init__(limit=limit)
        empty = bytes(array.array("I").itemsize * (seconds + 1))
        self.tried = array.array("I", empty)
        """What the client would send, by the second."""
        self.passed = array.array("I", empty)
        """What of it came through."""
        self._began = asyncio.get_running_loop().time()
        self._cut: Cut | None = None
        self.up = asyncio.Event()
        self.up.set()

    def go_down(self, cut: Cut) -> None:
        """Lets nothing through from now on."""
        self._cut = cut
        self.up.clear()

    def come_up(self) -> None:
        """Lets everything through again."""
        self._cut = None
        self.up.set()

    @property
    def now(self) -> float:
        """Seconds since it was made."""
        return asyncio.get_running_loop().time() - self._began

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own, which it sees to itself
    ) -> Any:
        """A connection, old or new: what aiohttp asks for once for each request."""
        self._count(self.tried)
        if self._cut is Cut.REFUSED:
            refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            raise aiohttp.ClientConnectorError(req.connection_key, refused)
        await self.up.wait()
        self._count(self.passed)
        return await super().connect(req, traces, timeout)

    def _count(self, by_second: array.array[int]) -> None:
        second = int(self.now)
        if second < len(by_second):
            by_second[second] += 1

    def rate(self, by_second: Sequence[int], start: float, end: float) -> float:
        """Requests a second, on average."""
        return sum(by_second[int(start) : int(end)]) / max(int(end) - int(start), 1)

    def peak(self, start: float, end: float, width: int) -> float:
        """Requests a second that came through, in the busiest `width` seconds."""
        last = min(int(end), len(self.passed)) - width
        return max(sum(self.passed[at : at + width]) for at in range(int(start), last + 1)) / width


@attrs.define
class Identity:
    """Stands before the identity service: relays its calls while the network is up, and counts them.

    A token is due when there is none, when the service has revoked the last one, or when three quarters of
    that one's life are over; any other one that is got is needless.
    """

    target: str
    """The identity service."""
    network: Network
    lifetime: float
    """Of a token, in seconds."""
    asked: int = attrs.field(default=0, init=False)
    """Calls that came."""
    given: int = attrs.field(default=0, init=False)
    """Those that were answered with a token."""
    needless: int = attrs.field(default=0, init=False)
    """Those of them that were not due."""
    secrets: list[str] = attrs.field(factory=list, init=False, repr=False)
    """All tokens that were given, and whatever else must not be shown."""
    _given_at: float | None = attrs.field(default=None, init=False)
    _server: asyncio.Server | None = attrs.field(default=None, init=False)

    @property
    def rotations(self) -> int:
        """How often a token took another one's place."""
        return max(self.given - 1, 0)

    def revoked(self) -> None:
        """The service refuses the last token from now on."""
        self._given_at = None

    async def start(self) -> str:
        """Listens, and gives its address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        """Listens no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            (length,) = re.findall(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
            body = await reader.readexactly(int(length))
            self.asked += 1
            if not self.network.up.is_set():
                # Refused or silent, a client with one call at a time cannot tell it from this.
                return
            await asyncio.sleep(_TAKES)  # meanwhile, whoever else needs a token must wait for this one
            answer = await self._relayed(head, body)
            self._note(answer)
            writer.write(answer)
            await writer.drain()

    async def _relayed(self, head: bytes, body: bytes) -> bytes:
        address = urlsplit(self.target)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        with contextlib.closing(writer):
            writer.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
            return await reader.read()

    def _note(self, answer: bytes) -> None:
        token = _RELAYED.search(answer)
        if not answer.startswith(b"HTTP/1.1 201") or token is None:
            return
        self.given += 1
        self.secrets.append(token[1].decode())
        now = self.network.now
        if self._given_at is not None and now - self._given_at < _DUE * self.lifetime:
            self.needless += 1
        self._given_at = now
