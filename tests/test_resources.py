"""What a client holds, and for how long: sockets, tasks, memory, descriptors, loops and deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import os
import platform
import statistics
import tracemalloc
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest
from children import PEAK, in_child, peak_memory
from servers import RawServer, bomb, client_of, http
from virtual import elapse

import vizwatch
from vizwatch import Client, Retry, Settings, VizwatchError
from vizwatch._values.exchange import Answer
from vizwatch._world.transport import Pool, Share, Transport
from vizwatch.emulator import Emulator

JOB = {"job_id": 197, "status": 8, "is_success": True}
LIMIT = 64


def now() -> float:
    return asyncio.get_running_loop().time()


# --- sockets: C1, R2 ------------------------------------------------------------------------------------


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def work(client: Client, what: str, job_id: int) -> None:
    match what:
        case "get":
            await client.get_job(job_id)
        case "list":
            await client.list_jobs(per_page=1, limit=2).collect()
        case "watch":
            await anext(client.watch(job_id))
        case _:
            await client.create_job("tb", "/obs/name/")


@pytest.mark.looptime
@pytest.mark.fault("C1", "bounded")
@pytest.mark.parametrize("what", ["get", "list", "watch", "create"])
async def test_a_call_that_is_cancelled_at_any_step_leaves_no_socket_open(cloud: Emulator, what: str) -> None:
    """After any number of steps of the event loop, once its client is closed; until then one at most."""
    job_id, _ = cloud.add_jobs(2, status=8)
    settings = Settings(pool_size=1)
    before = descriptors()
    ended = 0
    for steps in range(300):
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
            task = asyncio.create_task(work(client, what, job_id))
            for _ in range(steps):
                await asyncio.sleep(0)  # a step, and no time
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            ended += not task.cancelled()
            assert descriptors() - before <= 2, "a connection has two ends, and both are of this process"
        for _ in range(100):
            if descriptors() == before:
                break
            await asyncio.sleep(0)
        assert descriptors() == before, f"after {steps} steps"
        if ended > 3:
            break
    assert ended > 3


async def many_calls(pools: str, endpoint: str, project_id: str, token: str) -> dict[str, int]:
    import resource

    outcomes = Counter[str]()

    def again(retry: Retry) -> None:
        assert not retry.was_sent
        outcomes["again"] += 1

    async def call(client: Client) -> None:
        try:
            await client.list_jobs().collect()
        except VizwatchError as error:
            outcomes[str(error)] += 1
        else:
            outcomes["well"] += 1

    settings = Settings(on_retry=again)
    assert settings.pool_size > LIMIT
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    async with contextlib.AsyncExitStack() as stack:
        pool = Pool(settings)
        stack.push_async_callback(pool.aclose)
        session = Share(pool) if pools == "shared" else None
        client = Client(endpoint, project_id, auth=token, settings=settings, session=session)
        await stack.enter_async_context(client)
        await asyncio.gather(*(call(client) for _ in range(500)))
    return outcomes


@pytest.mark.fault("R2", "bounded")
@pytest.mark.parametrize("pools", ["own", "shared"])
async def test_fewer_descriptors_than_the_pool_has_places_are_no_error(cloud: Emulator, pools: str) -> None:
    """In real time, since the limit is a process's own.

    A place that had none is left empty for a while, so that all but the first wait for one that is open.
    """
    outcomes = await in_child(many_calls, pools, cloud.endpoint, cloud.project_id, cloud.token)
    assert outcomes.pop("well") == 500
    assert 0 < outcomes.pop("again") < Settings().pool_size
    assert not outcomes


# --- memory: R7, J2 -------------------------------------------------------------------------------------


@pytest.mark.repeats
@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.fault("R7", "bounded")
async def test_a_watch_of_days_holds_no_more_than_one_of_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most a MiB for each 100,000 looks, through all but the network, of which there is one answer."""
    looks = 0
    body = json.dumps(JOB).encode()

    async def send(*_: Any, **__: Any) -> Answer:
        nonlocal looks
        looks += 1
        return Answer(200, {}, body, now())

    monkeypatch.setattr(Transport, "send", send)

    async def watched(client: Client, count: int) -> int:
        begun = looks
        with pytest.raises(vizwatch.WatchTimeoutError):
            async for _ in client.watch(197, interval=15, timeout=15 * count):
                pass
        gc.collect()
        return looks - begun

    async with client_of("https://example.com") as client:
        await watched(client, 500)
        tasks = len(asyncio.all_tasks())
        tracemalloc.start()
        try:
            seen = await watched(client, 20_000)
            grown, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(asyncio.all_tasks()) == tasks
    assert seen > 19_000
    assert grown < 2**20 * seen / 100_000
    assert peak < 2 * 2**20


async def read_a_bomb(endpoint: str) -> dict[str, Any]:
    async with client_of(endpoint, attempts=1) as client:
        with contextlib.suppress(vizwatch.ProtocolError):
            await client.get_job(198)  # what is loaded late is loaded now
        before = peak_memory()
        try:
            await client.get_job(197)
        except vizwatch.ProtocolError as error:
            return {"told": str(error), "grown": peak_memory() - before}
    return {}


@pytest.mark.fault("J2", "bounded")
@pytest.mark.skipif(not PEAK.exists(), reason="the peak of resident memory is told by Linux alone")
async def test_half_a_gigabyte_in_two_megabytes_costs_sixteen_at_most() -> None:
    """Resident memory of the process, which counts what Python's own allocator does not see."""
    packed = bomb(31, 512)
    assert 2 * 2**20 < len(packed) < 3 * 2**20
    small = http(raw=gzip.compress(b"[]"), headers=("Content-Encoding: gzip",))
    async with RawServer(small, http(raw=packed, headers=("Content-Encoding: gzip",))) as server:
        outcome = await in_child(read_a_bomb, server.endpoint)
    assert "max_body" in outcome["told"]
    assert outcome["grown"] < 16 * 2**20


async def faults_an_answer(endpoint: str) -> float:
    import resource

    transport = Transport(endpoint, Settings())

    async def read(times: int) -> int:
        for _ in range(times):
            await transport.send("GET", "/", {}, b"", within=60.0)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    try:
        before = await read(20)
        return (await read(50) - before) / 50
    finally:
        await transport.aclose()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep what they keep")
async def test_large_answers_are_read_into_memory_that_the_process_has_already() -> None:
    """A page of a thousand jobs has 83 pages of memory, which else are new ones each time, twice over."""
    async with RawServer(http(raw=b'"%s"' % (b"x" * 340_000))) as server:
        assert await in_child(faults_an_answer, server.endpoint) < 20.0


# --- fairness: R3 ---------------------------------------------------------------------------------------


@pytest.mark.repeats
@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.fault("R3")
async def test_many_watches_on_few_connections_come_to_their_turns_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They ask for twice what ten connections carry, so that all wait for their turns."""
    looks: Counter[str] = Counter()

    async def exchange(_: Transport, method: str, target: str, *__: Any) -> Answer:
        looks[target] += 1
        await elapse(0.2)
        job = {**JOB, "job_id": int(target.rpartition("/")[2])}
        return Answer(200, {}, json.dumps(job).encode(), now())

    monkeypatch.setattr(Transport, "_exchange", exchange)
    async with client_of("https://example.com", pool_size=10, poll_interval=10, shared_reads=False) as client:

        async def watched(job_id: int) -> None:
            async for _ in client.watch(job_id):
                pass

        watches = [asyncio.create_task(watched(job_id)) for job_id in range(1000)]
        await elapse(420)
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
    counts = sorted(looks.values())
    assert len(counts) == 1000
    assert sum(counts) == pytest.approx(10 / 0.2 * 420, rel=0.02), "the connections were never idle"
    assert counts[-1] / statistics.median(counts) <= 1.2
    assert counts[0] / statistics.median(counts) >= 0.8


# --- processes and loops: C6 ----------------------------------------------------------------------------


async def forked() -> list[str]:
    """What the child and the parent come to with a client that was opened before the fork."""
    async with Emulator() as cloud:
        (job_id,) = cloud.add_jobs(1, status=8)
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            await client.get_job(job_id)
            return [_said_in_a_fork(client, job_id), await _asked(client, job_id)]


def _said_in_a_fork(client: Client, job_id: int) -> str:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, asyncio.run(_asked(client, job_id)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        return pipe.read()


async def _asked(client: Client, job_id: int) -> str:
    try:
        async with asyncio.timeout(5):
            return f"job {(await client.get_job(job_id)).job_id == job_id}"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return f"{type(error).__name__}: {error}"


@pytest.mark.fault("C6")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="only Unix forks")
async def test_after_a_fork_the_child_is_told_and_the_parent_goes_on() -> None:
    """Both would else write into the same connection."""
    in_the_child, in_the_parent = await in_child(forked)
    assert in_the_child.startswith("ConfigError: ")
    assert "another event loop" in in_the_child
    assert in_the_parent == "job True"


@pytest.mark.fault("C6")
def test_a_client_that_is_called_from_another_loop_still_works_in_its_own() -> None:
    with asyncio.Runner() as first, asyncio.Runner() as second:
        server = first.run(RawServer(http(JOB)).__aenter__())
        client = Client(server.endpoint, "p1", auth="t")
        first.run(client.__aenter__())
        watch = client.watch(197)
        calls: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: client.get_job(197),
            lambda: client.create_job("tb", "/obs/name/"),
            watch.__anext__,
        ]
        for call in calls:
            with pytest.raises(vizwatch.ConfigError, match="another event loop"):
                second.run(call())
        assert first.run(client.get_job(197)).job_id == 197
        first.run(client.aclose())
        first.run(server.__aexit__(None, None, None))
    assert server.seen.total() == 1


@pytest.mark.fault("C6")
def test_closing_from_another_loop_is_refused_like_a_call() -> None:
    with asyncio.Runner() as first, asyncio.Runner() as second:
        server = first.run(RawServer(http(JOB)).__aenter__())
        client = Client(server.endpoint, "p1", auth="t")
        first.run(client.__aenter__())
        first.run(client.get_job(197))  # a connection is open
        try:
            with pytest.raises(vizwatch.ConfigError, match="another event loop"):
                second.run(client.aclose())
        finally:
            first.run(client.aclose())
            first.run(server.__aexit__(None, None, None))


# --- deadlines: C10, C11 --------------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.fault("C10")
@pytest.mark.parametrize(("outer", "middle", "inner"), [(50, 7, 20), (50, 20, 7), (7, 20, 50), (7, 50, 20)])
async def test_the_nearest_of_nested_deadlines_holds(
    cloud: Emulator, here: Client, outer: float, middle: float, inner: float
) -> None:
    """Of anyio's and asyncio's, in any order, around a call and around a watch; and the client works on."""
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.fault("latency", seconds=25)
    watch = here.watch(job_id)
    for step in (lambda: here.get_job(job_id), lambda: anext(watch)):
        started = now()
        ended_by = ""
        with anyio.move_on_after(outer) as scope:
            try:
                async with asyncio.timeout(middle) as timeout:
                    with anyio.move_on_after(inner) as innermost:
                        await step()
                    ended_by = "inner" if innermost.cancelled_caught else ended_by
            except TimeoutError:
                assert timeout.expired()
                ended_by = "middle"
        ended_by = "outer" if scope.cancelled_caught else ended_by
        assert now() - started == pytest.approx(7, abs=0.01)
        assert ended_by == {outer: "outer", middle: "middle", inner: "inner"}[7]
    cloud.clear_faults()
    assert (await anext(watch)).current == 8
    assert here._project._opened()._transport._places._free == here.settings.pool_size


@pytest.mark.looptime
@pytest.mark.fault("C11", "bounded")
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_close_that_hangs_is_given_up_after_two_seconds(
    monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    async with RawServer(http(JOB)) as server:
        client = Client(server.endpoint, "p1", auth="t")
        await client.__aenter__()
        await client.get_job(197)
        session = client._project._opened()._transport._session
        close, closed = session.close, asyncio.Event()

        async def hang() -> None:
            await elapse(60)
            await close()
            closed.set()

        monkeypatch.setattr(session, "close", hang)
        started = now()
        with anyio.CancelScope() as scope:
            if cancelled:
                scope.cancel()
            await client.aclose()
        assert now() - started == pytest.approx(2, abs=0.01)
        await closed.wait()
