"""The command line: ``vizwatch``, or ``python -m vizwatch``. Needs the extra `cli`."""

from __future__ import annotations

import sys
from typing import Final

_EXTRA: Final = {"cyclopts", "rich"}


def main(argv: list[str] | None = None) -> int:
    """Runs one command, with the process's arguments if none are given, and returns its exit code."""
    try:
        from vizwatch.cli import _running  # noqa: PLC0415 - what these import may not be installed
        from vizwatch.cli._app import run  # noqa: PLC0415

        if argv is None:
            _running.is_process.set(True)
            argv = sys.argv[1:]
        return run(argv)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write('vizwatch: the command line needs its extra: install "vizwatch[cli]"\n')
        return 2
    except KeyboardInterrupt:
        # Before a command handles signals itself.
        return 130
