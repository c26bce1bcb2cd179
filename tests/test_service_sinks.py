"""Sinks: each delivers what it is given, or says why not, without a secret, and nothing is held up."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import email.utils
import functools
import hashlib
import hmac
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from aiohttp import web
from canaries import shown
from receivers import Receiver
from redis_servers import RedisServer, needs_redis
from servers import RawServer
from virtual import elapse

from vizwatch.service.backlog import Backlog, Entry
from vizwatch.service.courier import Courier
from vizwatch.service.options import PythonCall, RedisStream, Webhook
from vizwatch.service.outbox import Outbox
from vizwatch.service.progress import Progress
from vizwatch.service.sinks import DeliveryError, PythonSink, StdoutSink
from vizwatch.service.webhook import WebhookSink, signature

ENTRY: Final = Entry(1, "p/197/1/1/none-8", '{"id": "p/197/1/1/none-8", "current": 8}')
KEY: Final = hmac.new(b"canary-secret-of-32-bytes-exactly", digestmod=hashlib.sha256)


@contextlib.asynccontextmanager
async def webhook(url: str, within: float = 5) -> AsyncIterator[WebhookSink]:
    sink = WebhookSink(Webhook(url, KEY), within)
    async with contextlib.aclosing(sink):
        yield sink


async def failure(sink: Any, entry: Entry = ENTRY) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        await sink.deliver(entry)
    assert "canary" not in shown(caught.value)
    return caught.value


# Webhook


def test_the_signature_is_that_of_the_schemes_own_example() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    key = hmac.new(secret, digestmod=hashlib.sha256)
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(key, "a", 1, b"") == signature(key, "a", 1, b""), "the key is as it was"


async def test_a_webhook_posts_the_json_object_signed() -> None:
    async with Receiver() as receiver, webhook(receiver.url) as sink:
        await sink.deliver(ENTRY)
        await sink.deliver(ENTRY)
    post, again = receiver.posts
    assert post.body == ENTRY.payload.encode() == again.body
    assert post.headers["content-type"] == "application/json"
    assert post.id == ENTRY.id
    expected = signature(KEY, ENTRY.id, int(post.headers["webhook-timestamp"]), post.body)
    assert expected.items() <= post.headers.items()


@pytest.mark.parametrize(
    ("status", "headers", "is_refusal", "retry_after"),
    [
        (503, {}, False, None),
        (500, {"Retry-After": "7"}, False, 7),
        (429, {"Retry-After": "99999999999"}, False, None),
        (408, {"Retry-After": "soon"}, False, None),
        (410, {}, True, None),
        (404, {}, True, None),
        (304, {}, True, None),
    ],
)
async def test_whatever_is_no_2xx_is_not_delivered(
    status: int, headers: dict[str, str], is_refusal: bool, retry_after: float | None
) -> None:
    answer = web.Response(status=status, headers=headers)
    async with Receiver([answer]) as receiver, webhook(receiver.url) as sink:
        error = await failure(sink)
        await sink.deliver(ENTRY)
    assert str(error) == f"HTTP {status}"
    assert (error.is_refusal, error.retry_after) == (is_refusal, retry_after)


async def test_retry_after_may_be_a_date_by_the_receivers_clock() -> None:
    times = [dt.datetime(2020, 1, 1, 12, minute, tzinfo=dt.UTC) for minute in (0, 1)]
    now, in_a_minute = [email.utils.format_datetime(time, usegmt=True) for time in times]
    answer = web.Response(status=429, headers={"Date": now, "Retry-After": in_a_minute})
    async with Receiver([answer]) as receiver, webhook(receiver.url) as sink:
        assert (await failure(sink)).retry_after == 60


async def test_a_status_that_was_said_counts_whatever_becomes_of_the_body() -> None:
    async def broken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(broken, "127.0.0.1")
    async with server, webhook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as sink:
        await sink.deliver(ENTRY)


@pytest.mark.fault("H7")
async def test_no_redirect_is_followed() -> None:
    async with Receiver() as elsewhere:
        redirect = web.Response(status=307, headers={"Location": elsewhere.url})
        async with Receiver([redirect]) as receiver, webhook(receiver.url) as sink:
            error = await failure(sink)
        assert (str(error), error.is_refusal) == ("HTTP 307", True)
        assert elsewhere.posts == []


async def test_a_receiver_that_hangs_or_is_not_there_is_told_without_its_address() -> None:
    async with Receiver([None]) as receiver, webhook(f"{receiver.url}?canary", within=0.05) as sink:
        assert str(await failure(sink)) == "no answer in time"
    async with webhook("http://127.0.0.1:1/canary") as sink:
        assert str(await failure(sink)) == "no answer: ClientConnectorError"


async def test_of_an_answer_only_the_beginning_is_read() -> None:
    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\nContent-Encoding: gzip\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()

    async with RawServer(endless) as server, webhook(server.endpoint, within=1) as sink:
        await sink.deliver(ENTRY)


@pytest.mark.fault("N15")
async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with Receiver() as receiver, webhook(receiver.url) as sink:
        await sink.deliver(ENTRY)


# A function


@contextlib.asynccontextmanager
async def python(
    function: Callable[[dict[str, Any]], object], within: float = 5
) -> AsyncIterator[PythonSink]:
    sink = PythonSink(PythonCall("a:b", function), within)
    try:
        yield sink
    finally:
        await sink.aclose()


@pytest.mark.fault("C8")
async def test_a_function_is_called_and_awaited_in_a_thread_of_its_sinks_own() -> None:
    """So that one that blocks, or whose loop is kept busy, holds up nothing else."""
    places: list[tuple[threading.Thread, object]] = []

    def plain(transition: dict[str, Any]) -> None:
        assert transition["current"] == 8
        places.append((threading.current_thread(), asyncio.get_running_loop()))

    async def coroutine(transition: dict[str, Any]) -> None:
        plain(transition)

    def gives_one(transition: dict[str, Any]) -> object:
        return coroutine(transition)

    before = threading.active_count()
    for function in (plain, coroutine, gives_one):
        async with python(function) as sink:
            for _ in range(2):
                await sink.deliver(ENTRY)
        assert len(set(places)) == 1
        ((thread, _),) = set(places)
        assert thread is not threading.current_thread()
        places.clear()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "error", [ValueError, StopIteration, SystemExit, KeyboardInterrupt, asyncio.CancelledError]
)
@pytest.mark.parametrize("is_coroutine", [False, True])
@pytest.mark.fault("C8")
async def test_whatever_a_function_raises_is_a_failed_delivery(
    error: type[BaseException], is_coroutine: bool
) -> None:
    def plain(_: dict[str, Any]) -> None:
        raise error("canary")

    async def coroutine(transition: dict[str, Any]) -> None:
        plain(transition)

    async with python(coroutine if is_coroutine else plain) as sink:
        is_stop = is_coroutine and error is StopIteration  # which no coroutine can raise
        for _ in range(2):
            with pytest.raises(DeliveryError) as caught:
                await sink.deliver(ENTRY)
            assert str(caught.value) == f"it failed with {'RuntimeError' if is_stop else error.__name__}"


@pytest.mark.fault("C8")
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_generator_of_which_nothing_ran_is_a_failed_delivery(is_async: bool) -> None:
    async def asynchronous(_: dict[str, Any]) -> AsyncIterator[None]:
        yield

    def plain(_: dict[str, Any]) -> Iterator[None]:
        yield

    function = asynchronous if is_async else plain
    async with python(function) as sink:
        error = await failure(sink)
    assert str(error) == "it failed with TypeError"
    assert str(error.__cause__) == "a:b gave a generator, nothing of which has run"


@pytest.mark.fault("C8")
async def test_what_a_function_that_took_too_long_came_to_counts() -> None:
    """It is not called again for what it may have done."""
    calls, go_on = list[int](), threading.Event()

    def slow(_: dict[str, Any]) -> None:
        calls.append(len(calls))
        go_on.wait(10)

    async with python(slow, within=0.05) as sink:
        for _ in range(2):
            assert str(await failure(sink)) == "nothing within 0.05 s"
        go_on.set()
        await sink.deliver(ENTRY)
        assert calls == [0]
        await sink.deliver(attrs.evolve(ENTRY, seq=2))
        assert calls == [0, 1]


async def test_a_coroutine_that_takes_too_long_is_cancelled_and_called_again() -> None:
    ended: list[BaseException] = []
    waits = [True, True, False]

    async def hangs(_: dict[str, Any]) -> None:
        try:
            if waits.pop(0):
                await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            ended.append(error)
            raise

    async with python(hangs, within=0.05) as sink:
        for _ in range(2):
            assert str(await failure(sink)) == "nothing within 0.05 s"
        await sink.deliver(ENTRY)
    assert len(ended) == 2


async def test_a_coroutine_that_was_cancelled_before_it_began_is_called_again() -> None:
    """What a call before it left behind blocks the loop for so long."""
    calls, go_on = list[int](), threading.Event()

    async def leaves_something_behind(_: dict[str, Any]) -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            asyncio.get_running_loop().call_soon(go_on.wait, 10)

    async with python(leaves_something_behind, within=0.05) as sink:
        await sink.deliver(ENTRY)
        assert str(await failure(sink)) == "nothing within 0.05 s"
        assert calls == [0]
        go_on.set()
        await sink.deliver(ENTRY)
    assert calls == [0, 1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_task_of_a_functions_that_ends_its_thread_ends_no_later_call() -> None:
    threads, ended = list[threading.Thread](), list[asyncio.Task[None]]()

    async def ends() -> None:
        raise SystemExit

    async def call(_: dict[str, Any]) -> None:
        threads.append(threading.current_thread())
        ended.append(asyncio.create_task(ends()))

    async with python(call) as sink:
        for _ in range(2):
            await sink.deliver(ENTRY)
            threads[-1].join(5)
            assert not threads[-1].is_alive()
    assert len(set(threads)) == 2
    assert all(isinstance(task.exception(), SystemExit) for task in ended)


async def test_a_coroutine_that_is_under_way_is_cancelled_with_its_sink() -> None:
    began, ended = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    async def hangs(_: dict[str, Any]) -> None:
        try:
            loop.call_soon_threadsafe(began.set)
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with python(hangs) as sink:
        task = asyncio.create_task(sink.deliver(ENTRY))
        await began.wait()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert ended.is_set()


# Stdout


async def test_stdout_gets_a_line_each(capfd: pytest.CaptureFixture[str]) -> None:
    sink = StdoutSink(5)
    await sink.deliver(ENTRY)
    await sink.deliver(ENTRY)
    assert capfd.readouterr().out == f"{ENTRY.payload}\n" * 2


async def test_a_line_that_was_torn_is_ended_before_it_is_written_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        write, written = os.write, iter([3, None])

        def full_at_once(descriptor: int, data: Any) -> int:
            size = next(written, len(data))
            if size is None:
                raise OSError(28, "No space left on device")
            return write(descriptor, data[:size])

        monkeypatch.setattr("os.write", full_at_once)
        sink = StdoutSink(5)
        assert str(await failure(sink)) == "No space left on device"
        await sink.deliver(ENTRY)
    assert (tmp_path / "out").read_text() == f'{{"i\n{ENTRY.payload}\n'


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="where no file can be opened by its descriptor")
@pytest.mark.parametrize(
    ("before", "mode", "after"),
    [("{}\n", "a", "{}\n"), ('{"i', "a", '{"i\n'), ("", "a", ""), ('{"i', "w", "")],
)
async def test_a_line_that_a_process_before_this_one_has_torn_is_ended(
    before: str, mode: str, after: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text(before)
    with (tmp_path / "out").open(mode) as out:
        monkeypatch.setattr("sys.stdout", out)
        sink = StdoutSink(5)
        for _ in range(2):
            await sink.deliver(ENTRY)
    assert (tmp_path / "out").read_text() == after + f"{ENTRY.payload}\n" * 2


# Redis


@pytest.fixture(scope="module")
def redis_address() -> Iterator[str]:
    with RedisServer("--requirepass", "canary") as server:
        yield server.url.replace("://", "://:canary@")


@needs_redis
async def test_a_redis_without_memory_is_tried_again_soon() -> None:
    from vizwatch.service.streams import RedisSink

    with RedisServer("--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
        async with contextlib.aclosing(RedisSink(RedisStream(server.url, "jobs", None), 5)) as sink:
            told = await failure(sink)
    assert (str(told), told.is_refusal) == ("it has no memory left", False)


@needs_redis
async def test_redis_gets_an_entry_each_and_keeps_about_as_many_as_it_is_told(redis_address: str) -> None:
    import redis.asyncio

    from vizwatch.service.streams import RedisSink

    async with contextlib.aclosing(RedisSink(RedisStream(redis_address, "jobs", 1), 5)) as sink:
        assert "canary" not in repr(sink._redis)
        for _ in range(300):
            await sink.deliver(ENTRY)
    async with redis.asyncio.Redis.from_url(redis_address) as reader:
        kept: Any = await reader.xrevrange("jobs")
        assert 1 <= len(kept) < 300
        assert kept[0][1] == {b"id": ENTRY.id.encode(), b"transition": ENTRY.payload.encode()}


@needs_redis
async def test_redis_that_refuses_or_is_gone_is_told_without_the_password(redis_address: str) -> None:
    import redis.asyncio

    from vizwatch.service.streams import RedisSink

    async with redis.asyncio.Redis.from_url(redis_address) as writer:
        await writer.set("text", "x")
    cases = {
        (redis_address, "text"): ("refused: WRONGTYPE", True),
        (redis_address.replace("canary", "canary2"), "jobs"): ("refused: the user or password", True),
        ("redis://:canary@127.0.0.1:1", "jobs"): ("no answer: ConnectionError", False),
    }
    for (url, stream), (said, is_refusal) in cases.items():
        async with contextlib.aclosing(RedisSink(RedisStream(url, stream, None), 5)) as sink:
            error = await failure(sink)
        assert str(error) == said
        assert error.is_refusal is is_refusal


@pytest.mark.parametrize(
    ("answer", "said", "is_refusal"),
    [
        ("CLUSTERDOWN The cluster is down", "ClusterDownError", False),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "TryAgainError", False),
        ("NOREPLICAS Not enough good replicas to write.", "NOREPLICAS", False),
        ("MISCONF Redis is configured to save RDB snapshots", "MISCONF", False),
        ("NOPERM User canary has no permissions to run the 'xadd' command", "NoPermissionError", True),
        ("ERR unknown command 'XADD', with args beginning with: 'canary'", "ERR", True),
        ("MOVED 3999 127.0.0.1:6381", "MovedError", True),
    ],
)
async def test_what_a_redis_refuses_is_said_in_a_word_and_what_may_be_over_soon_is_tried_soon(
    answer: str, said: str, is_refusal: bool
) -> None:
    pytest.importorskip("redis")
    from vizwatch.service.streams import RedisSink

    heard = bytearray()

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            heard.extend(data)
            writer.write(f"-{answer}\r\n".encode() if b"XADD" in data else b"+OK\r\n" * data.count(b"*"))
        writer.close()

    server = await asyncio.start_server(refuses, "127.0.0.1")
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with contextlib.aclosing(RedisSink(RedisStream(url, "jobs", None), 5)) as sink:
            told = await failure(sink)
    assert (str(told), told.is_refusal) == (f"refused: {said}", is_refusal)
    assert b"HELLO" not in heard, "which a Redis 5 does not know"


async def test_a_redis_by_tls_has_to_prove_its_name() -> None:
    pytest.importorskip("redis")
    from vizwatch.service.streams import RedisSink

    async with contextlib.aclosing(RedisSink(RedisStream("rediss://localhost:1", "jobs", None), 5)) as sink:
        options = sink._redis.connection_pool.connection_kwargs
    assert (options["ssl_cert_reqs"], options["ssl_check_hostname"]) == ("required", True)


# The courier


class Scripted:
    """A sink that fails as told, and notes when it was asked."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.times: list[float] = []
        self.ids: list[str] = []

    async def deliver(self, entry: Entry) -> None:
        self.times.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        self.ids.append(entry.id)

    async def aclose(self) -> None: ...


@pytest.mark.looptime
async def test_a_sink_that_fails_as_none_should_is_tried_again_and_ends_nothing(outbox: Outbox) -> None:
    sink = Scripted(AttributeError("'NoneType' object has no attribute 'write'"))
    async with courier(sink, outbox) as progress:
        await outbox.put(["sink"], seen(1))
        await elapse(1)
        assert progress.sinks["sink"].text == "it failed: AttributeError"
        await elapse(100)
        assert progress.sinks["sink"].failures == 0
    assert sink.ids == ["p/1/1"]


@pytest.fixture
async def outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Outbox]:
    """Without its thread, for which virtual time would not wait."""

    async def inline(_: Outbox, work: Callable[[], Any]) -> Any:
        return work()

    monkeypatch.setattr(Outbox, "_in_thread", inline)
    progress = Progress.of(["sink"])
    async with Outbox(tmp_path / "b.sqlite", {"sink": 10}, progress) as opened:
        yield opened


@contextlib.asynccontextmanager
async def courier(sink: Scripted, outbox: Outbox) -> AsyncIterator[Progress]:
    progress = Progress.of(["sink"])
    task = asyncio.create_task(Courier("sink", sink, outbox, progress).run())
    try:
        yield progress
    finally:
        outbox.stop()
        await task


def seen(number: int) -> dict[str, Any]:
    return {"id": f"p/1/{number}", "project_id": "p", "job_id": 1}


@pytest.mark.looptime
async def test_what_fails_is_tried_again_with_growing_pauses_and_in_order(outbox: Outbox) -> None:
    sink = Scripted(*[DeliveryError("HTTP 503")] * 10)
    async with courier(sink, outbox) as progress:
        for number in (1, 2):
            await outbox.put(["sink"], seen(number))
        await elapse(100)
        trouble = progress.sinks["sink"]
        assert (trouble.text, sink.ids) == ("HTTP 503", [])
        await elapse(600)
    assert sink.ids == ["p/1/1", "p/1/2"]
    assert trouble.text is None
    pauses = [after - before for before, after in zip(sink.times, sink.times[1:], strict=False)][:10]
    assert all(0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(pauses[:6]))
    assert all(30 <= pause <= 60 for pause in pauses[6:])
    assert progress.deliveries == {("sink", "failed"): 10, ("sink", "delivered"): 2}
    assert outbox.sizes == {"sink": 0}


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (DeliveryError("busy", retry_after=40), 40, 40),
        (DeliveryError("busy", retry_after=90_000), 300, 300),
        (DeliveryError("gone", is_refusal=True), 15, 30),
    ],
)
async def test_a_sink_is_left_alone_as_long_as_it_asks_for_and_longer_after_a_refusal(
    error: DeliveryError, least: float, most: float, outbox: Outbox
) -> None:
    sink = Scripted(error)
    async with courier(sink, outbox):
        await outbox.put(["sink"], seen(1))
        await elapse(1_000)
    first, second = sink.times
    assert least <= second - first <= most + 0.001


@pytest.mark.looptime
@pytest.mark.fault("R8")
async def test_a_sink_that_fails_again_and_again_is_said_once_a_minute(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Scripted()
    async with courier(sink, outbox):
        for number in range(100):
            sink.errors.append(DeliveryError("HTTP 503"))
            await outbox.put(["sink"], seen(number))
            await elapse(3)
    assert len(sink.ids) == 100
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "sink sink fails",
        "sink sink works again",
    ] * 5


@pytest.mark.looptime
async def test_another_reason_is_said_too_but_no_more_than_a_line_a_minute(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Scripted(*[DeliveryError(f"HTTP {500 + number % 2}") for number in range(200)])
    async with courier(sink, outbox):
        await outbox.put(["sink"], seen(1))
        await elapse(600)
    said = [record.message.rpartition(" ")[2] for record in caplog.records]
    assert {"500", "501"} <= set(said)
    assert len(said) <= 10


@pytest.mark.looptime
async def test_what_comes_in_a_pause_does_not_shorten_it(outbox: Outbox) -> None:
    sink = Scripted(DeliveryError("busy", retry_after=40))
    async with courier(sink, outbox):
        for number in range(3):
            await outbox.put(["sink"], seen(number))
            await elapse(10)
        await elapse(100)
    first, second, *_ = sink.times
    assert second - first == pytest.approx(40)
    assert sink.ids == ["p/1/0", "p/1/1", "p/1/2"]


@pytest.mark.looptime
async def test_a_pause_ends_with_the_service_and_what_waits_is_kept(outbox: Outbox) -> None:
    sink = Scripted(*[DeliveryError("down", retry_after=300)] * 9)
    async with courier(sink, outbox):
        await outbox.put(["sink"], seen(1))
        await elapse(1)
        before = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() == before
    assert outbox.sizes == {"sink": 1}


@pytest.mark.looptime
async def test_a_write_that_fails_as_none_should_ends_what_waits_for_it(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(outbox._backlog, "put", fails)
    await outbox.put(["sink"], seen(1))
    for wait in (outbox.written, outbox.written, functools.partial(outbox.put, ["sink"], seen(2))):
        with pytest.raises(ZeroDivisionError):
            await wait()


@pytest.mark.looptime
async def test_a_database_that_is_locked_holds_up_and_loses_nothing(
    outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import sqlite3

    monkeypatch.setattr(outbox, "_backlog", Backlog(tmp_path / "b.sqlite", {"sink": 10}))
    outbox._backlog._db.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(tmp_path / "b.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    trouble = outbox._troubles["write"]
    await outbox.put(["sink"], seen(1))
    putting = asyncio.create_task(outbox.written())
    await elapse(60)
    assert not putting.done()
    assert trouble.text == "database is locked"
    other.execute("COMMIT")
    other.close()
    await putting
    assert not trouble.failures
    assert outbox.sizes == {"sink": 1}
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "to write the backlog fails",
        "to write the backlog works again",
    ]
    assert json.loads((await outbox.take("sink") or ENTRY).payload) == seen(1)
