"""HTTP as it should not be: what aiohttp does by itself, broken servers, broken answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import gzip
import json
import logging
import socket
import ssl
import threading
import tracemalloc
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
import trustme
from canaries import shown
from servers import RawServer, http
from virtual import elapse

import vizwatch
from vizwatch._world.line import Due

pytestmark = pytest.mark.looptime

PROJECT = "p1"
JOBS = f"/v1/{PROJECT}/visualization-jobs"
JOB = {"job_id": 197, "status": 8, "is_success": True}
CANARY = "canary-token"
CLOSE = b""


@asynccontextmanager
async def client_of(server: RawServer | str, **options: Any) -> AsyncIterator[vizwatch.Client]:
    endpoint = server if isinstance(server, str) else server.endpoint
    settings = vizwatch.Settings(**{"backoff_base": 0.01, "backoff_max": 0.01, **options.pop("settings", {})})
    async with vizwatch.Client(endpoint, PROJECT, auth=CANARY, settings=settings, **options) as client:
        yield client


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await elapse(3600)


async def test_a_request_is_sent_as_the_documents_say() -> None:
    async with RawServer(http(JOB)) as server, client_of(server) as client:
        await client.get_job(197)
    head = server.requests[0].decode().lower()
    assert head.startswith(f"get {JOBS}/197 http/1.1\r\n")
    assert f"x-auth-token: {CANARY}\r\n" in head
    assert "accept-encoding: gzip, deflate\r\n" in head
    assert "cookie" not in head


@pytest.mark.fault("N6")
@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("call", ["get_job", "stop_job", "delete_job", "restart_job"])
async def test_an_attempt_is_sent_once_though_the_server_closes_without_a_reply(
    call: str, attempts: int
) -> None:
    """Aiohttp alone would send GET and DELETE twice (wire.md, 1)."""
    async with RawServer(CLOSE) as server, client_of(server, settings={"attempts": attempts}) as client:
        with pytest.raises(vizwatch.TransportError) as caught:
            await getattr(client, call)(197)
    is_read = call == "get_job"
    sent = {method for method, _ in server.seen} - {"GET"} or {"GET"}
    assert [count for (method, _), count in server.seen.items() if method in sent] == [
        attempts if is_read else 1
    ]
    assert (caught.value.attempts, caught.value.elapsed is None) == (attempts if is_read else 1, False)
    assert isinstance(caught.value, vizwatch.OutcomeUnknownError) == (not is_read)


@pytest.mark.fault("N6", "S10")
async def test_an_update_is_sent_again_because_twice_is_the_same_as_once() -> None:
    async with RawServer(CLOSE, http({"is_success": True})) as server, client_of(server) as client:
        await client.update_job(197, "text")
    assert server.seen == {("PUT", f"{JOBS}/197"): 2}


@pytest.mark.fault("N7")
async def test_a_connection_that_the_server_closed_while_idle_is_not_the_users_concern() -> None:
    async with RawServer(http(JOB), CLOSE, http(JOB)) as server, client_of(server) as client:
        await client.get_job(197)
        await client.get_job(197)
    assert server.seen == {("GET", f"{JOBS}/197"): 3}


@pytest.mark.fault("H7")
@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
async def test_a_redirect_is_not_followed_and_gets_no_token(status: str) -> None:
    """Aiohttp alone would forward the token to another host (wire.md, 2)."""
    async with RawServer(http(JOB)) as trap:
        reply = http(status=status, headers=(f"Location: {trap.endpoint}/?secret=1",), raw=b"")
        async with RawServer(reply) as server, client_of(server) as client:
            with pytest.raises(
                vizwatch.ProtocolError, match=r"redirected to 127\.0\.0\.1, which is not"
            ) as caught:
                await client.get_job(197)
    assert trap.connections == 0
    assert "secret" not in str(caught.value)


@pytest.mark.fault("H13")
async def test_headers_may_be_as_long_as_a_token() -> None:
    """Aiohttp alone stops at 8190 bytes (wire.md, 3)."""
    long = http(JOB, headers=("X-Subject-Token: " + "t" * 60_000, "Content-Type: application/json"))
    async with RawServer(long) as server, client_of(server) as client:
        assert (await client.get_job(197)).job_id == 197


@pytest.mark.fault("H13")
@pytest.mark.parametrize(
    "headers", [("X-Long: " + "x" * 70_000,), tuple(f"X-{n}: x" for n in range(200))], ids=["long", "many"]
)
async def test_headers_have_a_bound(headers: tuple[str, ...]) -> None:
    async with RawServer(http(JOB, headers=headers)) as server, client_of(server) as client:
        with pytest.raises(vizwatch.ProtocolError, match="not HTTP, or its headers are too long"):
            await client.get_job(197)


FAILING = {
    "closed": CLOSE,
    "bad status line": b"HTTP/1.1 banana\r\n\r\n",
    "not HTTP": b"220 smtp.example.com ready\r\n\r\n",
    "truncated": http(JOB)[:-3],
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "broken gzip": http(raw=b"not gzip", headers=("Content-Encoding: gzip",)),
    "login page": http(raw=b"<html>Log in", headers=("Content-Type: text/html",)),
    "another job": http({"job_id": 198, "status": 8}),
    "garbage": http(raw=b"{"),
    "refused": http({"error_code": "ModelArts.0108", "error_msg": f"no: {CANARY}"}, status="403 Forbidden"),
    "echo": http({"error_msg": f"bad token {CANARY}"}, status="401 Unauthorized"),
    "escaped echo": http(raw=b'{"error_msg": "bad \\u0063anary-token"}', status="401 Unauthorized"),
    "echo as code": http({"error_code": CANARY, "error_msg": "x"}, status="400 Bad Request"),
    "echo as request id": http({}, status="400 Bad Request", headers=(f"X-request-id: {CANARY}",)),
    "echo as type": http(raw=b"<html>", headers=(f"Content-Type: text/html; {CANARY}",)),
    "echo as value": http({"job_id": CANARY, "status": 8}),
    "echo as host": http(status="302 Found", headers=(f"Location: https://{CANARY}/",)),
    "echo of the head": b"HTTP/1.1 200 OK\r\nX-Auth-Token canary-token\r\n\r\n",
    "echo of the line": b"canary-token\r\n\r\n",
    "busy": http({"error_msg": "busy"}, status="429 Too Many Requests"),
}


NOT_HTTP = {
    **{name: FAILING[name] for name in ("bad status line", "not HTTP", "negative length", "two lengths")},
    "HTTP/0.9": json.dumps(JOB).encode(),
    "HTTP/0.9 with a head": http(JOB).replace(b"HTTP/1.1", b"HTTP/0.9"),
    "HTTP/2.0": http(JOB).replace(b"HTTP/1.1", b"HTTP/2.0"),
    **{
        f"status {status}": http(JOB, status=f"{status} Odd")
        for status in ("099", "101", "600", "999", "1000")
    },
}


@pytest.mark.fault("H11")
@pytest.mark.parametrize("fault", NOT_HTTP)
async def test_what_is_not_http_is_a_protocol_error_and_its_connection_is_dropped(fault: str) -> None:
    async with RawServer(NOT_HTTP[fault]) as server, client_of(server) as client:
        with pytest.raises(vizwatch.ProtocolError, match="the answer is not HTTP") as caught:
            await client.get_job(197)
        assert type(caught.value) is vizwatch.ProtocolError
        assert server.connections == len(server.requests) == 2, "doubted once, and on another connection"
        with pytest.raises(vizwatch.OutcomeUnknownError):
            await client.create_job("tb", "/obs/name/")
    assert server.connections == len(server.requests) == 3


@pytest.mark.fault("H12")
@pytest.mark.parametrize("status", [413, 414, 431, 494])
async def test_a_gateways_limit_is_not_met_twice(status: int) -> None:
    """Not by a watch, either: it asks for the same with the same headers each time."""
    page = http(raw=b"<html>Too Large", status=f"{status} No", headers=("Content-Type: text/html",))
    async with RawServer(page) as server, client_of(server) as client:
        for call in (client.get_job(197), anext(client.watch(197)), client.create_job("tb", "/obs/name/")):
            with pytest.raises(vizwatch.BadRequestError, match=f"HTTP {status}: .*A gateway's limit of the"):
                await call
    assert server.seen.total() == 3


async def truncate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(FAILING["truncated"])
    await writer.drain()


@pytest.mark.fault("N10")
@pytest.mark.parametrize("fault", FAILING)
async def test_a_broken_answer_is_an_error_of_ours_and_shows_no_secret(fault: str) -> None:
    """Aiohttp's own exceptions hold the token (wire.md, 4); none is part of what is raised."""
    reply = truncate if fault == "truncated" else FAILING[fault]
    async with RawServer(reply) as server, client_of(server) as client:
        with pytest.raises(vizwatch.VizwatchError) as caught:
            await client.get_job(197)
    text = shown(caught.value)
    assert CANARY not in text
    assert "aiohttp.client_exceptions" not in text
    assert len(str(caught.value)) < 1000


@pytest.mark.fault("X1")
async def test_a_client_shows_no_secret() -> None:
    async with client_of("https://example.com") as client:
        project = client._project
        seen = repr(client) + repr(vars(client)) + repr(project) + repr(vars(project))
        seen += str(project._auth) + repr(vars(project._auth))
    assert CANARY not in seen


@pytest.mark.fault("X1")
async def test_every_error_of_aiohttp_is_one_of_ours(answers: Any, client: vizwatch.Client) -> None:
    """However deep aiohttp's tree grows, none of its errors leaves the transport."""
    from conftest import JOBS as URL

    def leaves(cls: type[BaseException]) -> list[type[BaseException]]:
        return [cls, *(leaf for sub in cls.__subclasses__() for leaf in leaves(sub))]

    kinds = {kind for kind in leaves(aiohttp.ClientError) if kind.__module__.startswith("aiohttp")}
    assert len(kinds) > 15
    for kind in sorted(kinds, key=lambda kind: kind.__name__):
        error = kind.__new__(kind)  # each has its own way of being made, and all end up with these
        error.args = (CANARY,)
        vars(error).update(
            _certificate_error=OSError("bad"), _os_error=OSError(1, "bad"), message="bad", status=407
        )
        answers.get(f"{URL}/197", exception=error, repeat=True)
        with pytest.raises((vizwatch.TransportError, vizwatch.ProtocolError)) as caught:
            await client._read_job(197, Due())
        assert CANARY not in shown(caught.value), kind
        answers.clear()


@pytest.mark.fault("J2")
async def test_a_compressed_bomb_is_stopped_at_the_bound() -> None:
    """Aiohttp's read() would expand it to half a gigabyte (wire.md, 5)."""
    bomb = gzip.compress(b"[" + b" " * (256 * 2**20) + b"]")
    reply = http(raw=bomb, headers=("Content-Encoding: gzip", "Content-Type: application/json"))
    async with RawServer(reply) as server, client_of(server, settings={"attempts": 1}) as client:
        tracemalloc.start()
        try:
            with pytest.raises(
                vizwatch.ProtocolError, match=r"larger than 8388608 bytes \(Settings.max_body\)"
            ):
                await client.get_job(197)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 16 * 2**20


@pytest.mark.parametrize("size", [2000, 2001])
async def test_a_body_may_be_as_large_as_the_bound(size: int) -> None:
    body = json.dumps({**JOB, "job_desc": ""}).encode()
    body = body.replace(b'"job_desc": ""', b'"job_desc": "' + b"x" * (size - len(body)) + b'"')
    assert len(body) == size
    async with RawServer(http(raw=body)) as server, client_of(server, settings={"max_body": 2000}) as client:
        if size == 2000:
            assert (await client.get_job(197)).job_id == 197
        else:
            with pytest.raises(vizwatch.ProtocolError, match="larger than 2000 bytes"):
                await client.get_job(197)


@pytest.mark.fault("J3")
async def test_an_endless_body_is_stopped_at_the_bound() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            await writer.drain()

    async with RawServer(endless) as server, client_of(server, settings={"max_body": 100_000}) as client:
        with pytest.raises(vizwatch.ProtocolError, match="larger than 100000 bytes"):
            await client.get_job(197)


@pytest.mark.fault("X4", "U9")
@pytest.mark.parametrize(
    "job_id",
    ["../../other/visualization-jobs/1", "7/stop", "7?x=1", "%2e%2e", "１", "7\r\nX: y", "9" * 10_000],
)
async def test_no_argument_reaches_another_path(job_id: str) -> None:
    """An f-string would (wire.md, 6)."""
    async with RawServer(http(JOB)) as server, client_of(server) as client:
        for call in (client.get_job, client.stop_job, client.restart_job, client.delete_job):
            with pytest.raises(vizwatch.ConfigError, match="job_id"):
                await call(job_id)
        with pytest.raises(vizwatch.ConfigError, match="job_id"):
            client.watch(job_id)
    assert server.connections == 0


@pytest.mark.fault("N9")
async def test_a_body_that_drips_ends_at_the_attempts_deadline() -> None:
    """A timeout of each read alone would never fire (wire.md, 7)."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await elapse(0.1)

    async with RawServer(drip) as server, client_of(server, settings={"attempts": 1}) as client:
        started = asyncio.get_running_loop().time()
        with pytest.raises(vizwatch.RequestTimeoutError, match="no complete answer within 30 s"):
            await client.get_job(197)
        assert asyncio.get_running_loop().time() - started == pytest.approx(30, abs=0.15)


@pytest.mark.fault("N8")
async def test_a_call_has_one_deadline_for_all_its_attempts() -> None:
    async with RawServer(silent) as server, client_of(server, settings={"call_timeout": 45}) as client:
        started = asyncio.get_running_loop().time()
        with pytest.raises(vizwatch.RequestTimeoutError) as caught:
            await client.get_job(197)
        assert asyncio.get_running_loop().time() - started == pytest.approx(45, abs=0.05)
        assert caught.value.attempts == 2
        assert caught.value.elapsed == pytest.approx(45, abs=0.05)


@pytest.mark.fault("N1")
async def test_a_refused_connection_was_never_sent_and_names_where() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    async with client_of(f"http://127.0.0.1:{port}") as client:
        for call in (client.get_job(197), client.create_job("tb", "/obs/name/")):
            with pytest.raises(vizwatch.ConnectError, match=f"127.0.0.1:{port}: no connection: ") as caught:
                await call
            assert caught.value.attempts == 4


@pytest.mark.fault("N1")
async def test_a_write_that_was_not_sent_is_sent_again() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    async with client_of(
        f"http://127.0.0.1:{port}", settings={"backoff_base": 5, "backoff_max": 5}
    ) as client:
        creation = asyncio.create_task(client.create_job("tb", "/obs/name/"))
        await elapse(0.001)
        async with RawServer(http(JOB), port=port) as server:
            assert (await creation).job_id == 197
    assert server.seen.total() == 1


@pytest.mark.fault("N2")
async def test_a_connection_that_is_never_accepted_times_out_as_not_sent() -> None:
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        fill = [socket.socket() for _ in range(4)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(hole.getsockname())
        endpoint = f"http://127.0.0.1:{hole.getsockname()[1]}"
        async with client_of(endpoint, settings={"attempts": 1}) as client:
            with pytest.raises(vizwatch.ConnectError, match="no connection within 10 s"):
                await client.get_job(197)
        for one in fill:
            one.close()


async def test_a_full_pool_is_waited_for_and_then_named() -> None:
    async with RawServer(silent) as server, client_of(server, settings={"pool_size": 1}) as client:
        first = asyncio.create_task(client.watch(197, timeout=20).__anext__())
        await elapse(1)
        with pytest.raises(
            vizwatch.ConnectError, match=r"no connection was free within 10 s \(Settings.pool_size\)"
        ):
            await client._project._opened()._transport.place(10)
        with pytest.raises(vizwatch.WatchTimeoutError):
            await first
    assert server.seen.total() == 1


# --- TLS ------------------------------------------------------------------------------------------------

CA = trustme.CA()


class BlockingServer:
    """Takes TLS connections one by one, and closes each. Asyncio's own would drop the alert of old TLS."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self.connections = 0
        self.spoken_to = 0

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            with connection, contextlib.suppress(OSError):
                if self._tls is None:
                    connection.recv(10_000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                else:
                    with self._tls.wrap_socket(connection, server_side=True) as spoken:
                        self.spoken_to += bool(spoken.recv(1))

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"https://localhost:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


def certified(name: str, **options: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(name, **options).configure_cert(context)
    return context


def self_signed(directory: Path) -> ssl.SSLContext:
    context, chain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), directory / "self-signed.pem"
    authority = trustme.CA()
    chain.write_bytes(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
    context.load_cert_chain(chain)
    return context


def old() -> ssl.SSLContext:
    context = certified("localhost")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


TLS_REFUSALS: dict[str, tuple[Callable[[Path], ssl.SSLContext | None], str]] = {
    "expired": (
        lambda _: certified("localhost", not_after=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
        "certificate has expired",
    ),
    "wrong host": (lambda _: certified("example.com"), "Hostname mismatch"),
    "self-signed": (self_signed, "self.signed certificate"),
    "TLS 1.0": (lambda _: old(), "protocol version"),
    "no TLS": (lambda _: None, "wrong version number|record layer failure"),
}


@pytest.mark.fault("N14")
@pytest.mark.looptime(False)  # the server is a thread, whose answers virtual time would not wait for
@pytest.mark.parametrize("case", TLS_REFUSALS)
async def test_tls_that_is_refused_is_not_tried_again(case: str, tmp_path: Path) -> None:
    """A create was not sent, either; and nobody is told to switch the check off."""
    context, said = TLS_REFUSALS[case]
    trusting = ssl.create_default_context()
    CA.configure_trust(trusting)
    with BlockingServer(context(tmp_path)) as server:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
            async with client_of(server.endpoint, session=session) as client:
                for call in (client.get_job(197), client.create_job("tb", "/obs/name/")):
                    with pytest.raises(vizwatch.TlsError, match=f"TLS was refused: .*({said})") as caught:
                        await call
                    error = caught.value
                    assert isinstance(error, vizwatch.ConnectError) and isinstance(
                        error, vizwatch.ConfigError
                    )
                    assert (error.attempts, error.retryable) == (1, False)
                    assert len(str(error)) < 400
                    for hint in ("verify=", "verify_", "insecure", "ssl=", "CERT_NONE", "disable"):
                        assert hint not in str(error)
                with pytest.raises(vizwatch.TlsError):
                    await anext(client.watch(197))
    assert (server.connections, server.spoken_to) == (3, 0)


@pytest.mark.fault("N14")
async def test_a_certificate_of_nobody_we_trust_is_refused_by_default() -> None:
    async with RawServer(http(JOB), tls=certified("localhost")) as server:
        async with client_of(server.endpoint.replace("127.0.0.1", "localhost")) as client:
            with pytest.raises(vizwatch.TlsError, match="unable to get local issuer certificate"):
                await client.get_job(197)
    assert server.requests == []


@pytest.mark.fault("N14")
async def test_a_certificate_of_another_fingerprint_is_refused() -> None:
    async with RawServer(http(JOB), tls=certified("localhost")) as server:
        pinned = aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(b"x" * 32))
        async with aiohttp.ClientSession(connector=pinned) as session:
            async with client_of(server, session=session) as client:
                with pytest.raises(vizwatch.TlsError, match="another fingerprint"):
                    await client.create_job("tb", "/obs/name/")
    assert server.requests == []


@pytest.mark.fault("N14")
async def test_tls_that_breaks_off_is_tried_again() -> None:
    """Such as a balancer restarted in the middle of a handshake."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with client_of(f"https://127.0.0.1:{port}") as client:
            with pytest.raises(vizwatch.ConnectError) as caught:
                await client.create_job("tb", "/obs/name/")
    assert type(caught.value) is vizwatch.ConnectError
    assert caught.value.attempts == 4


@pytest.mark.fault("N14")
@pytest.mark.parametrize("kind", [ssl.SSLEOFError, ssl.SSLZeroReturnError])
async def test_tls_that_breaks_off_in_openssls_words_is_tried_again_too(
    kind: type[ssl.SSLError], answers: Any, client: vizwatch.Client
) -> None:
    """Other event loops than asyncio's say it so."""
    from conftest import JOBS as URL

    key: Any = None
    error = aiohttp.ClientConnectorSSLError(key, kind(8, "EOF occurred in violation of protocol"))
    answers.get(f"{URL}/197", exception=error)
    answers.get(f"{URL}/197", payload=JOB)
    assert (await client.get_job(197)).job_id == 197


# --- proxies --------------------------------------------------------------------------------------------


@pytest.mark.fault("N15")
async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(http(JOB)) as trap, RawServer(http(JOB)) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, trap.endpoint)
        async with client_of(server) as client:
            await client.get_job(197)
        assert (trap.connections, server.connections) == (0, 1)
        async with client_of(
            "http://example.invalid", settings={"trust_env": True, "allow_insecure": True}
        ) as client:
            await client.get_job(197)
        assert trap.connections == 1


PROXY_ANSWERS = {
    "refuses": (http(status="403 Forbidden", raw=CANARY.encode()), "refused it with HTTP 403"),
    "wants another password": (
        http(status="407 Authenticate", headers=(f'Proxy-Authenticate: Basic realm="{CANARY}"',)),
        "refused it with HTTP 407: it wants another user",
    ),
    "fails": (http(status=f"502 {CANARY}"), "refused it with HTTP 502"),
    "hangs up": (CLOSE, ""),
    "is none": (f"{CANARY}\r\n\r\n".encode(), ""),
    "is not there": (None, "no connection to the proxy: "),
}


@pytest.mark.fault("N15")
@pytest.mark.parametrize("case", PROXY_ANSWERS)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxys_password_is_shown_by_no_error(
    scheme: str, case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it refuses before the TLS inside it (CONNECT) was never sent, a create neither."""
    caplog.set_level(logging.DEBUG)
    reply, said = PROXY_ANSWERS[case]
    async with RawServer(reply or CLOSE) as proxy:
        address = proxy.endpoint.replace("//", f"//canary-user:{CANARY}@")
        if reply is None:
            proxy.close()
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", address)
        settings = {"trust_env": True, "allow_insecure": True}
        async with client_of(f"{scheme}://example.invalid", settings=settings) as client:
            for call in (client.get_job(197), client.create_job("tb", "/obs/name/")):
                with pytest.raises(vizwatch.VizwatchError) as caught:
                    await call
                assert "canary" not in shown(caught.value)
            if scheme == "https" and said:
                assert said in str(caught.value)
                assert type(caught.value) is vizwatch.ConnectError
                assert caught.value.attempts == (1 if "40" in said else 4)
    assert "canary" not in caplog.text
    sent = base64.b64encode(f"canary-user:{CANARY}".encode())
    assert all(sent in request for request in proxy.requests), "they were there to be shown"


@pytest.mark.fault("N15")
@pytest.mark.parametrize(
    "address",
    [
        "socks5://u:canary@h:1",
        "https://u:canary@h:1",
        "u:canary@h:1",
        "canary",
        "http://",
        "http://u:canary@h:x",
    ],
)
async def test_a_proxy_that_cannot_be_used_is_told_before_any_request_and_not_shown(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Aiohttp passes one by that is reached by https, and fails with some others in ways of its own."""
    async with RawServer(http(JOB)) as server:
        monkeypatch.setenv("HTTP_PROXY", address)
        async with client_of(server) as client:
            await client.get_job(197)
        with pytest.raises(vizwatch.ConfigError, match=r"the proxy of HTTP_PROXY .*must be") as caught:
            async with client_of(server, settings={"trust_env": True}):
                pass
        assert "canary" not in shown(caught.value) + caplog.text
        if address != "http://u:canary@h:x":
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            async with client_of(server, settings={"trust_env": True}) as client:
                await client.get_job(197)


# --- writes that may have happened ----------------------------------------------------------------------

GARBLED = ["closed", "bad status line", "broken gzip", "login page", "garbage", "truncated"]


@pytest.mark.fault("N6")
@pytest.mark.parametrize("fault", GARBLED)
async def test_a_create_that_is_answered_with_anything_else_may_have_happened(fault: str) -> None:
    reply = truncate if fault == "truncated" else FAILING[fault]
    async with RawServer(reply) as server, client_of(server) as client:
        with pytest.raises(vizwatch.OutcomeUnknownError, match="create job: it may have happened"):
            await client.create_job("tb", "/obs/name/")
    assert server.seen.total() == 1


@pytest.mark.fault("H2", "write once")
@pytest.mark.parametrize(
    ("code", "headers", "resent"),
    [
        ("ModelArts.4302", ("Retry-After: 7",), True),
        ("ModelArts.4700", ("Retry-After: 7",), True),
        ("APIGW.0201", ("Retry-After: 7",), True),
        ("ModelArts.4302", (), False),
        ("ModelArts.0010", ("Retry-After: 7",), False),
        (None, ("Retry-After: 7",), False),
    ],
)
async def test_a_create_is_sent_again_after_a_503_only_where_the_gateway_held_it_back(
    code: str | None, headers: tuple[str, ...], resent: bool
) -> None:
    busy = http({"error_code": code, "error_msg": "busy"}, status="503 Busy", headers=headers)
    async with RawServer(busy, http(JOB)) as server, client_of(server) as client:
        if resent:
            started = asyncio.get_running_loop().time()
            assert (await client.create_job("tb", "/obs/name/")).job_id == 197
            assert 7 <= asyncio.get_running_loop().time() - started < 7.1
        else:
            with pytest.raises(vizwatch.OutcomeUnknownError):
                await client.create_job("tb", "/obs/name/")
    assert server.seen.total() == 1 + resent


@pytest.mark.fault("write once")
async def test_a_create_that_the_gateway_holds_back_for_ever_has_not_happened() -> None:
    busy = http({"error_code": "APIGW.0201"}, status="503 Busy", headers=("Retry-After: 1",))
    async with RawServer(busy) as server, client_of(server) as client:
        with pytest.raises(vizwatch.ServerError) as caught:
            await client.create_job("tb", "/obs/name/")
    assert (caught.value.attempts, server.seen.total()) == (4, 4)


async def test_a_redirected_create_has_not_happened() -> None:
    reply = http(status="302 Found", headers=("Location: https://example.com/",))
    async with RawServer(reply) as server, client_of(server) as client:
        with pytest.raises(vizwatch.ProtocolError, match="redirected"):
            await client.create_job("tb", "/obs/name/")
    assert server.seen.total() == 1


async def test_a_stop_refused_after_one_that_may_have_happened_stays_unknown_if_no_details_come() -> None:
    refused = http({"error_code": "ModelArts.0105", "error_msg": "not now"}, status="400 Bad Request")
    async with RawServer(http({}, status="503 Busy"), refused) as server, client_of(server) as client:
        with pytest.raises(vizwatch.OutcomeUnknownError) as caught:
            await client.stop_job(197)
    assert caught.value.attempts == 2
    assert caught.value.elapsed is not None
    assert isinstance(caught.value.__cause__, vizwatch.ApiError)


async def test_an_update_lost_and_then_not_sent_may_have_happened() -> None:
    async with RawServer(CLOSE) as server, client_of(server) as client:
        with pytest.raises(vizwatch.OutcomeUnknownError) as caught:
            await client.update_job(197, "text")
    assert caught.value.attempts == 4


# --- closing --------------------------------------------------------------------------------------------


@pytest.mark.fault("C5")
@pytest.mark.parametrize("own", [False, True], ids=["a session of ours", "of the caller's"])
@pytest.mark.parametrize("where", ["answer", "backoff", "slot", "limiter", "credentials"])
async def test_closing_ends_a_call_wherever_it_waits(where: str, own: bool) -> None:
    class Slow:
        async def headers(self, request: vizwatch.Outgoing, /) -> dict[str, str]:
            if where == "credentials":
                await elapse(50)
            return {}

    reply = http({}, status="503 Busy", headers=("Retry-After: 30",)) if where == "backoff" else silent
    settings = vizwatch.Settings(
        pool_size=1 if where == "slot" else 10, requests_per_second=0.01 if where == "limiter" else None
    )
    async with RawServer(reply) as server, aiohttp.ClientSession() as session:
        client = vizwatch.Client(
            server.endpoint, PROJECT, auth=Slow(), settings=settings, session=session if own else None
        )
        await client.__aenter__()
        calls = [asyncio.create_task(client.get_job(197)) for _ in range(3)]
        await elapse(1)
        started = asyncio.get_running_loop().time()
        await client.aclose()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert asyncio.get_running_loop().time() - started < 0.1
    assert {type(outcome) for outcome in outcomes} == {vizwatch.ClientClosedError}


async def test_closing_while_a_create_is_under_way_says_that_it_may_have_happened() -> None:
    async with RawServer(silent) as server:
        client = vizwatch.Client(server.endpoint, PROJECT, auth=CANARY)
        await client.__aenter__()
        creation = asyncio.create_task(client.create_job("tb", "/obs/name/"))
        await elapse(1)
        await client.aclose()
        with pytest.raises(vizwatch.OutcomeUnknownError, match="the client was closed"):
            await creation


async def test_credentials_that_fail_like_a_network_are_asked_for_again() -> None:
    class Flaky:
        calls = 0

        async def headers(self, request: vizwatch.Outgoing, /) -> dict[str, str]:
            self.calls += 1
            if self.calls < 3:
                raise ConnectionResetError(CANARY)
            return {"X-Auth-Token": "t"}

    async with RawServer(http(JOB)) as server:
        async with vizwatch.Client(server.endpoint, PROJECT, auth=Flaky()) as client:
            await client.create_job("tb", "/obs/name/")
    assert server.seen.total() == 1


@pytest.mark.parametrize("auth", [vizwatch.TokenAuth, object(), 7])
def test_only_credentials_are_credentials(auth: Any) -> None:
    with pytest.raises(vizwatch.ConfigError, match="auth must be a token or an Auth"):
        vizwatch.Client("https://example.com", PROJECT, auth=auth)


def test_only_a_session_is_a_session() -> None:
    session: Any = "x"
    with pytest.raises(vizwatch.ConfigError, match=r"session must be an aiohttp\.ClientSession, not str"):
        vizwatch.Client("https://example.com", PROJECT, auth=CANARY, session=session)


# --- a session of the caller's own ----------------------------------------------------------------------


async def test_a_session_of_the_callers_is_used_and_left_open() -> None:
    missing = http({"error_code": "ModelArts.0015"}, status="404 Not Found")
    async with RawServer(http(JOB), missing) as server:
        async with aiohttp.ClientSession(raise_for_status=True, auto_decompress=False) as session:
            async with client_of(server, session=session) as client:
                await client.get_job(197)
                with pytest.raises(vizwatch.NotFoundError):
                    await client.get_job(198)
            assert not session.closed


async def test_cookies_of_the_callers_session_are_not_sent() -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    jar.update_cookies({"session": "other-site"})
    async with RawServer(http(JOB)) as server, aiohttp.ClientSession(cookie_jar=jar) as session:
        async with client_of(server, session=session) as client:
            await client.get_job(197)
    assert b"cookie" not in server.requests[0].lower()


async def test_a_session_of_the_callers_that_is_closed_is_named() -> None:
    session = aiohttp.ClientSession()
    await session.close()
    async with client_of("https://example.com", session=session) as client:
        with pytest.raises(vizwatch.ConfigError, match="the session given to this client is closed"):
            await client.get_job(197)


async def test_cookies_of_the_service_are_not_kept() -> None:
    reply = http(JOB, headers=("Set-Cookie: a=b; Path=/", "Content-Type: application/json"))
    async with RawServer(reply) as server, client_of(server) as client:
        await client.get_job(197)
        await client.get_job(197)
    assert b"cookie" not in server.requests[1].lower()
