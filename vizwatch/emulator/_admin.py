"""The routes under ``/_emulator/``, by which other processes tell the cloud what to do: JSON in and out."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from aiohttp import web

from vizwatch import ConfigError
from vizwatch.emulator import _checks

if TYPE_CHECKING:
    from vizwatch.emulator import Emulator

Action = Callable[[dict[str, Any]], Mapping[str, Any]]

_JOBS = frozenset(
    {
        "count",
        "status",
        "plan",
        "statuses",
        "project_id",
        "workspace_id",
        "job_name",
        "job_desc",
        "train_url",
        "service_url",
    }
)


class Admin:
    """Each route is one method of the emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def add_routes(self, app: web.Application) -> None:
        """Serve everything under ``/_emulator/``."""
        routes: tuple[tuple[str, str, Action], ...] = (
            ("POST", "reset", self._reset),
            ("POST", "jobs", self._add_jobs),
            ("POST", "jobs/{job_id}/status", self._set_status),
            ("POST", "clock/advance", self._advance),
            ("POST", "faults", self._fault),
            ("DELETE", "faults", self._clear_faults),
            ("GET", "requests", self._requests),
        )
        for method, path, action in routes:
            app.router.add_route(method, f"/_emulator/{path}", functools.partial(_handle, action))
        known = ", ".join(f"{method} /_emulator/{path}" for method, path, _ in routes)
        app.router.add_route("*", "/_emulator/{tail:.*}", functools.partial(_refuse, known))

    def _reset(self, given: dict[str, Any]) -> Mapping[str, Any]:
        _checks.known("key", given, ())
        self._emulator.reset()
        return {}

    def _add_jobs(self, given: dict[str, Any]) -> Mapping[str, Any]:
        _checks.known("key", given, _JOBS)
        if "statuses" in given:
            given["plan"] = given.pop("statuses")
        return {"job_ids": self._emulator.add_jobs(**given)}

    def _set_status(self, given: dict[str, Any]) -> Mapping[str, Any]:
        _checks.known("key", given, {"job_id", "status", "project_id"})
        if "status" not in given:
            raise ConfigError("status must be given: a status's number, or null to delete the job")
        self._emulator.set_status(**given)
        return {}

    def _advance(self, given: dict[str, Any]) -> Mapping[str, Any]:
        _checks.known("key", given, {"seconds"})
        self._emulator.advance(given.get("seconds", 0.0))
        return {}

    def _fault(self, given: dict[str, Any]) -> Mapping[str, Any]:
        return {"fault_id": self._emulator.fault(given.pop("kind", None), **given)}

    def _clear_faults(self, given: dict[str, Any]) -> Mapping[str, Any]:
        _checks.known("key", given, ())
        self._emulator.clear_faults()
        return {}

    def _requests(self, given: dict[str, Any]) -> Mapping[str, Any]:
        _checks.known("key", given, ())
        return {"requests": [attrs.asdict(request) for request in self._emulator.requests]}


async def _handle(action: Action, request: web.Request) -> web.Response:
    try:
        given = _given(await request.read())
        job_id = request.match_info.get("job_id")
        if job_id is not None:
            given["job_id"] = _job_id(job_id)
        return _answer(200, action(given))
    except ConfigError as error:
        return _answer(400, {"error": str(error)})


async def _refuse(known: str, _: web.Request) -> web.Response:
    return _answer(404, {"error": f"there is: {known}"})


def _given(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        raise ConfigError("the body must be JSON") from None
    if not isinstance(given, dict):
        raise _checks.refused("the body", given, "a JSON object")
    return given


def _job_id(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise _checks.refused("job_id", text, "a whole number")
    return int(text)


def _answer(status: int, body: Mapping[str, Any]) -> web.Response:
    return web.json_response(body, status=status)
