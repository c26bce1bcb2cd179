"""One request, one attempt, one complete answer: the only place that knows aiohttp's client."""

from __future__ import annotations

import asyncio
import errno
import functools
import math
import ssl
import urllib.request
from collections.abc import Mapping
from types import TracebackType
from typing import Final

import aiohttp
import anyio
import attrs
from aiohttp.connector import Connection
from yarl import URL

from vizwatch._values.errors import (
    CallError,
    ConfigError,
    ConnectError,
    ProtocolError,
    RequestTimeoutError,
    TlsError,
    TransportError,
    VizwatchError,
)
from vizwatch._values.exchange import Answer
from vizwatch._values.settings import Settings
from vizwatch._values.text import printable
from vizwatch._world.bulkhead import Bulkhead, Place, Standing, leave
from vizwatch._world.line import Line, in_time

_LOCAL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL})
_CLOSE_WITHIN: Final = 2.0
_MAX_HEADER: Final = 66_560  # a token comes in a header: up to 64 KiB, and its name; aiohttp's is 8190 bytes
_KEPT_MEMORY: Final = 2**20
_VERSIONS: Final = (aiohttp.HttpVersion10, aiohttp.HttpVersion11)
_BROKEN_TLS: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


class _DisconnectedError(Exception):
    """A disconnect, under a name that aiohttp does not answer by sending GET, PUT and DELETE again."""


class _Response(aiohttp.ClientResponse):
    """An answer; aiohttp takes any three digits for its status, and any version from 0.9 to 2.0."""

    @property
    def is_http(self) -> bool:
        return 200 <= self.status < 600 and self.version in _VERSIONS

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        protocol = connection.protocol  # which is back in the pool, where the whole answer is here already
        await super().start(connection)
        if protocol is not None and not self.is_http:
            protocol.close()
        return self


async def _send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType, *, given: Mapping[str, str]
) -> aiohttp.ClientResponse:
    # A session that is the caller's may have cookies and credentials; they are not this API's.
    for name in ("Cookie", "Authorization"):
        if name not in given:
            request.headers.pop(name, None)
    request.response_class = _Response
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        raise _DisconnectedError from None


class Pool:
    """Connections for one transport, or for several that share them; those are made when first needed.

    Args:
        settings: How many there may be at once.
        session: The caller's own session, which is never closed here; by default one is made.
    """

    def __init__(self, settings: Settings, session: aiohttp.ClientSession | None = None) -> None:
        self._settings = settings
        self._is_ours = session is None
        self._session = session
        self.places = Bulkhead(settings.pool_size)
        """Those of all who share it."""

    @property
    def session(self) -> aiohttp.ClientSession:
        """What holds the connections."""
        size = self._settings.pool_size
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=size, limit_per_host=size),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self._settings.trust_env,
            )
        return self._session

    async def aclose(self) -> None:
        """Closes what is not the caller's; also in a cancelled scope, and within bounded time."""
        if self._is_ours and self._session is not None:
            with anyio.move_on_after(_CLOSE_WITHIN, shield=True):
                # Shielded from cancellation by asyncio's own means too: an interrupted close leaks sockets.
                await asyncio.shield(self._session.close())


@attrs.frozen(eq=False)
class Share:
    """What a project has of a pool that is shared, which is never closed by it."""

    pool: Pool
    standing: Standing = attrs.field(factory=Standing)


def own_session(given: object) -> aiohttp.ClientSession | Share | None:
    """A session of the caller's own, a share of a pool, or ``None``. Else raises :class:`ConfigError`."""
    if given is not None and not isinstance(given, aiohttp.ClientSession | Share):
        raise ConfigError(f"session must be an aiohttp.ClientSession, not {type(given).__name__}")
    return given


class _Place:
    """A place of a transport's own, and one of the pool that it shares, during an ``async with`` block."""

    def __init__(self, own: Line, shared: Place | None) -> None:
        self._own = own
        self._shared = shared

    async def __aenter__(self) -> None:
        if self._shared is not None:
            await self._shared.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        leave(self._own, None if self._shared is not None else error)
        return self._shared is not None and await self._shared.__aexit__(kind, error, traceback)


class Transport:
    """Sends requests to one endpoint over a pool of connections.

    Args:
        endpoint: `https://host[:port]`.
        settings: How many of the connections it may use at once, timeouts and the largest body.
        session: The caller's own session, or a share of a pool: never closed here. By default it has a pool
            of its own.

    Raises:
        ConfigError: The session is none, or a proxy of the environment, which is to be used, has no address.
    """

    def __init__(
        self, endpoint: str, settings: Settings, session: aiohttp.ClientSession | Share | None = None
    ) -> None:
        self._share = session if isinstance(session, Share) else None
        self._pool = session.pool if isinstance(session, Share) else Pool(settings, session)
        trust_env = session.trust_env if isinstance(session, aiohttp.ClientSession) else settings.trust_env
        unusable = _unusable_proxy(URL(endpoint)) if trust_env else None
        if unusable is not None:
            raise ConfigError(
                f"the proxy of {unusable.upper()}_PROXY (used since trust_env is set) must be an address "
                "such as http://host:3128; it may hold a password, and is not shown"
            )
        self.endpoint = endpoint
        self._settings = settings
        self._session = self._pool.session
        # glibc gives freed memory back, and each large answer would fault it in anew, up to the size of the
        # largest block that was freed so far: one that is never touched costs microseconds.
        bytes(_KEPT_MEMORY)
        # Waiting here, and not in aiohttp's connector, tells "no connection was free" from "no answer came".
        self._places = Line(settings.pool_size)

    async def place(self, within: float) -> _Place:
        """A place among the connections, for one request: `async with await transport.place(10): …`.

        In a pool that is shared it may be called back, as of :class:`Bulkhead`: the block ends, in silence.

        Raises:
            ConnectError: None was free within that time, in seconds.
        """
        try:
            return await in_time(self._place(), asyncio.get_running_loop().time() + within)
        except TimeoutError:
            is_slow = self._share is not None and self._share.standing.is_slow
            which = "none of those for projects that are slow" if is_slow else "no connection"
            raise ConnectError(
                f"{self.endpoint}: {which} was free within {within:g} s (Settings.pool_size)"
            ) from None

    async def _place(self) -> _Place:
        await self._places.come()
        if self._share is None:
            return _Place(self._places, None)
        try:
            return _Place(self._places, await self._pool.places.place(self._share.standing))
        except BaseException:
            self._places.go()
            raise

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, *, within: float
    ) -> Answer:
        """Sends a request once, in a :meth:`place`, and gives the whole answer, whatever its status.

        Args:
            method: The HTTP method.
            target: Path and query, percent-encoded.
            headers: To be sent, credentials included.
            body: To be sent; empty for none.
            within: The time for all of it, in seconds.

        Raises:
            ConnectError: Nothing was sent.
            TlsError: Nothing was sent, and nothing will be, as TLS was refused.
            RequestTimeoutError: No complete answer came within that time.
            ConfigError: The caller's session is closed, or has credentials of its own.
            TransportError: The connection broke before the answer was complete.
            ProtocolError: The answer is not HTTP, or larger than `Settings.max_body`.
        """
        if self._session.closed:
            raise ConfigError("the session given to this client is closed: close it after the client")
        try:
            return await self._exchange(method, target, headers, body, within)
        except (aiohttp.ClientError, OSError, _DisconnectedError) as error:
            failure: VizwatchError = self._failure(error, within)
        except ValueError:
            failure = ConfigError(
                "aiohttp refuses this request: has the session an auth= of its own, or .netrc an entry for "
                "this host? They cannot go with the client's credentials"
            )
        # Outside of the except clause: aiohttp's exceptions hold the request's headers, the token among
        # them, and must not hang on ours as context.
        raise failure

    async def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, within: float
    ) -> Answer:
        sent_at = asyncio.get_running_loop().time()
        response = await self._session.request(
            method,
            URL(self.endpoint + target, encoded=True),
            headers=headers,
            data=body or None,
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=True,
            timeout=_timeout(max(within, 0.001), self._settings.connect_timeout),
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
            middlewares=(functools.partial(_send_once, given=headers),),
        )
        try:
            return Answer(response.status, response.headers, await self._read(response), sent_at)
        except BaseException:
            response.close()  # what is read to its end has given its connection back
            raise

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if isinstance(response, _Response) and not response.is_http:
            raise ProtocolError(
                f"{self.endpoint}: the answer is not HTTP/1.1 with a status of 200 to 599",
                http_status=response.status,
            )
        chunks: list[bytes] = []
        size = 0
        while chunk := await response.content.readany():
            size += len(chunk)
            if size > self._settings.max_body:
                raise ProtocolError(
                    f"{self.endpoint}: the answer is larger than {self._settings.max_body} bytes "
                    "(Settings.max_body)",
                    http_status=response.status,
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _failure(self, error: Exception, within: float) -> CallError:
        place = self.endpoint
        match error:
            case aiohttp.ClientSSLError() if not isinstance(error.os_error, _BROKEN_TLS):
                return self._refusal_of_tls(_tls_reason(error.os_error))
            case aiohttp.ServerFingerprintMismatch():
                return self._refusal_of_tls("the certificate has another fingerprint")
            case aiohttp.ClientProxyConnectionError():
                return ConnectError(f"{place}: no connection to the proxy: {_reason(error.os_error)}")
            case aiohttp.ClientHttpProxyError():
                return self._refusal_of_proxy(error.status)
            case aiohttp.InvalidURL():
                return ConnectError(f"{place}: not sent: the proxy has no address", retryable=False)
            case aiohttp.ConnectionTimeoutError():
                return ConnectError(f"{place}: no connection within {self._settings.connect_timeout:g} s")
            case aiohttp.ClientConnectorError():
                failure = ConnectError(f"{place}: no connection: {_reason(error.os_error)}")
                failure.is_local = error.os_error.errno in _LOCAL
                return failure
            case TimeoutError():
                return RequestTimeoutError(f"{place}: no complete answer within {within:g} s")
            case aiohttp.ClientResponseError():
                # aiohttp's text quotes the line that it could not read, whatever stands in it.
                return ProtocolError(f"{place}: the answer is not HTTP, or its headers are too long")
            case _:
                return TransportError(f"{place}: the connection broke before the answer was complete")

    def _refusal_of_tls(self, reason: str) -> TlsError:
        return TlsError(
            f"{self.endpoint}: TLS was refused: {reason}. Check the endpoint's host and port, the server's "
            "certificate, and this machine's clock and CA certificates"
        )

    def _refusal_of_proxy(self, status: int) -> ConnectError:
        """The proxy was asked for a connection (CONNECT) and gave none, so that nothing was sent over it."""
        asks = ": it wants another user and password" if status == 407 else ""
        return ConnectError(
            f"{self.endpoint}: no connection: the proxy refused it with HTTP {status}{asks}",
            retryable=not 400 <= status < 500 or status in {408, 429},
        )

    async def aclose(self) -> None:
        """Closes the pool, unless it is shared; as :meth:`Pool.aclose`."""
        if self._share is None:
            await self._pool.aclose()


@functools.lru_cache(16)
def _timeout(within: float, connect: float) -> aiohttp.ClientTimeout:
    # The time to connect ends first: what it ends was not sent. Nothing is rounded up to whole seconds.
    return aiohttp.ClientTimeout(total=within, connect=min(connect, 0.98 * within), ceil_threshold=math.inf)


def _reason(error: OSError) -> str:
    return printable(error.strerror or type(error).__name__)


def _tls_reason(error: OSError) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return printable(error.verify_message)
        case ssl.SSLError(reason=str(reason)):
            return printable(reason.replace("_", " ").lower())
        case _:
            return _reason(error)


def _unusable_proxy(endpoint: URL) -> str | None:
    """The scheme whose proxy aiohttp would fail with, or silently not use, as one that is reached by TLS."""
    for scheme, address in urllib.request.getproxies().items():
        if scheme not in {"http", "https", "ws", "wss"}:
            continue
        try:
            proxy = URL(address)
            is_address = proxy.scheme == "http" and proxy.host is not None and proxy.port is not None
        except ValueError:
            return scheme  # aiohttp reads them all
        if (
            not is_address
            and scheme == endpoint.scheme
            and not urllib.request.proxy_bypass(endpoint.host or "")
        ):
            return scheme
    return None
