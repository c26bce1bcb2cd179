"""What an emulator is made of: clock, cloud, tokens, rate limit, faults and request log."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from vizwatch import JobStatus
from vizwatch.emulator import _refusals
from vizwatch.emulator._cloud import Cloud, NewJob
from vizwatch.emulator._faults import Faults
from vizwatch.emulator._iam import Tokens
from vizwatch.emulator._options import Options, new_secret
from vizwatch.emulator._recording import whole


@attrs.define
class Request:
    """A request that came in; those under ``/_emulator/`` are not among them."""

    method: str
    path: str
    """As sent, still quoted, without the query."""
    query: dict[str, str]
    status: int | None = None
    """The HTTP status of the answer; ``None``: none was sent, or not yet."""


@attrs.define
class Clock:
    """The cloud's clock: seconds since the emulator was made, which can be stepped and never run back."""

    speed: float
    anchor: float = attrs.field(factory=time.time)
    """What the wall clock shows at zero."""
    _elapsed: float = 0.0
    _ticks: Callable[[], float] | None = None
    _last: float = 0.0

    def start(self, ticks: Callable[[], float]) -> None:
        """Run with `ticks`, the event loop's time."""
        self._ticks, self._last = ticks, ticks()

    def stop(self) -> None:
        """Stand still."""
        self.now()
        self._ticks = None

    def now(self) -> float:
        """The time, in seconds."""
        if self._ticks is not None:
            # Virtual time sets a loop's clock back between a fixture and its test: count steps ahead only.
            reading = self._ticks()
            self._elapsed += max(0.0, reading - self._last) * self.speed
            self._last = reading
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Step ahead."""
        self._elapsed = self.now() + seconds

    def milliseconds(self, at: float) -> int:
        """A moment as the service stamps it: milliseconds since 1970."""
        return round((self.anchor + at) * 1000)

    def iso(self, at: float) -> str:
        """A moment as Keystone writes it."""
        moment = dt.datetime.fromtimestamp(self.anchor + at, tz=dt.UTC)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


@attrs.define
class RateLimit:
    """The gateway's limit: so many requests in each window of time."""

    limit: int | None
    window: float
    _start: float = 0.0
    _used: int = 0

    def admit(self, now: float, speed: float) -> dict[str, str]:
        """Count a request and give the headers that say so, or refuse it."""
        if self.limit is None:
            return {}
        if now >= self._start + self.window:
            self._start, self._used = now, 0
        self._used = min(self._used + 1, self.limit + 1)
        headers = {
            "X-ratelimit": f"{self.limit}",
            "X-ratelimit-used": f"{min(self._used, self.limit)}",
            "X-ratelimit-window": f"{self.window:g}",
        }
        if self._used > self.limit:
            wait = math.ceil((self._start + self.window - now) / speed)
            headers["Retry-After"] = f"{max(1, wait)}"
            raise _refusals.gateway(429, "0308", "The throttling threshold has been reached.", headers)
        return headers


@attrs.define(eq=False)
class World:
    """One emulator's whole state; its options are the emulator's, of which a fault may replace the token."""

    options: Options
    clock: Clock = attrs.field(init=False)
    numbers: Iterator[int] = attrs.field(init=False, factory=lambda: itertools.count(1))
    cloud: Cloud = attrs.field(init=False)
    tokens: Tokens = attrs.field(init=False)
    rate_limit: RateLimit = attrs.field(init=False)
    faults: Faults = attrs.field(init=False, factory=Faults)
    requests: deque[Request] = attrs.field(init=False)
    homes: dict[str, str] = attrs.field(init=False)
    """The region of each project that has been used or named."""

    def __attrs_post_init__(self) -> None:
        options = self.options
        self.clock = Clock(options.speed)
        self.tokens = Tokens()
        self.rate_limit = RateLimit(options.rate_limit, options.rate_window)
        self.requests = deque(maxlen=options.request_log)
        self.homes = {options.project_id: options.regions[0]}
        recorded = options.recording.jobs
        if recorded:
            self.numbers = itertools.count(recorded[-1]["job_id"] + 1)
        self.reset()

    def expire_tokens(self) -> None:
        """Every token in use expires; the option `token` gets a new value."""
        self.tokens.expire(self.options.token, self.clock.now())
        self.options.token = new_secret()

    def reset(self) -> None:
        """Start anew, without any fault; the clock, the tokens and the numbering of jobs go on."""
        options = self.options
        self.faults.faults.clear()
        self.requests.clear()
        self.cloud = Cloud(
            life=options.life,
            kill_seconds=options.kill_seconds,
            rng=random.Random(options.seed),
            numbers=self.numbers,
        )
        for job in options.recording.jobs:
            self._take_over(job)
        for _ in range(options.jobs):
            self.cloud.create(options.project_id, NewJob(), self.clock.now())

    def _take_over(self, recorded: Mapping[str, Any]) -> None:
        """A recorded job, which keeps its id, its age and its status."""
        plain = NewJob()
        spec = NewJob(
            job_name=_text(recorded.get("job_name")),
            job_desc=_text(recorded.get("job_desc")) or plain.job_desc,
            train_url=_text(recorded.get("train_url")) or plain.train_url,
            service_url=_text(recorded.get("service_url")),
        )
        now = self.clock.now()
        life = ((0.0, JobStatus(recorded["status"])),)
        job = self.cloud.create(self.options.project_id, spec, now, life, recorded["job_id"])
        created = whole(recorded.get("create_time"))
        if created is not None:
            job.created = min(created / 1000 - self.clock.anchor, now)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
