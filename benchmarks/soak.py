"""A day of watching in virtual time, through faults, outages and rotations: `python -m benchmarks.soak`.

Everything is real but time: a client and the emulated cloud, over HTTP on loopback, in one process. Measured
before it was chosen, that is 3,500 to 4,100 polls a second on two idle cores, and a fake transport under the
same client about 8,000; 5.8 million polls are 25 to 30 minutes of the one and 12 of the other, so nothing
needs to be faked. Only that the network is down is played, in aiohttp's connector, where a request is given
its connection.

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
import logging
import math
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence

import aiohttp
import looptime

from benchmarks._day import HOUR, Plan, Soak, scatter
from benchmarks._frame import Check, Verdict, resident
from benchmarks._network import Identity, Network
from benchmarks._promises import PROMISES, Promises
from vizwatch import Client, PasswordAuth, Settings
from vizwatch._rules.rhythm import shortest_of
from vizwatch.emulator import Emulator


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
    settings = Settings(poll_interval=plan.interval, shared_reads=plan.shared)
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
        identity.secrets.append(cloud.password)
        promises.secrets = identity.secrets
        async with (
            aiohttp.ClientSession(connector=network) as session,
            Client(cloud.endpoint, cloud.project_id, auth=auth, settings=settings, session=session) as client,
        ):
            scatter(cloud, shared=plan.shared)
            yield Soak(plan, cloud, client, network, identity, promises, random.Random(plan.seed))
        await identity.stop()


async def soaked(plan: Plan) -> tuple[Soak, Sequence[Check]]:
    """The soak, and what was found."""
    before = len(asyncio.all_tasks())
    async with _scene(plan) as soak:
        with _listening(soak.promises) as listener:
            watching = [asyncio.create_task(soak.watch(slot)) for slot in range(plan.watches)]
            others = [asyncio.create_task(one()) for one in (soak.look, soak.write, soak.revoke, soak.fall)]
            first = min(HOUR, plan.seconds / 10)
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
    await asyncio.sleep(HOUR)
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
    came = Check(what="polls that came through", found=sum(network.passed))
    if plan.shared:
        # However many they are, they ask no more often than one alone would whose job changes all the time.
        most = 1.0 / shortest_of(plan.interval, soak.client.settings.poll_interval_min)
        return [came, Check(what="steady rate", found=steady, unit="1/s", at_most=most)]
    # Few watches ask so seldom that single seconds say nothing; a third of an interval still shows a herd.
    width = max(1, min(int(plan.interval / 3), math.ceil(20 / steady)))
    checks = [
        came,
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
    if plan.shared:
        title += ", reads shared"
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
    parser.add_argument("--shared", action="store_true", help="let the watches share their reads")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the jobs' lives")
    verdict = run(Plan(**vars(parser.parse_args())))
    print(verdict.table())
    verdict.write()
    sys.exit(0 if verdict.is_met else 1)


if __name__ == "__main__":
    main()
