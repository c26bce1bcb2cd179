"""Redis servers of their own, where the program is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def redis_server(folder: Path, password: str = "canary") -> Iterator[str]:
    """The address of one, behind a socket of the file system; it keeps nothing beyond its end."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    pytest.importorskip("redis")
    socket = folder / "s"
    with subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--requirepass", password],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "ready to accept connections" in line.lower():
                    break
            yield f"unix://:{password}@{socket}"
        finally:
            process.kill()
