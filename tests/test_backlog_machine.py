"""Steps of a watch that are cancelled at any moment: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import attrs
import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import elapse

import vizwatch
from vizwatch import Job, JobStatus, Transition
from vizwatch._flows.following import Follower, Terms
from vizwatch._flows.polling import Poller
from vizwatch._flows.watching import Watch
from vizwatch._rules.cadence import Cadence, OwnWrites
from vizwatch._rules.mailbox import Mailbox
from vizwatch._rules.outage import Outage
from vizwatch._rules.transitions import Tracker
from vizwatch._values.statuses import TERMINAL
from vizwatch._world.gate import Gate
from vizwatch._world.report import Report

pytestmark = pytest.mark.repeats

JOB: Final = 197
DEADLINE: Final = 3000.0
"""Later than any script ends, in seconds."""
BUSY, GONE, REFUSED, BROKEN = "busy", "gone", "refused", "broken"
FAILED: Final[dict[str, Callable[[], Exception]]] = {
    BUSY: lambda: vizwatch.ServerError(http_status=503),
    GONE: lambda: vizwatch.NotFoundError(http_status=404),
    REFUSED: lambda: vizwatch.PermissionDeniedError(http_status=403, error_code="ModelArts.0108"),
    BROKEN: lambda: RuntimeError("credentials of one's own"),
}
Said = int | str
"""A status, or how a read fails."""
ENDS: Final[dict[Said, type[Exception] | JobStatus | None]] = {
    12: JobStatus.KILLED,
    GONE: None,
    8: vizwatch.WatchTimeoutError,
    REFUSED: vizwatch.PermissionDeniedError,
    BROKEN: RuntimeError,
}
"""What comes last by what is read in the end, again and again."""
Moment = tuple[int, int | None]
"""For how many ticks of the loop a read goes on, and after how many the step is cancelled, if at all."""
Told = Transition | BaseException

says = st.lists(st.sampled_from([0, 1, 4, 7, 8, 9, 15, BUSY]), max_size=8)
moments = st.lists(st.tuples(st.integers(0, 2), st.none() | st.integers(0, 4)), max_size=12)


@attrs.define(eq=False)
class Noted(Watch):
    """A watch that notes what its poller says."""

    told: list[Told] = attrs.field(factory=list, init=False)

    def took(self, transition: Transition) -> None:
        self.told.append(transition)
        super().took(transition)

    def ended(self, error: BaseException) -> None:
        self.told.append(error)
        super().ended(error)


@attrs.define
class Play:
    """A job whose reads go by a script, and whoever watches it."""

    says: list[Said]
    moments: list[Moment]
    end: Said
    """What each further read says."""
    step: asyncio.Task[Transition] | None = attrs.field(default=None, init=False)
    cutters: list[asyncio.Task[None]] = attrs.field(factory=list, init=False)

    async def read(self, _job_id: int, _due: object) -> tuple[Job, float]:
        asked = asyncio.get_running_loop().time()
        await elapse(0.01)
        ticks, cut = self.moments.pop(0) if self.moments else (0, None)
        if cut is not None:
            self.cutters.append(asyncio.create_task(self.cut(cut)))
        for _ in range(ticks):
            await asyncio.sleep(0)
        said = self.says.pop(0) if self.says else self.end
        if isinstance(said, str):
            error = FAILED[said]()
            raise error
        return Job(JOB, JobStatus(said)), asked

    async def cut(self, ticks: int) -> None:
        for _ in range(ticks):
            await asyncio.sleep(0)
        if self.step is not None:
            self.step.cancel()

    def watch(self, backlog: int | None = None) -> Noted:
        cadence = Cadence(15.0, 1.0, 0.2, 0.8, 30.0)
        poller = Poller(Gate(Outage(0.8, 30.0), 100), Report(), lambda: 0.5, cadence, self.read)
        terms = Terms(cadence, OwnWrites(), Report(), lambda: 0.5, request_time=30.0)
        follower = Follower(Tracker("p", JOB, TERMINAL), terms)
        return Noted(follower, poller, DEADLINE, None if backlog is None else Mailbox(backlog))

    async def take(self, watch: Watch) -> list[Told]:
        """All that comes to the end, or to the first error, however often a step is cancelled."""
        taken = list[Told]()
        while not (taken and isinstance(taken[-1], BaseException)):
            self.step = asyncio.create_task(watch.__anext__())
            await asyncio.wait([self.step])
            if self.step.cancelled():
                continue
            error = self.step.exception()
            if isinstance(error, StopAsyncIteration):
                break
            taken.append(error or self.step.result())
        return taken


async def played(play: Play, backlog: int | None) -> tuple[list[Told], list[Told]]:
    """What the poller told, and what came of it."""
    async with play.watch(backlog) as watch:
        taken = await play.take(watch)
        if backlog is not None or play.end not in (8, BROKEN):  # else a next step may try again
            assert await play.take(watch) == []
    await asyncio.gather(*play.cutters)
    return watch.told, taken


@pytest.mark.fault("C10", "ordered", "no echo")
@settings(max_examples=200)
@given(says, moments, st.sampled_from(list(ENDS)), st.sampled_from([None, 64]))
def test_each_transition_comes_once_and_in_order_and_then_the_error(
    says: list[Said], moments: list[Moment], end: Said, backlog: int | None
) -> None:
    unheard = list[dict[str, Any]]()
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: unheard.append(context))
        told, taken = runner.run(played(Play([1, *says], [*moments], end), backlog))
    gc.collect(0)
    assert not unheard
    transitions = [one for one in taken if isinstance(one, Transition)]
    assert all(a.current == b.previous for a, b in pairwise(transitions))
    last, expected = taken[-1], ENDS[end]
    if isinstance(expected, type):
        assert type(last) is expected
    else:
        assert isinstance(last, Transition)
        assert last.current == expected
    assert taken == [*told, *[last] * (end == 8)], "the deadline is no matter of the poller's"


@pytest.mark.fault("C10")
@pytest.mark.looptime
@pytest.mark.parametrize("is_cancelled_first", [True, False])
@pytest.mark.parametrize("fails", [True, False])
async def test_what_comes_at_the_moment_of_a_cancellation_comes_to_the_next_step(
    is_cancelled_first: bool, fails: bool
) -> None:
    says: list[Said] = [1, REFUSED] if fails else [1, 8]
    # The cancellation comes first in the tick in which the read ends, or in the one after that.
    moments: list[Moment] = [(0, None), (1, 0) if is_cancelled_first else (0, 0)]
    play = Play(says, moments, 12)
    watch = play.watch()
    await anext(watch)
    play.step = asyncio.create_task(watch.__anext__())
    with pytest.raises(asyncio.CancelledError):
        await play.step
    assert len(watch.told) == 2
    if fails:
        with pytest.raises(vizwatch.PermissionDeniedError):
            await anext(watch)
        assert [one async for one in watch] == []
    else:
        assert [one.current async for one in watch] == [8, 12]


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("end", "error"), [(REFUSED, vizwatch.PermissionDeniedError), (BROKEN, RuntimeError)]
)
async def test_an_error_of_any_kind_comes_once_after_what_was_read_before_it(
    end: str, error: type[Exception]
) -> None:
    async with Play([1, 8], [], end).watch(backlog=8) as watch:
        await elapse(100)
        assert [(await anext(watch)).current for _ in range(2)] == [1, 8]
        with pytest.raises(error):
            await anext(watch)
        assert [one async for one in watch] == []


@pytest.mark.looptime
@pytest.mark.parametrize("end", [REFUSED, BROKEN])
async def test_of_a_watch_that_is_forgotten_no_error_is_reported_as_never_retrieved(end: str) -> None:
    unheard = list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    watch = await Play([1, 8], [], end).watch(backlog=8).__aenter__()
    await elapse(100)
    del watch
    gc.collect()
    assert unheard == []
