"""A machine that drives a client and an emulated cloud through all that may happen, and holds each promise.

::

    VIZWATCH_STEPS=200000 VIZWATCH_SEED=7 python -m pytest tests/test_watch_machine.py

The same seed and number of steps give the same run: time is virtual, chance comes from hypothesis' seed, and
the client's own chance is seeded with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import math
import os
import random
from collections.abc import Coroutine
from typing import Any, Final
from unittest import mock

import attrs
import looptime
import pytest
from canaries import shown
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from recorder import CALL, WATCH, note_truth, now, recorded
from traces import CHECKERS, EPOCH, Probe, Sample, Trace, Trouble, Watched, Write, broken

from vizwatch import Client, JobStatus, PasswordAuth, Settings, VizwatchError
from vizwatch._flows.watching import Watch
from vizwatch._world.chance import CHANCE
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.repeats

STEPS: Final = int(os.environ.get("VIZWATCH_STEPS", "5000"))
SEED: Final = int(os.environ.get("VIZWATCH_SEED", "0"))
STEPS_OF_A_RUN: Final = 50
PARTS: Final = 4
"""Into how many tests they are divided, so that several processes can share them."""
SPEEDS_UP: Final = 150.0
"""For how long after a 429 the client sends fewer requests."""
MOST_WATCHES: Final = 4
TOKENS_LIVE: Final = 400.0
PASSWORD: Final = "canary-password-3b1f"
PROMISES: Final = [
    "ordered",
    "no echo",
    "no invention",
    "final state",
    "freshness",
    "write once",
    "no secret",
    "bounded",
]

codes = [8, 7, 4, 1, 15, 9, 10, 11, 12, 13, 0, 18, 20, 99]
pauses = st.sampled_from([0.5, 1.0, 3.0, 10.0, 20.0, 60.0])
thens = st.sampled_from([0.1, 0.0, 1.0, 3.0, 16.0, 30.0])
operations = st.sampled_from(["restart", "stop", "get", "restart", "stop", "delete"])
whiches = st.integers(0, 5)
plans = st.lists(st.tuples(pauses, st.sampled_from(codes)), min_size=1, max_size=6)

TROUBLES: dict[str, tuple[str, dict[str, Any]]] = {
    "500": ("status", {"status": 500, "code": "ModelArts.0010"}),
    "503": ("status", {"status": 503, "performed": True}),
    "503 for a while": ("status", {"status": 503, "code": "ModelArts.4302", "retry_after": 5}),
    "429": ("status", {"status": 429, "code": "APIGW.0308"}),
    "429 for a while": ("status", {"status": 429, "code": "ModelArts.2799", "retry_after": 30}),
    "408": ("status", {"status": 408, "code": "ModelArts.4205"}),
    "closed": ("drop", {}),
    "closed, done": ("drop", {"performed": True}),
    "cut": ("truncate", {"bytes": 25}),
    "slow": ("latency", {"seconds": 2}),
    "slower": ("latency", {"seconds": 20}),
    "hanging": ("latency", {"seconds": 50}),
    "garbage": ("body", {"text": '{"job_id": 1', "performed": True}),
    "a page": ("body", {"text": "<html>", "content_type": "text/html"}),
    "no status": ("body", {"text": '{"job_id": 1, "status": null}'}),
    "late": ("latency", {"seconds": 4, "performed": True}),
    "later": ("latency", {"seconds": 25, "performed": True}),
    "stale": ("stale", {"seconds": 12}),
    "a replica lags": ("replica_lag", {"seconds": 12}),
}
meets = st.none() | st.sampled_from(sorted(TROUBLES))


class Machine(RuleBasedStateMachine):
    """One client, several watches of several jobs, and a service with a will of its own."""

    steps = 0
    client_settings = Settings(shared_reads=False)

    def __init__(self) -> None:
        super().__init__()
        self.loop = looptime.new_event_loop(noop_cycles=6)
        self.loop.set_exception_handler(lambda _, context: self.unhandled.append(f"{context}"))
        self.unhandled: list[str] = []
        self.stack = contextlib.AsyncExitStack()
        self.trace = Trace(settings=self.client_settings)
        self.jobs: list[int] = []
        self.watches: list[Watch] = []
        self.consumers: list[asyncio.Task[None]] = []
        self.paces: list[float] = []
        self.calls: list[asyncio.Task[None]] = []
        self.usual: list[tuple[list[tuple[float, int]], bool]] = []
        self.count = 0

    def step(self, what: Coroutine[Any, Any, None], then: float = 0.0) -> None:
        """Does one thing, lets time pass, and looks at everything."""
        type(self).steps += 1
        self.loop.run_until_complete(self._step(what, then))

    async def _step(self, what: Coroutine[Any, Any, None], then: float) -> None:
        await what
        # Somebody always watches: the plans of the beginning come round.
        for plan, follow_restarts in self.usual[sum(not task.done() for task in self.consumers) :]:
            await self._watch(plan, 0, 15.0, 0.0, follow_restarts)
        await asyncio.sleep(then)
        self._look()

    def _look(self) -> None:
        trace = self.trace
        self.calls = [call for call in self.calls if not call.done()]
        server = self.cloud._runner.server if self.cloud._runner is not None else None
        trace.samples.append(
            Sample(
                at=now(),
                tasks=sum(map(_is_the_librarys, asyncio.all_tasks())),
                sockets=0 if server is None else len(server.connections),
                calls=len(self.calls) + sum(not task.done() for task in self.consumers),
            )
        )
        for watched, watch in zip(trace.watches, self.watches, strict=True):
            if watch.job is not None and watched.is_waiting:
                watched.probes.append(Probe(now(), watch.stale, watch.job.status))

    # --- a client, and jobs ---

    @initialize(plans=st.lists(plans, min_size=2, max_size=2), follow_restarts=st.booleans())
    def open(self, plans: list[list[tuple[float, int]]], follow_restarts: bool) -> None:
        self.usual = [(plan, follow_restarts) for plan in plans]
        self.step(self._open())

    async def _open(self) -> None:
        life = ((0.0, JobStatus.INIT), (30.0, JobStatus.RUNNING))
        emulator = Emulator(password=PASSWORD, token_ttl=TOKENS_LIVE, life=life)
        emulator._world.clock.anchor = EPOCH.timestamp()  # or tokens would live a microsecond more or less
        self.stack.enter_context(recorded(self.trace))
        # Whoever makes a source of chance gets one that a run of the same seed gets too.
        foreseeable = functools.partial(random.Random, SEED)
        self.stack.enter_context(mock.patch("random.Random", foreseeable))
        CHANCE.seed(SEED)
        self.cloud = cloud = await self.stack.enter_async_context(emulator)
        self.trace.secrets |= {PASSWORD, cloud.token}
        await self._connect()

    async def _connect(self) -> None:
        # Checkpoints, once there are any, belong to the cloud and not to the client: a rule that kills it
        # and resumes is `reopen` with watches that take up the old ones' checkpoints.
        cloud = self.cloud
        auth = PasswordAuth(
            cloud.endpoint,
            username=cloud.user,
            password=PASSWORD,
            domain_name=cloud.domain,
            project_id=cloud.project_id,
        )
        self.client = Client(cloud.endpoint, cloud.project_id, auth=auth, settings=self.trace.settings)
        await self.client.__aenter__()
        self.trace.texts += [repr(auth), repr(self.client)]

    @rule(then=thens)
    def reopen(self, then: float) -> None:
        """The client is closed, whatever is under way, and another one is opened some time later."""
        self.step(self._reopen(), then)

    async def _reopen(self) -> None:
        await self._disconnect()
        self.trace.closed[-1] = (self.trace.closed[-1][0], now())
        await self._connect()

    async def _disconnect(self) -> None:
        started = now()
        await self.client.aclose()
        await asyncio.sleep(0.001)
        assert now() - started < 5, "closing took long"
        assert not any(watched.is_waiting for watched in self.trace.watches), "closing did not end a watch"
        assert all(call.done() for call in self.calls), "closing did not end a call"
        self.trace.closed.append((now(), math.inf))
        await asyncio.sleep(0.1)
        self._look()

    def job(self, which: int) -> int:
        """One of the jobs, 0 for the latest."""
        return self.jobs[-1 - which % len(self.jobs)]

    @rule(meets=meets, then=thens)
    def create(self, meets: str | None, then: float) -> None:
        """A job of ours, of which the client may not hear."""
        self.step(self._create(meets), then)

    async def _create(self, meets: str | None) -> None:
        self._meet(meets, "create")
        self.count += 1
        name = f"job-of-ours-{self.count}"
        self._call("create", name, self.client.create_job(name, "/obs/logs/"))
        await asyncio.sleep(0.1)
        project = self.cloud._world.cloud.project(self.cloud.project_id, self.cloud.now)
        self.jobs += sorted(set(project.jobs) - set(self.jobs))

    @rule(which=whiches, status=st.sampled_from([*codes, None]), then=thens)
    def others_change(self, which: int, status: int | None, then: float) -> None:
        self.step(self._change(self.job(which), status), then)

    async def _change(self, job: int, status: int | None) -> None:
        with contextlib.suppress(ValueError):  # it is deleted
            self.cloud.set_status(job, status)

    @rule(
        which=whiches,
        codes=st.sampled_from([(8, 15), (7, 8), (0, 8), (10, 1)]),
        every=st.sampled_from([16.0, 1.0, 5.0]),
    )
    def flap(self, which: int, codes: tuple[int, int], every: float) -> None:
        self.step(self._flap(self.job(which), codes, every))

    async def _flap(self, job: int, codes: tuple[int, int], every: float) -> None:
        for code in 2 * codes:
            await self._change(job, code)
            await asyncio.sleep(every)

    @rule(operation=operations, which=whiches, meets=meets, then=thens)
    def call(self, operation: str, which: int, meets: str | None, then: float) -> None:
        self.step(self._write(operation, self.job(which), meets), then)

    async def _write(self, operation: str, job: int, meets: str | None) -> None:
        self._meet(meets, {"get": "details"}.get(operation, operation))
        self._call(operation, f"{job}", getattr(self.client, f"{operation}_job")(job))

    def _meet(self, kind: str | None, operation: str) -> None:
        """One request of the operation, the next one, meets with a fault."""
        if kind is not None:
            self._fault(kind, 5.0, {"operation": operation}, count=1)

    def _call(self, operation: str, key: str, call: Coroutine[Any, Any, Any]) -> None:
        self.count += 1
        number = self.count
        if operation in {"create", "restart"}:
            self.trace.writes.append(Write(number, operation, key, now()))

        async def called() -> None:
            CALL.set(number)
            try:
                self.trace.texts.append(repr(await call))
            except VizwatchError as error:
                self.trace.texts.append(shown(error))

        self.calls.append(asyncio.create_task(called()))

    @precondition(lambda self: any(not call.done() for call in self.calls))
    @rule(then=thens)
    def cancel_a_call(self, then: float) -> None:
        self.step(_cancel(next(call for call in self.calls if not call.done())), then)

    # --- watches and their consumers ---

    @precondition(lambda self: sum(not task.done() for task in self.consumers) < MOST_WATCHES)
    @rule(
        plan=st.none() | plans,
        which=whiches,
        interval=st.sampled_from([15.0, 25.0, 8.0]),
        pace=st.sampled_from([0.0, 0.0, 2.0, 50.0]),
        follow_restarts=st.booleans(),
        then=thens,
    )
    def watch(
        self,
        plan: list[tuple[float, int]] | None,
        which: int,
        interval: float,
        pace: float,
        follow_restarts: bool,
        then: float,
    ) -> None:
        self.step(self._watch(plan, which, interval, pace, follow_restarts), then)

    async def _watch(
        self,
        plan: list[tuple[float, int]] | None,
        which: int,
        interval: float,
        pace: float,
        follow_restarts: bool,
    ) -> None:
        if plan is not None:
            starts = itertools.accumulate((pause for pause, _ in plan), initial=0.0)
            steps = [[at, code] for at, (_, code) in zip(starts, plan, strict=False)]
            self.jobs += self.cloud.add_jobs(1, plan=steps)
        job = self.job(which) if plan is None else self.jobs[-1]
        number = len(self.trace.watches)
        self.trace.watches.append(
            Watched(number=number, job_id=job, interval=interval, follow_restarts=follow_restarts)
        )
        self.watches.append(self.client.watch(job, interval=interval, follow_restarts=follow_restarts))
        self.paces.append(pace)
        self.consumers.append(asyncio.create_task(self._consumer(number)))

    async def _consumer(self, number: int) -> None:
        WATCH.set(number)
        watch, watched = self.watches[number], self.trace.watches[number]
        while True:
            watched.ask(now())
            try:
                transition = await anext(watch)
            except StopAsyncIteration:
                return
            except VizwatchError as error:
                watched.failed = now(), type(error).__name__
                self.trace.texts.append(shown(error))
                return
            finally:
                watched.answered(now())
            watched.took(now(), transition)
            self.trace.texts.append(repr(transition))
            if self.paces[number]:
                await asyncio.sleep(self.paces[number])

    @rule(which=whiches, then=thens)
    def cancel_a_step(self, which: int, then: float) -> None:
        """A consumer gives up waiting; another may go on."""
        self.step(_cancel(self.consumers[which % len(self.consumers)]), then)

    @rule(which=whiches, pace=st.sampled_from([0.0, 30.0]), then=thens)
    def go_on(self, which: int, pace: float, then: float) -> None:
        self.step(self._go_on(which % len(self.consumers), pace), then)

    async def _go_on(self, number: int, pace: float) -> None:
        self.paces[number] = pace
        if self.consumers[number].done():
            self.consumers[number] = asyncio.create_task(self._consumer(number))

    @rule(which=whiches, then=thens)
    def close_a_watch(self, which: int, then: float) -> None:
        self.step(self._close(which % len(self.watches)), then)

    async def _close(self, number: int) -> None:
        await self.watches[number].aclose()
        await asyncio.sleep(0.001)
        assert not self.trace.watches[number].is_waiting, "closing did not end a watch"

    # --- time and trouble ---

    @rule(seconds=st.sampled_from([15.0, 4.0, 40.0, 80.0]))
    def time(self, seconds: float) -> None:
        self.step(asyncio.sleep(seconds))

    @rule(
        kind=st.sampled_from(sorted(TROUBLES)),
        ttl=st.sampled_from([30.0, 120.0, 5.0, 300.0]),
        every=st.sampled_from([1, 2, 1, 3]),
        where=st.sampled_from([None, "details", "list", "token", None, "create", "restart"]),
        then=thens,
    )
    def trouble(self, kind: str, ttl: float, every: int, where: str | None, then: float) -> None:
        self.step(self._trouble(kind, ttl, every, where), then)

    async def _trouble(self, kind: str, ttl: float, every: int, where: str | None) -> None:
        self._fault(kind, ttl, {} if where is None else {"operation": where}, every=every)

    def _fault(self, kind: str, ttl: float, match: dict[str, str], **often: int) -> None:
        effect, options = TROUBLES[kind]
        lag = options["seconds"] if effect in {"stale", "replica_lag"} else 0.0
        felt = SPEEDS_UP if options.get("status") == 429 else 0.0
        self.trace.troubles.append(Trouble(now(), now() + ttl, lag, felt))
        self.cloud.fault(effect, ttl=ttl, match=match, **often, **options)

    @rule(then=thens)
    def tokens_expire(self, then: float) -> None:
        self.step(self._expire(), then)

    async def _expire(self) -> None:
        self.cloud._world.expire_tokens()

    # --- the end ---

    def teardown(self) -> None:
        try:
            self.loop.run_until_complete(self._end())
        finally:
            self.loop.close()
        assert not self.unhandled, self.unhandled
        found = broken(self.trace)
        assert not found, "\n".join(found)

    async def _end(self) -> None:
        """Ends all trouble, gives every watch the time that it may take, closes, and looks for leaks."""
        trace = self.trace
        async with self.stack:
            self.cloud.clear_faults()
            trace.troubles = [attrs.evolve(one, until=min(one.until, now())) for one in trace.troubles]
            felt = max((one.felt for one in trace.troubles), default=0.0)
            await asyncio.sleep(trace.retry_budget + felt + 200)
            note_truth(trace, self.cloud)
            trace.texts += map(repr, self.watches)
            trace.until = now()
            self._look()
            await self._disconnect()
            await _cancel(*self.consumers)


class SharingMachine(Machine):
    """The same, with one poller for all watches: it reads the listing, and details where that is cheaper."""

    steps = 0
    client_settings = Settings()


def _is_the_librarys(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and "/vizwatch/" in code.co_filename and "/emulator/" not in code.co_filename


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.fault(*PROMISES, "W17", "C8")
@pytest.mark.parametrize("machine", [Machine, SharingMachine], ids=["each for itself", "shared"])
@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_whatever_happens(machine: type[Machine], part: int) -> None:
    """Jobs, faults, time, cancellation and closing in any order break none of the promises."""
    assert set(PROMISES) <= set(CHECKERS)
    machine.steps = 0
    for number in itertools.count(SEED + 1_000 * part):
        run_state_machine_as_test(
            seed(number)(machine),
            settings=settings(
                max_examples=math.ceil((STEPS / PARTS - machine.steps) / STEPS_OF_A_RUN),
                stateful_step_count=STEPS_OF_A_RUN,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        if machine.steps >= STEPS / PARTS:  # some runs are cut short
            break
