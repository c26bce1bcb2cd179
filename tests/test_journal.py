"""What consumers were given is kept whole, in turn, and at a cost that grows with what there is to keep."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import looptime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keeping import Memory
from virtual import elapse

from vizwatch import Job, JobStatus, Stream, Transition
from vizwatch._flows.delivering import Delivery
from vizwatch._rules import records
from vizwatch._rules.records import Given
from vizwatch._world import journal as journals
from vizwatch._world.journal import Journal

STREAMS = [Stream("https://example.com", f"p{number}", None) for number in range(3)]
READ = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


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


steps = st.lists(
    st.tuples(st.just("put"), st.tuples(st.sampled_from(STREAMS), st.integers(1, 4), st.booleans()))
    | st.tuples(st.just("load"), st.tuples(st.sampled_from(STREAMS), st.none() | st.sets(st.integers(1, 4))))
    | st.tuples(st.just("pass"), st.sampled_from([0.0, 0.4, 40.0]))
    | st.tuples(st.just("fail"), st.booleans()),
    max_size=30,
)


@given(steps, st.integers(1, 4))
def test_the_newest_of_each_job_is_loaded_at_any_time_and_is_in_the_checkpoint_at_the_end(
    steps: list[tuple[str, Any]], at_once: int
) -> None:
    newest: dict[Stream, dict[int, Given]] = {stream: {} for stream in STREAMS}

    async def go() -> Memory:
        kept = Memory(takes=(0.3, 0.0))
        journal = Journal(kept)
        for stream in STREAMS:
            await journal.load(stream, ())
        for number, (what, how) in enumerate(steps, start=1):
            if what == "put":
                stream, job_id, forgets = how
                newest[stream].pop(job_id, None)
                if not forgets:
                    newest[stream][job_id] = Given(transition(stream, job_id, number), is_delivered=True)
                journal.put(stream, job_id, newest[stream].get(job_id))
            elif what == "load":
                stream, job_ids = how
                wanted = {
                    job_id: one
                    for job_id, one in newest[stream].items()
                    if job_ids is None or job_id in job_ids
                }
                assert await journal.load(stream, job_ids) == wanted
            elif what == "pass":
                await asyncio.sleep(how)
            else:
                kept.fails = how
        kept.fails = False
        await asyncio.sleep(60)
        assert not journal.is_unsettled
        await journal.aclose()
        return kept

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(journals, "_AT_ONCE", at_once)
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            kept = runner.run(go())
    found = {
        stream: {job_id: records.decode(one, stream.project_id, job_id) for job_id, one in by_job.items()}
        for stream, by_job in kept.records.items()
    }
    assert {stream: found.get(stream, {}) for stream in STREAMS} == newest


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
