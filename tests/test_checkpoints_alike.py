"""Checkpoints, wherever they keep their records, behave alike."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keeping import Memory
from redis_servers import PROGRAM, RedisServer, needs_redis

from vizwatch import Checkpoint, CheckpointError, RedisCheckpoint, SqliteCheckpoint, Stream

STREAMS = [
    Stream("https://example.com", "p1", "0"),
    Stream("https://example.com", "p1", None),
    Stream("https://elsewhere.example.com", "p2", "0"),
]
Anew = Callable[[], Checkpoint]
"""Gives the same checkpoint as another process has it."""

streams = st.sampled_from(STREAMS)
job_ids = st.integers(0, 3) | st.just(2**63 - 1)
records = st.dictionaries(job_ids, st.none() | st.binary(max_size=20), max_size=4)
steps = st.lists(
    st.tuples(st.just("save"), st.dictionaries(streams, records, max_size=3))
    | st.tuples(st.just("load"), st.tuples(streams, st.none() | st.frozensets(job_ids)))
    | st.tuples(st.sampled_from(["open_twice", "reopen"]), streams)
    | st.tuples(st.just("another"), st.none()),
    max_size=15,
)


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, Callable[[], Anew]]]:
    """How an empty checkpoint of each kind is made."""
    numbers = itertools.count()

    def in_memory() -> Anew:
        first = Memory()
        return lambda: Memory(first.records)

    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kinds: dict[str, Callable[[], Anew]] = {
            "memory": in_memory,
            "sqlite": lambda: _twice(SqliteCheckpoint, directory / f"{next(numbers)}.sqlite"),
        }
        if PROGRAM is not None:
            url = stack.enter_context(RedisServer()).url
            kinds["redis"] = lambda: _twice(RedisCheckpoint, url, prefix=f"{next(numbers)}")
        yield kinds


def _twice(kind: Callable[..., Checkpoint], *arguments: Any, **options: Any) -> Anew:
    return lambda: kind(*arguments, window=0, **options)


@attrs.define
class Play:
    """A checkpoint in the hands of one process after another, and what is to be found in it."""

    anew: Anew
    checkpoint: Checkpoint = attrs.field(default=attrs.Factory(lambda play: play.anew(), takes_self=True))
    expected: dict[Stream, dict[int, bytes]] = attrs.field(factory=lambda: {stream: {} for stream in STREAMS})

    async def begin(self) -> None:
        for stream in STREAMS:
            await self.checkpoint.open(stream)

    async def end(self, _: None = None) -> None:
        for stream in STREAMS:
            await self.load((stream, None))
            await self.checkpoint.close(stream)

    async def another(self, _: None) -> None:
        await self.end()
        self.checkpoint = self.anew()
        await self.begin()

    async def save(self, saved: dict[Stream, dict[int, bytes | None]]) -> None:
        await self.checkpoint.save(saved)
        for stream, by_job in saved.items():
            both = self.expected[stream] | by_job
            self.expected[stream] = {job_id: one for job_id, one in both.items() if one is not None}

    async def load(self, of: tuple[Stream, frozenset[int] | None]) -> None:
        stream, wanted = of
        kept = self.expected[stream]
        if wanted is not None:
            kept = {job_id: kept[job_id] for job_id in wanted & kept.keys()}
        assert await self.checkpoint.load(stream, wanted) == kept

    async def open_twice(self, stream: Stream) -> None:
        with pytest.raises(CheckpointError):
            await self.checkpoint.open(stream)

    async def reopen(self, stream: Stream) -> None:
        await self.checkpoint.close(stream)
        await self.checkpoint.open(stream)


async def played(play: Play, todo: list[tuple[str, Any]]) -> None:
    await play.begin()
    for step, about in todo:
        await getattr(play, step)(about)
    await play.end()


@pytest.mark.parametrize("kind", ["memory", "sqlite", pytest.param("redis", marks=needs_redis)])
@settings(max_examples=40)
@given(todo=steps)
def test_what_is_loaded_is_what_was_saved_last_whatever_was_opened_and_closed_between(
    made: dict[str, Callable[[], Anew]], kind: str, todo: list[tuple[str, Any]]
) -> None:
    asyncio.run(played(Play(made[kind]()), todo))
