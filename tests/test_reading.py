"""Which details are read next, and how many at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vizwatch._flows.reading import Reads, Turn
from vizwatch._world.line import Due

pytestmark = pytest.mark.looptime

AT_ONCE = 16


class Details:
    """Reads that end when they are told to, and what is wanted of them."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.dues: dict[int, Due] = {}
        self.unwanted: set[int] = set()
        self._ends: dict[int, asyncio.Event] = {}
        self.reads = Reads(self._read, self._wanted_by)

    async def _read(self, job_id: int, due: Due) -> None:
        self.begun.append(job_id)
        self.dues[job_id], self._ends[job_id] = due, asyncio.Event()
        await self._ends[job_id].wait()
        assert self.reads.ends(job_id)

    def _wanted_by(self, job_id: int, since: float) -> float | None:
        assert since == 0.0
        return None if job_id in self.unwanted else float(job_id)

    def want(self, job_ids: Sequence[int], turn: Turn = Turn.USUAL) -> None:
        for job_id in job_ids:
            self.reads.want(job_id, 0.0, turn)

    async def begin(self) -> None:
        self.reads.begin()
        await asyncio.sleep(0)

    async def end(self, *job_ids: int) -> None:
        for job_id in job_ids:
            self._ends[job_id].set()
        for _ in range(3):
            await asyncio.sleep(0)

    async def end_all(self) -> None:
        tasks = self.reads.drop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from(Turn)), max_size=80), st.integers(1, 40), st.data()
)
def test_each_is_read_at_its_turn_and_those_that_may_hang_leave_a_quarter_of_the_places(
    wanted: list[tuple[int, Turn]], pages: int, data: st.DataObject
) -> None:
    async def all_read() -> None:
        details = Details()
        details.reads.pages = pages
        for job_id, turn in wanted:
            details.want([job_id], turn)
        first = {job_id: min(turn for one, turn in wanted if one == job_id) for job_id, _ in wanted}
        order = [job_id for turn in Turn for job_id, its in wanted if its is turn is first[job_id]]
        waiting, under_way, at_once = [*dict.fromkeys(order)], list[int](), max(AT_ONCE, pages)

        def allowed() -> list[int]:
            """What may be begun now, of the one turn that it is."""
            is_full = sum(first[job_id].may_hang for job_id in under_way) >= at_once - at_once // 4
            may = [job_id for job_id in waiting if not (is_full and first[job_id].may_hang)]
            return [job_id for job_id in may if first[job_id] is first[may[0]]] * (len(under_way) < at_once)

        def check(begun: Sequence[int]) -> None:
            for job_id in begun:
                its_turn = allowed()
                oldest, newest = its_turn[0], its_turn[-1]
                assert job_id in ({oldest, newest} if first[oldest] is Turn.FIRST else {oldest})
                waiting.remove(job_id)
                under_way.append(job_id)
            assert not allowed()

        await details.begin()
        check(details.begun)
        while under_way:
            done, before = data.draw(st.sampled_from(under_way)), len(details.begun)
            under_way.remove(done)
            await details.end(done)
            check(details.begun[before:])
        assert set(details.begun) == set(first)

    asyncio.run(all_read())


async def test_what_may_hang_keeps_no_other_from_its_claim() -> None:
    details = Details()
    details.want(range(4), Turn.LAST)
    await details.begin()
    details.want(range(10, 14))
    await details.begin()
    assert [details.dues[job_id].at for job_id in details.begun] == [*[math.inf] * 4, 10, 11, 12, math.inf]
    await details.end_all()


async def test_what_is_beyond_the_cost_of_a_sweep_has_no_claim_unless_somebody_makes_one() -> None:
    details = Details()
    details.want(range(10))
    await details.begin()
    assert [details.dues[job_id].at for job_id in range(10)] == [0.0, 1.0, 2.0, *[math.inf] * 7]
    details.reads.hasten(7, 5.0)
    assert details.dues[7].at == 5.0
    await details.end_all()


async def test_what_is_wanted_no_more_when_its_turn_comes_is_not_read() -> None:
    details = Details()
    details.want(range(40))
    await details.begin()
    details.unwanted = set(range(20, 39))
    await details.end(*range(16))
    assert details.begun == [*range(20), 39]
    await details.end_all()


async def test_what_is_dropped_is_nobodys_at_once() -> None:
    """Whoever comes while a read is being ended gets one of its own."""
    details = Details()
    details.want(range(20))
    await details.begin()
    tasks = details.reads.drop([3, 17])
    assert len(tasks) == 1
    details.want([3])
    await details.begin()
    assert details.begun == [*range(16), 16]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await details.end(0, 1, 2)
    assert details.begun == [*range(16), 16, 18, 19, 3]
    assert details.reads.is_under_way(3)
    await details.end_all()


async def test_a_read_that_is_cancelled_before_it_began_makes_room() -> None:
    details = Details()
    details.want(range(17))
    details.reads.begin()
    (first, *_) = asyncio.all_tasks() - {asyncio.current_task()}
    first.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(details.begun) == 16
    await details.end_all()


async def test_of_what_was_never_answered_the_newest_is_read_as_well_as_the_oldest() -> None:
    """Else many that hang, and came first, would stand before all others."""
    details = Details()
    details.want(range(40), Turn.FIRST)
    await details.begin()
    assert details.begun == [0, 39, 1, 38, 2, 37, 3, 36, 4, 35, 5, 34]
    await details.end_all()
