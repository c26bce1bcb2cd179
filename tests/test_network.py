"""Networks as they should not be: names that move, connections that break, peers that fall silent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from servers import RawServer, client_of, http
from virtual import elapse

import vizwatch

JOB = {"job_id": 197, "status": 8, "is_success": True}
JOBS = "/v1/p1/visualization-jobs"


def now() -> float:
    return asyncio.get_running_loop().time()


# --- names: N3, N4 --------------------------------------------------------------------------------------


class Names(AbstractResolver):
    """Knows one name: the server that bears it, or nothing while there is none."""

    def __init__(self, server: RawServer | None, failures: int = 0) -> None:
        self.server = server
        self.failures = failures
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        if self.server is None or self.asked <= self.failures:
            raise OSError(None, "Name or service not known")
        address, _, port_there = self.server.endpoint.removeprefix("http://").partition(":")
        return [
            ResolveResult(
                hostname=host, host=address, port=int(port_there), family=socket.AF_INET, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Holds nothing."""


@pytest.fixture(params=["own session", "caller's session"])
async def named(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Names, dict[str, Any]]]:
    """Names, and the client's options with which they are asked."""
    names = Names(None)
    options: dict[str, Any] = {"allow_insecure": True}
    if request.param == "own session":
        monkeypatch.setattr("aiohttp.connector.DefaultResolver", lambda **_: names)
        yield names, options
        return
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=names)) as session:
        yield names, {**options, "session": session}


@pytest.mark.looptime
@pytest.mark.fault("N3")
@pytest.mark.parametrize("call", ["create_job", "get_job"])
async def test_a_name_that_is_found_again_is_used_again(
    call: str, named: tuple[Names, dict[str, Any]]
) -> None:
    """What was not resolved was not sent, so that even a create goes out, and once."""
    names, options = named
    async with RawServer(http(JOB)) as server, client_of("http://example.invalid", **options) as client:
        names.server, names.failures = server, 2
        await (client.create_job("tb", "/obs/name/") if call == "create_job" else client.get_job(197))
    assert (names.asked, server.seen.total()) == (3, 1)


@pytest.mark.looptime
@pytest.mark.fault("N3")
async def test_a_name_that_is_not_found_is_no_memory_of_the_next_call(
    named: tuple[Names, dict[str, Any]],
) -> None:
    names, options = named
    async with RawServer(http(JOB)) as server, client_of("http://example.invalid", **options) as client:
        with pytest.raises(vizwatch.ConnectError, match=r"example\.invalid") as caught:
            await client.get_job(197)
        assert (caught.value.attempts, names.asked) == (4, 4)
        names.server = server
        assert (await client.get_job(197)).job_id == 197


@pytest.mark.looptime
@pytest.mark.fault("N4")
@pytest.mark.parametrize("stays", [True, False], ids=["old server stays", "old server goes"])
async def test_a_watch_follows_a_name_that_moves(
    stays: bool, named: tuple[Names, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the 10 s for which aiohttp keeps an address; a connection that is kept alive moves nowhere."""
    names, options = named
    # aiohttp takes the age of addresses and idle connections from here, and not from the loop.
    monkeypatch.setattr("aiohttp.connector.monotonic", now)
    last = ("Connection: close",)
    times: list[float] = []

    async def waiting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        times.append(now())
        writer.write(http({**JOB, "status": 7}, headers=last))

    async with RawServer(http({**JOB, "status": 10})) as second, contextlib.AsyncExitStack() as stack:
        names.server = await stack.enter_async_context(RawServer(waiting))
        async with client_of("http://example.invalid", **options) as client:
            watch = client.watch(197, interval=5, timeout=600)
            assert (await anext(watch)).current == 7
            step = asyncio.ensure_future(anext(watch))
            await elapse(100)
            assert len(times) > 10
            names.server, moved = second, now()
            if not stays:
                await stack.aclose()
            assert (await step).current == 10
            # The old address fails for the 10 s, and the watch asks about failures less and less.
            assert now() - moved <= 10 + (6 if stays else client.settings.watch_backoff_max + 6)
    assert all(time <= moved + 10 for time in times)


# --- connections that break: N5, N7, N10, N17 -----------------------------------------------------------


class Resetting(RawServer):
    """Answers each connection with RST, before it reads anything."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()


@pytest.mark.looptime
@pytest.mark.fault("N5")
async def test_a_read_whose_connection_is_reset_is_tried_again() -> None:
    async with Resetting() as server, client_of(server) as client:
        with pytest.raises(vizwatch.TransportError) as caught:
            await client.get_job(197)
    assert (server.connections, caught.value.attempts) == (4, 4)
    assert not isinstance(caught.value, vizwatch.OutcomeUnknownError)


@pytest.mark.looptime
@pytest.mark.fault("N5", "write once")
@pytest.mark.parametrize("call", ["create_job", "restart_job"])
async def test_a_write_whose_connection_is_reset_may_have_happened(call: str) -> None:
    async with Resetting() as server, client_of(server) as client:
        arguments: tuple[Any, ...] = ("tb", "/obs/name/") if call == "create_job" else (197,)
        with pytest.raises(vizwatch.OutcomeUnknownError) as caught:
            await getattr(client, call)(*arguments)
    assert caught.value.attempts == 1
    if call == "create_job":
        assert server.connections == 1


class Closing(RawServer):
    """Closes a connection that was idle for `keepalive` seconds after an answer."""

    keepalive = 5.0

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        goes_on = await super()._answer(reader, writer)
        asyncio.get_running_loop().call_later(self.keepalive, writer.close)
        return goes_on


@pytest.mark.looptime
@pytest.mark.fault("N7")
@pytest.mark.parametrize("epsilon", [-0.1, -1e-4, -1e-9, 0.0, 1e-9, 1e-4, 0.1])
async def test_a_request_may_meet_the_end_of_an_idle_connection(epsilon: float) -> None:
    async with Closing(http(JOB)) as server, client_of(server, attempts=2) as client:
        for _ in range(5):
            assert (await client.get_job(197)).job_id == 197
            await elapse(server.keepalive + epsilon)
    assert 5 <= server.seen.total() <= 9


BODY = json.dumps(JOB).encode()
WHOLE = {
    "Content-Length": http(JOB),
    "chunked": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:20], BODY[20:]))
    + b"0\r\n\r\n",
    "until the connection closes": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + BODY,
}


@pytest.mark.looptime
@pytest.mark.fault("N10", "no invention")
@pytest.mark.parametrize("framing", WHOLE)
async def test_an_answer_that_is_cut_anywhere_is_no_job(framing: str) -> None:
    """For each number of bytes of a valid answer, after which the connection ends."""
    whole = WHOLE[framing]
    lengths = iter(range(len(whole)))

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(whole[: next(lengths, len(whole))])

    async with RawServer(cut) as server, client_of(server, attempts=1) as client:
        for _ in whole:
            with pytest.raises((vizwatch.TransportError, vizwatch.ProtocolError)) as caught:
                await client.get_job(197)
            assert not isinstance(caught.value, vizwatch.ConnectError)
        assert (await client.get_job(197)).status == 8
    assert server.seen == {("GET", f"{JOBS}/197"): len(whole) + 1}


@pytest.mark.looptime
@pytest.mark.fault("N17")
async def test_an_answer_is_complete_before_its_connection_is() -> None:
    """The server says that it closes, and does so a minute later."""

    async def slow_to_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(JOB, headers=("Connection: close",)))
        await elapse(60)

    async with RawServer(slow_to_close) as server:
        started = now()
        async with client_of(server) as client:
            assert (await client.get_job(197)).job_id == 197
            assert now() - started < 0.1
        assert now() - started < 2.1


# --- peers that fall silent: N13 ------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def process_of_a_cloud() -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, str]]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vizwatch", "emulator", "--jobs", "1"),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


@pytest.mark.fault("N13")
async def test_a_server_that_is_stopped_ends_calls_in_time_and_is_used_again_when_it_goes_on() -> None:
    """In real time, since it is a process of its own; its kernel still accepts what it does not answer."""
    quick: dict[str, Any] = {"attempt_timeout": 0.3, "connect_timeout": 0.2, "pool_size": 1}
    async with process_of_a_cloud() as (process, cloud):
        place = {"project_id": cloud["project_id"], "auth": cloud["token"]}
        async with client_of(cloud["endpoint"], **place, **quick) as client:
            (job,) = await client.list_jobs().collect()
            process.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(20):
                # Were the only slot not freed, no connection would be free for the later attempts.
                with pytest.raises(vizwatch.RequestTimeoutError) as caught:
                    await client.get_job(job.job_id)
            assert caught.value.attempts == 4
            process.send_signal(signal.SIGCONT)
            assert (await client.get_job(job.job_id)).job_id == job.job_id
