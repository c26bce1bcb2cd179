"""Places that a Redis keeps: held by one process at a time, whatever becomes of it and of the Redis."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import pickle
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from canaries import shown
from redis.asyncio import Redis
from redis.crc import key_slot
from redis_servers import RedisServer, needs_redis, until
from taking import taken
from virtual import elapse

import vizwatch
from vizwatch import CheckpointError, Client, ConfigError, RedisCheckpoint, Stream, Transition
from vizwatch._rules.fencing import Step
from vizwatch._world import redis as module
from vizwatch._world.batching import Batches
from vizwatch.emulator import Emulator

ALL = Stream("https://example.com", "p1", "0")
SINGLE = Stream("https://example.com", "p1", None)
HEAD, LEASE, JOBS = "{vizwatch}:head", "{vizwatch}:lease:p1:0", "{vizwatch}:jobs:p1:0"
CANARY = "canary-5f2e"


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    """One that no test kills."""
    with RedisServer() as running:
        yield running


@pytest.fixture
async def raw(shared: RedisServer) -> AsyncIterator[Any]:
    """Somebody else, who may do anything; finds and leaves it empty."""
    async with Redis(port=shared.port) as client:
        await client.flushall()
        yield client
        await client.flushall()


def checkpoint_of(server: RedisServer, *, lease: float = 15, **options: Any) -> RedisCheckpoint:
    """One that writes at once, as another process has it."""
    made = RedisCheckpoint(server.url, **{"window": 0, **options})
    made.lease = lease  # which may be shorter than anybody would want it
    return made


@contextlib.asynccontextmanager
async def opened(checkpoint: RedisCheckpoint, *streams: Stream) -> AsyncIterator[RedisCheckpoint]:
    for stream in streams:
        await checkpoint.open(stream)
    try:
        yield checkpoint
    finally:
        for stream in streams:
            await checkpoint.close(stream)


# --- records --------------------------------------------------------------------------------------------


@needs_redis
async def test_what_was_saved_is_found_by_who_opens_the_stream_next(shared: RedisServer, raw: Any) -> None:
    async with opened(checkpoint_of(shared), ALL, SINGLE) as first:
        assert await first.load(ALL, None) == {}
        await first.save({ALL: {1: b"a", 2: b"", 3: b"c"}, SINGLE: {1: b"other"}})
        await first.save({ALL: {1: b"\xff\0", 3: None, 4: None}})
    second = RedisCheckpoint(f"unix://{shared.socket}?db=0")
    async with opened(second, ALL, SINGLE):
        assert await second.load(ALL, None) == {1: b"\xff\0", 2: b""}
        assert await second.load(ALL, [2, 3, 9]) == {2: b""}
        assert await second.load(SINGLE, None) == {1: b"other"}


@needs_redis
async def test_prefixes_and_databases_are_checkpoints_of_their_own(shared: RedisServer, raw: Any) -> None:
    one, two = checkpoint_of(shared), checkpoint_of(shared, prefix="two")
    three = RedisCheckpoint(f"{shared.url}/3")
    async with opened(one, ALL), opened(two, ALL), opened(three, ALL):
        await one.save({ALL: {1: b"1"}})
        assert await two.load(ALL, None) == await three.load(ALL, None) == {}


@needs_redis
async def test_all_keys_of_a_prefix_lie_in_one_slot_of_a_cluster(shared: RedisServer, raw: Any) -> None:
    streams = [ALL, SINGLE, Stream("https://example.com", "p{2}", "a:{b}")]
    async with opened(checkpoint_of(shared, prefix="a:b"), *streams) as one:
        await one.save({stream: {1: b"1"} for stream in streams})
        keys = await raw.keys()
    assert len(keys) == 7
    assert {key_slot(key) for key in keys} == {key_slot(b"a:b")}


@pytest.mark.fault("D7")
@needs_redis
async def test_ten_thousand_records_are_one_step_and_read_in_pages(shared: RedisServer, raw: Any) -> None:
    records = dict.fromkeys(range(10_000), b"x" * 500)
    loop = asyncio.get_running_loop()
    async with opened(checkpoint_of(shared), ALL) as one:
        began = loop.time()
        await one.save({ALL: records})
        assert loop.time() - began < 2, "mostly it takes a tenth of a second"
        assert await one.load(ALL, None) == records
        assert await one.load(ALL, records.keys()) == records
        commands = await raw.info("commandstats")
    assert commands["cmdstat_hscan"]["calls"] >= 5
    assert "cmdstat_hgetall" not in commands


@needs_redis
async def test_many_who_load_at_once_share_a_few_connections(shared: RedisServer, raw: Any) -> None:
    before = (await raw.info("stats"))["total_connections_received"]
    async with opened(checkpoint_of(shared), SINGLE) as one:
        await asyncio.gather(*(one.load(SINGLE, [job_id]) for job_id in range(300)))
    assert (await raw.info("stats"))["total_connections_received"] - before <= 8


@needs_redis
async def test_many_streams_that_are_closed_at_once_are_free_for_another_process_at_once(
    shared: RedisServer, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CONNECTIONS", 1)
    monkeypatch.setattr(module, "_TO_RELEASE", 0.15)  # for one, and all of them together take longer
    streams = [Stream("https://example.com", f"p{number}", "0") for number in range(1500)]
    one = checkpoint_of(shared)
    await asyncio.gather(*map(one.open, streams))
    assert len(await raw.keys("*:lease:*")) == 1500
    await asyncio.gather(*map(one.close, streams))
    assert await raw.keys("*:lease:*") == []


@needs_redis
async def test_who_is_cancelled_at_any_moment_while_a_redis_is_asked_hears_no_answer(
    shared: RedisServer, raw: Any
) -> None:
    async with opened(checkpoint_of(shared), ALL) as one:
        for turns in range(20):
            load = asyncio.create_task(one.load(ALL, [1]))
            for _ in range(turns):
                await asyncio.sleep(0)
            was_over = load.done()
            load.cancel()
            await asyncio.wait([load])
            assert load.cancelled() or was_over


@needs_redis
async def test_what_is_saved_within_a_window_is_one_step(shared: RedisServer, raw: Any) -> None:
    streams = [Stream("https://example.com", f"p{number}", "0") for number in range(20)]
    async with opened(checkpoint_of(shared, window=0.05), *streams) as one:
        await one.save({streams[0]: {0: b"0"}})
        await raw.config_resetstat()
        await asyncio.gather(*(one.save({stream: {1: b"1"}}) for stream in streams))
        assert (await raw.info("commandstats"))["cmdstat_eval"]["calls"] == 1
        for stream in streams:
            assert await one.load(stream, [1]) == {1: b"1"}
        await asyncio.gather(*(one.save({streams[0]: {1: record}}) for record in (b"2", None, b"3")))
        assert await one.load(streams[0], [1]) == {1: b"3"}, "the last one counts"


@needs_redis
async def test_what_waits_for_its_window_is_given_up_when_it_is_closed(shared: RedisServer, raw: Any) -> None:
    async with opened(checkpoint_of(shared, window=1), ALL) as one:
        await one.save({ALL: {1: b"at once"}})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.save({ALL: {1: b"later"}}), 0.01)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await raw.hgetall(JOBS) == {b"1": b"at once"}


@pytest.mark.looptime
async def test_a_window_begins_with_a_write_and_what_fails_fails_for_all_in_it() -> None:
    loop = asyncio.get_running_loop()
    written: list[tuple[float, list[int]]] = []

    async def write(numbers: list[int]) -> None:
        written.append((loop.time(), numbers))
        if 3 in numbers:
            raise OSError(28, "No space left on device")

    batches, began = Batches(0.2, write), loop.time()
    await batches.put(1)
    results = await asyncio.gather(*map(batches.put, (2, 3)), return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError]
    await batches.put(4)
    assert [(round(at - began, 3), numbers) for at, numbers in written] == [
        (0.0, [1]),
        (0.2, [2, 3]),
        (0.4, [4]),
    ]


@pytest.mark.looptime
async def test_who_is_cancelled_while_a_write_waits_spoils_it_for_nobody() -> None:
    written: list[list[int]] = []
    unheard: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))

    async def write(numbers: list[int]) -> None:
        written.append(numbers)
        if 4 in numbers:
            raise OSError(28, "No space left on device")

    batches = Batches(0.2, write)
    await batches.put(1)
    puts = [asyncio.create_task(batches.put(number)) for number in (2, 3)]
    await elapse(0.1)
    puts[0].cancel()
    await puts[1]
    put = asyncio.create_task(batches.put(4))
    await elapse(0.1)
    put.cancel()
    await elapse(1)
    gc.collect()
    assert written == [[1], [2, 3], [4]]
    assert not unheard


@pytest.mark.looptime
async def test_what_waits_for_its_window_is_given_up_when_all_is_closed() -> None:
    written: list[int] = []

    async def write(numbers: list[int]) -> None:
        written.extend(numbers)

    batches = Batches(0.2, write)
    await batches.put(1)
    put = asyncio.create_task(batches.put(2))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(put, 0.1)
    await batches.aclose()
    await batches.put(3)
    assert written == [1, 3]


# --- leases ---------------------------------------------------------------------------------------------


@pytest.mark.fault("D5")
@needs_redis
async def test_a_stream_that_is_held_is_in_use_for_others(shared: RedisServer, raw: Any) -> None:
    loop = asyncio.get_running_loop()
    async with opened(checkpoint_of(shared, lease=2), ALL) as holder:
        with pytest.raises(CheckpointError, match="watched with it already"):
            await holder.open(ALL)
        async with opened(checkpoint_of(shared), SINGLE):
            began = loop.time()
            with pytest.raises(CheckpointError, match=r"p1 at .*, its workspace 0: it is in use"):
                await checkpoint_of(shared, lease=0.3).open(ALL)
            assert 1.3 <= loop.time() - began < 5, "a lease and a second"
        await holder.save({ALL: {1: b"1"}})


@needs_redis
async def test_who_waits_for_a_stream_gets_it_once_it_is_given_up(shared: RedisServer, raw: Any) -> None:
    second = checkpoint_of(shared)
    await raw.config_resetstat()
    async with opened(checkpoint_of(shared), ALL) as holder:
        waiting = asyncio.create_task(second.open(ALL))
        while "cmdstat_pttl" not in await raw.info("commandstats"):
            pass
        await holder.save({ALL: {1: b"1"}})
        assert not waiting.done()
    await asyncio.wait_for(waiting, 5)
    assert await second.load(ALL, None) == {1: b"1"}
    await second.close(ALL)


@needs_redis
async def test_who_waits_for_a_stream_can_be_cancelled(shared: RedisServer, raw: Any) -> None:
    second = checkpoint_of(shared)
    async with opened(checkpoint_of(shared), ALL):
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(second.open(ALL), 0.05)


@pytest.mark.fault("D5")
@needs_redis
async def test_a_paused_process_changes_nothing_after_its_successor_came(
    shared: RedisServer, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(checkpoint_of(shared), ALL, SINGLE) as paused:
        await paused.save({ALL: {1: b"old"}, SINGLE: {1: b"old"}})
        await raw.delete(LEASE)  # as if it had ended
        async with opened(checkpoint_of(shared), ALL) as successor:
            await successor.save({ALL: {1: b"new"}})
            with pytest.raises(CheckpointError, match="another process has taken it over"):
                await paused.save({ALL: {1: b"late"}, SINGLE: {1: b"late"}})
        for lost in (paused.save({ALL: {1: b"late"}}), paused.load(ALL, None)):
            with pytest.raises(CheckpointError, match="another process has taken it over"):
                await lost
        assert await raw.hgetall(JOBS) == {b"1": b"new"}
        assert await paused.load(SINGLE, None) == {1: b"old"}, "all or nothing"
        await paused.save({SINGLE: {1: b"new"}})
        await paused.close(ALL)
        await paused.open(ALL)
        await paused.save({ALL: {1: b"newest"}})
    assert len([one for one in caplog.messages if "taken it over" in one]) == 1


@pytest.mark.fault("D5")
@needs_redis
async def test_a_stream_that_is_lost_is_no_matter_of_others_that_write_in_the_same_window(
    shared: RedisServer, raw: Any
) -> None:
    async with opened(checkpoint_of(shared, window=0.05), ALL, SINGLE) as one:
        await one.save({ALL: {1: b"1"}})
        await raw.set(LEASE, "0" * 16 + ":ab")
        saves = ({ALL: {1: b"2"}}, {SINGLE: {1: b"2"}}, {SINGLE: {2: b"2"}})
        lost, *others = await asyncio.gather(*map(one.save, saves), return_exceptions=True)
        assert isinstance(lost, CheckpointError)
        assert others == [None, None]
        assert await one.load(SINGLE, None) == {1: b"2", 2: b"2"}
        assert await raw.hgetall(JOBS) == {b"1": b"1"}


@needs_redis
async def test_a_process_that_only_renews_hears_that_it_was_succeeded(
    shared: RedisServer, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(checkpoint_of(shared, lease=0.1), ALL, SINGLE):
        await raw.set(LEASE, "0" * 16 + ":ab")
        await until(lambda: "taken it over" in caplog.text)
        await raw.delete("{vizwatch}:lease:p1")
        await until(lambda: raw.exists("{vizwatch}:lease:p1"))
        assert await raw.get(LEASE) == b"0" * 16 + b":ab", "what another one has is left alone, also by close"
    assert await raw.get(LEASE) == b"0" * 16 + b":ab"


@needs_redis
async def test_a_lease_that_only_ended_is_taken_again(shared: RedisServer, raw: Any) -> None:
    async with opened(checkpoint_of(shared), ALL) as one:
        token = await raw.get(LEASE)
        for forget in (raw.delete(LEASE), raw.flushall(), raw.hset(HEAD, "holder p1:0", "0" * 16 + ":ab")):
            await forget
            await raw.delete(LEASE)
            await one.save({ALL: {1: b"1"}})
            assert await raw.get(LEASE) == token
            assert await raw.hget(HEAD, "format") == b"1"
            assert await raw.hget(HEAD, "endpoint p1") == b"https://example.com"
            assert await raw.hget(HEAD, "holder p1:0") == token
            assert await one.load(ALL, None) == {1: b"1"}


@needs_redis
async def test_a_successor_is_later_also_where_the_clock_went_back(shared: RedisServer, raw: Any) -> None:
    await raw.hset(HEAD, mapping={"format": 1, "holder p1:0": "4" * 16 + ":ab"})
    async with opened(checkpoint_of(shared), ALL):
        assert (await raw.get(LEASE)).startswith(b"4" * 15 + b"5:")


@needs_redis
async def test_what_a_process_sent_before_it_closed_takes_no_stream_again(
    shared: RedisServer, raw: Any
) -> None:
    one = checkpoint_of(shared)
    async with opened(one, ALL, SINGLE):
        claim = one._claims[ALL]
        assert claim is not None
        await one.close(ALL)
        assert await one._step(Step.RENEW, [claim]) == (b"done", [1])
        assert not await raw.exists(LEASE)
        await one.open(ALL)
        one._lose({ALL: claim}, (b"done", [1]))
        await one.save({ALL: {1: b"1"}})


@needs_redis
async def test_a_lease_is_renewed_well_before_it_ends(shared: RedisServer, raw: Any) -> None:
    async with opened(checkpoint_of(shared, lease=0.6), ALL):
        await raw.config_resetstat()
        began = asyncio.get_running_loop().time()
        while (await raw.info("commandstats")).get("cmdstat_set", {}).get("calls", 0) < 3:
            assert await raw.exists(LEASE)
        assert asyncio.get_running_loop().time() - began < 1.2, "at the thirds of it"
    assert not await raw.exists(LEASE), "given up"


async def write_on(url: str) -> None:
    """Writes the same number to two streams, again and again, and tells it."""
    checkpoint = RedisCheckpoint(url, window=0)
    checkpoint.lease = 0.5
    for stream in (ALL, SINGLE):
        await checkpoint.open(stream)
    number = 0
    while True:
        number += 1
        record = str(number).encode()
        await checkpoint.save({ALL: {1: record, 2: record}, SINGLE: {1: record}})
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


@pytest.mark.fault("D2")
@needs_redis
async def test_who_is_killed_at_any_moment_leaves_old_or_new_and_a_lease_that_ends(
    shared: RedisServer, raw: Any
) -> None:
    code = (
        f"import asyncio; from test_redis_checkpoint import write_on; asyncio.run(write_on({shared.url!r}))"
    )
    tests = Path(__file__).parent
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])},
    )
    assert child.stdout is not None
    for _ in range(20):
        await child.stdout.readline()
    child.kill()
    said, _ = await child.communicate()
    async with opened(checkpoint_of(shared, lease=1), ALL, SINGLE) as successor:
        kept = [*(await successor.load(ALL, None)).values(), *(await successor.load(SINGLE, None)).values()]
    told = int(said.split()[-1]) if said else 20
    assert len(kept) == 3
    assert len({*kept}) == 1, "not half of one step"
    assert int(kept[0]) in {told, told + 1}


# --- what cannot be used --------------------------------------------------------------------------------


async def refused(checkpoint: RedisCheckpoint, raw: Any, stream: Stream = ALL) -> str:
    """How opening it is refused; nothing changes by that."""
    before = {key: await raw.dump(key) for key in await raw.keys()}
    with pytest.raises(CheckpointError) as told:
        await checkpoint.open(stream)
    assert {key: await raw.dump(key) for key in await raw.keys()} == before
    return str(told.value)


@pytest.fixture
async def kept(shared: RedisServer, raw: Any) -> RedisCheckpoint:
    """One in which there is something already."""
    async with opened(checkpoint_of(shared), ALL) as first:
        await first.save({ALL: {1: b"1"}})
    return checkpoint_of(shared)


@pytest.mark.fault("D5")
@needs_redis
async def test_a_project_of_another_endpoint_is_refused(kept: RedisCheckpoint, raw: Any) -> None:
    for workspace_id in ("0", None):
        told = await refused(kept, raw, Stream("https://elsewhere.example.com", "p1", workspace_id))
        assert "project p1 was watched at https://example.com, and is to be at https://elsewhere" in told
        assert "give it that endpoint back, or use another database or prefix" in told
    async with opened(kept, Stream("https://elsewhere.example.com", "p2", "0")):
        pass


@pytest.mark.fault("D5")
@needs_redis
async def test_a_newer_version_is_refused_and_stops_who_runs(kept: RedisCheckpoint, raw: Any) -> None:
    async with opened(kept, SINGLE):
        await raw.hset(HEAD, "format", "2")
        assert "newer version of vizwatch: of format 2, and this one knows 1" in await refused(kept, raw)
        with pytest.raises(CheckpointError, match="newer"):
            await kept.save({SINGLE: {1: b"1"}})
    assert not await raw.exists("{vizwatch}:jobs:p1")


@needs_redis
async def test_a_key_of_another_type_is_damaged(kept: RedisCheckpoint, raw: Any) -> None:
    for key, sound in ((HEAD, "hash"), (LEASE, "string"), (JOBS, "hash")):
        before = await raw.dump(key)
        for kind in {"hash", "list", "string"} - {sound}:
            await raw.delete(key)
            write = {
                "hash": raw.hset(key, "a", "x"),
                "list": raw.rpush(key, "x"),
                "string": raw.set(key, "x"),
            }
            await write.pop(kind)
            for other in write.values():
                other.close()
            assert "damaged, and was left as it is" in await refused(kept, raw)
        await raw.delete(key)
        if before is not None:
            await raw.restore(key, 0, before)
    async with opened(kept, ALL):
        assert await kept.load(ALL, None) == {1: b"1"}


@needs_redis
async def test_a_head_that_is_none_is_damaged(kept: RedisCheckpoint, raw: Any) -> None:
    head = await raw.hgetall(HEAD)
    for broken in ({"format": "-1"}, {"format": "0"}, {"format": ""}, {"holder p1:0": "x"}):
        await raw.hset(HEAD, mapping=broken)
        assert "damaged, and was left as it is" in await refused(kept, raw)
        await raw.hset(HEAD, mapping=head)
    for missing in ({b"format"}, {b"endpoint p1"}, head.keys()):
        await raw.hdel(HEAD, *missing)
        assert "damaged, and was left as it is" in await refused(kept, raw)
        await raw.hset(HEAD, mapping=head)


@needs_redis
async def test_a_record_that_is_garbage_is_damaged_and_left_as_it_is(kept: RedisCheckpoint, raw: Any) -> None:
    too_long = "x" * 300_000
    async with opened(kept, ALL):
        for field, value in (
            ("x", "1"),
            ("", "1"),
            ("01", "1"),
            ("-1", "1"),
            ("9" * 20, "1"),
            ("5", too_long),
        ):
            await raw.hset(JOBS, field, value)
            with pytest.raises(CheckpointError, match="damaged, and was left as it is"):
                await kept.load(ALL, None)
            assert await raw.hget(JOBS, field) == value.encode()
            await raw.hdel(JOBS, field)
        assert await kept.load(ALL, None) == {1: b"1"}


def _line(answer: bytes, _: bytes) -> bytes:
    return answer + b"\r\n"


async def test_whatever_a_server_answers_is_no_error_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WITHIN", 0.1)
    monkeypatch.setattr(module, "_IN_ALL", 0.1)
    for answer in (
        *(b"+OK", b":1", b"$-1", b"*0", b"*2\r\n+held\r\n$-1", b"*2\r\n+done\r\n*0", b"*1\r\n+newer"),
        *(
            b"*2\r\n+newer\r\n$1\r\n\xff",
            b"*2\r\n+elsewhere\r\n*2\r\n:9\r\n+x",
            b"HTTP/1.1 400 No",
            b"\xff",
            b"",
        ),
        *(b"$99999999999", b"*99999999", b"-NOAUTH", b"*-5", b"!x", b"-MOVED 1 h:1", b"-MOVED"),
    ):
        async with answering(functools.partial(_line, answer)) as url:
            with pytest.raises(CheckpointError) as told:
                await RedisCheckpoint(url).open(ALL)
        assert len(str(told.value)) < 500


@contextlib.asynccontextmanager
async def served(serve: Any) -> AsyncIterator[str]:
    """Where a server answers that is none of Redis."""
    serving: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()
        if serving:
            await asyncio.wait(serving)  # their connections are closed


@contextlib.asynccontextmanager
async def answering(answer: Callable[[bytes], bytes]) -> AsyncIterator[str]:
    """One that knows what connecting takes, and answers anything else by hand."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while said := await reader.read(65_536):
                writer.write(b"+OK\r\n" * said.count(b"SETINFO") if b"SETINFO" in said else answer(said))
                await writer.drain()

    async with served(serve) as url:
        yield url


# --- a Redis that is away -------------------------------------------------------------------------------


@needs_redis
async def test_watches_go_on_while_a_redis_is_away_and_nothing_is_lost(
    cloud: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    often = vizwatch.Settings(poll_interval=0.05, poll_interval_min=0.05)
    (job_id,) = cloud.add_jobs(1, status=1)
    found: list[Transition] = []

    def client() -> Client:
        return Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=often)

    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        async with client() as first:
            async with taken(first.watch(job_id, checkpoint=checkpoint_of(server)), found.append):
                await until(lambda: found)
                server.kill()
                cloud.set_status(job_id, 8)
                await until(lambda: len(found) == 2)
                await until(lambda: "could not be written" in caplog.text)
                server.start()
                await until(lambda: "is written again" in caplog.text)
        server.kill()
        server.start()
        cloud.set_status(job_id, 10)
        async with client() as second:
            checkpoint = checkpoint_of(server)
            found += [one async for one in second.watch(job_id, checkpoint=checkpoint)]
    assert [one.current for one in found] == [1, 8, 10]


@pytest.mark.fault("D2")
@needs_redis
async def test_a_redis_that_is_killed_while_it_writes_has_all_of_a_step_or_nothing() -> None:
    acknowledged = 0

    async def write() -> None:
        nonlocal acknowledged
        while True:
            record = b"%d" % (acknowledged + 1)
            await one.save({ALL: dict.fromkeys(range(100), record), SINGLE: {1: record}})
            acknowledged += 1

    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        async with opened(checkpoint_of(server), ALL, SINGLE) as one:
            writing = asyncio.create_task(write())
            await until(lambda: acknowledged >= 20)
            server.kill()
            with pytest.raises(ConnectionError):
                await writing
            server.start()
            kept = [*(await one.load(ALL, None)).values(), *(await one.load(SINGLE, None)).values()]
    assert len(kept) == 101
    assert len({*kept}) == 1
    assert int(kept[0]) in {acknowledged, acknowledged + 1}


@needs_redis
async def test_a_redis_that_is_away_is_said_at_once_and_holds_no_close_up() -> None:
    loop = asyncio.get_running_loop()
    streams = [Stream("https://example.com", f"q{number}", "0") for number in range(50)]
    with RedisServer() as server:
        async with opened(checkpoint_of(server), *streams) as one:
            server.kill()
            for call in (one.load(streams[0], None), one.open(ALL)):
                with pytest.raises(
                    CheckpointError, match=f"127.0.0.1:{server.port}/0: it cannot be used: .*Conn"
                ):
                    await call
            with pytest.raises(ConnectionError, match="cannot be used"):
                await one.save({streams[0]: {1: b"1"}})
            began = loop.time()
        assert loop.time() - began < 1


@pytest.mark.looptime
async def test_who_waits_for_a_turn_does_so_for_as_long_as_others_are_answered() -> None:
    loop = asyncio.get_running_loop()
    streams = [Stream("https://example.com", f"p{number}", "0") for number in range(200)]

    async def take_its_time(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while said := await reader.read(65_536):
                if b"SETINFO" not in said:
                    await asyncio.sleep(0.5)
                writer.write(b"+OK\r\n" * said.count(b"SETINFO") or b"*2\r\n$4\r\ndone\r\n$1\r\nx\r\n")
                await writer.drain()

    async with served(take_its_time) as url:
        one, began = RedisCheckpoint(url), loop.time()
        ends = await asyncio.gather(*map(one.open, streams), return_exceptions=True)
        opened = loop.time()
        await asyncio.gather(*map(one.close, streams))
        closed = loop.time()
    assert ends == [None] * 200
    assert opened - began == pytest.approx(200 / 8 * 0.5, abs=1)
    assert closed - opened == pytest.approx(200 / 8 * 0.5, abs=1)


@pytest.mark.looptime
async def test_who_waits_for_a_turn_where_nobody_is_answered_gives_up_with_the_others() -> None:
    loop = asyncio.get_running_loop()
    streams = [Stream("https://example.com", f"p{number}", "0") for number in range(200)]

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while said := await reader.read(65_536):
                writer.write(b"+OK\r\n" * said.count(b"SETINFO"))
                await writer.drain()

    async with served(hang) as url:
        one, began = RedisCheckpoint(url), loop.time()
        ends = await asyncio.gather(*map(one.open, streams), return_exceptions=True)
        assert loop.time() - began == pytest.approx(5, abs=1)
    assert {type(end) for end in ends} == {CheckpointError}
    assert "it cannot be used: no answer within 5 s" in str(ends[-1])


@needs_redis
async def test_a_redis_that_hangs_is_given_up_and_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WITHIN", 0.4)
    streams = [Stream("https://example.com", f"p{number}", "0") for number in range(50)]
    with RedisServer() as server:
        async with opened(checkpoint_of(server), *streams) as one:
            server.signal(signal.SIGSTOP)
            with pytest.raises(ConnectionError, match="TimeoutError"):
                await one.save({ALL: {1: b"1"}})
            server.signal(signal.SIGCONT)
            await one.save({ALL: {2: b"2"}})
            assert await one.load(ALL, [2]) == {2: b"2"}
            server.signal(signal.SIGSTOP)
            closing = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - closing < 3, "one of them waited"


async def test_an_answer_that_only_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IN_ALL", 0.2)

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while True:
                writer.write(b"*")
                await writer.drain()
                await asyncio.sleep(0.02)

    async with served(drip) as url:
        with pytest.raises(CheckpointError, match=r"no answer within 0\.2 s"):
            await RedisCheckpoint(url).open(ALL)


@needs_redis
async def test_a_redis_that_became_a_replica_is_connected_to_anew(shared: RedisServer) -> None:
    with RedisServer() as server:
        async with Redis(port=server.port) as raw, opened(checkpoint_of(server), ALL) as one:
            await raw.replicaof("127.0.0.1", server.port)
            before = {client["id"] for client in await raw.client_list()}
            with pytest.raises(ConnectionError, match="ReadOnlyError"):
                await one.save({ALL: {1: b"1"}})
            await raw.replicaof("NO", "ONE")
            await one.save({ALL: {1: b"1"}})
            (new,) = {client["id"] for client in await raw.client_list()} - before
            assert new


# --- which Redis, and its password ----------------------------------------------------------------------


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigError, match=r"pip install 'vizwatch\[redis\]'"):
        await RedisCheckpoint("redis://h").open(ALL)


@needs_redis
async def test_a_variable_has_the_url_of_the_process_where_a_stream_is_opened(
    shared: RedisServer, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = pickle.dumps(RedisCheckpoint(url_env="VIZWATCH_REDIS_URL", window=0.1, prefix="x", lease=20))
    there = pickle.loads(sent)
    assert repr(there) == "RedisCheckpoint(url_env='VIZWATCH_REDIS_URL')"
    assert (there.window, there.prefix, there.lease) == (0.1, "x", 20)
    for wrong, reason in ((None, "is not set"), ("http://h", "must be redis://")):
        if wrong is not None:
            monkeypatch.setenv("VIZWATCH_REDIS_URL", wrong)
        with pytest.raises(ConfigError, match=f"^VIZWATCH_REDIS_URL {reason}"):
            await there.open(ALL)
    monkeypatch.setenv("VIZWATCH_REDIS_URL", shared.url)
    async with opened(there, ALL):
        await there.save({ALL: {1: b"1"}})
    assert await raw.exists("{x}:jobs:p1:0")


@needs_redis
async def test_a_wrong_password_is_told_without_it(
    shared: RedisServer, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await raw.execute_command("ACL", "SETUSER", "ada", "on", f">{CANARY}-right", "~*", "+@all")
    try:
        right = RedisCheckpoint(f"redis://ada:{CANARY}-right@127.0.0.1:{shared.port}")
        async with opened(right, ALL):
            await right.save({ALL: {1: b"1"}})
            server = right._server
            assert server is not None
            for view in (right, vars(right), vars(server), vars(server._client.connection_pool)):
                assert CANARY not in f"{view}{view!r}"
        wrong = RedisCheckpoint(f"redis://ada:{CANARY}-wrong@127.0.0.1:{shared.port}")
        with pytest.raises(CheckpointError, match="AuthenticationError: invalid username-password") as told:
            await wrong.open(ALL)
    finally:
        await raw.execute_command("ACL", "DELUSER", "ada")
    assert CANARY not in shown(told.value) + caplog.text + repr([vars(one) for one in caplog.records])


async def test_no_error_shows_a_password_that_a_server_repeats(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[bytes] = []

    def echo(said: bytes) -> bytes:
        seen.append(said)
        return b"-ERR you said " + b" ".join(said.split()) + b"\r\n"

    async with answering(echo) as url:
        checkpoint = RedisCheckpoint(url.replace("://", f"://ada:{CANARY}@"))
        with pytest.raises(CheckpointError, match="you said") as told:
            await checkpoint.open(ALL)
    assert CANARY.encode() in seen[0]
    assert CANARY not in shown(told.value) + caplog.text + f"{told.value.__context__!r}"


@needs_redis
async def test_tls_is_checked_against_what_is_trusted_and_the_name(tmp_path: Path) -> None:
    authority, others = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    for name, one in (("ca.pem", authority), ("others.pem", others)):
        one.cert_pem.write_to_path(tmp_path / name)
    tls = ["--tls-cert-file", f"{tmp_path}/cert.pem", "--tls-key-file", f"{tmp_path}/cert.pem"]
    tls += ["--tls-ca-cert-file", f"{tmp_path}/ca.pem", "--tls-auth-clients", "no"]
    with RedisServer(*tls, is_tls=True) as server:
        trusted = f"rediss://localhost:{server.port}?ssl_ca_certs={tmp_path}/ca.pem"
        async with opened(RedisCheckpoint(trusted), ALL):
            pass
        for url in (
            f"rediss://localhost:{server.port}",
            trusted.replace("ca.pem", "others.pem"),
            trusted.replace("localhost", "127.0.0.1"),
        ):
            with pytest.raises(CheckpointError, match="certificate"):
                await RedisCheckpoint(url).open(ALL)
        with pytest.raises(CheckpointError, match="No such file"):
            await RedisCheckpoint(trusted.replace("ca.pem", "no_such.pem")).open(ALL)
