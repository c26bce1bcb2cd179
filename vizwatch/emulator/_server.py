"""The emulator over HTTP: reads requests, applies faults, and sends answers that are made elsewhere."""

from __future__ import annotations

import asyncio
import email.utils
import functools
import json
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from aiohttp import web

from vizwatch.emulator import _faults, _refusals
from vizwatch.emulator._operations import Call, perform
from vizwatch.emulator._refusals import Answer
from vizwatch.emulator._world import Request, World

E = TypeVar("E", bound=_faults.Effect)

# Spelt out, since aiohttp's own pattern leaves out braces.
_JOBS: Final = "/v1/{project_id:[^/]+}/visualization-jobs"
_JOB: Final = _JOBS + "/{job_id:[^/]+}"
_ROUTES: Final = (
    ("GET", _JOBS, "list"),
    ("POST", _JOBS, "create"),
    ("GET", _JOB, "details"),
    ("PUT", _JOB, "update"),
    ("DELETE", _JOB, "delete"),
    ("POST", _JOB + "/stop", "stop"),
    ("POST", _JOB + "/restart", "restart"),
    ("POST", "/v3/auth/tokens", "token"),
    ("GET", "/", "versions"),
    ("GET", "/v3", "versions"),
    ("GET", "/v3/", "versions"),
    ("*", "/{tail:.*}", "unknown"),
)
_PORT: Final = re.compile(r":[0-9]*$")


class Server:
    """Answers the service's requests, and knows those under way."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._under_way: set[asyncio.Task[Any]] = set()
        self.regions: dict[int, str] = {}
        """The region of each port."""

    def add_routes(self, app: web.Application) -> None:
        """Serve the operations, and refuse every other path as the gateway does."""
        for method, path, operation in _ROUTES:
            app.router.add_route(method, path, functools.partial(self._handle, operation))

    async def stop(self) -> None:
        """End the requests under way, those that a fault makes wait included."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, operation: str, request: web.Request) -> web.StreamResponse:
        path, _, _ = request.raw_path.partition("?")
        record = Request(request.method, path, dict(request.query))
        self._world.requests.append(record)
        task = asyncio.current_task()
        if task is None:  # pragma: no cover - handlers run in tasks
            raise RuntimeError("a handler needs a task")
        self._under_way.add(task)
        try:
            effects = self._struck(operation, path, request)
            answer = await self._answer(operation, path, request, effects)
            if answer is None:
                return _drop(request)
            record.status = answer.status
            return await _send(request, answer, _first(effects, _faults.Truncate), self._world)
        finally:
            self._under_way.discard(task)

    def _struck(self, operation: str, path: str, request: web.Request) -> Sequence[_faults.Effect]:
        target = _faults.Target(
            method=request.method,
            path=path,
            operation=operation,
            project_id=request.match_info.get("project_id"),
            job_id=request.match_info.get("job_id"),
        )
        return self._world.faults.strike(target, self._world.clock.now())

    async def _answer(
        self, operation: str, path: str, request: web.Request, effects: Sequence[_faults.Effect]
    ) -> Answer | None:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            limit = self._world.options.max_body
            return _refusals.service(413, "0104", f"The request body is over {limit} bytes.").answer
        await _wait(effects, performed=False)
        outcome = _first(effects, _faults.Outcome)
        if outcome is not None and not outcome.performed:
            return outcome.answer()
        stale = _first(effects, _faults.Stale)
        region = self._region(request)
        call = Call(
            operation=operation,
            method=request.method,
            path=path,
            raw_query=request.raw_path.partition("?")[2],
            query=request.query,
            headers=request.headers,
            body=body,
            project_id=request.match_info.get("project_id", ""),
            job_id=request.match_info.get("job_id", ""),
            region=region,
            endpoints=self._endpoints(request.headers.get("Host", ""), region),
            lag=0.0 if stale is None else stale.seconds,
        )
        self._unsettle(call, effects)
        answer = perform(self._world, call)
        await _wait(effects, performed=True)
        return answer if outcome is None else outcome.answer()

    def _region(self, request: web.Request) -> str:
        # The transport is gone when the client is.
        port = 0 if request.transport is None else request.transport.get_extra_info("sockname")[1]
        return self.regions.get(port, self._world.options.regions[0])

    def _endpoints(self, host: str, region: str) -> dict[str, str]:
        """Where the client finds each region: by the name that it used itself."""
        name = _PORT.sub("", host)
        others = {other: f"http://{name}:{port}" for port, other in self.regions.items()}
        return {**others, region: f"http://{host}"}

    def _unsettle(self, call: Call, effects: Sequence[_faults.Effect]) -> None:
        world, now = self._world, self._world.clock.now()
        if _first(effects, _faults.TokenExpiry) is not None:
            world.expire_tokens()
        drift = _first(effects, _faults.Drift)
        if drift is not None:
            workspace_id = call.query.get("workspace_id") or "0"
            world.cloud.drift(call.project_id, workspace_id, drift.insert, drift.delete, now)


def _first(effects: Sequence[_faults.Effect], kind: type[E]) -> E | None:
    return next((effect for effect in effects if isinstance(effect, kind)), None)


async def _wait(effects: Sequence[_faults.Effect], *, performed: bool) -> None:
    for effect in effects:
        if isinstance(effect, _faults.Latency) and effect.performed is performed:
            await asyncio.sleep(effect.seconds)


def _drop(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.close()
    # Never sent: aiohttp wants an answer, and finds the connection closed.
    return web.Response()


async def _send(
    request: web.Request, answer: Answer, cut: _faults.Truncate | None, world: World
) -> web.StreamResponse:
    headers = {"X-request-id": uuid.uuid4().hex, "Content-Type": answer.content_type, **answer.headers}
    if world.options.clock_skew:
        headers["Date"] = email.utils.formatdate(time.time() + world.options.clock_skew, usegmt=True)
    text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body, separators=(",", ":"))
    body = text.encode(errors="replace")
    if cut is None:
        return web.Response(status=answer.status, body=body, headers=headers)
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: cut.bytes])
    if request.transport is not None:
        request.transport.close()
    return response
