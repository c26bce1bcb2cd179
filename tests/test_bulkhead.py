"""Projects that hang: however many they are, they keep the others waiting for seconds once, and then not."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from typing import Any

import looptime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from taking import taken
from virtual import elapse

import vizwatch
from vizwatch import Fleet, Settings, Target, Transition
from vizwatch._world.bulkhead import SLOW_AFTER, Bulkhead, Standing
from vizwatch._world.transport import Pool, Share, Transport
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime

HANGING, GOOD = 400, 20
FOR_EACH_POOL = SLOW_AFTER * HANGING / Settings().pool_size


def now() -> float:
    return asyncio.get_running_loop().time()


# --- places ---------------------------------------------------------------------------------------------


async def use(bulkhead: Bulkhead, standing: Standing, seconds: float) -> list[float]:
    """Uses a place for so long, however often it is given up; tells when each use of it began."""
    begun: list[float] = []
    while True:
        async with await bulkhead.place(standing):
            begun.append(now())
            await elapse(seconds)
            return begun


async def test_who_hangs_gives_its_place_up_after_5_seconds_for_one_who_waits() -> None:
    bulkhead, hanging, good = Bulkhead(4), [Standing() for _ in range(8)], Standing()
    tasks = []
    for one in hanging:
        tasks.append(asyncio.create_task(use(bulkhead, one, 1000)))
        await elapse(0.1)
    assert await use(bulkhead, good, 1) == [pytest.approx(2 * SLOW_AFTER)]
    assert not good.is_slow
    assert sum(one.is_slow for one in hanging) == 5, "the four that came first, and one more"
    began = now()
    assert await use(bulkhead, good, 1) == [began], "a quarter is for those that are not slow"
    await asyncio.gather(*tasks)
    assert all(one.is_slow for one in hanging)


async def test_a_quarter_of_the_places_is_for_those_that_are_not_slow() -> None:
    bulkhead = Bulkhead(8)
    tasks = [asyncio.create_task(use(bulkhead, Standing(is_slow=True), 30)) for _ in range(20)]
    await elapse(1)
    began = now()
    assert await asyncio.gather(*(use(bulkhead, Standing(), 3) for _ in range(2))) == [[began]] * 2
    assert [len(begun) for begun in await asyncio.gather(*tasks)] == [1] * 20
    assert now() == 30 * 4, "six at a time"


async def test_whoever_waits_for_a_pool_in_vain_stands_in_no_way() -> None:
    settings = Settings(pool_size=1)
    pool = Pool(settings)
    one, other = (Transport("https://h.example", settings, Share(pool, Standing(True))) for _ in range(2))
    async with await one.place(1):
        with pytest.raises(vizwatch.ConnectError, match="none of those for projects that are slow was free"):
            await other.place(20)
    async with await other.place(1):
        pass
    await pool.aclose()


async def test_nobody_gives_a_place_up_that_nobody_waits_for() -> None:
    bulkhead, slow, late = Bulkhead(1), Standing(), Standing()
    first = asyncio.create_task(use(bulkhead, slow, 10))
    await elapse(1)
    assert await use(bulkhead, late, 0) == [5]
    assert await first == [0, 5], "it comes again when the other has done"
    assert slow.is_slow
    alone = asyncio.create_task(use(bulkhead, slow, 60))
    assert len(await alone) == 1
    began = now()
    other = Standing()
    waited = asyncio.create_task(use(bulkhead, other, 30))
    await elapse(20)
    assert await use(bulkhead, late, 0) == [began + 20], "what is overdue is given up at once"
    assert len(await waited) == 2


async def test_a_slow_one_that_is_quick_once_is_slow_no_more() -> None:
    bulkhead, standing = Bulkhead(4), Standing()
    for seconds, is_slow in ((6, True), (6, True), (1, False), (5, True), (4.9, False)):
        await use(bulkhead, standing, seconds)
        assert standing.is_slow is is_slow


async def test_what_is_raised_and_cancelled_in_a_place_is_not_kept_there() -> None:
    bulkhead, standing = Bulkhead(1), Standing()
    with pytest.raises(TimeoutError, match="its own"):
        async with await bulkhead.place(standing):
            raise TimeoutError("its own")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await use(bulkhead, standing, 10)
    task = asyncio.create_task(use(bulkhead, standing, 10))
    await elapse(1)
    waiting = asyncio.create_task(use(bulkhead, Standing(), 1))
    await elapse(1)
    waiting.cancel()
    task.cancel()
    await asyncio.wait([task, waiting])
    assert task.cancelled()
    assert waiting.cancelled()
    assert len(await use(bulkhead, standing, 0)) == 1


Use = tuple[float, float, float | None]
"""How long a place is used, after how long it is wanted, and when that is cancelled, if ever."""
SECONDS = st.sampled_from([0.0, 1.0, 4.0, 6.0, 30.0]) | st.floats(0, 40)
USES: st.SearchStrategy[Use] = st.tuples(SECONDS, st.floats(0, 20), st.none() | st.floats(0, 30))


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 5), USES), max_size=25))
def test_all_come_to_an_end_and_slow_ones_have_three_quarters_of_the_places(
    places: int, uses: list[tuple[int, Use]]
) -> None:
    inside = Counter[bool]()

    async def come(bulkhead: Bulkhead, standing: Standing, use: Use) -> None:
        seconds, after, within = use
        await elapse(after)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while True:
                    is_slow = standing.is_slow
                    async with await bulkhead.place(standing):
                        inside[is_slow] += 1
                        try:
                            assert inside[True] <= places - places // 4
                            assert inside.total() <= places
                            await elapse(seconds)
                            return
                        finally:
                            inside[is_slow] -= 1

    async def all_come() -> None:
        bulkhead, standings = Bulkhead(places), [Standing() for _ in range(6)]
        await asyncio.gather(*(come(bulkhead, standings[project], use) for project, use in uses))
        async with contextlib.AsyncExitStack() as stack, asyncio.timeout(1):
            for _ in range(places):
                await stack.enter_async_context(await bulkhead.place(Standing()))

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(all_come())


# --- fleets ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def clouds() -> AsyncIterator[tuple[Emulator, Emulator]]:
    """A cloud that is well, and one that never answers."""
    async with Emulator() as good, Emulator() as bad:
        bad.fault("latency", seconds=1e6)
        yield good, bad


def targets_of(good: Emulator, bad: Emulator, hanging: int = HANGING) -> list[Target]:
    """Those that hang come first."""
    for number in range(GOOD):
        good.add_jobs(1, status=7, project_id=f"good{number}")
    return [
        *(Target(bad.endpoint, f"bad{number}", auth=bad.token) for number in range(hanging)),
        *(Target(good.endpoint, f"good{number}", auth=good.token) for number in range(GOOD)),
    ]


class Lags(defaultdict[int, dict[str, float]]):
    """How long after it happened each change of each project came, by the status."""

    def __init__(self) -> None:
        super().__init__(dict)
        self.since = now()

    def note(self, transition: Transition) -> None:
        if transition.current is not None:
            self[transition.current][transition.project_id] = now() - self.since

    async def change(self, cloud: Emulator, status: int) -> dict[str, float]:
        """The lag of a change of all that are good."""
        self.since = now()
        for number in range(GOOD):
            cloud.set_status(number + 1, status, project_id=f"good{number}")
        await elapse(45)
        assert len(self[status]) == GOOD
        return self[status]


async def watched(good: Emulator, bad: Emulator, hanging: int) -> tuple[Lags, int]:
    """What is seen of the good ones, in three minutes; and how many requests went to the others."""
    async with Fleet(targets_of(good, bad, hanging)) as fleet:
        lags = Lags()
        async with taken(fleet.watch_jobs(), lags.note):
            await elapse(45)
            for status in (8, 9, 10):
                await lags.change(good, status)
            is_complete = {name: one.complete for name, one in fleet.outcomes.items()}
            assert all(is_complete[name] is name.startswith("good") for name in is_complete)
    return lags, len(bad.requests)


@pytest.mark.repeats
@pytest.mark.fault("N8")
async def test_400_projects_that_hang_delay_the_20_others_of_a_watch_by_20_seconds_once() -> None:
    """By five for each hundred, as many as the pool has connections; the lag is then that of those alone."""
    async with clouds() as (good, bad):
        alone, _ = await watched(good, bad, 0)
    async with clouds() as (good, bad):
        lags, asked = await watched(good, bad, HANGING)
    assert len(lags[7]) == GOOD
    assert max(lags[7].values()) <= FOR_EACH_POOL + 1
    assert asked <= HANGING + 180 / 30 * 100, "no more than all connections take that wait to the end"
    interval = Settings().poll_interval
    for status in (8, 9, 10):
        assert max(alone[status].values()) <= interval + 1
        assert max(lags[status].values()) <= interval + 1


@pytest.mark.repeats
@pytest.mark.fault("N8")
async def test_400_projects_of_which_all_hang_at_once_delay_the_20_others_of_a_watch_for_seconds() -> None:
    async with clouds() as (good, bad):
        bad.clear_faults()
        async with Fleet(targets_of(good, bad)) as fleet:
            lags = Lags()
            async with taken(fleet.watch_jobs(), lags.note):
                await elapse(45)
                bad.fault("latency", seconds=1e6)
                for status in (8, 9, 10, 11):
                    came = await lags.change(good, status)
                    assert max(came.values()) <= Settings().poll_interval + SLOW_AFTER + 1


@pytest.mark.repeats
@pytest.mark.fault("N8")
@pytest.mark.parametrize("complete", [False, True])
async def test_400_projects_that_hang_delay_the_20_others_of_a_listing_by_20_seconds_once(
    complete: bool,
) -> None:
    """Known to hang, they are begun after the others from then on, and asked less often."""
    async with clouds() as (good, bad), Fleet(targets_of(good, bad)) as fleet:
        for is_first in (True, False):
            began, before = now(), len(bad.requests)
            listing = fleet.list_jobs(complete=complete)
            for _ in range(GOOD):
                assert (await anext(listing)).target.name.startswith("good")
            assert now() - began <= (FOR_EACH_POOL if is_first else 0) + 1
            with pytest.raises(StopAsyncIteration):
                await anext(listing)
            assert len(bad.requests) - before <= (3 if is_first else 2) * HANGING
            assert {name for name, one in fleet.outcomes.items() if one.complete} == {
                f"good{number}" for number in range(GOOD)
            }
            assert (
                sum(isinstance(one.error, vizwatch.TransportError) for one in fleet.outcomes.values())
                == HANGING
            )


@pytest.mark.fault("A15")
@pytest.mark.parametrize("is_watch", [False, True])
async def test_400_credentials_that_hang_delay_20_others_by_20_seconds_once(
    cloud: Emulator, is_watch: bool
) -> None:
    """Ten of those have to ask for their project, too; the others need not wait at all in a watch."""

    class Scoped(vizwatch.TokenAuth):
        def __init__(self, project_id: str | None) -> None:
            super().__init__(cloud.token)
            self.project_id = project_id

        async def scope(self) -> vizwatch.Scope:
            if self.project_id is None:
                await elapse(1e6)
            return vizwatch.Scope(self.project_id, None)

    cloud.add_jobs(1, status=8, project_id="p")
    targets = [
        *(Target(cloud.endpoint, None, auth=Scoped(None), name=f"bad{n}") for n in range(HANGING)),
        *(Target(cloud.endpoint, None, auth=Scoped("p"), name=f"asks{n}") for n in range(10)),
        *(Target(cloud.endpoint, "p", auth=cloud.token, name=f"knows{n}") for n in range(10)),
    ]
    came: list[float] = []
    async with Fleet(targets) as fleet:
        if is_watch:
            async with taken(fleet.watch_jobs(), lambda _: came.append(now())):
                await elapse(60)
            assert came[9] <= 10
        else:
            listing: AsyncIterator[Any] = fleet.list_jobs()
            for _ in range(20):
                await anext(listing)
                came.append(now())
    assert len(came) == 20
    assert came[-1] <= FOR_EACH_POOL + 1
