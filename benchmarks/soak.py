"""A day of watching in virtual time, through faults, outages and rotations: `python -m benchmarks.soak`.

Everything is real but time: a client and the emulated cloud, over HTTP on loopback, in one process. Measured
before it was chosen, that is 3,500 to 4,100 polls a second on two cores, and a fake transport under the same
client about 8,000; 5.8 million polls are 25 minutes of the one and 12 of the other, so that nothing needs to
be faked. Only that the network is down is played, in aiohttp's connector, where a request is given its
connection.

One look in twenty meets a fault: 500, 502, 503, 504, 408, a connection closed before or after the request
is carried out, half an answer, a late one, one that never comes, a login page, a job that is missing for a
moment. 429 is not among them: it is no accident but an order to slow down, which a client obeys.

The jobs' true lives are known beforehand, and every promise has a checker of its own (`_promises`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import logging
import math
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import aiohttp
import attrs
import looptime

from benchmarks._frame import Check, Verdict, resident
from benchmarks._network import Cut, Identity, Network
from benchmarks._promises import PROMISES, Life, Promises, Status, Witness
from vizwatch import Client, OutcomeUnknownError, PasswordAuth, Settings, VizwatchError
from vizwatch.emulator import Emulator

_HOUR: Final = 3600.0
_DAY: Final = 24 * _HOUR
_RENEW_AT: Final = 0.8
_ENDS: Final[Sequence[Status]] = (10, 10, 11, 12, 14, None)
_SERVICE: Final = {"path": "visualization-jobs"}
_FAULTS: Final[Sequence[tuple[str, dict[str, Any]]]] = (
    ("status", {"status": 500, "code": "ModelArts.0010"}),
    ("status", {"status": 502, "performed": True}),
    ("status", {"status": 503, "code": "ModelArts.4302", "retry_after": 3}),
    ("status", {"status": 504, "performed": True}),
    ("status", {"status": 408, "code": "ModelArts.4205"}),
    ("drop", {}),
    ("drop", {"performed": True}),
    ("truncate", {"bytes": 20}),
    ("latency", {"seconds": 5.0, "performed": True}),
    ("latency", {"seconds": 45.0}),
    ("body", {"text": "<html>log in</html>", "content_type": "text/html"}),
    ("status", {"status": 404, "code": "ModelArts.0015"}),
)
_ONE_IN: Final = 20


@attrs.frozen
class Outage:
    """A span in which the service is not to be had, in seconds since the start."""

    start: float
    seconds: float
    cut: Cut | None
    """``None``: the service answers 503, and the identity service is not concerned."""

    @property
    def end(self) -> float:
        """When it is over."""
        return self.start + self.seconds

    @property
    def what(self) -> str:
        """In words."""
        kind = "503 to all" if self.cut is None else self.cut.value
        return f"{self.seconds / 60:.0f} min, {kind}"


@attrs.frozen(kw_only=True)
class Plan:
    """How large a soak is."""

    watches: int = 1_000
    hours: float = 24.0
    interval: float = 15.0
    rotations: int = 30
    seed: int = 0

    @property
    def seconds(self) -> float:
        """How long it lasts, in virtual time."""
        return self.hours * _HOUR

    @property
    def outages(self) -> Sequence[Outage]:
        """Three of them: of two hours, half an hour and five minutes in a day, and of minutes in less."""
        share = self.seconds / _DAY
        return [
            Outage(self.seconds * 0.25, max(5 * 60 * share, 60.0), None),
            Outage(self.seconds * 0.45, max(30 * 60 * share, 120.0), Cut.SILENT),
            Outage(self.seconds * 0.70, max(2 * _HOUR * share, 240.0), Cut.REFUSED),
        ]

    @property
    def revocations(self) -> int:
        """How many rotations come because the service revokes a token; the others, because it is old."""
        return self.rotations // 3

    @property
    def token_lifetime(self) -> float:
        """Seconds; such that age and revocation together, which resets it, give a few more than asked for."""
        by_age = self.rotations - self.revocations / 2 + 4
        return self.seconds / by_age / _RENEW_AT


@attrs.define
class Soak:
    """One soak under way."""

    plan: Plan
    cloud: Emulator
    client: Client
    network: Network
    identity: Identity
    promises: Promises
    rng: random.Random
    live: dict[int, tuple[Any, Witness]] = attrs.field(factory=dict)
    transitions: int = 0
    errors: list[str] = attrs.field(factory=list)
    """What a user would have seen."""
    named: dict[str, str] = attrs.field(factory=dict)
    """The creates: by the job's name, what became of it for the client."""
    closing: bool = False

    def new_life(self, now: float) -> tuple[Life, list[list[float | None]]]:
        """A life of hours, in the documented order of statuses: as it is, and as the emulator is told."""
        steps: list[tuple[float, Status]] = [(0.0, 1), (self.rng.uniform(1, 60), 7)]
        at = steps[-1][0] + self.rng.uniform(5, 300)
        lasts = min(self.plan.seconds / 3, self.rng.uniform(2, 16) * _HOUR)
        while at < lasts:
            steps.append((at, 15 if steps[-1][1] == 8 else 8))
            at += self.rng.expovariate(1 / (20 * 60))
        steps.append((at, self.rng.choice(_ENDS)))
        return Life(tuple((now + since, status) for since, status in steps)), [[*step] for step in steps]

    async def watch(self, slot: int) -> None:
        """Watches one job after the other, each to its end."""
        await asyncio.sleep(self.rng.uniform(0, self.plan.interval))
        while not self.closing:
            life, told = self.new_life(self.network.now)
            (job_id,) = self.cloud.add_jobs(1, plan=told)
            witness = Witness(self.promises, life)
            try:
                await self._follow(slot, job_id, witness)
            except VizwatchError as error:
                self.errors.append(f"watch: {type(error).__name__}: {error}")
                self.promises.keep_secret(error)
                await asyncio.sleep(self.plan.interval)
            finally:
                self.live.pop(slot, None)
            if life.end[1] is not None and not self.closing:
                self.cloud.set_status(job_id, None)

    async def _follow(self, slot: int, job_id: int, witness: Witness) -> None:
        async with self.client.watch(job_id) as watch:
            self.live[slot] = watch, witness
            async for transition in watch:
                self.transitions += 1
                witness.saw(transition, self.network.now)
                if transition.is_terminal:
                    self.promises.delivered(witness.life, self.network.now)
                    self.promises.keep_secret(watch, transition, self.client)

    async def look(self) -> None:
        """Once a minute, holds what every watch shows against the truth."""
        for minute in itertools.count(1):
            await asyncio.sleep(60)
            now = self.network.now
            if minute % 60 == 0:
                print(f"{minute // 60} of {self.plan.hours:g} h", file=sys.stderr)
            for watch, witness in self.live.values():
                witness.look(now, stale=watch.stale)

    async def write(self) -> None:
        """Creates a job every minute or so, and looks for it where its outcome is unknown."""
        for number in itertools.count(1):
            await asyncio.sleep(self.rng.uniform(30, 90))
            now = self.network.now
            if not self.promises.was_calm(now, now + self.client.settings.write_timeout):
                continue
            name, logs = f"soak-{number}", "/obs/soak/"
            try:
                await self.client.create_job(name, logs)
                self.named[name] = "made"
            except OutcomeUnknownError as error:
                self.promises.keep_secret(error)
                await self._find(name, logs, error)
            except VizwatchError as error:
                self.errors.append(f"create: {type(error).__name__}: {error}")

    async def _find(self, name: str, logs: str, unknown: OutcomeUnknownError) -> None:
        self.named[name] = "unknown"
        assert unknown.sent_at is not None
        try:
            found = await self.client.find_created(name, logs, since=unknown.sent_at)
        except VizwatchError as error:
            self.errors.append(f"find_created: {type(error).__name__}: {error}")
        else:
            self.named[name] = "made" if found else "unknown"

    async def settle(self) -> None:
        """Holds the creates against the jobs that there are."""
        found = Counter([job.job_name async for job in self.client.list_jobs(search_content="soak-")])
        for name in {*self.named, *map(str, found)}:
            outcome, count = self.named.get(name, "never asked for"), found[name]
            kept = count == 1 if outcome == "made" else outcome == "unknown" and count <= 1
            self.promises.hold("write at most once", kept=kept, otherwise=f"{name}: {outcome}, {count} exist")

    async def revoke(self) -> None:
        """Lets the service revoke every token, now and then, while the cloud is in order."""
        for number in range(self.plan.revocations):
            due = self.plan.seconds * (number + self.rng.uniform(0.3, 0.7)) / self.plan.revocations
            await asyncio.sleep(self.promises.calm_from(due, 60) - self.network.now)
            self.cloud.fault("token_expiry", match=_SERVICE)
            self.identity.revoked()

    async def fall(self) -> None:
        """Lets the outages happen."""
        for outage in self.plan.outages:
            await asyncio.sleep(outage.start - self.network.now)
            if outage.cut is None:
                # Of several faults that would answer, the oldest does.
                self.cloud.clear_faults()
                self.cloud.fault("status", status=503, match=_SERVICE, ttl=outage.seconds)
                scatter(self.cloud)
            else:
                self.network.go_down(outage.cut)
            await asyncio.sleep(outage.seconds)
            self.network.come_up()


def scatter(cloud: Emulator) -> None:
    """One look in twenty meets a fault, and of the few other requests one in three."""
    for number, (kind, params) in enumerate(_FAULTS):
        rarely = {"every": _ONE_IN * len(_FAULTS), "after": _ONE_IN * number}
        cloud.fault(kind, **params, **rarely, match={"operation": "details"})
    for number, performed in enumerate((False, True)):
        cloud.fault("drop", performed=performed, every=6, after=2 * number, match={"operation": "create"})
        cloud.fault("truncate", bytes=20, every=3, match={"operation": "list"})


class _Listener(logging.Handler):
    """Hears everything that is logged, by anyone."""

    def __init__(self, promises: Promises) -> None:
        super().__init__(logging.DEBUG)
        self._promises = promises
        self.heard: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.heard[f"{record.name} {record.levelname}"] += 1
        self._promises.keep_secret(record.getMessage(), *(record.exc_info or ())[1:2])


@contextlib.contextmanager
def _listening(promises: Promises) -> Iterator[_Listener]:
    listener, root = _Listener(promises), logging.getLogger()
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.DEBUG)
    try:
        yield listener
    finally:
        root.setLevel(level)
        root.removeHandler(listener)


@contextlib.asynccontextmanager
async def _scene(plan: Plan) -> AsyncIterator[Soak]:
    """The cloud, the network, and one client, all there is in a soak."""
    settings = Settings(poll_interval=plan.interval)
    promises = Promises(settings)
    for outage in plan.outages:
        recovered = settings.watch_backoff_max + 2 * plan.interval + settings.call_timeout
        promises.troubles.append((outage.start, outage.end + recovered))
    async with Emulator(token_ttl=plan.token_lifetime, request_log=1_000) as cloud:
        network = Network(int(plan.seconds), settings.pool_size)
        identity = Identity(cloud.endpoint, network, plan.token_lifetime)
        auth = PasswordAuth(
            await identity.start(),
            username=cloud.user,
            password=cloud.password,
            domain_name=cloud.domain,
            project_name=cloud.project_name,
        )
        promises.secrets = _Secrets(cloud.password, identity.tokens)
        async with (
            aiohttp.ClientSession(connector=network) as session,
            Client(cloud.endpoint, cloud.project_id, auth=auth, settings=settings, session=session) as client,
        ):
            scatter(cloud)
            yield Soak(plan, cloud, client, network, identity, promises, random.Random(plan.seed))
        await identity.stop()


async def soaked(plan: Plan) -> tuple[Soak, Sequence[Check]]:
    """The soak, and what was found."""
    before = len(asyncio.all_tasks())
    async with _scene(plan) as soak:
        with _listening(soak.promises) as listener:
            watching = [asyncio.create_task(soak.watch(slot)) for slot in range(plan.watches)]
            others = [asyncio.create_task(one()) for one in (soak.look, soak.write, soak.revoke, soak.fall)]
            first = min(_HOUR, plan.seconds / 10)
            await asyncio.sleep(first)
            before_rest = _settled()
            await asyncio.sleep(plan.seconds - first)
            grown = _settled() - before_rest
            soak.closing = True
            for task in others:
                task.cancel()
            ended = await asyncio.gather(*others, return_exceptions=True)
            await soak.settle()
            for _, witness in soak.live.values():
                soak.promises.pending(witness.life, soak.network.now)
            await soak.client.aclose()
            ended += await asyncio.gather(*watching, return_exceptions=True)
        soak.errors += [
            repr(one)
            for one in ended
            if isinstance(one, BaseException) and not isinstance(one, asyncio.CancelledError)
        ]
    await asyncio.sleep(_HOUR)
    left = len(asyncio.all_tasks()) - before
    counted = Check(what="log records", found=sum(listener.heard.values()), note=_told(listener.heard))
    bounded = [
        Check(what="tasks left", found=left, at_most=0),
        Check(what="RSS growth since the warm-up, cloud included", found=grown, unit="MiB", at_most=64),
    ]
    return soak, [*_kept(soak), *_rates(soak), *bounded, counted]


def _kept(soak: Soak) -> list[Check]:
    promises, identity = soak.promises, soak.identity
    checks = [
        Check(
            what=f"promise broken: {promise}",
            found=promises.broken[promise],
            at_most=0,
            note=f"of {promises.checked[promise]:,} times that it was checked",
        )
        for promise in PROMISES
    ]
    slow = f"at most {promises.slowest:.1f} s after an end while the cloud was in order"
    return [
        Check(what="transitions", found=soak.transitions, at_least=soak.plan.watches, note=slow),
        *checks,
        Check(what="errors that a user sees", found=len(soak.errors), at_most=0),
        Check(what="token rotations", found=identity.rotations, at_least=soak.plan.rotations),
        Check(
            what="IAM calls beyond one a rotation",
            found=identity.needless,
            at_most=0,
            note=f"{identity.asked} calls came, {identity.given} were answered",
        ),
    ]


def _rates(soak: Soak) -> list[Check]:
    plan, network = soak.plan, soak.network
    minutes = [
        network.rate(network.passed, at, at + 60)
        for at in range(60, int(plan.seconds) - 60, 60)
        if soak.promises.was_calm(at, at + 60)
    ]
    steady = statistics.median(minutes)
    # Few watches ask so seldom that single seconds say nothing; a third of an interval still shows a herd.
    width = max(1, min(int(plan.interval / 3), math.ceil(20 / steady)))
    checks = [
        Check(what="polls that came through", found=sum(network.passed)),
        Check(
            what="steady rate",
            found=steady,
            unit="1/s",
            at_least=0.9 * plan.watches / plan.interval,
            note=f"peak {network.peak(60, plan.outages[0].start, width) / steady:.2f} x, of {width} s each",
        ),
    ]
    for outage in plan.outages:
        down = network.rate(network.tried, outage.start, outage.end) / steady
        peak = network.peak(outage.end, outage.end + 300, width) / steady
        what = f"while down: {outage.what}"
        checks += [
            Check(what=what, found=100 * down, unit="% of steady", at_most=2),
            Check(what=f"peak after: {outage.what}", found=peak, unit="x steady", at_most=2),
        ]
    return checks


@attrs.frozen(repr=False)
class _Secrets:
    """The password and every token so far."""

    _password: str
    _tokens: list[str]

    def __iter__(self) -> Iterator[str]:
        yield self._password
        yield from self._tokens

    def __len__(self) -> int:
        return 1 + len(self._tokens)

    def __contains__(self, text: object) -> bool:
        return text == self._password or text in self._tokens


def _told(heard: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in heard.most_common(3))


def _settled() -> float:
    gc.collect()
    return resident()


def run(plan: Plan | None = None) -> Verdict:
    """The soak, in an event loop whose time is virtual."""
    plan = Plan() if plan is None else plan
    start = time.perf_counter()
    # Loopback delivers at once: few idle turns tell that nothing more comes before time may move on.
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(noop_cycles=2)) as runner:
        soak, checks = runner.run(soaked(plan))
    title = f"{plan.watches:,} watches for {plan.hours:g} h, a look every {plan.interval:g} s, 5 % faults"
    examples = [*soak.promises.examples, *soak.errors[:8]]
    seconds = time.perf_counter() - start
    return Verdict(name="soak", title=title, checks=checks, seconds=seconds, examples=examples)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description="A day of watching, in minutes."
    )
    defaults = Plan()
    parser.add_argument("--watches", type=int, default=defaults.watches, help="how many there are at once")
    parser.add_argument("--hours", type=float, default=defaults.hours, help="for how long, in virtual time")
    parser.add_argument("--interval", type=float, default=defaults.interval, help="seconds between two looks")
    parser.add_argument("--rotations", type=int, default=defaults.rotations, help="of the token")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the jobs' lives")
    verdict = run(Plan(**vars(parser.parse_args())))
    print(verdict.table())
    verdict.write()
    sys.exit(0 if verdict.is_met else 1)


if __name__ == "__main__":
    main()
