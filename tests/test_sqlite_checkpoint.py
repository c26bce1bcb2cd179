"""Checkpoints in a file: what is kept, what is refused, and what a kill leaves."""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

import vizwatch
from vizwatch import CheckpointError, Client, JobStatus, SqliteCheckpoint, Stream, Transition
from vizwatch.emulator import Emulator

ENDPOINT: Final = "https://modelarts.eu-de.otc.t-systems.com"
ALL: Final = Stream(ENDPOINT, "project", "0")
SINGLE: Final = Stream(ENDPOINT, "project", None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


async def keep(path: Path, records: Mapping[int, bytes | None], stream: Stream = ALL) -> None:
    checkpoint = SqliteCheckpoint(path, window=0)
    await checkpoint.open(stream)
    await checkpoint.save({stream: records})
    await checkpoint.close(stream)


async def found(path: Path, stream: Stream = ALL) -> Mapping[int, bytes]:
    checkpoint = SqliteCheckpoint(path)
    await checkpoint.open(stream)
    try:
        return await checkpoint.load(stream, None)
    finally:
        await checkpoint.close(stream)


async def refusal(path: Path, stream: Stream = ALL) -> str:
    """What the checkpoint is refused with; it is left as it was, byte by byte."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(CheckpointError) as refused:
        await found(path, stream)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert str(path) in str(refused.value)
    return str(refused.value)


# --- what is kept ---------------------------------------------------------------------------------------


async def test_another_process_finds_what_was_kept(path: Path) -> None:
    await keep(path, {1: b"one", 2: b"two", 2**63 - 1: b"last"})
    await keep(path, {1: b"uno", 2: None, 3: b""})
    assert await found(path) == {1: b"uno", 3: b"", 2**63 - 1: b"last"}


async def test_streams_do_not_mix(path: Path) -> None:
    other = Stream(ENDPOINT, "other", "0")
    checkpoint = SqliteCheckpoint(path)
    for stream in (ALL, SINGLE, other):
        await checkpoint.open(stream)
    await checkpoint.save({ALL: {1: b"all"}, SINGLE: {1: b"single"}, other: {1: b"other"}})
    for stream in (ALL, SINGLE, other):
        await checkpoint.close(stream)
    assert await found(path, ALL) == {1: b"all"}
    assert await found(path, SINGLE) == {1: b"single"}
    assert await found(path, other) == {1: b"other"}


async def test_many_records_are_few_statements(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each, and for each row that it returns, the thread has to wait for that of a busy event loop."""
    statements: list[str] = []

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = sqlite3.Connection(*arguments, **options)
        connection.set_trace_callback(statements.append)
        return connection

    checkpoint = SqliteCheckpoint(path)
    await checkpoint.open(ALL)
    await checkpoint.close(ALL)
    monkeypatch.setattr(sqlite3, "connect", connect)
    await checkpoint.open(ALL)
    for kept in (b"record", None):
        statements.clear()
        await checkpoint.save({ALL: dict.fromkeys(range(2000), kept)})
        assert len(statements) <= 3
        for job_ids, most in ((None, 8), (range(2000), 7)):
            statements.clear()
            assert await checkpoint.load(ALL, job_ids) == (
                {} if kept is None else dict.fromkeys(range(2000), kept)
            )
            assert len(statements) <= most
    await checkpoint.close(ALL)


async def test_an_sqlite_that_takes_few_values_a_statement_will_do(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 3.31 it took 999."""

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = sqlite3.Connection(*arguments, **options)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)
    await keep(path, dict.fromkeys(range(2000), b"record"))
    checkpoint = SqliteCheckpoint(path)
    await checkpoint.open(ALL)
    assert len(await checkpoint.load(ALL, range(2000))) == 2000
    await checkpoint.save({ALL: dict.fromkeys(range(2000))})
    assert await checkpoint.load(ALL, None) == {}
    await checkpoint.close(ALL)


async def test_only_the_jobs_that_are_asked_for_are_loaded(path: Path) -> None:
    await keep(path, dict.fromkeys(range(2000), b"record"))
    checkpoint = SqliteCheckpoint(path)
    await checkpoint.open(ALL)
    assert set(await checkpoint.load(ALL, range(0, 3_000, 2))) == set(range(0, 2_000, 2))
    assert await checkpoint.load(ALL, []) == {}
    await checkpoint.close(ALL)


@pytest.mark.fault("D7")
async def test_what_comes_within_a_window_is_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    write = SqliteCheckpoint._write

    def noted(checkpoint: SqliteCheckpoint, newest: dict[int, dict[int, bytes | None]]) -> None:
        writes.append(sum(map(len, newest.values())))
        write(checkpoint, newest)

    monkeypatch.setattr(SqliteCheckpoint, "_write", noted)
    checkpoint = SqliteCheckpoint(path, window=0.1)
    await checkpoint.open(ALL)
    await checkpoint.save({ALL: {0: b"at once"}})
    await asyncio.gather(*(checkpoint.save({ALL: {number: b"record"}}) for number in range(100)))
    await checkpoint.close(ALL)
    assert writes == [1, 100]


async def test_what_waits_for_its_window_is_given_up_when_the_file_is_closed(path: Path) -> None:
    checkpoint = SqliteCheckpoint(path, window=1)
    await checkpoint.open(ALL)
    await checkpoint.save({ALL: {1: b"at once"}})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(checkpoint.save({ALL: {1: b"later"}}), 0.01)
    await checkpoint.close(ALL)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await found(path) == {1: b"at once"}


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b", b"bytes"])
def test_what_is_no_file_is_refused_at_once(path: Any) -> None:
    with pytest.raises(vizwatch.ConfigError, match="path must be the path of a file"):
        SqliteCheckpoint(path)


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_file_that_is_removed_is_no_place_to_write_to(path: Path, is_replaced: bool) -> None:
    checkpoint = SqliteCheckpoint(path, window=0)
    await checkpoint.open(ALL)
    await checkpoint.save({ALL: {1: b"1"}})
    path.unlink()
    if is_replaced:
        path.touch()
    with pytest.raises(CheckpointError, match="it was removed, or another file was put in its place"):
        await checkpoint.save({ALL: {1: b"2"}})
    await checkpoint.close(ALL)


async def test_what_waits_of_a_stream_that_is_given_up_keeps_no_other_from_being_written(path: Path) -> None:
    checkpoint = SqliteCheckpoint(path, window=0.1)
    await checkpoint.open(ALL)
    await checkpoint.open(SINGLE)
    await checkpoint.save({ALL: {1: b"at once"}})
    waiting = [asyncio.create_task(checkpoint.save({one: {2: b"later"}})) for one in (ALL, SINGLE)]
    await asyncio.sleep(0)
    await checkpoint.close(ALL)
    await asyncio.gather(*waiting)
    assert await checkpoint.load(SINGLE, None) == {2: b"later"}
    await checkpoint.close(SINGLE)


@pytest.mark.fault("D7")
async def test_ten_thousand_watches_are_less_than_five_megabytes(cloud: Emulator, path: Path) -> None:
    cloud.add_jobs(10_000, status=8)
    left = 10_000
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
        async for _ in client.watch_jobs(checkpoint=SqliteCheckpoint(path)):
            left -= 1
            if not left:
                break
    assert path.stat().st_size < 5 * 2**20


async def test_the_file_is_its_owners_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        await keep(path, {1: b"record"})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_nothing_but_the_file_is_left_when_it_is_closed(path: Path) -> None:
    await keep(path, {1: b"record"})
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.looptime
async def test_a_client_takes_up_where_the_last_one_left_off(cloud: Emulator, path: Path) -> None:
    checkpoint = SqliteCheckpoint(path)
    first, second = cloud.add_jobs(2, status=8)
    told: list[Transition] = []
    for _ in range(2):
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            async for transition in client.watch_jobs(checkpoint=checkpoint):
                told.append(transition)
                if len(told) in {3, 5}:
                    break
                if len(told) == 2:
                    cloud.set_status(first, 10)
        cloud.set_status(second, 12)
    assert [(one.job_id, one.current) for one in told] == [
        (first, JobStatus.RUNNING),
        (second, JobStatus.RUNNING),
        (first, JobStatus.COMPLETED),
        (first, JobStatus.COMPLETED),
        (second, JobStatus.KILLED),
    ]
    assert told[2] == told[3], "it was not asked for the next one"


async def test_a_checkpoint_can_be_sent_to_another_process(path: Path) -> None:
    await keep(path, {1: b"record"})
    sent = pickle.loads(pickle.dumps(SqliteCheckpoint(path, window=0.5)))
    assert (sent.path, sent.window) == (path, 0.5)
    assert repr(sent) == f"SqliteCheckpoint({str(path)!r})"


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.fault("D5")
async def test_another_endpoint_is_refused(path: Path) -> None:
    await keep(path, {1: b"record"})
    other = Stream("https://modelarts.cn-north-4.myhuaweicloud.com", "project", None)
    said = await refusal(path, other)
    assert ENDPOINT in said
    assert other.endpoint in said
    assert "give it that endpoint back, or move the file away" in said
    assert await found(path) == {1: b"record"}


@pytest.mark.fault("D5")
async def test_a_newer_version_is_refused(path: Path) -> None:
    await keep(path, {1: b"record"})
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    assert "newer version of vizwatch" in await refusal(path)


@pytest.mark.fault("D5", "X12")
async def test_what_is_damaged_is_refused_wherever_that_is(path: Path) -> None:
    await keep(path, dict.fromkeys(range(1000), b"record" * 50))
    sound = path.read_bytes()
    for place in range(0, len(sound), 4096):
        path.write_bytes(sound[:place] + b"\xa5" * 64 + sound[place + 64 :])
        assert "damaged" in await refusal(path), f"at {place}"
    for length in (1, 100, 4096, len(sound) // 2):
        path.write_bytes(sound[:length])
        assert "damaged" in await refusal(path), f"cut after {length} bytes"


@pytest.mark.fault("D5", "X12")
@pytest.mark.parametrize(
    "change",
    [
        "CREATE TRIGGER t AFTER INSERT ON record BEGIN DELETE FROM record; END",
        "CREATE VIEW v AS SELECT * FROM record",
        "DROP TABLE record",
        "ALTER TABLE record ADD COLUMN more",
        "UPDATE record SET record = 7",
        "UPDATE record SET record = '7'",
        "UPDATE record SET record = zeroblob(300000)",
        "UPDATE record SET job_id = 'one'",
        "UPDATE record SET job_id = '1 22;2'",
        "PRAGMA user_version = 0",
    ],
)
async def test_what_we_did_not_write_is_refused(path: Path, change: str) -> None:
    await keep(path, {1: b"record"})
    connection = sqlite3.connect(path)
    connection.execute(change)
    connection.commit()
    connection.close()
    assert "damaged" in await refusal(path)


@pytest.mark.fault("X12")
async def test_files_that_are_none_are_refused(path: Path) -> None:
    path.write_bytes(pickle.dumps({"job": 1}) * 100)
    assert "damaged" in await refusal(path)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE passwords (text)")
    connection.commit()
    connection.close()
    assert "another program" in await refusal(path)
    path.unlink()
    path.mkdir()
    assert "cannot be opened: Is a directory" in await refusal(path)
    assert "cannot be opened: No such file or directory" in await refusal(path / "x" / "y")


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vizwatch._world.sqlite._BUSY", 0.05)


@pytest.mark.fault("D5")
@pytest.mark.usefixtures("_impatient")
async def test_two_at_once_are_refused(path: Path) -> None:
    holder = SqliteCheckpoint(path)
    await holder.open(ALL)
    with pytest.raises(CheckpointError, match="are watched with it already"):
        await holder.open(ALL)
    with pytest.raises(CheckpointError, match="it is in use"):
        await SqliteCheckpoint(path).open(SINGLE)
    await holder.save({ALL: {1: b"record"}})
    await holder.close(ALL)
    assert await found(path) == {1: b"record"}


@pytest.mark.fault("D5")
@pytest.mark.usefixtures("_impatient")
async def test_another_process_is_refused_and_a_killed_one_holds_nothing(path: Path) -> None:
    holding = (
        "import asyncio, sys, vizwatch\n"
        "async def main():\n"
        "    checkpoint = vizwatch.SqliteCheckpoint(sys.argv[1])\n"
        f"    await checkpoint.open({ALL!r})\n"
        "    print('open', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "from vizwatch import Stream\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", holding, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        assert "it is in use" in await refusal(path)
        holder.kill()
    assert await found(path) == {}


@pytest.mark.fault("D5")
@pytest.mark.usefixtures("_impatient")
async def test_a_second_one_of_this_process_does_not_give_up_the_locks_of_the_first(path: Path) -> None:
    holder = SqliteCheckpoint(path)
    await holder.open(ALL)
    with pytest.raises(CheckpointError, match="it is in use"):
        await SqliteCheckpoint(path).open(SINGLE)
    other = (
        f"import sqlite3, sys; sqlite3.connect({str(path)!r}, timeout=0.05).execute('SELECT * FROM stream')"
    )
    tried = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
    assert "database is locked" in tried.stderr
    await holder.close(ALL)


async def test_an_error_at_the_beginning_is_raised_before_any_request(
    cloud: Emulator, here: Client, path: Path
) -> None:
    path.write_bytes(b"not a database, and long enough to be one" * 100)
    targets = [vizwatch.Target(cloud.endpoint, name, auth=cloud.token) for name in ("a", "b")]
    async with vizwatch.Fleet(targets) as fleet:
        for watch in (
            here.watch(1, checkpoint=SqliteCheckpoint(path)),
            here.watch_jobs(checkpoint=SqliteCheckpoint(path)),
            fleet.watch_jobs(checkpoint=SqliteCheckpoint(path)),
        ):
            with pytest.raises(CheckpointError, match="damaged"):
                await anext(watch)
    assert not cloud.requests


# --- what a kill leaves ---------------------------------------------------------------------------------


@pytest.mark.fault("D2")
async def test_a_write_that_stops_at_any_byte_leaves_the_old_or_the_new(path: Path, tmp_path: Path) -> None:
    """The log of a write is cut after each number of bytes, as a kill leaves it."""
    old = dict.fromkeys(range(20), b"old" * 100)
    new = dict.fromkeys(range(20), b"new" * 100)
    checkpoint = SqliteCheckpoint(path, window=0)
    await checkpoint.open(ALL)
    await checkpoint.save({ALL: old})
    log = path.with_name(path.name + "-wal")
    before = log.stat().st_size
    await checkpoint.save({ALL: new})
    written = log.read_bytes()
    assert len(written) > before
    copy = tmp_path / "copy.sqlite"
    states = []
    for length in [*range(before, len(written), 61), len(written)]:
        for stale in tmp_path.glob("copy.sqlite*"):
            stale.unlink()
        shutil.copy(path, copy)
        copy.with_name(copy.name + "-wal").write_bytes(written[:length])
        states.append(await found(copy))
    await checkpoint.close(ALL)
    changes = [number for number, (one, other) in enumerate(pairwise(states)) if one != other]
    assert states[0] == old
    assert states[-1] == new
    assert len(changes) == 1, "and nothing in between"


@pytest.mark.fault("D2")
async def test_a_full_disk_leaves_the_old_and_the_next_write_succeeds(path: Path) -> None:
    await keep(path, dict.fromkeys(range(20), b"old" * 1000))
    checkpoint = SqliteCheckpoint(path, window=0)
    await checkpoint.open(ALL)
    connection = checkpoint._connection
    assert connection is not None
    (pages,) = await checkpoint._in_thread(lambda: connection.execute("PRAGMA page_count").fetchone())
    await checkpoint._in_thread(lambda: connection.execute(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        await checkpoint.save({ALL: dict.fromkeys(range(1000), b"new" * 1000)})
    assert (await checkpoint.load(ALL, None))[19] == b"old" * 1_000
    await checkpoint._in_thread(lambda: connection.execute("PRAGMA max_page_count = 100000"))
    await checkpoint.save({ALL: {19: b"new"}})
    await checkpoint.close(ALL)
    assert (await found(path))[19] == b"new"
