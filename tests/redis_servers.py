"""Real Redis servers, each with a directory, a socket and a port of its own."""

from __future__ import annotations

import asyncio
import inspect
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

PROGRAM = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(PROGRAM is None, reason="there is no redis-server (Debian: redis-server)")


class RedisServer:
    """A process that is started with the block, and can be killed and started again meanwhile.

    Args:
        options: Of its configuration, besides those that give it a place.
        is_tls: Whether its port speaks TLS.
    """

    def __init__(self, *options: str, is_tls: bool = False) -> None:
        self._options = options
        self._is_tls = is_tls
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="vizwatch"))  # the path of a socket has to be short
        self.socket = self.directory / "s"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def start(self) -> None:
        assert PROGRAM is not None
        place = ["--bind", "127.0.0.1", "--unixsocket", f"{self.socket}"]
        place += ["--port", "0", "--tls-port", f"{self.port}"] if self._is_tls else ["--port", f"{self.port}"]
        place += ["--dir", f"{self.directory}", "--save", ""]
        self._process = subprocess.Popen(
            [PROGRAM, *place, *self._options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ready to accept connections" in line:
                return
        raise AssertionError("".join(said))

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it as -9 does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.directory)


async def until(condition: Callable[[], Any]) -> None:
    """Waits in real time for what is bound to happen soon; also for what has to be awaited."""
    async with asyncio.timeout(10):
        # A process of its own sets no event here.
        while not (await met if inspect.isawaitable(met := condition()) else met):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
