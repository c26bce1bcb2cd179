"""The watcher as a service: what is seen reaches every sink, whatever happens to it, to them, or the disk."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import errno
import functools
import hashlib
import hmac
import json
import logging
import os
import queue
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import attrs
import pytest
from aiohttp import web
from receivers import Post, Receiver
from redis_servers import RedisServer, needs_redis
from test_cli import ROOT, child_environment

import vizwatch
from vizwatch import ConfigError, Settings, Target
from vizwatch.cli import main
from vizwatch.cli._logging import logged_to_stderr
from vizwatch.emulator import Emulator
from vizwatch.service.backlog import Backlog
from vizwatch.service.files import Surroundings
from vizwatch.service.health import Health
from vizwatch.service.metrics import Snapshot
from vizwatch.service.options import (
    Configuration,
    Destination,
    Filter,
    PythonCall,
    RedisStream,
    SinkOptions,
    Watching,
    Webhook,
)
from vizwatch.service.outbox import Outbox
from vizwatch.service.progress import Progress
from vizwatch.service.serving import serve

QUICK: Final = Settings(
    poll_interval=0.1, poll_interval_min=0.01, watch_backoff_base=0.05, watch_backoff_max=0.1
)
SECRET: Final = "whsec_Y2FuYXJ5LXNlY3JldC1vZi0zMi1ieXRlcy1leGFjdGx5"
WITHIN: Final = 10.0
"""Longer than anything here takes, in seconds."""


@attrs.define
class Got:
    """A sink's own record of what it was given, by a function."""

    transitions: list[dict[str, Any]] = attrs.field(factory=list)
    came: asyncio.Event = attrs.field(factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop)

    def take(self, transition: dict[str, Any]) -> None:
        self.transitions.append(transition)
        self.loop.call_soon_threadsafe(self.came.set)

    async def until(self, holds: Callable[[list[dict[str, Any]]], object]) -> None:
        async with asyncio.timeout(WITHIN):
            while not holds(self.transitions):
                self.came.clear()
                await self.came.wait()

    @property
    def currents(self) -> list[int | None]:
        return [one["current"] for one in self.transitions]


def calling(got: Got) -> Destination:
    return PythonCall("got", got.take)


def sink(name: str, destination: Destination, **changes: Any) -> SinkOptions:
    options = SinkOptions(name=name, destination=destination, filter=Filter(), backlog=100, timeout=5)
    return attrs.evolve(options, **changes)


def configuration(cloud: Emulator, state: Path, *sinks: SinkOptions, **changes: Any) -> Configuration:
    made = Configuration(
        state=state,
        settings=QUICK,
        watch=Watching(),
        listen=("127.0.0.1", 0),
        targets=(Target(cloud.endpoint, cloud.project_id, auth=cloud.token, name="here"),),
        sinks=sinks,
    )
    return attrs.evolve(made, **changes)


@attrs.frozen
class Asked:
    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@attrs.frozen
class Running:
    """A service in this process."""

    address: str

    async def ask(self, path: str) -> Asked:
        async with aiohttp.ClientSession() as session, session.get(self.address + path) as answer:
            return Asked(answer.status, await answer.text())

    async def until(self, path: str, holds: Callable[[Asked], object]) -> Asked:
        async with asyncio.timeout(WITHIN):
            while not holds(asked := await self.ask(path)):
                pass
            return asked


class _Addresses(logging.Handler):
    """Hears where the service says that it listens."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.get_running_loop().create_future()

    def emit(self, record: logging.LogRecord) -> None:
        if "health and metrics are at " in record.getMessage():
            self.told.set_result(record.getMessage().rpartition(" ")[2])


@contextlib.contextmanager
def _heard() -> Iterator[_Addresses]:
    logger, heard = logging.getLogger("vizwatch.service"), _Addresses()
    logger.addHandler(heard)
    logger.setLevel(logging.INFO)
    try:
        yield heard
    finally:
        logger.removeHandler(heard)


@contextlib.asynccontextmanager
async def serving(configured: Configuration) -> AsyncIterator[Running]:
    """Until the block's end, where it is told to end as a signal tells it."""
    with _heard() as heard:
        task = asyncio.create_task(serve(configured))
        try:
            await asyncio.wait([task, heard.told], return_when=asyncio.FIRST_COMPLETED)
            yield Running(heard.told.result() if heard.told.done() else "")
        finally:
            task.cancel()
            await asyncio.wait([task])
    assert task.cancelled()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a retry nor a write waits."""
    at_once = functools.partial(vizwatch.SqliteCheckpoint, window=0)
    monkeypatch.setattr("vizwatch.service.serving.SqliteCheckpoint", at_once)
    monkeypatch.setattr("vizwatch.service.courier._BASE", 0.01)
    monkeypatch.setattr("vizwatch.service.courier._REFUSED_BASE", 0.01)
    monkeypatch.setattr("vizwatch.service.outbox._BASE", 0.01)


async def test_every_sink_gets_what_its_filter_takes(cloud: Emulator, tmp_path: Path) -> None:
    cloud.add_jobs(1, status=8, project_id="p2")
    (job_id,) = cloud.add_jobs(1, status=8)
    every, ends, deleted, elsewhere = Got(), Got(), Got(), Got()
    configured = configuration(
        cloud,
        tmp_path,
        sink("every", calling(every)),
        sink("ends", calling(ends), filter=Filter(terminal_only=True)),
        sink("deleted", calling(deleted), filter=Filter(statuses=frozenset({None}))),
        sink("elsewhere", calling(elsewhere), filter=Filter(targets=frozenset({"p2"}))),
    )
    configured = attrs.evolve(
        configured, targets=(*configured.targets, Target(cloud.endpoint, "p2", auth=cloud.token))
    )
    async with serving(configured):
        await every.until(lambda got: len(got) == 2)
        cloud.set_status(job_id, 12)
        await ends.until(len)
        cloud.set_status(job_id, None)
        await deleted.until(len)
        await elsewhere.until(len)
    assert [one["current"] for one in every.transitions if one["job_id"] == job_id][:2] == [8, 12]
    assert ends.currents[:2] == [12, None][: len(ends.currents)]
    assert deleted.currents == [None]
    assert [one["project_id"] for one in elsewhere.transitions] == ["p2"]


@pytest.mark.fault("C8")
@pytest.mark.parametrize("is_coroutine", [False, True])
async def test_a_sink_that_hangs_holds_back_only_itself(
    cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_coroutine: bool
) -> None:
    """Nor does it hold up the end: what it was given is broken off, and kept."""
    monkeypatch.setattr("vizwatch.service.serving._IN_HAND", 0.05)
    release = threading.Event()
    (job_id,) = cloud.add_jobs(1, status=8)
    got = Got()

    async def blocks(_: object) -> None:
        release.wait(WITHIN)

    function = blocks if is_coroutine else lambda _: release.wait(WITHIN)
    hanging = sink("hanging", PythonCall("hangs", function), timeout=60)
    async with serving(configuration(cloud, tmp_path, hanging, sink("got", calling(got)))) as running:
        await got.until(len)
        for count, status in ((2, 9), (3, 12)):
            cloud.set_status(job_id, status)
            await got.until(functools.partial(counted, count))
        report = (await running.ask("/healthz")).json
        assert report["sinks"]["hanging"]["backlog"] == 3
        assert report["sinks"]["got"]["error"] is None
    release.set()
    assert waiting(tmp_path) == {"hanging": [8, 9, 12]}


def ends_with(status: int, transitions: list[dict[str, Any]]) -> bool:
    return bool(transitions) and transitions[-1]["current"] == status


def counted(count: int, transitions: list[dict[str, Any]]) -> bool:
    return len(transitions) == count


def waiting(state: Path) -> dict[str, list[int | None]]:
    """What is left in the file."""
    left = defaultdict(list)
    with contextlib.closing(sqlite3.connect(state / "backlog.sqlite")) as db:
        for name, payload in db.execute("SELECT sink, payload FROM waiting ORDER BY seq"):
            left[name].append(json.loads(payload)["current"])
    return dict(left)


async def test_a_webhook_that_is_down_and_comes_up_gets_all_in_order_and_health_says_so(
    cloud: Emulator, tmp_path: Path
) -> None:
    async with Receiver() as placeholder:
        port = placeholder.port
    (job_id,) = cloud.add_jobs(1, status=8)
    got, key = Got(), hmac.new(b"x" * 32, digestmod=hashlib.sha256)
    hook = sink("hook", Webhook(f"http://127.0.0.1:{port}/hook", key))
    async with serving(configuration(cloud, tmp_path, hook, sink("got", calling(got)))) as running:
        await got.until(len)
        cloud.set_status(job_id, 12)
        await got.until(lambda got: len(got) == 2)
        asked = await running.until("/healthz", lambda asked: asked.json["sinks"]["hook"]["error"])
        assert asked.status == 200, "a restart would not help"
        assert asked.json["sinks"]["hook"]["backlog"] == 2
        async with Receiver(port=port) as receiver:
            async with asyncio.timeout(WITHIN):
                posts = [await receiver.came.get() for _ in range(2)]
            await running.until("/healthz", lambda asked: asked.json["sinks"]["hook"]["backlog"] == 0)
    assert [post.transition for post in posts] == got.transitions


@needs_redis
async def test_redis_that_goes_and_comes_back_gets_what_it_has_not_taken(
    cloud: Emulator, tmp_path: Path
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer())
        stream = sink("redis", RedisStream(server.url, "jobs", None))
        running = await stack.enter_async_context(serving(configuration(cloud, tmp_path, stream)))
        assert [entry["current"] for entry in await entries(server.url)] == [8]
        server.kill()
        cloud.set_status(job_id, 12)
        await running.until("/healthz", lambda asked: asked.json["sinks"]["redis"]["error"])
        server.start()
        (entry,) = await entries(server.url)
    assert (entry["previous"], entry["current"]) == (8, 12)


async def entries(address: str) -> list[dict[str, Any]]:
    """What is in the stream, once something is."""
    import redis.asyncio

    async with asyncio.timeout(WITHIN), redis.asyncio.Redis.from_url(address) as reader:
        found: Any = await reader.xread({"jobs": "0"}, block=1_000 * int(WITHIN))
        ((_, rows),) = found
        return [json.loads(row[b"transition"]) for _, row in rows]


@needs_redis
async def test_a_place_that_a_redis_keeps_is_gone_on_from(cloud: Emulator, tmp_path: Path) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    got = Got()
    with RedisServer() as server:
        for status in (8, 12):
            cloud.set_status(job_id, status)
            kept = vizwatch.RedisCheckpoint(server.url, window=0)
            state = tmp_path / str(status)  # which knows nothing of the one before
            configured = configuration(cloud, state, sink("got", calling(got)), checkpoint=kept)
            async with serving(configured):
                await got.until(functools.partial(ends_with, status))
    assert [(one["previous"], one["current"]) for one in got.transitions] == [(None, 8), (8, 12)]


async def test_a_redis_that_is_away_at_the_start_is_no_fault_of_the_file(cloud: Emulator, file: Path) -> None:
    change(file, PORT=9)
    change(file, **{"[settings]": 'checkpoint = "redis://127.0.0.1:1"\n[settings]'})
    async with command(file) as process:
        _, err = await process.communicate()
    assert process.returncode == 1
    assert b"vizwatch: checkpoint 127.0.0.1:1/0: it cannot be used" in err


async def test_a_backlog_that_cannot_be_written_holds_all_until_it_can(
    cloud: Emulator, tmp_path: Path
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    got = Got()
    async with serving(configuration(cloud, tmp_path, sink("got", calling(got)))) as running:
        await got.until(len)
        await running.until("/readyz", lambda asked: asked.status == 200)
        with contextlib.closing(sqlite3.connect(tmp_path / "backlog.sqlite", isolation_level=None)) as db:
            db.execute(
                "CREATE TRIGGER full BEFORE INSERT ON waiting BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            )
            cloud.set_status(job_id, 12)
            asked = await running.until("/readyz", lambda asked: asked.status == 503)
            assert asked.json == {"ready": False, "targets": [], "backlog": "disk full", "checkpoint": None}
            backlog = (await running.ask("/healthz")).json["backlog"]
            errors = {what: one["error"] for what, one in backlog.items()}
            assert errors == {"write": "disk full", "read": None, "clear": None}
            db.execute("DROP TRIGGER full")
        await got.until(lambda got: len(got) == 2)
        assert (await running.ask("/readyz")).status == 200
    assert got.currents == [8, 12]


async def test_what_changes_while_the_backlog_is_gone_comes_after_a_restart(
    cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vizwatch._world.journal._CLOSE_WITHIN", 0.05)
    (job_id,) = cloud.add_jobs(1, status=8)
    got = Got()
    configured = configuration(cloud, tmp_path, sink("got", calling(got)))
    async with serving(configured) as running:
        await got.until(len)
        await running.until("/healthz", lambda asked: not asked.json["sinks"]["got"]["backlog"])
        for file in tmp_path.glob("backlog.sqlite*"):
            file.unlink()
        cloud.set_status(job_id, 12)
        asked = await running.until("/readyz", lambda asked: asked.status == 503)
        assert "it was removed, or another file was put in its place" in asked.json["backlog"]
    assert got.currents == [8]
    async with serving(configured):
        await got.until(functools.partial(ends_with, 12))
    assert got.transitions[-1]["previous"] == 8


async def test_a_checkpoint_that_cannot_be_written_is_told_until_it_can(
    cloud: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("prometheus_client")
    (job_id,) = cloud.add_jobs(1, status=8)
    got, kept = Got(), Kept()
    configured = configuration(cloud, tmp_path, sink("got", calling(got)), checkpoint=kept)
    async with serving(configured) as running:
        await got.until(len)
        await running.until("/readyz", lambda asked: asked.status == 200)
        kept.error = ConnectionError("canary")
        cloud.set_status(job_id, 12)
        await got.until(lambda got: len(got) == 2)
        asked = await running.until("/readyz", lambda asked: asked.status == 503)
        assert asked.json == {"ready": False, "targets": [], "backlog": None, "checkpoint": "ConnectionError"}
        assert (await running.ask("/healthz")).json["checkpoint"]["failing_for"] > 0
        assert "vizwatch_checkpoint_writable 0.0" in (await running.ask("/metrics")).text
        kept.error = None
        await running.until("/readyz", lambda asked: asked.status == 200)
    assert "to write the checkpoint fails, and is tried again: ConnectionError" in caplog.text
    assert "to write the checkpoint works again" in caplog.text


class Kept:
    """A checkpoint that keeps nothing, or fails to."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def open(self, stream: object) -> None:
        pass

    async def load(self, stream: object, job_ids: object) -> dict[int, bytes]:
        return {}

    async def save(self, records: object) -> None:
        if self.error is not None:
            raise self.error

    async def close(self, stream: object) -> None:
        pass


async def test_a_service_is_ready_once_each_target_was_read_completely(
    cloud: Emulator, tmp_path: Path
) -> None:
    cloud.add_jobs(3, status=8)
    cloud.fault("status", status=503)
    async with serving(configuration(cloud, tmp_path, sink("got", calling(Got())))) as running:
        asked = await running.until("/healthz", lambda asked: asked.json["targets"]["here"]["error"])
        assert asked.json["targets"]["here"]["error"] == "ServerError, HTTP 503"
        asked = await running.ask("/readyz")
        assert (asked.status, asked.json["targets"]) == (503, ["here"])
        cloud.reset()
        asked = await running.until("/readyz", lambda asked: asked.status == 200)
        assert asked.json == {"ready": True, "targets": [], "backlog": None, "checkpoint": None}
        cloud.fault("status", status=503)
        await running.until("/healthz", lambda asked: asked.json["targets"]["here"]["error"])
        assert (await running.ask("/readyz")).status == 200, "it was read once"
        assert (await running.ask("/")).status == 404
        async with aiohttp.ClientSession() as session:
            async with session.head(running.address + "/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "")
            async with session.post(running.address + "/healthz") as answer:
                assert answer.status == 405


async def test_metrics_say_age_jobs_retries_transitions_and_backlog_and_no_job(
    cloud: Emulator, tmp_path: Path
) -> None:
    pytest.importorskip("prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families

    (job_id,) = cloud.add_jobs(1, status=77)
    cloud.fault("status", status=503, count=1)
    got = Got()
    settings = attrs.evolve(QUICK, backoff_base=0.01, backoff_max=0.01)
    configured = configuration(cloud, tmp_path, sink("got", calling(got)), settings=settings)
    async with serving(configured) as running:
        await got.until(len)
        cloud.set_status(job_id, 12)
        await got.until(lambda got: len(got) == 2)
        await running.until("/healthz", lambda asked: not asked.json["sinks"]["got"]["backlog"])
        text = (await running.ask("/metrics")).text
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    here = ("target", "here")
    assert 0 <= values.pop(("vizwatch_target_age_seconds", here)) < WITHIN
    assert values.pop(("vizwatch_requests_total", ("operation", "list jobs"), ("outcome", "ok"))) >= 2
    assert values == {
        ("vizwatch_target_jobs", here): 1,
        ("vizwatch_target_complete", here): 1,
        ("vizwatch_backlog", ("sink", "got")): 0,
        ("vizwatch_backlog_writable",): 1,
        ("vizwatch_checkpoint_writable",): 1,
        ("vizwatch_transitions_total", ("status", "OTHER"), here): 1,
        ("vizwatch_transitions_total", ("status", "KILLED"), here): 1,
        ("vizwatch_deliveries_total", ("outcome", "delivered"), ("sink", "got")): 2,
        ("vizwatch_merged_total", ("sink", "got")): 0,
        ("vizwatch_requests_total", ("operation", "list jobs"), ("outcome", "ServerError")): 1,
        ("vizwatch_retries_total", ("operation", "list jobs")): 1,
    }


async def test_metrics_without_their_extra_say_what_to_install(
    cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    async with serving(configuration(cloud, tmp_path, sink("got", calling(Got())))) as running:
        asked = await running.ask("/metrics")
    assert (asked.status, asked.text) == (501, 'metrics need their extra: install "vizwatch[metrics]"\n')


async def test_a_watch_that_cannot_go_on_ends_the_service_with_its_error(
    cloud: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.fault("status", status=403, code="ModelArts.0108")
    with pytest.raises(vizwatch.VizwatchError, match=r"any more: .*HTTP 403") as ended:
        await serve(configuration(cloud, tmp_path, sink("got", calling(Got()))))
    assert not isinstance(ended.value, ConfigError), "which would tell a supervisor not to try again"
    assert "target here cannot be watched any more" in caplog.text


async def test_a_token_that_expires_before_its_file_has_another_one_ends_no_watch(
    cloud: Emulator, tmp_path: Path
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    (file := tmp_path / "token").write_text(cloud.token)
    auth = Surroundings().token_of(str(file))
    target = Target(cloud.endpoint, cloud.project_id, auth=auth, name="here")
    got = Got()
    async with serving(
        configuration(cloud, tmp_path, sink("got", calling(got)), targets=(target,))
    ) as running:
        await got.until(len)
        file.write_text("")
        cloud.fault("token_expiry")
        failed = len(cloud.requests) + 6  # more often than a refusal is believed
        asked = await running.until("/healthz", lambda _: len(cloud.requests) > failed)
        assert asked.json["targets"]["here"]["error"] == "ConnectError"
        cloud.set_status(job_id, 12)
        file.write_text(cloud.token)
        await got.until(functools.partial(ends_with, 12))
    assert got.currents == [8, 12]


async def test_two_services_do_not_share_a_folder(cloud: Emulator, tmp_path: Path) -> None:
    configured = configuration(cloud, tmp_path, sink("got", calling(Got())))
    async with serving(configured):
        with pytest.raises(vizwatch.VizwatchError, match=r"state\.path is in use by another") as ended:
            await serve(configured)
    assert not isinstance(ended.value, ConfigError), "that one may be about to end"


async def test_a_folder_that_cannot_be_locked_at_all_is_in_use_by_nobody(
    cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuses)
    with pytest.raises(OSError, match=rf"state\.path cannot be locked: {tmp_path}: No locks available; give"):
        await serve(configuration(cloud, tmp_path))


async def test_a_backlog_that_fails_as_it_never_should_ends_the_service(
    cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although nothing comes any more."""

    def fails(*_: object) -> None:
        raise OverflowError("int too large")

    cloud.add_jobs(status=8)
    monkeypatch.setattr(Backlog, "put", fails)
    service = asyncio.create_task(serve(configuration(cloud, tmp_path, sink("got", calling(Got())))))
    await asyncio.wait([service], timeout=WITHIN)
    assert service.done()
    with pytest.raises(OverflowError, match="int too large"):
        await service


async def test_a_signal_while_a_service_ends_by_itself_breaks_nothing_off_and_hides_no_error(
    cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, stops, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event(), list[bool]()
    stop = Outbox.stop

    def stopped(outbox: Outbox) -> None:
        stop(outbox)
        stops.set()

    monkeypatch.setattr(Outbox, "stop", stopped)
    loop = asyncio.get_running_loop()

    async def waits(_: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(began.set)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(go_on.wait(), loop))
        ended.append(True)

    cloud.add_jobs(1)
    configured = configuration(cloud, tmp_path, sink("slow", PythonCall("a:b", waits)))
    service = asyncio.create_task(serve(configured))
    await began.wait()
    cloud.fault("status", status=403, code="ModelArts.0108")
    await stops.wait()
    service.cancel()
    go_on.set()
    with pytest.raises(vizwatch.VizwatchError, match="any more"):
        await service
    assert ended == [True]


async def test_a_folder_that_cannot_be_written_after_all_is_named_with_its_key(
    cloud: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(OSError, match=rf"state\.path cannot be written: {tmp_path}: Is a directory"):
        await serve(configuration(cloud, tmp_path))


async def test_a_backlog_that_is_none_ends_the_service_before_any_request(
    cloud: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "backlog.sqlite").write_text("a text that is long enough to be told from a database\n" * 9)
    said = r"backlog\.sqlite cannot be opened: file is not a database; move it away, .* another state\.path"
    with pytest.raises(ConfigError, match=said) as ended:
        await serve(configuration(cloud, tmp_path))
    assert str(tmp_path) in str(ended.value)
    assert cloud.requests == []


async def test_a_backlog_that_cannot_be_opened_just_now_is_no_fault_of_the_configuration(
    cloud: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "backlog.sqlite").mkdir()
    with pytest.raises(
        OSError, match=r"backlog\.sqlite cannot be opened: unable .*; see who else has it open"
    ):
        await serve(configuration(cloud, tmp_path))


async def test_health_is_bad_once_nothing_watches_any_more() -> None:
    progress = Progress.of([])
    over = Snapshot(outcomes={}, sizes={}, merged={}, progress=progress, is_watching=False)
    with _heard() as heard:
        async with Health(("127.0.0.1", 0), lambda: over):
            assert (await Running(heard.told.result()).ask("/healthz")).status == 503


async def test_of_many_connections_for_health_the_oldest_ends_and_a_new_one_is_answered() -> None:
    """So that those that ask nothing do not take the descriptors that the watch needs."""
    now = Snapshot(outcomes={}, sizes={}, merged={}, progress=Progress.of([]), is_watching=True)
    with _heard() as heard:
        async with Health(("127.0.0.1", 0), lambda: now), contextlib.AsyncExitStack() as stack:
            running = Running(heard.told.result())
            host, port = running.address.removeprefix("http://").split(":")
            idle = []
            for _ in range(40):
                reader, writer = await asyncio.open_connection(host, int(port))
                stack.callback(writer.close)
                idle.append(reader)
            assert (await running.ask("/healthz")).status == 200
            async with asyncio.timeout(WITHIN):
                for reader in idle[:9]:
                    assert await reader.read() == b""
            assert not any(reader.at_eof() for reader in idle[9:])


def test_what_was_given_up_is_no_retry() -> None:
    progress = Progress.of([])
    for error in (None, asyncio.CancelledError(), vizwatch.ServerError(http_status=503)):
        progress.requested(
            vizwatch.Attempt(
                operation="list jobs",
                method="GET",
                endpoint="https://example.com",
                route="/v1",
                attempt=1,
                http_status=None,
                error=error,
                started_at=dt.datetime.now(dt.UTC),
                seconds=0.0,
                received=0,
            )
        )
    assert progress.requests == {("list jobs", what): 1 for what in ("ok", "CancelledError", "ServerError")}
    assert progress.retries == {"list jobs": 1}


async def test_an_address_in_use_ends_the_service(cloud: Emulator, tmp_path: Path) -> None:
    async with Receiver() as taken:
        where = rf"http\.listen: 127\.0\.0\.1:{taken.port} cannot be listened at"
        with pytest.raises(OSError, match=rf"{where}: Address already in use; give an address of"):
            await serve(configuration(cloud, tmp_path, listen=("127.0.0.1", taken.port)))


async def test_an_address_that_is_not_known_ends_the_service_with_its_key(
    cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(
        OSError, match=r"http\.listen: nowhere:9464 cannot be listened at: Name or service not"
    ):
        await serve(configuration(cloud, tmp_path, listen=("nowhere", 9464)))


async def test_what_waits_for_a_sink_that_is_gone_is_kept_and_told(
    cloud: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.add_jobs(1, status=8)
    got = Got()

    def fails(_: object) -> None:
        raise OSError

    async with serving(
        configuration(cloud, tmp_path, sink("old", PythonCall("f", fails)), sink("got", calling(got)))
    ):
        await got.until(len)
    async with serving(configuration(cloud, tmp_path)):
        assert "1 transitions wait for sink old, which is not configured: they are kept" in caplog.text
    assert waiting(tmp_path) == {"old": [8]}


# The command


@pytest.fixture
def file(cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration for the emulated cloud, with a webhook whose port is to be filled in."""
    monkeypatch.setenv("TOKEN", cloud.token)
    monkeypatch.setenv("SECRET", SECRET)
    file = tmp_path / "vizwatch.toml"
    file.write_text(f"""
[state]
path = "{tmp_path}/state"
[settings]
poll_interval = 0.1
poll_interval_min = 0.01
[http]
listen = "127.0.0.1:0"
[[targets]]
name = "here"
endpoint = "{cloud.endpoint}"
project_id = "{cloud.project_id}"
auth = {{ token_env = "TOKEN" }}
[[sinks]]
name = "out"
type = "stdout"
[[sinks]]
name = "hook"
type = "webhook"
url = "http://127.0.0.1:PORT/hook"
secret_env = "SECRET"
""")
    return file


def change(file: Path, **words: object) -> None:
    """Puts something in the place of each of these words, where it stands first."""
    text = file.read_text()
    for word, other in words.items():
        text = text.replace(word, str(other), 1)
    file.write_text(text)


@contextlib.asynccontextmanager
async def command(
    file: Path, *argv: str, stderr: int = subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """``vizwatch run`` in a process of its own, which never outlives its test."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "vizwatch", "run", str(file), *argv),
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**child_environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), str(file.parent)])},
    )
    try:
        async with asyncio.timeout(3 * WITHIN):
            yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def post(receiver: Receiver, status: int) -> Post:
    """The next post of a transition to this status; those before it are passed."""
    while True:
        came = await receiver.came.get()
        if came.transition["current"] == status:
            return came


async def test_a_service_that_is_killed_and_started_again_loses_nothing(cloud: Emulator, file: Path) -> None:
    """What comes a second time comes under the same id, and what changed meanwhile comes too."""
    (job_id,) = cloud.add_jobs(1, status=4)
    async with Receiver() as receiver:
        change(file, PORT=receiver.port)
        async with command(file) as process:
            await post(receiver, 4)
            receiver.answers.append(None)
            cloud.set_status(job_id, 8)
            await post(receiver, 8)  # in hand, and never answered
            cloud.set_status(job_id, 9)
            before = [await printed(process) for _ in range(3)]
            process.send_signal(signal.SIGKILL)
            await process.wait()
        cloud.set_status(job_id, 12)
        async with command(file) as process:
            for status in (8, 9, 12):
                await post(receiver, status)
            last = await printed(process)
            while last["current"] != 12:  # the one before it may come again
                assert last == before[-1]
                last = await printed(process)
            process.terminate()
            _, err = await process.communicate()
            assert process.returncode == 0, err
    assert [one["current"] for one in before] == [4, 8, 9]
    assert {(one.id, one.transition["current"]) for one in receiver.posts} == {
        (one["id"], one["current"]) for one in (*before, last)
    }
    assert (last["previous"], last["not_before"]) != (None, None), "it was known before"


async def printed(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(await process.stdout.readline())
    return line


@pytest.mark.fault("C7")
async def test_a_delivery_in_hand_is_brought_to_its_end_by_sigterm(cloud: Emulator, file: Path) -> None:
    cloud.add_jobs(1, status=8)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def late(_: web.Request) -> web.StreamResponse:
        asked.set()
        await answer.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", late)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        change(file, PORT=runner.addresses[0][1])
        async with command(file) as process:
            await asked.wait()
            began = asyncio.get_running_loop().time()
            process.terminate()
            answer.set()
            _, err = await process.communicate()
            assert asyncio.get_running_loop().time() - began < 5
    finally:
        await runner.cleanup()
    assert (process.returncode, b"broken off" in err) == (0, False)
    assert waiting(file.parent / "state") == {}


@pytest.mark.fault("C7")
@pytest.mark.parametrize("signals", [1, 2])
async def test_what_hangs_for_ever_does_not_keep_a_service_from_ending_within_5_seconds(
    cloud: Emulator, file: Path, signals: int
) -> None:
    """Nor does a second signal: what is in hand stays in hand, and the rest is brought to its end."""
    cloud.add_jobs(1, status=8)
    (file.parent / "stuck.py").write_text(
        "import asyncio, time\n"
        "async def take(transition):\n"
        "    print('taken', flush=True)\n"
        "    await asyncio.to_thread(time.sleep, 60)\n"
    )
    sinks = file.read_text().index("[[sinks]]")
    file.write_text(file.read_text()[:sinks] + '[[sinks]]\nname="s"\ntype="python"\ncall="stuck:take"\n')
    async with command(file) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"taken\n"
        began = asyncio.get_running_loop().time()
        process.terminate()
        assert process.stderr is not None
        while b"to end" not in await process.stderr.readline():
            pass
        if signals == 2:
            process.terminate()
        _, err = await process.communicate()
        assert 3 < asyncio.get_running_loop().time() - began < 5
    assert (process.returncode, b"something hangs" in err) == (0, True), err
    assert waiting(file.parent / "state") == {"s": [8]}


@pytest.mark.fault("C7", "C8")
async def test_a_log_that_nobody_reads_holds_up_neither_the_service_nor_its_end(
    cloud: Emulator, file: Path
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    (file.parent / "noisy.py").write_text(
        "import logging\n"
        "def take(transition):\n"
        "    for number in range(3000):\n"
        "        logging.getLogger('vizwatch').error('%s', 'x' * 100)\n"
    )
    sinks = '[[sinks]]\nname="s"\ntype="python"\ncall="noisy:take"\n[[sinks]]\nname="o"\ntype="stdout"\n'
    file.write_text(file.read_text()[: file.read_text().index("[[sinks]]")] + sinks)
    reader, writer = os.pipe()
    async with contextlib.AsyncExitStack() as stack:
        for end in (reader, writer):
            stack.callback(os.close, end)
        process = await stack.enter_async_context(command(file, stderr=writer))
        for status in (8, 9, 12):
            assert (await printed(process))["current"] == status
            cloud.set_status(job_id, {8: 9, 9: 12, 12: 12}[status])
        began = asyncio.get_running_loop().time()
        process.terminate()
        await process.wait()
        assert asyncio.get_running_loop().time() - began < 5
    assert process.returncode == 0


def test_lines_that_nobody_reads_are_left_out_and_counted(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_written, go_on = threading.Event(), threading.Event()
    write = logging.StreamHandler.emit

    def waits(handler: logging.Handler, record: logging.LogRecord) -> None:
        is_written.set()
        go_on.wait(10)
        write(handler, record)

    monkeypatch.setattr("vizwatch.cli._logging._MOST", 20)
    monkeypatch.setattr(logging.StreamHandler, "emit", waits)
    root, ours = logging.getLogger(), logging.getLogger("vizwatch.service")
    before = root.handlers[:]
    with logged_to_stderr():
        (handler,) = root.handlers
        written: queue.Queue[object] = handler.queue  # type: ignore[attr-defined] # of the log's own handler
        ours.warning("first line")
        is_written.wait(10)
        for number in range(100):
            ours.warning("line %d", number)
        go_on.set()
        written.join()
        ours.warning("behind")
        written.join()
        go_on.clear()
        is_written.clear()
        ours.warning("first of the last")
        is_written.wait(10)
        for number in range(100):
            ours.warning("last %d", number)
        threading.Timer(0.05, go_on.set).start()
    assert root.handlers == before
    lines = capfd.readouterr().err.splitlines()
    assert lines[20] == "vizwatch: WARNING: line 19"
    assert lines[21] == "vizwatch: WARNING: 80 lines are left out, as nobody read those before"
    assert lines[22:24] == ["vizwatch: WARNING: behind", "vizwatch: WARNING: first of the last"]
    assert lines[43:] == ["vizwatch: WARNING: last 19"], "nor does its end need a place among them"


@pytest.mark.fault("R8")
def test_what_other_libraries_say_again_and_again_is_a_line_a_minute(
    capfd: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        with logged_to_stderr():
            for number in range(100):
                logging.getLogger("asyncio").error("accept failed: %d", number)
                logging.getLogger("vizwatch.service").warning("ours: %d", number)
                logging.getLogger("asyncio").debug("not said")
    finally:
        root.handlers[:], root.level = before
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if "accept" in line] == ["vizwatch: ERROR: accept failed: 0"]
    assert len(lines) == 101


async def test_a_wrong_file_is_a_line_for_each_fault_and_code_2_before_any_request(
    cloud: Emulator, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(file, poll_interval="interval", stdout="out")
    code = await asyncio.to_thread(main, ["run", str(file)])
    out, err = capsys.readouterr()
    assert (code, out, cloud.requests) == (2, "", [])
    first, second, third = err.splitlines()
    assert first.startswith(f"vizwatch: {file}:5: settings.interval is unknown")
    assert second.startswith(f"vizwatch: {file}:16: sinks[0].type must be one of")
    assert third.startswith(f"vizwatch: {file}:20: sinks[1].url must be an address")


@pytest.mark.fault("C7")
@pytest.mark.parametrize(("argv", "code"), [([], 0), (["--check"], 143)])
def test_sigterm_while_modules_are_imported_is_how_a_service_is_meant_to_end(
    argv: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "canary-token")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "terminated", raising=False)
    (tmp_path / "terminated.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nf = print\n"
    )
    (tmp_path / "c.toml").write_text(
        f'state = {{ path = "{tmp_path}/state" }}\n'
        '[[targets]]\nregion = "eu-de"\nproject_id = "p"\nauth = { token_env = "TOKEN" }\n'
        '[[sinks]]\nname = "s"\ntype = "python"\ncall = "terminated:f"\n'
    )
    assert main(["run", str(tmp_path / "c.toml"), *argv]) == code
    assert not (tmp_path / "state").exists(), "nothing was begun"


async def test_check_says_what_would_be_done_without_a_request(
    cloud: Emulator, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(file, PORT=9)
    code = await asyncio.to_thread(main, ["run", str(file), "--check"])
    out, err = capsys.readouterr()
    assert (code, err, cloud.requests) == (0, "", [])
    assert out.splitlines() == [
        f"target here: project {cloud.project_id} at {cloud.endpoint}, with TokenAuth",
        "sink out: transitions to stdout, backlog 10000",
        "sink hook: transitions to http://127.0.0.1:9, backlog 10000",
        f"state: {file.parent}/state",
        "health: http://127.0.0.1:0",
    ]
    assert not (file.parent / "state").exists()


async def test_check_says_that_nothing_can_be_said_where_stdout_is_closed(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(file, PORT=9, **{'"stdout"': '"python"\ncall = "json:dumps"'})
    monkeypatch.setattr(sys, "stdout", None)
    assert await asyncio.to_thread(main, ["run", str(file), "--check"]) == 2
    assert capsys.readouterr().err.startswith("vizwatch: stdout is closed, and nothing can be printed")
