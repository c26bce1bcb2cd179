"""Whatever lives the jobs of a workspace lead, and however its pages are read: what a survey says is true."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import attrs
import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taking import taken

from vizwatch import JobStatus, NotFoundError, ProtocolError, ServerError, Transition
from vizwatch._flows.arriving import JobsWatch
from vizwatch._flows.following import Follower, Terms
from vizwatch._flows.polling import Poller
from vizwatch._flows.surveying import Survey
from vizwatch._rules import codec
from vizwatch._rules.cadence import Cadence, OwnWrites
from vizwatch._rules.choice import Choice
from vizwatch._rules.listing import Dialect, Limits
from vizwatch._rules.outage import Outage
from vizwatch._rules.transitions import Tracker
from vizwatch._values.models import Job
from vizwatch._values.rows import Rows
from vizwatch._values.statuses import TERMINAL
from vizwatch._world.gate import Gate
from vizwatch._world.line import Due
from vizwatch._world.report import Report

pytestmark = pytest.mark.repeats

INTERVAL = 15.0
LASTS = 240
"""How long each status lasts at least, in seconds: longer than anything here keeps a reading off."""
STILL = 600


@attrs.frozen
class Life:
    """One job's."""

    created: float
    statuses: list[int]
    lasting: list[int]
    is_deleted: bool

    @property
    def changes(self) -> list[tuple[float, int | None]]:
        """When it came into which status; ``None`` for deleted."""
        at, found = self.created, list[tuple[float, int | None]]()
        for status, lasting in zip(self.statuses, self.lasting, strict=False):
            found.append((at, status))
            at += lasting
        return [*found, (at, None)] if self.is_deleted else found


@attrs.define
class Workspace:
    """What a service would answer, which is as slow, as unreliable and as wrong about totals as it likes."""

    lives: list[Life]
    per_page: int
    chance: random.Random
    failing: float
    total: Callable[[int], int | None]
    requests: int = 0

    def job(self, job_id: int) -> dict[str, Any] | None:
        now, since, status = asyncio.get_running_loop().time(), 0.0, None
        for at, one in self.lives[job_id].changes:
            if at <= now:
                since, status = at, one
        if status is None:
            return None
        duration = int((now - since) * 1000) if status == JobStatus.RUNNING else 0
        return {"job_id": job_id, "status": status, "duration": duration, "job_name": f"n{job_id}"}

    async def answer(self, operation: str) -> None:
        self.requests += 1
        await asyncio.sleep(self.chance.random() * 3)
        if self.chance.random() < self.failing:
            error = self.chance.choice([ServerError, ProtocolError])
            raise error(f"{operation}: not now", http_status=503)

    async def read_job(self, job_id: int, _due: Due) -> tuple[Job, float]:
        asked = asyncio.get_running_loop().time()
        await self.answer("get job")
        job = self.job(job_id)
        if job is None:
            raise NotFoundError("get job: none", http_status=404)
        decoded = codec.decode_job(json.dumps({**job, "is_success": True}).encode())
        assert isinstance(decoded, Job)
        return decoded, asked

    async def read_rows(self, page: int, per_page: int, _due: Due) -> tuple[Rows, float]:
        asked = asyncio.get_running_loop().time()
        await self.answer("list jobs")
        there = [job for job_id in range(len(self.lives)) if (job := self.job(job_id)) is not None]
        some = there[(page - 1) * per_page : page * per_page]
        rows = codec.decode_rows(
            json.dumps({"jobs": some, "job_total_count": self.total(len(there))}).encode()
        )
        assert isinstance(rows, Rows)
        return rows, asked

    def watch(self) -> tuple[JobsWatch, Survey]:
        cadence = Cadence(INTERVAL, 1.0, 0.2, 0.8, 30.0)
        poller = Poller(
            Gate(Outage(0.8, 30.0), 10),
            Report(),
            self.chance.random,
            cadence,
            self.read_job,
            self.read_rows,
            Dialect(Limits(per_page=self.per_page)),
        )

        terms = Terms(cadence, OwnWrites(), Report(), self.chance.random, 30.0)

        def follower(job_id: int) -> Follower:
            return Follower(Tracker("p", job_id, TERMINAL, follow_restarts=True), terms)

        survey = Survey(poller, Choice(), follower, "p", terms)
        return JobsWatch(survey.arrivals, survey.begin, survey), survey


way = [1, 7, 8, 9, 12, 8, 10, 8, 11]
lives = st.builds(
    lambda created, start, count, lasting, is_deleted: Life(
        created, way[start : start + count], lasting[:count], is_deleted
    ),
    st.integers(0, 500),
    st.integers(0, 5),
    st.integers(1, 4),
    st.lists(st.integers(LASTS, 2 * LASTS), min_size=4, max_size=4),
    st.booleans(),
)
workspaces = st.builds(
    Workspace,
    # Ids are given in the order in which jobs are created.
    st.lists(lives, max_size=9).map(lambda some: sorted(some, key=lambda life: life.created)),
    st.sampled_from([2, 3, 5, 20]),
    st.integers(0, 10**6).map(random.Random),
    st.sampled_from([0.0, 0.0, 0.1, 0.3]),
    st.sampled_from([lambda there: there, lambda _: None, lambda there: there + 3]),
)


def until(workspace: Workspace) -> float:
    return STILL + max((life.changes[-1][0] for life in workspace.lives), default=0.0)


@contextlib.asynccontextmanager
async def watched(workspace: Workspace) -> AsyncIterator[tuple[list[Transition], Survey]]:
    found: list[Transition] = []
    watch, survey = workspace.watch()
    async with watch, taken(watch, found.append):
        yield found, survey


async def all_seen(workspace: Workspace) -> tuple[list[Transition], dict[str, float]]:
    async with watched(workspace) as (found, survey):
        await asyncio.sleep(until(workspace))
        assert survey.clock is not None
        start = survey.clock.at(0.0)
        times = {t.id: (t.not_after - start).total_seconds() for t in found}
        times |= {
            f"{t.id} before": (t.not_before - start).total_seconds()
            for t in found
            if t.not_before is not None
        }
    return found, times


def run(workspace: Workspace) -> tuple[dict[int, list[Transition]], dict[str, float]]:
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        found, times = runner.run(all_seen(workspace))
    by_job = defaultdict(list)
    for transition in found:
        by_job[transition.job_id].append(transition)
    return by_job, times


@settings(max_examples=60)
@given(workspaces)
def test_each_status_that_lasts_is_seen_once_in_its_order_and_nothing_else(workspace: Workspace) -> None:
    by_job, times = run(workspace)
    for job_id, life in enumerate(workspace.lives):
        seen = by_job[job_id]
        assert [t.current for t in seen] == [status for _, status in life.changes], f"job {job_id}"
        assert seen[0].previous is None
        assert all(after.previous == before.current for before, after in pairwise(seen))
        assert len({t.id for t in seen}) == len(seen)
        for transition, (at, _) in zip(seen, life.changes, strict=True):
            assert times.get(f"{transition.id} before", 0.0) <= at + 0.001, "not yet, when it was last read"
            assert at <= times[transition.id]
    assert by_job.keys() <= set(range(len(workspace.lives)))


@settings(max_examples=15)
@given(workspaces)
def test_what_is_still_costs_the_listing_alone_and_is_held_once(workspace: Workspace) -> None:
    async def still() -> None:
        async with watched(workspace) as (_, survey):
            await asyncio.sleep(until(workspace))
            assert not survey._members
            assert survey.size == sum(not life.is_deleted for life in workspace.lives)
            workspace.failing, before = 0.0, workspace.requests
            await asyncio.sleep(20 * INTERVAL)
            pages = -(-survey.size // workspace.per_page) + 2  # beyond the last, where totals do not hold
            assert workspace.requests - before <= pages * 20 * 1.3

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(still())
