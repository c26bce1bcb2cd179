"""Measures in a process of its own, where nothing else costs memory or CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks._frame import Sample

_ROOT: Final = Path(__file__).parent.parent
_CODE: Final = """
import asyncio, json, sys
from {module} import {name}
print(json.dumps(asyncio.run({name}(**json.loads(sys.argv[1])))))
"""

Found = Mapping[str, float]
Figure = Callable[[Found], float]


def measured(way: Callable[..., Awaitable[Found]], **options: Any) -> Found:
    """What that function finds with these options in a new process."""
    code = _CODE.format(module=way.__module__, name=way.__name__)
    command = [sys.executable, "-c", code, json.dumps(options)]
    printed = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: Found = json.loads(printed)
    return found


def in_turn(runs: int, *takes: Callable[[], Found]) -> Sequence[Sequence[Found]]:
    """What each of them found in each run."""
    return list(zip(*[[take() for take in takes] for _ in range(runs)], strict=True))


def sample(found: Sequence[Found], figure: Figure) -> Sample:
    """One figure of each run."""
    return Sample([figure(one) for one in found])
