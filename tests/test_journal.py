"""What consumers were given is kept whole, in turn, and at a cost that grows with what there is to keep."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import itertools
import sys
from collections.abc import Collection, Iterator, Mapping
from types import FrameType
from typing import Any

import attrs
import looptime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keeping import Memory
from virtual import elapse

from vizwatch import CheckpointError, Job, JobStatus, Stream, Transition
from vizwatch._flows.delivering import Delivery
from vizwatch._rules import records
from vizwatch._rules.records import Given
from vizwatch._world import journal as journals
from vizwatch._world.batching import Lookups
from vizwatch._world.journal import Journal

STREAMS = [Stream("https://example.com", f"p{number}", None) for number in range(3)]
READ = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@attrs.define(eq=False)
class Loads(Memory):
    """Tells what was loaded."""

    loads: list[tuple[Stream, set[int]]] = attrs.field(factory=list)
    refused: list[BaseException | None] = attrs.field(factory=list)
    """What opening and loading fail with, in turn."""
    under_way: int = 0
    closed: int = 0

    async def open(self, stream: Stream) -> None:
        self._refuse()
        await super().open(stream)

    async def load(self, stream: Stream, job_ids: Collection[int] | None) -> Mapping[int, bytes]:
        self.loads.append((stream, {*(job_ids or ())}))
        self.under_way += 1
        try:
            kept = await super().load(stream, job_ids)
            self._refuse()
        finally:
            self.under_way -= 1
        return kept

    def _refuse(self) -> None:
        if self.refused and (error := self.refused.pop(0)) is not None:
            raise error

    async def close(self, stream: Stream) -> None:
        assert not self.under_way
        self.closed += 1
        await super().close(stream)


def transition(stream: Stream, job_id: int, number: int = 1) -> Transition:
    return Transition(
        id=f"{stream.project_id}/{job_id}/1/{number}/none-8",
        project_id=stream.project_id,
        job_id=job_id,
        previous=None,
        current=JobStatus.RUNNING,
        job=Job(job_id=job_id, job_name=f"job-{job_id}", status=JobStatus.RUNNING),
        run=1,
        not_before=None,
        not_after=READ,
    )


def record(stream: Stream, job_id: int) -> bytes:
    return records.encode(Given(transition(stream, job_id), is_delivered=True))


steps = st.lists(
    st.tuples(st.just("put"), st.tuples(st.sampled_from(STREAMS[:2]), st.integers(1, 3), st.booleans()))
    | st.tuples(
        st.just("load"), st.tuples(st.sampled_from(STREAMS[:2]), st.none() | st.sets(st.integers(1, 3)))
    )
    | st.tuples(st.just("pass"), st.sampled_from([0.0, 0.1, 0.4, 40.0]))
    | st.tuples(st.just("fail"), st.booleans()),
    max_size=30,
)


@given(steps, st.integers(1, 4), st.sampled_from([0.0, 0.2, 1.0]))
def test_the_newest_of_each_job_is_loaded_at_any_time_and_is_in_the_checkpoint_at_the_end(
    steps: list[tuple[str, Any]], at_once: int, loads_in: float
) -> None:
    come_to: dict[Stream, dict[int, list[Given | None]]] = {
        stream: {job_id: [None] for job_id in range(1, 4)} for stream in STREAMS[:2]
    }

    async def load(journal: Journal, stream: Stream, job_ids: set[int] | None) -> None:
        before = {job_id: len(all_of_it) - 1 for job_id, all_of_it in come_to[stream].items()}
        loaded = await journal.load(stream, job_ids)
        for job_id, all_of_it in come_to[stream].items():
            if job_ids is None or job_id in job_ids:
                assert loaded.get(job_id) in all_of_it[before[job_id] :]
            else:
                assert job_id not in loaded

    async def go() -> Memory:
        kept = Memory(takes=(0.3, 0.0), loads_in=loads_in)
        journal = Journal(kept)
        loads = [asyncio.create_task(load(journal, stream, set())) for stream in STREAMS[:2]]
        await asyncio.gather(*loads)
        for number, (what, how) in enumerate(steps, start=1):
            if what == "put":
                stream, job_id, forgets = how
                one = None if forgets else Given(transition(stream, job_id, number), is_delivered=True)
                come_to[stream][job_id].append(one)
                journal.put(stream, job_id, one)
            elif what == "load":
                loads.append(asyncio.create_task(load(journal, *how)))
                await asyncio.sleep(0)
            elif what == "pass":
                await asyncio.sleep(how)
            else:
                kept.fails = how
        kept.fails = False
        await asyncio.gather(*loads)
        await asyncio.sleep(60)
        assert not journal.is_unsettled
        await journal.aclose()
        return kept

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(journals, "_AT_ONCE", at_once)
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            kept = runner.run(go())
    for stream in STREAMS[:2]:
        found = {
            job_id: records.decode(record, stream.project_id, job_id)
            for job_id, record in kept.records.get(stream, {}).items()
        }
        assert {job_id: found.get(job_id) for job_id in range(1, 4)} == {
            job_id: all_of_it[-1] for job_id, all_of_it in come_to[stream].items()
        }


@pytest.mark.looptime
async def test_one_stream_that_always_has_more_does_not_hold_up_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journals, "_AT_ONCE", 2)
    busy, other, _ = STREAMS
    kept = Memory(takes=(1.0,))
    journal = Journal(kept)
    for stream in (busy, other):
        await journal.load(stream, ())
    for job_id in range(10):
        journal.put(busy, job_id, Given(transition(busy, job_id), is_delivered=True))
    journal.put(other, 1, Given(transition(other, 1), is_delivered=True))
    await elapse(1.5)
    assert kept.rows == 2
    assert other not in kept.records
    await elapse(1)
    assert kept.rows == 4
    assert other in kept.records
    await journal.aclose()


# --- what many look up -----------------------------------------------------------------------------------


@attrs.frozen
class Ask:
    """Somebody who wants to know something, and maybe not for long."""

    at: int
    keys: frozenset[int]
    gives_up_after: int | None


asks = st.lists(
    st.builds(
        Ask,
        st.integers(0, 12),
        st.frozensets(st.integers(1, 5), max_size=3),
        st.none() | st.integers(0, 6),
    ),
    max_size=12,
)


@given(asks, st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=4))
def test_who_asks_is_answered_by_the_next_lookup_and_never_are_there_two(
    asks: list[Ask], lookups_are: list[tuple[int, bool]]
) -> None:
    began: list[tuple[float, set[int]]] = []
    under_way = 0

    # Who gives up does so at a quarter, and what ends ends at a half: which is first is not left to chance.
    async def look_up(keys: Collection[int]) -> int:
        nonlocal under_way
        loop = asyncio.get_running_loop()
        number = len(began)
        began.append((loop.time(), {*keys}))
        under_way += 1
        assert under_way == 1
        takes, fails = lookups_are[number % len(lookups_are)]
        await asyncio.sleep(takes + 0.5)
        under_way -= 1
        if fails:
            raise LookupError(number)
        return number

    async def ask(lookups: Lookups[int, int], one: Ask) -> str:
        await asyncio.sleep(one.at)
        try:
            async with asyncio.timeout(None if one.gives_up_after is None else one.gives_up_after + 0.25):
                return f"found by {await lookups.get(one.keys)}"
        except LookupError as error:
            return f"failed with {error}"
        except TimeoutError:
            return "gave up"

    async def go() -> list[str]:
        lookups = Lookups(look_up)
        found = await asyncio.gather(*(ask(lookups, one) for one in asks))
        await asyncio.sleep(100)
        return found

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        start = runner.get_loop().time()
        found = runner.run(go())

    expected: dict[int, str] = {}
    lookups: list[tuple[float, set[int]]] = []
    ends = 0.0
    waiting = sorted(range(len(asks)), key=lambda index: asks[index].at)
    while waiting:
        takes, fails = lookups_are[len(lookups) % len(lookups_are)]
        begins = max(ends, asks[waiting[0]].at)
        ends = begins + takes + 0.5
        joining = [index for index in waiting if asks[index].at <= begins]
        waiting = waiting[len(joining) :]
        for index in joining:
            gives_up = asks[index].gives_up_after
            is_patient = gives_up is None or asks[index].at + gives_up + 0.25 > ends
            outcome = f"failed with {len(lookups)}" if fails else f"found by {len(lookups)}"
            expected[index] = outcome if is_patient else "gave up"
        lookups.append((begins, {*itertools.chain.from_iterable(asks[index].keys for index in joining)}))
    assert [(at - start, keys) for at, keys in began] == lookups
    assert found == [expected[index] for index in range(len(asks))]


@pytest.mark.looptime
async def test_what_a_lookup_fails_with_is_unheard_of_where_nobody_waits_for_it_any_more() -> None:
    loop = asyncio.get_running_loop()
    unheard: list[Any] = []
    waiting: list[asyncio.Task[int]] = []
    loop.set_exception_handler(lambda _, context: unheard.append(context))

    async def look_up(keys: Collection[int]) -> int:
        await asyncio.sleep(1)
        # One is cancelled once it was told, and before it could hear it.
        loop.call_soon(lambda: loop.call_soon(waiting[1].cancel))
        raise OSError(28, "No space left on device")

    lookups = Lookups(look_up)
    waiting += [asyncio.create_task(lookups.get([number])) for number in range(2)]
    await elapse(0.5)
    waiting[0].cancel()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 2
    waiting.clear()
    del ends
    gc.collect()
    assert not unheard


@pytest.mark.looptime
async def test_single_jobs_whose_watches_begin_at_once_are_one_load_of_their_stream() -> None:
    one, other, _ = STREAMS
    kept = Loads(loads_in=1)
    journal = Journal(kept)
    for stream in (one, other):
        kept.records[stream] = {job_id: record(stream, job_id) for job_id in range(1000)}
    kept.records[one][7] = b"damaged"
    deliveries = [(Delivery(journal, stream), job_id) for stream in (one, other) for job_id in range(1000)]
    began = asyncio.get_running_loop().time()
    found = await asyncio.gather(
        *(delivery.begin([job_id]) for delivery, job_id in deliveries), return_exceptions=True
    )
    assert asyncio.get_running_loop().time() - began == 1
    assert kept.loads == [(one, {*range(1000)}), (other, {*range(1000)})]
    for (delivery, job_id), loaded in zip(deliveries, found, strict=True):
        if (delivery.stream, job_id) == (one, 7):
            assert isinstance(loaded, CheckpointError)
            assert "what it has of job 7 of" in str(loaded)
        else:
            assert loaded == {job_id: Given(transition(delivery.stream, job_id), is_delivered=True)}
    await journal.aclose()


@pytest.mark.looptime
async def test_a_load_that_fails_does_so_for_who_waited_for_it_and_is_tried_anew_for_others() -> None:
    stream, *_ = STREAMS
    kept = Loads(loads_in=1, refused=[CheckpointError("not yet"), None, LookupError("of one's own")])
    journal = Journal(kept)
    with pytest.raises(CheckpointError, match="not yet"):
        await journal.load(stream, [1])
    first = asyncio.gather(journal.load(stream, [1]), journal.load(stream, [2]), return_exceptions=True)
    await elapse(0.5)
    second = asyncio.gather(journal.load(stream, [2]), journal.load(stream, [3]))
    assert [type(error) for error in await first] == [LookupError, LookupError]
    assert [*await second] == [{}, {}]
    assert kept.loads == [(stream, {1, 2}), (stream, {2, 3})]
    await journal.aclose()


@pytest.mark.looptime
async def test_a_journal_that_is_closed_ends_who_waits_for_a_load_and_the_load_before_the_stream() -> None:
    stream, *_ = STREAMS
    kept = Loads(loads_in=10)
    journal = Journal(kept)
    begins = []
    for job_ids in ([0, 1], [2], [3]):
        begins += [asyncio.create_task(Delivery(journal, stream).begin([job_id])) for job_id in job_ids]
        await elapse(1)
    begins[0].cancel()  # which the others do not notice
    await elapse(1)
    began = asyncio.get_running_loop().time()
    await journal.aclose()
    ends = await asyncio.gather(*begins, return_exceptions=True)
    assert asyncio.get_running_loop().time() == began
    assert [type(end) for end in ends] == [asyncio.CancelledError, *[StopAsyncIteration] * 3]
    assert kept.loads == [(stream, {0, 1})]
    assert (kept.under_way, kept.closed) == (0, 1)
    assert await journal.load(stream, [1]) == {}, "it is opened anew"
    await journal.aclose()


def test_a_place_costs_the_same_however_many_others_there_are() -> None:
    """Counted in calls, which are the same on any machine, while nothing can be written."""

    async def of_a_consumer(stream: Stream, journal: Journal, job_ids: list[int] | None) -> int:
        with calls() as counted:
            delivery = Delivery(journal, stream)
            await delivery.begin(job_ids)
            delivery.prepares([transition(stream, 1)])
            delivery.end()
        return counted[0]

    async def of_one_more(others: int, *, is_fleet: bool) -> int:
        journal = Journal(Memory(fails=True))
        ended = []
        for number in range(others):
            stream = Stream("https://example.com", f"p{number if is_fleet else 0}", None)
            ended.append(Delivery(journal, stream))
            await ended[-1].begin(None if is_fleet else [number])
            ended[-1].prepares([transition(stream, number)])
        found = await of_a_consumer(
            Stream("https://example.com", "another" if is_fleet else "p0", None),
            journal,
            None if is_fleet else [others],
        )
        await journal.aclose()
        return found

    for is_fleet in (True, False):
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            few = runner.run(of_one_more(10, is_fleet=is_fleet))
            many = runner.run(of_one_more(1000, is_fleet=is_fleet))
        assert many < few + 50


@contextlib.contextmanager
def calls() -> Iterator[list[int]]:
    """Counts the calls of functions meanwhile."""
    counted = [0]

    def count(frame: FrameType, event: str, arg: object) -> None:
        counted[0] += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield counted
    finally:
        sys.setprofile(before)
