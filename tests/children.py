"""Processes of their own, for what cannot be asked of the one that runs the tests."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
PEAK = Path("/proc/self/status")


def peak_memory() -> int:
    """The most memory that this process's program ever had resident, in bytes; Linux tells.

    Not `ru_maxrss`: that begins with the size of the process that this one was started from.
    """
    (line,) = [line for line in PEAK.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def unmeasured() -> dict[str, str]:
    """The environment of a process whose coverage is not measured: of what measures by itself."""
    return {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}


async def in_child(function: Callable[..., Coroutine[Any, Any, Any]], *arguments: str) -> Any:
    """What a coroutine function gives in a process of its own, by way of JSON; any warning is an error."""
    module, name = function.__module__, function.__name__
    code = f"import asyncio, json, sys; from {module} import {name} as main; "
    code += "print(json.dumps(asyncio.run(main(*sys.argv[1:]))))"
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", code, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])},
    )
    try:
        async with asyncio.timeout(120):
            out, err = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert (child.returncode, err.decode()) == (0, ""), err.decode()
    return json.loads(out)
