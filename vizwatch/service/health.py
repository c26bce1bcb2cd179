"""Health and metrics over HTTP: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from vizwatch import printable
from vizwatch.service.metrics import Snapshot, exposition
from vizwatch.service.progress import LOG

_SHUTDOWN: Final = 0.1
_HINT: Final = 'metrics need their extra: install "vizwatch[metrics]"\n'


class Health:
    """A server of what is asked of health, and of nothing else, while its ``async with`` block runs.

    Args:
        listen: Host and port; port 0 lets the system choose one.
        look: Says how things stand.

    Raises:
        OSError: When entered: the address cannot be listened at.
    """

    def __init__(self, listen: tuple[str, int], look: Callable[[], Snapshot]) -> None:
        self._listen, self._look = listen, look
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, *self._listen).start()
        except BaseException as error:
            await self._runner.cleanup()
            if isinstance(error, OSError):
                raise _explained(self._listen, error) from None
            raise
        LOG.info("health and metrics are at http://%s", _said(*self._runner.addresses[0][:2]))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        """200 while the service watches, whatever its targets and sinks come to: a restart would not help."""
        now = self._look()
        return _answer(now.report, ok=now.is_watching)

    async def _readyz(self, _: web.Request) -> web.Response:
        """200 once each target was read completely, and while backlog and checkpoint can be written."""
        problems = self._look().not_ready
        is_ready = not any(problems.values())
        return _answer({"ready": is_ready, **problems}, ok=is_ready)

    async def _metrics(self, _: web.Request) -> web.Response:
        try:
            body, content_type = exposition(self._look())
        except ModuleNotFoundError:
            return web.Response(status=501, text=_HINT)
        return web.Response(body=body, headers={"Content-Type": content_type})


def _said(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _explained(listen: tuple[str, int], error: OSError) -> OSError:
    reason = str(error) if error.errno is None else os.strerror(error.errno)
    if isinstance(error, socket.gaierror):
        reason = error.strerror or "no such name"
    return OSError(
        f"http.listen: {printable(_said(*listen))} cannot be listened at: {printable(reason)}; "
        "give an address of this machine, and a port that nothing else uses"
    )


def _answer(value: dict[str, Any], *, ok: bool) -> web.Response:
    return web.json_response(value, status=200 if ok else 503)
