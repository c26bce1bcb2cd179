"""The commands: each opens the client, asks it, and prints what it says."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from pathlib import Path
from typing import Annotated, Final

import anyio
import cyclopts
from cyclopts import Parameter

from vizwatch import ConfigError, Job, SqliteCheckpoint, __version__
from vizwatch.cli import _running
from vizwatch.cli._errors import ExitCode, Reported, report
from vizwatch.cli._options import (
    HERE,
    Connection,
    FollowRestarts,
    Interval,
    JobId,
    Json,
    Timeout,
    Wait,
    statuses,
)
from vizwatch.cli._output import Output, Terminal, check_stdout
from vizwatch.cli._watching import follow, follow_all

_HELP: Final = """\
List, watch and manage ModelArts visualization jobs.

VIZWATCH_ENDPOINT or VIZWATCH_REGION, VIZWATCH_PROJECT_ID and VIZWATCH_TOKEN say where, which project and who;
HUAWEICLOUD_SDK_AK and _SK, ~/.huaweicloud/credentials, OS_* and clouds.yaml are read as well, and
`vizwatch doctor` says what was found where.

Exit codes:
  0    done
  1    the service refused or failed
  2    wrong usage or configuration
  3    a job ended as a failure, or otherwise than asked
  4    the time given by --timeout passed
  130  Ctrl-C (143: SIGTERM; both end `run` and `emulator` with 0)
Several jobs are watched to the end of the last one; the lowest code but 0 counts.
"""
_UNTIL: Final = "Names or numbers of statuses, several by comma; by default any that ends the job."
_HELP_WIDTH: Final = 100

app = cyclopts.App(
    name="vizwatch",
    help=_HELP,
    help_format="plaintext",
    version=__version__,
    version_flags=("--version",),
)


def run(argv: list[str]) -> int:
    """Runs the command that the arguments name, and returns its exit code."""
    _keep_libraries_silent()
    try:
        console = Terminal()
        console.width = min(console.width, _HELP_WIDTH)
        command, bound, _ = app.parse_args(argv, console=console, exit_on_error=False, print_error=False)
        outcome = command(*bound.args, **bound.kwargs)
        return _running.run(outcome) if inspect.iscoroutine(outcome) else ExitCode.DONE
    except Reported as error:
        return report(error)


def _keep_libraries_silent() -> None:
    """A command's one line on stderr is its own; Python would print others' warnings if nobody took them."""
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())


@app.command(name="list")
async def list_jobs(
    *,
    status: Annotated[
        str | None, Parameter(help="Only jobs in these statuses, names or numbers, by comma.")
    ] = None,
    search_content: Annotated[str | None, Parameter(help="Only jobs whose name has this text.")] = None,
    sort_by: Annotated[str, Parameter(help="job_id, job_name, job_desc, create_time or status.")] = "job_id",
    order: Annotated[str, Parameter(help="asc or desc.")] = "asc",
    limit: Annotated[int | None, Parameter(help="How many jobs to list at most.")] = None,
    connection: Connection = HERE,
    as_json: Json = False,
) -> int:
    """List the jobs of a workspace."""
    output = Output(as_json=as_json)
    async with connection.client() as client:
        listing = client.list_jobs(
            status=None if status is None else statuses("--status", status),
            search_content=search_content,
            sort_by=sort_by,
            order=order,
            limit=limit,
        )
        if as_json:
            async for page in listing.pages():
                output.jobs(page.jobs)
        else:
            output.jobs(await listing.collect())
    return ExitCode.DONE


@app.command
async def show(job_id: JobId, *, connection: Connection = HERE, as_json: Json = False) -> int:
    """Show all that is known of one job."""
    async with connection.client() as client:
        Output(as_json=as_json).job(await client.get_job(job_id))
    return ExitCode.DONE


@app.command
async def watch(
    *job_ids: Annotated[str, Parameter(help="The jobs' ids.")],
    watch_all: Annotated[
        bool,
        Parameter(
            name="--all",
            negative="",
            show_default=False,
            help="All jobs of the workspace, new ones included, beyond their ends and until Ctrl-C.",
        ),
    ] = False,
    interval: Interval = None,
    timeout: Timeout = None,  # noqa: ASYNC109 - the user's deadline, which the client keeps
    follow_restarts: FollowRestarts = False,
    checkpoint: Annotated[
        Path | None,
        Parameter(help="Take up where the last run with this file left off, however it ended."),
    ] = None,
    connection: Connection = HERE,
    as_json: Json = False,
) -> int:
    """Print each change of the jobs' statuses, until they have ended or are deleted."""
    if bool(job_ids) == watch_all:
        raise ConfigError("watch needs the id of one job at least, or --all")
    check_stdout()
    kept = None if checkpoint is None else SqliteCheckpoint(checkpoint)
    output = Output(as_json=as_json)
    async with connection.client() as client:
        if watch_all:
            jobs = client.watch_jobs(interval=interval, checkpoint=kept)
            return await follow_all(jobs, timeout, output)
        watches = [
            client.watch(
                job_id,
                interval=interval,
                timeout=timeout,
                follow_restarts=follow_restarts,
                checkpoint=kept,
            )
            for job_id in dict.fromkeys(job_ids)
        ]
        return await follow(watches, output)


@app.command
async def wait(
    job_id: JobId,
    *,
    until: Annotated[str | None, Parameter(help=_UNTIL)] = None,
    timeout: Timeout = None,  # noqa: ASYNC109 - as above
    interval: Interval = None,
    connection: Connection = HERE,
    as_json: Json = False,
) -> int:
    """Wait until a job has a status, and show the job."""
    wanted = None if until is None else statuses("--until", until)
    async with connection.client() as client:
        job = await client.wait(job_id, until=wanted, timeout=timeout, interval=interval)
        Output(as_json=as_json).job(job)
    return ExitCode.OTHERWISE if wanted is None and job.status.is_failure else ExitCode.DONE


@app.command
async def create(
    job_name: Annotated[str, Parameter(help="1 to 20 of the characters 0-9 A-Z a-z _ -.")],
    train_url: Annotated[str, Parameter(help="The OBS path of the logs, such as /obs/name/.")],
    *,
    job_desc: Annotated[str | None, Parameter(help="A description of up to 256 characters.")] = None,
    job_type: Annotated[str | None, Parameter(help="tensorboard or mindinsight.")] = None,
    flavor: Annotated[str | None, Parameter(help="The code of the resources' flavor.")] = None,
    auto_stop_hours: Annotated[int | None, Parameter(help="When the service stops it, 0 to 24.")] = None,
    connection: Connection = HERE,
    as_json: Json = False,
) -> int:
    """Create a job, and show it."""
    async with connection.client() as client:
        job = await client.create_job(
            job_name,
            train_url,
            job_desc=job_desc,
            job_type=job_type,
            flavor=flavor,
            auto_stop_hours=auto_stop_hours,
        )
        Output(as_json=as_json).job(job)
    return ExitCode.DONE


@app.command
async def update(
    job_id: JobId,
    job_desc: Annotated[str, Parameter(help="Up to 256 characters.")],
    *,
    connection: Connection = HERE,
    as_json: Json = False,
) -> int:
    """Give a job another description."""
    async with connection.client() as client:
        await client.update_job(job_id, job_desc)
    Output(as_json=as_json).done("update", job_id)
    return ExitCode.DONE


@app.command
async def stop(
    job_id: JobId, *, wait: Wait = None, connection: Connection = HERE, as_json: Json = False
) -> int:
    """Ask the service to stop a job; it stops some time later."""
    async with connection.client() as client:
        return _written("stop", job_id, await client.stop_job(job_id, wait=wait), Output(as_json=as_json))


@app.command
async def restart(
    job_id: JobId, *, wait: Wait = None, connection: Connection = HERE, as_json: Json = False
) -> int:
    """Ask the service to run an ended job again, under the same id."""
    async with connection.client() as client:
        return _written(
            "restart", job_id, await client.restart_job(job_id, wait=wait), Output(as_json=as_json)
        )


@app.command
async def delete(
    job_id: JobId, *, wait: Wait = None, connection: Connection = HERE, as_json: Json = False
) -> int:
    """Ask the service to delete a job; it is gone some time later."""
    async with connection.client() as client:
        return _written("delete", job_id, await client.delete_job(job_id, wait=wait), Output(as_json=as_json))


def _written(verb: str, job_id: str, job: Job | None, output: Output) -> int:
    if job is None:
        output.done(verb, job_id)
    else:
        output.job(job)
    return ExitCode.DONE


@app.command
async def doctor(
    *,
    record: Annotated[
        Path | None,
        Parameter(
            help="Also make the read-only requests that settle what the documents leave open, and write "
            "their answers, without names, addresses and secrets, into this new file."
        ),
    ] = None,
    connection: Connection = HERE,
    as_json: Json = False,
) -> int:
    """Say what configuration is found where, whether it works, and what is wrong with it first."""
    from vizwatch.cli._doctor import diagnose  # noqa: PLC0415 - which other commands start without

    return await diagnose(connection, record, Output(as_json=as_json))


@app.command(name="run")
async def run_service(
    file: Annotated[Path, Parameter(help="The configuration, a TOML file.")],
    *,
    check: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Only read the file and all that it names, and say what would be done.",
        ),
    ] = False,
    dask: Annotated[
        str | None,
        Parameter(help="The address of a Dask scheduler, such as tls://scheduler:8786, whose workers watch."),
    ] = None,
) -> int:
    """Watch many projects, and deliver each transition to sinks, until SIGTERM."""
    from vizwatch.cli import _run  # noqa: PLC0415 - which other commands start without

    return await _run.run_service(file, only_check=check, dask=dask)


@app.command
async def emulator(
    *,
    host: Annotated[str, Parameter(help="Where to listen; keep to the loopback interface.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="0 lets the system choose one.")] = 0,
    jobs: Annotated[int, Parameter(help="How many jobs there are at the start.")] = 0,
    speed: Annotated[float, Parameter(help="How many times as fast as real time jobs live.")] = 1.0,
    recording: Annotated[
        Path | None, Parameter(help="Answer as the service that `vizwatch doctor --record` recorded.")
    ] = None,
) -> int:
    """Serve an emulated cloud until SIGTERM or Ctrl-C.

    The first line is a JSON object with the endpoint, project_id and token of this cloud.
    """
    from vizwatch.emulator import Emulator  # noqa: PLC0415 - a server, which other commands start without

    # A signal is how this command is meant to end.
    with contextlib.suppress(asyncio.CancelledError):
        async with Emulator(host=host, port=port, jobs=jobs, speed=speed, recording=recording) as cloud:
            Output(as_json=True).object(
                {"endpoint": cloud.endpoint, "project_id": cloud.project_id, "token": cloud.token}
            )
            await anyio.sleep_forever()
    return ExitCode.DONE


@app.command
async def demo(*, as_json: Json = False) -> int:
    """Watch four jobs with different fates on an emulated cloud, in about ten seconds."""
    from vizwatch.cli._demo import demonstrate  # noqa: PLC0415 - with the emulator, see there

    return await demonstrate(Output(as_json=as_json))
