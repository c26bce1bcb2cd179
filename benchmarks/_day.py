"""What happens in a soak: how large it is, what goes wrong and when, and who does what meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import attrs

from benchmarks._network import Cut, Identity, Network
from benchmarks._promises import Life, Promises, Status, Witness
from vizwatch import Client, OutcomeUnknownError, VizwatchError, Watch
from vizwatch.emulator import Emulator

HOUR: Final = 3600.0
_DAY: Final = 24 * HOUR
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
    shared: bool = False
    """Whether the watches share their reads; by default a thousand readers are borne."""

    @property
    def seconds(self) -> float:
        """How long it lasts, in virtual time."""
        return self.hours * HOUR

    @property
    def outages(self) -> Sequence[Outage]:
        """Three of them: of two hours, half an hour and five minutes in a day, and of minutes in less."""
        share = self.seconds / _DAY
        return [
            Outage(self.seconds * 0.25, max(5 * 60 * share, 60.0), None),
            Outage(self.seconds * 0.45, max(30 * 60 * share, 120.0), Cut.SILENT),
            Outage(self.seconds * 0.70, max(2 * HOUR * share, 240.0), Cut.REFUSED),
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
    live: dict[int, tuple[Watch, Witness]] = attrs.field(factory=dict)
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
        lasts = min(self.plan.seconds / 3, self.rng.uniform(2, 16) * HOUR)
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
                scatter(self.cloud, shared=self.plan.shared)
            else:
                self.network.go_down(outage.cut)
            await asyncio.sleep(outage.seconds)
            self.network.come_up()


def scatter(cloud: Emulator, *, shared: bool) -> None:
    """One look in twenty meets a fault, and of the few other requests one in three."""
    for operation in ("details", "list") if shared else ("details",):
        # A listing that is missing is not asked for again.
        faults = [one for one in _FAULTS if operation == "details" or one[1].get("status") != 404]
        for number, (kind, params) in enumerate(faults):
            rarely = {"every": _ONE_IN * len(faults), "after": _ONE_IN * number}
            cloud.fault(kind, **params, **rarely, match={"operation": operation})
    for number, performed in enumerate((False, True)):
        cloud.fault("drop", performed=performed, every=6, after=2 * number, match={"operation": "create"})
    if not shared:
        cloud.fault("truncate", bytes=20, every=3, match={"operation": "list"})
