"""Journals: what consumers were given and have taken, on its way into a checkpoint."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import weakref
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeAlias, cast

import attrs

from vizwatch._rules import records
from vizwatch._rules.cadence import backoff
from vizwatch._rules.records import Given
from vizwatch._rules.transitions import counts_of
from vizwatch._values import checks
from vizwatch._values.errors import CheckpointError
from vizwatch._values.text import printable
from vizwatch._world.batching import Lookups
from vizwatch._world.chance import CHANCE
from vizwatch._world.checkpoint import Checkpoint, Stream

_LOG: Final = logging.getLogger("vizwatch")
_AT_ONCE: Final = 10_000
"""How many records go into one write."""
_A_STEP: Final = 200
"""How many records are encoded before others get their turn."""
_ROOM: Final = 20_000
"""How many records may wait before consumers do, too."""
_PAUSE_BASE, _PAUSE_MAX = 0.2, 30.0
_CLOSE_WITHIN: Final = 3.0
_SHOWN: Final = 300

_Found: TypeAlias = tuple[Mapping[int, Given | None], Mapping[int, bytes]]
"""What is not in the checkpoint yet, and what is there, of each job."""


@attrs.define(eq=False)
class _Records:
    """What is to be written, by stream, of each job the newest."""

    _by_stream: dict[Stream, dict[int, Given | None]] = attrs.field(factory=dict, init=False)
    _count: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        return self._count

    def of(self, stream: Stream) -> Mapping[int, Given | None]:
        """Those of a stream."""
        return self._by_stream.get(stream, {})

    def put(self, stream: Stream, by_job: Mapping[int, Given | None]) -> None:
        """Adds newer ones of a stream."""
        known = self._by_stream.setdefault(stream, {})
        before = len(known)
        known.update(by_job)
        self._count += len(known) - before

    def take(self, most: int) -> _Records:
        """Removes so many, of the streams that have waited longest."""
        taken = _Records()
        while self._by_stream and len(taken) < most:
            stream = next(iter(self._by_stream))
            by_job = self._by_stream.pop(stream)
            self._count -= len(by_job)
            room = most - len(taken)
            taken.put(stream, dict(itertools.islice(by_job.items(), room)))
            if len(by_job) > room:
                self.put(stream, dict(itertools.islice(by_job.items(), room, None)))
        return taken

    async def encoded(self) -> dict[Stream, dict[int, bytes | None]]:
        """As they are kept."""
        encoded: dict[Stream, dict[int, bytes | None]] = {}
        number = 0
        for stream, by_job in self._by_stream.items():
            of_stream = encoded[stream] = dict[int, bytes | None]()
            for job_id, given in by_job.items():
                of_stream[job_id] = None if given is None else records.encode(given)
                number += 1
                if not number % _A_STEP:
                    await asyncio.sleep(0)
        return encoded

    def followed_by(self, newer: _Records) -> _Records:
        """These, unless there are newer ones."""
        for stream, by_job in newer._by_stream.items():
            self.put(stream, by_job)
        return self


@attrs.define(eq=False)
class Journal:
    """Writes to one checkpoint for all consumers of a client, or of a fleet.

    One write at a time takes all that has come while the one before it was under way, of each job the newest
    alone. A write that fails is tried again for as long as it takes, and nothing is given up meanwhile: not
    more waits than the jobs' newest records, and consumers wait once that is too much. A write that is
    refused, since the checkpoint is another one's by now, is the last one, and consumers hear of it.
    """

    _checkpoint: Checkpoint
    consumers: weakref.WeakValueDictionary[tuple[Stream, int | None], object] = attrs.field(
        factory=weakref.WeakValueDictionary, init=False
    )
    """Whose place is kept, of each job or of all of a stream."""
    failure: BaseException | None = attrs.field(default=None, init=False)
    """What the last write failed with; ``None`` while writes succeed."""
    _streams: dict[Stream, asyncio.Task[Lookups[int, _Found]]] = attrs.field(factory=dict, init=False)
    """The streams that are open, or are being opened, with what is looked up of single jobs."""
    _waiting: _Records = attrs.field(factory=_Records, init=False)
    _under_way: _Records = attrs.field(factory=_Records, init=False)
    """What is being written."""
    _settling: list[asyncio.Future[None]] = attrs.field(factory=list, init=False)
    """Who waits until what was put is written."""
    _room: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _failures: int = attrs.field(default=0, init=False)
    _writer: asyncio.Task[None] | None = attrs.field(default=None, init=False)
    _closing: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    """Set once nobody has the time for long pauses."""

    async def load(self, stream: Stream, job_ids: Collection[int] | None) -> dict[int, Given]:
        """What consumers of the stream were given last of these jobs, or for ``None`` of all.

        Raises:
            CheckpointError: The checkpoint cannot be used, or what it has of them.
        """
        opening = self._streams.get(stream)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
            opening = self._streams[stream] = asyncio.create_task(self._open(stream))
            opening.add_done_callback(_heard_of)
        lookups = await asyncio.shield(opening)
        unwritten, kept = await (self._find(stream, None) if job_ids is None else lookups.get(job_ids))
        loaded: dict[int, Given] = {}
        for number, job_id in enumerate([*kept, *unwritten] if job_ids is None else job_ids, start=1):
            given = unwritten.get(job_id)
            if job_id in kept and job_id not in unwritten:
                given = _given(stream, job_id, kept[job_id])
            if given is not None:
                loaded[job_id] = given
            if not number % _A_STEP:
                await asyncio.sleep(0)
        return loaded

    async def _open(self, stream: Stream) -> Lookups[int, _Found]:
        await self._checkpoint.open(stream)
        return Lookups(functools.partial(self._find, stream))

    async def _find(self, stream: Stream, job_ids: Collection[int] | None) -> _Found:
        # Before it is loaded: what is written meanwhile may be missing in both.
        return self._unwritten(stream, job_ids), await self._checkpoint.load(stream, job_ids)

    def _unwritten(self, stream: Stream, job_ids: Collection[int] | None) -> dict[int, Given | None]:
        """What is not in the checkpoint yet of these jobs, or for ``None`` of all."""
        older, newer = self._under_way.of(stream), self._waiting.of(stream)
        if job_ids is None:
            return {**older, **newer}
        return {job_id: one[job_id] for one in (older, newer) for job_id in job_ids if job_id in one}

    def put(self, stream: Stream, job_id: int, given: Given | None) -> None:
        """Keeps what a consumer was given, or forgets it, soon."""
        if self._closing.is_set():
            return
        self._waiting.put(stream, {job_id: given})
        if self._writer is None and not isinstance(self.failure, CheckpointError):
            self._writer = asyncio.create_task(self._write())

    @property
    def is_unsettled(self) -> bool:
        """Whether :meth:`settled` waits, or raises."""
        return bool(self._waiting or self._under_way or self.failure)

    @property
    def is_full(self) -> bool:
        """Whether :meth:`room` waits, or raises."""
        return len(self._waiting) >= _ROOM or self.failure is not None

    async def settled(self) -> None:
        """Waits until all that was put is written, or a write has failed; and not while they do.

        Raises:
            CheckpointError: No write will succeed any more.
        """
        self._check()
        if self.failure is None and (self._waiting or self._under_way):
            settled = asyncio.get_running_loop().create_future()
            self._settling.append(settled)
            await settled
            self._check()

    async def room(self) -> None:
        """Waits until there is room for more. Raises as :meth:`settled` does."""
        self._check()
        while len(self._waiting) >= _ROOM:
            self._room.clear()
            await self._room.wait()
            self._check()

    def _check(self) -> None:
        if isinstance(self.failure, CheckpointError):
            raise self.failure

    async def _write(self) -> None:
        """Writes until nothing waits."""
        try:
            while self._waiting:
                self._under_way = self._waiting.take(_AT_ONCE)
                # Who comes after this waits for the next write.
                waits_for_it = 0 if self._waiting else len(self._settling)
                try:
                    await self._checkpoint.save(await self._under_way.encoded())
                except (Exception, asyncio.CancelledError) as error:
                    if _is_cancelled():
                        raise
                    self._take_back()
                    pause = self._failed(error)
                    self._settle(len(self._settling))
                    if isinstance(error, CheckpointError):
                        self._room.set()
                        return
                    await self._pause(pause)
                else:
                    self._succeeded()
                    self._settle(waits_for_it if self._waiting else len(self._settling))
        finally:
            self._take_back()
            self._settle(len(self._settling))
            self._writer = None

    def _settle(self, count: int) -> None:
        for settled in self._settling[:count]:
            if not settled.done():
                settled.set_result(None)
        del self._settling[:count]

    def _take_back(self) -> None:
        """What was not written waits again, unless it is out of date."""
        self._waiting, self._under_way = self._under_way.followed_by(self._waiting), _Records()

    def _failed(self, error: BaseException) -> float:
        """Says so once, and gives how long to wait before the next try, in seconds."""
        self._failures += 1
        if self.failure is None:
            told = printable(f"{type(error).__name__}: {error}", _SHOWN).rstrip(".")
            if isinstance(error, CheckpointError):
                _LOG.error(
                    "A checkpoint can be written no more, which ends what is watched with it: %s", told
                )
            else:
                _LOG.error(
                    "A checkpoint could not be written: %s. Watches go on, and it is tried again; should "
                    "this process end before, the transitions since then will come once more.",
                    told,
                )
        self.failure = error
        return backoff(self._failures, CHANCE.random(), _PAUSE_BASE, _PAUSE_MAX)

    async def _pause(self, seconds: float) -> None:
        if self._closing.is_set():
            await asyncio.sleep(min(seconds, _PAUSE_BASE))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _succeeded(self) -> None:
        if self.failure is not None:
            _LOG.warning("A checkpoint is written again, after %d failures.", self._failures)
        self.failure, self._failures, self._under_way = None, 0, _Records()
        self._room.set()

    async def aclose(self) -> None:
        """Writes what waits, within three seconds, and gives the streams up."""
        self._closing.set()
        writer = self._writer
        if writer is not None:
            await asyncio.wait([writer], timeout=_CLOSE_WITHIN)
            writer.cancel()
            await asyncio.wait([writer])
        if self._waiting:
            _LOG.error(
                "What %d jobs have come to is not in the checkpoint: it will be told once more next time.",
                len(self._waiting),
            )
        streams, self._streams = self._streams, {}
        for opening in streams.values():
            opening.cancel()  # of those that wait, maybe for another process to end
        await asyncio.gather(*map(self._given_up, streams, streams.values()))

    async def _given_up(self, stream: Stream, opening: asyncio.Task[Lookups[int, _Found]]) -> None:
        await asyncio.wait([opening])
        if opening.cancelled() or opening.exception() is not None:
            return
        await opening.result().aclose()
        try:
            await self._checkpoint.close(stream)
        except Exception as error:  # noqa: BLE001 - the other streams are to be closed as well
            told = printable(f"{type(error).__name__}: {error}", _SHOWN)
            _LOG.error("A checkpoint could not be closed: %s", told)


@attrs.define(eq=False)
class Journals:
    """The journals of a client, or of a fleet: one for each checkpoint that it was given."""

    _journals: dict[int, Journal] = attrs.field(factory=dict, init=False)

    def of(self, checkpoint: object) -> Journal:
        """The checkpoint's; raises :class:`ConfigError` for what is none."""
        if isinstance(checkpoint, Journal):
            return checkpoint
        has_all = all(callable(getattr(checkpoint, name, None)) for name in ("open", "load", "save", "close"))
        if isinstance(checkpoint, type) or not has_all:
            raise checks.refused(
                "checkpoint", checkpoint, "a Checkpoint, such as vizwatch.SqliteCheckpoint(path)"
            )
        journal = self._journals.get(id(checkpoint))
        if journal is None:
            journal = self._journals[id(checkpoint)] = Journal(cast("Checkpoint", checkpoint))
        return journal

    async def aclose(self) -> None:
        """Writes what waits, and gives the checkpoints up."""
        await asyncio.gather(*(journal.aclose() for journal in self._journals.values()))


def _given(stream: Stream, job_id: int, record: bytes) -> Given:
    try:
        given = records.decode(record, stream.project_id, job_id)
        counts_of(given.transition)
    except ValueError as error:
        raise CheckpointError(
            f"the checkpoint is damaged: what it has of job {job_id} of {stream} cannot be read: {error}; "
            "use a copy of it, or another one"
        ) from None
    return given


def _is_cancelled() -> bool:
    """Whether this task is, and not something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _heard_of(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
