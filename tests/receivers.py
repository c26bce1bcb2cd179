"""A receiver of webhooks, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self

import attrs
from aiohttp import web


@attrs.frozen
class Post:
    """What came."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def transition(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded


@attrs.define(eq=False)
class Receiver:
    """Answers each post with the next of its answers, and then with 204."""

    answers: list[web.StreamResponse | None] = attrs.field(factory=list)
    """``None`` hangs."""
    port: int = 0
    posts: list[Post] = attrs.field(factory=list, init=False)
    came: asyncio.Queue[Post] = attrs.field(factory=asyncio.Queue, init=False)
    _runner: web.AppRunner = attrs.field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def _take(self, request: web.Request) -> web.StreamResponse:
        post = Post({name.lower(): value for name, value in request.headers.items()}, await request.read())
        self.posts.append(post)
        self.came.put_nowait(post)
        answer = self.answers.pop(0) if self.answers else web.Response(status=204)
        if answer is None:
            await asyncio.Event().wait()
        assert answer is not None
        return answer

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()
