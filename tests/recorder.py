"""The recorder of traces: what leaves the client, what comes back, and what is true in an emulated cloud."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

from traces import EPOCH, Sent, State, Trace

from vizwatch import ConnectError
from vizwatch._values.exchange import Answer
from vizwatch._world.transport import Transport
from vizwatch.emulator import Emulator
from vizwatch.emulator._cloud import Cloud, NewJob

WATCH: ContextVar[int | None] = ContextVar("WATCH", default=None)
"""The watch whose consumer's task this is."""
CALL: ContextVar[int | None] = ContextVar("CALL", default=None)
"""The user's call that this task makes."""

_PATHS: Final = (
    (re.compile(r"POST /v3/auth/tokens"), "token"),
    (re.compile(r"GET /v1/[^/]+/visualization-jobs"), "list"),
    (re.compile(r"POST /v1/[^/]+/visualization-jobs"), "create"),
    (re.compile(r"GET /v1/[^/]+/visualization-jobs/(\d+)"), "details"),
    (re.compile(r"PUT /v1/[^/]+/visualization-jobs/(\d+)"), "update"),
    (re.compile(r"DELETE /v1/[^/]+/visualization-jobs/(\d+)"), "delete"),
    (re.compile(r"POST /v1/[^/]+/visualization-jobs/(\d+)/stop"), "stop"),
    (re.compile(r"POST /v1/[^/]+/visualization-jobs/(\d+)/restart"), "restart"),
)


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


class _Clock(dt.datetime):
    """The wall clock of a watch, which agrees with the loop's."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> _Clock:
        moment = EPOCH + dt.timedelta(seconds=now())
        return cls.fromtimestamp(moment.timestamp(), tz)


@contextlib.contextmanager
def recorded(trace: Trace) -> Iterator[None]:
    """Notes in a trace what leaves, what comes back and is carried out, and every log record."""
    clock = SimpleNamespace(datetime=_Clock, timedelta=dt.timedelta, UTC=dt.UTC)
    with (
        mock.patch("vizwatch.emulator._cloud._MAX_HISTORY", 10_000),
        mock.patch.object(Transport, "send", _noting(trace, Transport.send)),
        mock.patch.object(Cloud, "create", _counting(trace, Cloud.create)),
        mock.patch.object(Cloud, "restart", _counting(trace, Cloud.restart)),
        mock.patch("vizwatch._flows.following.dt", clock),
        contextlib.ExitStack() as logs,
    ):
        for name in ("vizwatch", "aiohttp", "asyncio"):
            # Not passed on: a long run would fill the memory of whoever collects records.
            logger = logging.getLogger(name)
            logs.enter_context(mock.patch.object(logger, "handlers", [_Texts(trace)]))
            logs.enter_context(mock.patch.object(logger, "propagate", new=False))
            logs.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.DEBUG)
        yield


def _noting(trace: Trace, send: Callable[..., Awaitable[Answer]]) -> Callable[..., Awaitable[Answer]]:
    async def noting(
        self: Transport, method: str, target: str, headers: Mapping[str, str], *args: Any, **kwargs: Any
    ) -> Answer:
        operation, job_id = _operation(method, target)
        sent = Sent(operation=operation, job_id=job_id, began=now(), watch=WATCH.get(), call=CALL.get())
        if "X-Auth-Token" in headers:
            sent.token = f"{headers['X-Auth-Token']!s}"
            trace.secrets.add(sent.token)
        trace.sent.append(sent)
        try:
            answer = await send(self, method, target, headers, *args, **kwargs)
        except ConnectError:
            sent.was_sent = False
            raise
        finally:
            sent.ended = now()
        _hear(trace, sent, answer)
        return answer

    return noting


def _operation(method: str, target: str) -> tuple[str, int | None]:
    line = f"{method} {target.partition('?')[0]}"
    for pattern, operation in _PATHS:
        match = pattern.fullmatch(line)
        if match:
            return operation, int(match[1]) if match.lastindex else None
    raise AssertionError(line)


def _hear(trace: Trace, sent: Sent, answer: Answer) -> None:
    sent.http_status = answer.status
    sent.retry_after = "Retry-After" in answer.headers
    token = answer.headers.get("X-Subject-Token")
    if token is not None:
        trace.secrets.add(token)
    try:
        body = json.loads(answer.body)
    except ValueError:
        return
    if isinstance(body, dict):
        sent.error_code = body.get("error_code")
        rows = body.get("jobs", [body])
        if 200 <= answer.status < 300:
            sent.said = {
                int(row["job_id"]): int(row["status"]) for row in rows if row.get("status") is not None
            }
            sent.shows_all = body.get("job_total_count") == len(sent.said)


def _counting(trace: Trace, write: Callable[..., Any]) -> Callable[..., Any]:
    def counting(self: Cloud, project_id: str, what: NewJob | int, *args: Any, **kwargs: Any) -> Any:
        done = write(self, project_id, what, *args, **kwargs)
        key = what.job_name if isinstance(what, NewJob) else what
        if key is not None:
            trace.performed.append((write.__name__, f"{key}"))
        return done

    return counting


class _Texts(logging.Handler):
    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        self._trace.texts.append(self.format(record))


def note_truth(trace: Trace, cloud: Emulator) -> None:
    """Takes each job's history out of an emulated cloud."""
    offset = now() - cloud.now
    project = cloud._world.cloud.project(cloud.project_id, cloud.now)
    for job in [*project.jobs.values(), *project.deleted]:
        states = [State(one.since + offset, int(one.status)) for one in job.history]
        if job.gone is not None:
            states.append(State(job.gone + offset, None))
        trace.truth[job.job_id] = [
            state for at, state in enumerate(states) if not at or states[at - 1].status != state.status
        ]
