"""The emulated cloud as its owner holds it: started, told what to do, asked, and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import attrs
from aiohttp import web

from vizwatch import ConfigError
from vizwatch.emulator import _checks
from vizwatch.emulator._admin import Admin
from vizwatch.emulator._cloud import NewJob
from vizwatch.emulator._options import Options
from vizwatch.emulator._refusals import Refusal
from vizwatch.emulator._server import Server
from vizwatch.emulator._world import Request, World

_SHUTDOWN: Final = 0.1
_MAX_HEADER: Final = 2**16
_MAX_TEXT: Final = 2**20


@attrs.define(kw_only=True, eq=False)
class Emulator(Options):
    """A cloud of one's own, for tests and demonstrations; serves while its ``async with`` block runs.

    Every method works at once, without a request, and is also a route under ``/_emulator/``. The cloud's
    clock runs with the event loop's time, `speed` times as fast, so that virtual time drives it too.
    """

    _world: World = attrs.field(init=False, repr=False)
    _server: Server | None = attrs.field(init=False, repr=False, default=None)
    _runner: web.AppRunner | None = attrs.field(init=False, repr=False, default=None)
    _ports: dict[str, int] = attrs.field(init=False, repr=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._world = World(self)

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise ConfigError("Emulator is running already; make one for each `async with`")
        app = web.Application(client_max_size=self.max_body)
        self._server = Server(self._world)
        Admin(self).add_routes(app)
        self._server.add_routes(app)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )
        try:
            await self._runner.setup()
            await self._listen(self._runner, self._server)
        except BaseException:
            await self._stop()
            raise
        self._world.clock.start(asyncio.get_running_loop().time)
        return self

    async def _listen(self, runner: web.AppRunner, server: Server) -> None:
        for region in self.regions:
            before = len(runner.addresses)
            await web.TCPSite(runner, self.host, 0 if before else self.port).start()
            ports = [address[1] for address in runner.addresses[before:]]
            self._ports[region] = ports[0]
            server.regions.update(dict.fromkeys(ports, region))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._world.clock.stop()
        await self._stop()

    async def _stop(self) -> None:
        server, runner = self._server, self._runner
        self._server = self._runner = None
        self._ports.clear()
        if server is not None:
            await server.stop()
        if runner is not None:
            await runner.cleanup()

    @property
    def endpoint(self) -> str:
        """Where it listens, ``http://127.0.0.1:40123`` for example: the service's endpoint, and IAM's."""
        return self.endpoints[self.regions[0]]

    @property
    def endpoints(self) -> dict[str, str]:
        """Where each region listens; that of the first is `endpoint`."""
        if self._runner is None or not self._ports:
            raise ConfigError("Emulator is not running; use it inside `async with`")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return {region: f"http://{host}:{port}" for region, port in self._ports.items()}

    @property
    def now(self) -> float:
        """The cloud's clock: seconds since the emulator was started, steps included."""
        return self._world.clock.now()

    @property
    def requests(self) -> list[Request]:
        """The requests that came in, oldest first; the latest `request_log` of them."""
        return list(self._world.requests)

    def advance(self, seconds: float) -> None:
        """Step the cloud's clock ahead: jobs, tokens, faults and rate limits grow older by that."""
        self._world.clock.advance(_checks.number("seconds", seconds))

    def reset(self) -> None:
        """Forget jobs, faults and requests, and begin with the option `jobs` again.

        The clock and the tokens stay as they are, and no job's id is used twice.
        """
        self._world.reset()

    def add_jobs(
        self,
        count: int = 1,
        *,
        status: int | None = None,
        plan: Sequence[Sequence[float | None]] | None = None,
        project_id: str | None = None,
        workspace_id: str = "0",
        job_name: str | None = None,
        job_desc: str = "",
        train_url: str = "/obs/name/",
        service_url: str | None = None,
    ) -> list[int]:
        """Make jobs, and return their ids.

        With `status` they keep it until told otherwise; with `plan`, pairs (seconds from now, status), they
        go through that, and ``None`` as the last status deletes them; with neither they live the cloud's
        `life`. Texts are taken as they are, limits of the API apart, so that clients can be tested with any.
        """
        if status is not None and plan is not None:
            raise ConfigError("status and plan must not both be given")
        life = self.life if plan is None else _checks.life("plan", plan)
        if status is not None:
            life = ((0.0, _checks.status("status", status)),)
        spec = NewJob(
            job_name=job_name if job_name is None else _checks.text("job_name", job_name, high=_MAX_TEXT),
            job_desc=_checks.text("job_desc", job_desc, high=_MAX_TEXT),
            train_url=_checks.text("train_url", train_url, high=_MAX_TEXT),
            workspace_id=_checks.identifier("workspace_id", workspace_id),
            service_url=service_url
            if service_url is None
            else _checks.text("service_url", service_url, high=_MAX_TEXT),
        )
        project, now = self._project(project_id), self.now
        wanted = range(_checks.whole("count", count, low=0, high=1_000_000))
        return [self._world.cloud.create(project, spec, now, life).job_id for _ in wanted]

    def set_status(self, job_id: int, status: int | None, *, project_id: str | None = None) -> None:
        """Put a job into a status, which it keeps until told otherwise; ``None`` deletes it at once."""
        new = status if status is None else _checks.status("status", status)
        try:
            self._world.cloud.set_status(self._project(project_id), job_id, new, self.now)
        except Refusal:
            raise ConfigError(f"job_id must be that of a job of this project, not {job_id!r}") from None

    def fault(
        self,
        kind: str,
        /,
        *,
        match: Mapping[str, Any] | None = None,
        count: int | None = None,
        ttl: float | None = None,
        every: int | None = None,
        after: int = 0,
        **params: Any,
    ) -> int:
        """Misbehave from now on, and return the fault's id.

        =============  =========================================================================
        kind           params, with their defaults
        =============  =========================================================================
        status         status=503, code=None, message, retry_after=None, headers={}
        body           text="", status=200, content_type="application/json"
        drop           (closes the connection without an answer)
        truncate       bytes=0 (how many of the body's bytes are sent before the connection closes)
        latency        seconds=1.0 (of the event loop's time)
        stale          seconds=5.0 (reads answer with what was true so long ago)
        replica_lag    seconds=5.0 (as stale, for each second read)
        token_expiry   (every token issued so far expires; once, unless `count` says otherwise)
        drift          insert=1, delete=1 (jobs, before each page of a listing)
        =============  =========================================================================

        status, body, drop and latency also take ``performed=False``: whether the operation is carried out
        all the same, so that its outcome is unknown to the client. Faults add up; where several would take
        the place of one answer, the oldest does.

        Args:
            kind: What to do.
            match: Which requests it strikes, by ``method``, ``path`` (a part of it, or a glob),
                ``project_id``, ``job_id`` and ``operation`` (list, details, create, update, delete, stop,
                restart or token); all that are given must fit. Default: every request.
            count: How many requests it strikes before it is over; ``None``: any number.
            ttl: For how many seconds of the cloud's clock it is in force; ``None``: without end.
            every: Strike each n-th of the matching requests; ``None``: each, for replica_lag each second.
            after: Let so many matching requests pass first.
            params: See above.

        Raises:
            ConfigError: Naming what is allowed.
        """
        return self._world.faults.add(
            kind, params, now=self.now, match=match, count=count, ttl=ttl, every=every, after=after
        )

    def clear_faults(self) -> None:
        """Behave again."""
        self._world.faults.faults.clear()

    def _project(self, project_id: str | None) -> str:
        return self.project_id if project_id is None else _checks.identifier("project_id", project_id)
