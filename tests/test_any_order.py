"""Watches of many jobs and of many projects, begun, cancelled, left and closed in any order, amid faults."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

import attrs
import pytest
from virtual import elapse

from vizwatch import Client, ClientClosedError, Fleet, JobsWatch, Settings, Target
from vizwatch._world.chance import CHANCE
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime

PROJECTS: Final = [f"p{number}" for number in range(8)]
STEPS: Final = 40
QUIET: Final = 300.0


@attrs.define
class Crowd:
    """Those who use something at once, of whom some are cancelled."""

    chance: random.Random
    cancelled: dict[asyncio.Task[Any], bool] = attrs.field(factory=dict)

    def send(self, work: Coroutine[Any, Any, None]) -> None:
        self.cancelled[asyncio.ensure_future(work)] = False

    def cancel(self, task: asyncio.Task[Any]) -> None:
        self.cancelled[task] |= task.cancel()

    async def watch(self, make: Callable[..., JobsWatch], **options: Any) -> None:
        """Takes some or all, by steps with a deadline or without; then closes the watch, or forgets it."""
        age = {"max_age": self.chance.choice([5, 30])} if self.chance.random() < 0.3 else {}
        watch, takes = make(**age, **options), self.chance.choice([None, 1, 5])
        within, taken = self.chance.choice([None, 0.5, 7]), 0
        while takes is None or taken < takes:
            try:
                async with asyncio.timeout(within):
                    await anext(watch)
                taken += 1
            except TimeoutError:
                pass
            except StopAsyncIteration:
                return
        if self.chance.random() < 0.5:
            await watch.aclose()

    def trouble(self, cloud: Emulator) -> None:
        """A fault of any kind, of one project or of all."""
        where = {"project_id": self.chance.choice(PROJECTS)} if self.chance.random() < 0.7 else {}
        faults: list[tuple[str, dict[str, Any]]] = [
            ("latency", {"seconds": self.chance.choice([0.5, 4, 60])}),
            ("status", {"status": self.chance.choice([429, 500, 503])}),
            ("body", {"text": "{"}),
        ]
        kind, how = self.chance.choice(faults)
        cloud.fault(kind, **how, ttl=self.chance.choice([2, 20, 60]), match=where)

    async def end(self, cloud: Emulator) -> None:
        """All are cancelled; nothing is read for them any more."""
        for task in self.cancelled:
            self.cancel(task)
        await elapse(100)
        before = len(cloud.requests)
        await elapse(QUIET)
        assert len(cloud.requests) == before

    def check(self) -> None:
        """All have ended: by closing, and nobody as cancelled who was not."""
        for task, is_cancelled in self.cancelled.items():
            assert task.done(), "it hangs"
            if task.cancelled():
                assert is_cancelled, "somebody else was cancelled"
            else:
                assert isinstance(task.exception(), ClientClosedError | None), task.exception()


@pytest.mark.parametrize("seed", range(12))
async def test_watches_of_many_jobs_end_with_those_who_wait_for_them(cloud: Emulator, seed: int) -> None:
    CHANCE.seed(seed)
    crowd = Crowd(random.Random(seed))
    choice, chance = crowd.chance.choice, crowd.chance.random
    job_ids = cloud.add_jobs(choice([1, 3, 30, 1200]), status=8)[:12]
    settings = Settings(requests_per_second=choice([None, 2]), on_stale=lambda _: None)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:

        async def follow(job_id: int) -> None:
            async for _ in client.watch(job_id, follow_restarts=True, max_age=choice([None, 5])):
                pass

        for _ in range(STEPS):
            match chance():
                case part if part < 0.2:
                    crowd.send(follow(choice(job_ids)))
                case part if part < 0.5:
                    crowd.send(crowd.watch(client.watch_jobs, job_ids=choice([None, job_ids[:3]])))
                case part if part < 0.7 and crowd.cancelled:
                    crowd.cancel(choice(list(crowd.cancelled)))
                case part if part < 0.85:
                    cloud.set_status(choice(job_ids), choice([8, 7, 10, 9, 12, 15, 1]))
                case _:
                    crowd.trouble(cloud)
            await elapse(choice([0, 0, 0.1, 1, 5, 20]))
        cloud.clear_faults()
        if seed % 2:
            await crowd.end(cloud)
    await elapse(1)
    crowd.check()


@pytest.mark.parametrize("seed", range(12))
async def test_a_fleet_hangs_for_nobody(cloud: Emulator, seed: int) -> None:
    CHANCE.seed(seed)
    crowd = Crowd(random.Random(seed))
    choice, chance = crowd.chance.choice, crowd.chance.random
    for project in PROJECTS:
        cloud.add_jobs(choice([0, 1, 5]), status=8, project_id=project)
    settings = Settings(pool_size=choice([1, 4, 100]), requests_per_second=choice([None, 3]))
    targets = [Target(cloud.endpoint, project, auth=cloud.token) for project in PROJECTS]
    async with Fleet(targets, settings=settings) as fleet:

        async def listed() -> None:
            async for _ in fleet.list_jobs():
                pass

        for _ in range(STEPS):
            match chance():
                case part if part < 0.25:
                    crowd.send(listed())
                case part if part < 0.5:
                    crowd.send(crowd.watch(fleet.watch_jobs))
                case part if part < 0.65 and crowd.cancelled:
                    crowd.cancel(choice(list(crowd.cancelled)))
                case _:
                    crowd.trouble(cloud)
            assert fleet.outcomes.keys() == set(PROJECTS)
            await elapse(choice([0, 0, 0.1, 1, 5, 20]))
        cloud.clear_faults()
        await elapse(120)
        if seed % 2:
            await crowd.end(cloud)
        else:
            await listed()
            assert all(outcome.complete for outcome in fleet.outcomes.values())
    await elapse(1)
    crowd.check()
