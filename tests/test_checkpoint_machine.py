"""Whatever happens to jobs and to who watches them, what all processes were told is one story of each job."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from itertools import groupby, pairwise
from typing import Final

import attrs
import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keeping import Memory

from vizwatch import Client, JobStatus, Settings, Transition
from vizwatch._flows.following import Clock
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.repeats

JOBS: Final = 3
SETTINGS: Final = Settings(poll_interval=5, poll_interval_min=1)
LONG: Final = 400.0

statuses = st.sampled_from([1, 4, 7, 8, 9, 10, 12, None])
changes = st.tuples(st.integers(0, JOBS - 1), statuses)
pauses = st.sampled_from([0.0, 0.3, 1.0, 4.0, 15.0, 60.0])


@attrs.frozen
class Life:
    """A process's life: what happens meanwhile, how quick it is, and how it ends."""

    happens: Sequence[tuple[tuple[int, int | None], float]]
    """Changes of jobs, each with how long it is until the next."""
    write_takes: Sequence[float]
    deals_for: float
    """How long the consumer takes for each transition."""
    is_killed: bool
    """Or else closed."""


lives = st.builds(
    Life,
    st.lists(st.tuples(changes, pauses), max_size=6),
    st.lists(st.sampled_from([0.0, 0.2, 3.0, 20.0]), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.5, 10.0]),
    st.booleans(),
)


@attrs.define
class World:
    """A cloud's jobs, and what was told of them."""

    cloud: Emulator
    kept: Memory
    jobs: dict[int, int | None]
    told: list[Transition] = attrs.field(factory=list)

    async def live(self, life: Life, *, is_single: bool) -> None:
        """One process."""
        self.kept.takes = life.write_takes
        client = Client(self.cloud.endpoint, self.cloud.project_id, auth=self.cloud.token, settings=SETTINGS)
        async with client:
            if is_single:
                watches: list[AsyncIterator[Transition]] = [
                    client.watch(job_id, follow_restarts=True, checkpoint=self.kept) for job_id in self.jobs
                ]
            else:
                watches = [client.watch_jobs(checkpoint=self.kept)]
            consumers = [asyncio.create_task(self.consume(watch, life.deals_for)) for watch in watches]
            for (number, status), pause in life.happens:
                self.change(number, status)
                await asyncio.sleep(pause)
            left = self.kept.as_it_is()
            for consumer in consumers:
                consumer.cancel()
            await asyncio.wait(consumers)
        if life.is_killed:
            self.kept = left

    async def consume(self, watch: AsyncIterator[Transition], deals_for: float) -> None:
        async for transition in watch:
            self.told.append(transition)
            await asyncio.sleep(deals_for)

    def change(self, number: int, status: int | None) -> None:
        job_id = [*self.jobs][number]
        if self.jobs[job_id] is None:
            return  # it is gone
        if status is None and list(self.jobs.values()).count(None) == JOBS - 1:
            return
        self.cloud.set_status(job_id, status)
        self.jobs[job_id] = status

    def check(self) -> None:
        """One story of each job, that ends with what is the case."""
        said = defaultdict(set)
        by_job = defaultdict(list)
        for one in self.told:
            said[one.id].add(one)
            by_job[one.job_id].append(one)
        assert all(len(ones) == 1 for ones in said.values()), "an id says one thing"
        for job_id, ones in by_job.items():
            story = [one for one, _ in groupby(ones)]
            assert len({one.id for one in story}) == len(story), "only the last one comes again"
            assert story[0].previous is None
            assert all(before.current == after.previous for before, after in pairwise(story))
            assert all(before.run <= after.run for before, after in pairwise(story))
            assert all((one.run, one.current) != (two.run, two.current) for one, two in pairwise(story))
            truth = self.jobs[job_id]
            assert story[-1].current == (None if truth is None else JobStatus(truth))


async def story(run: Sequence[Life], *, is_single: bool) -> None:
    async with Emulator(request_log=1) as cloud:
        job_ids = cloud.add_jobs(JOBS, status=8)
        cloud.advance(3600)
        world = World(cloud, Memory(), dict.fromkeys(job_ids, 8))
        for life in run:
            await world.live(life, is_single=is_single)
        await world.live(
            Life([((0, world.jobs[job_ids[0]]), LONG)], [0.0], 0.0, is_killed=False), is_single=is_single
        )
        world.check()
        if not is_single:
            missing = [one for one in job_ids if world.jobs[one] is not None]
            assert {one.job_id for one in world.told} >= set(missing)


@pytest.mark.fault("D1", "D3", "D4")
@pytest.mark.parametrize("is_single", [False, True])
def test_all_processes_together_tell_one_story(is_single: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    began = Clock.started(0.0).at(0.0)
    monkeypatch.setattr(Clock, "started", lambda now: Clock(began, 0.0) if now >= 0 else None)

    @given(st.lists(lives, min_size=1, max_size=4))
    @settings(max_examples=25)
    def check(run: Sequence[Life]) -> None:
        loop = looptime.new_event_loop()
        try:
            loop.run_until_complete(story(run, is_single=is_single))
        finally:
            loop.close()

    check()
