"""Health and metrics over HTTP: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import asyncio
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
_CONNECTIONS: Final = 32
"""How many there may be, and how many may wait for their turn: each takes a descriptor of the watch's."""
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
        self._pages = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}
        server = _Server(self._page, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, *self._listen, backlog=_CONNECTIONS).start()
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

    async def _page(self, request: web.BaseRequest) -> web.Response:
        page = self._pages.get(request.path)
        if page is None:
            return web.Response(status=404)
        return page() if request.method in {"GET", "HEAD"} else web.Response(status=405)

    def _healthz(self) -> web.Response:
        """200 while the service watches, whatever its targets and sinks come to: a restart would not help."""
        now = self._look()
        return _answer(now.report, ok=now.is_watching)

    def _readyz(self) -> web.Response:
        """200 once each target was read completely, and while backlog and checkpoint can be written."""
        problems = self._look().not_ready
        is_ready = not any(problems.values())
        return _answer({"ready": is_ready, **problems}, ok=is_ready)

    def _metrics(self) -> web.Response:
        try:
            body, content_type = exposition(self._look())
        except ModuleNotFoundError:
            return web.Response(status=501, text=_HINT)
        return web.Response(body=body, headers={"Content-Type": content_type})


class _Server(web.Server):
    """Of so many connections at most: one more ends the oldest, which may be idle or read no answer."""

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """One more."""
        super().connection_made(handler, transport)
        for oldest in self.connections[:-_CONNECTIONS]:
            if oldest.transport is not None:
                oldest.transport.abort()


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
