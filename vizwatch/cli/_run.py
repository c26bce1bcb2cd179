"""``vizwatch run``: the watcher as a service."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from vizwatch import CheckpointError, ConfigError, Target, printable
from vizwatch.cli._errors import ExitCode, report
from vizwatch.cli._logging import logged_to_stderr
from vizwatch.cli._output import check_stdout
from vizwatch.cli._running import end_within
from vizwatch.service.files import FaultyConfigurationError, load
from vizwatch.service.options import (
    Configuration,
    Destination,
    Filter,
    PythonCall,
    RedisStream,
    SinkOptions,
    Stdout,
    Webhook,
)
from vizwatch.service.serving import serve

_MAX_LINE: Final = 1_000
_ENDS_WITHIN: Final = 4.5
"""How long the end may take, in seconds."""


async def run_service(file: Path, *, only_check: bool, dask: str | None) -> ExitCode:
    """Serves until a signal comes, which is how it is meant to end; or says what it would do."""
    if not only_check:
        end_within(_ENDS_WITHIN, ExitCode.DONE, after_signal=True)
    try:
        configuration = await load(file)
        if dask is not None:
            _check_scheduler(dask, configuration)
        await asyncio.sleep(0)  # where a signal is heard that came while modules were imported
    except FaultyConfigurationError as error:
        for fault in error.faults:
            report(ConfigError(fault))
        return ExitCode.USAGE
    except asyncio.CancelledError:
        if only_check:
            raise
        return ExitCode.DONE
    if only_check:
        check_stdout()
        sys.stdout.writelines(f"{printable(line, _MAX_LINE)}\n" for line in _described(configuration))
        return ExitCode.DONE
    with logged_to_stderr():
        code = await _until_signalled(asyncio.create_task(serve(configuration, dask=dask)))
        end_within(_ENDS_WITHIN, code)  # threads, and the log itself, may hang
    return code


def _check_scheduler(address: str, configuration: Configuration) -> None:
    from vizwatch.dask import check_address  # noqa: PLC0415 - an extra

    check_address(address, configuration.settings)


async def _until_signalled(serving: asyncio.Task[None]) -> ExitCode:
    """Waits for the service's end; a signal is the beginning of it, and no second one breaks it off."""
    while not serving.done():
        try:
            await asyncio.wait([serving])
        except asyncio.CancelledError:
            if not serving.cancelling():
                serving.cancel()
    if serving.cancelled():
        return ExitCode.DONE
    error = serving.exception()
    if error is None:
        return ExitCode.DONE
    code = report(error)
    # Its Redis may be away: another try may do, as it does not for a wrong file.
    return ExitCode.FAILED if isinstance(error, CheckpointError) else code


def _described(configuration: Configuration) -> list[str]:
    host, port = configuration.listen
    return [
        *(_target(target) for target in configuration.targets),
        *(_sink(sink) for sink in configuration.sinks),
        f"state: {configuration.state}",
        *([] if configuration.checkpoint is None else [f"checkpoint: {configuration.checkpoint!r}"]),
        f"health: http://{f'[{host}]' if ':' in host else host}:{port}",
    ]


def _target(target: Target) -> str:
    workspace = "" if target.workspace_id is None else f", workspace {target.workspace_id}"
    where = f"project {target.project_id} at {target.endpoint}{workspace}"
    return f"target {target.name}: {where}, with {type(target.auth).__name__.strip('_')}"


def _sink(sink: SinkOptions) -> str:
    return f"sink {sink.name}: {_passing(sink.filter)} to {_place(sink.destination)}, backlog {sink.backlog}"


def _passing(passing: Filter) -> str:
    what = "ends" if passing.terminal_only else "transitions"
    if passing.statuses is not None:
        names = ("deleted" if one is None else one.name for one in passing.statuses)
        what += f" to {', '.join(sorted(names))}"
    return what if passing.targets is None else f"{what} of {', '.join(sorted(passing.targets))}"


def _place(destination: Destination) -> str:
    match destination:
        case Stdout():
            return "stdout"
        case Webhook():
            return _origin(destination.url)
        case RedisStream():
            return f"stream {destination.stream} of {_origin(destination.url)}"
        case PythonCall():
            return destination.name


def _origin(url: str) -> str:
    """What of an address is no secret."""
    found = urlsplit(url)
    return f"{found.scheme}://{found.netloc.rpartition('@')[2]}"
