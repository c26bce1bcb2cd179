"""``vizwatch watch``: one watch for each job, until the last of them has ended; or one of all jobs."""

from __future__ import annotations

from collections.abc import Iterable

import anyio

from vizwatch import (
    ConfigError,
    Job,
    JobsWatch,
    Transition,
    VizwatchError,
    Watch,
    WatchTimeoutError,
)
from vizwatch.cli._errors import ExitCode, report
from vizwatch.cli._output import Output


async def follow(watches: Iterable[Watch], output: Output) -> int:
    """Prints the transitions of all watches; of their exit codes, returns the lowest that is not 0.

    A watch that fails says so, and does not end the others.
    """
    codes: list[int] = []

    async def follow_one(watch: Watch) -> None:
        last: Transition | None = None
        try:
            async for transition in watch:
                output.transition(transition)
                last = transition
        except VizwatchError as error:
            codes.append(report(error))
        else:
            codes.append(_outcome(last, watch.job))

    async with anyio.create_task_group() as tasks:
        for watch in watches:
            tasks.start_soon(follow_one, watch)
    return min(filter(None, codes), default=ExitCode.DONE)


async def follow_all(
    jobs: JobsWatch,
    timeout: float | None,  # noqa: ASYNC109 - the user's deadline, of an iteration that has none
    output: Output,
) -> int:
    """Prints the transitions of all jobs, until the deadline passes."""
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"timeout must be a number of seconds above 0, not {timeout:g}")
    with anyio.move_on_after(timeout):
        async for transition in jobs:
            output.transition(transition)
        return ExitCode.DONE
    raise WatchTimeoutError(f"jobs were watched for {timeout:g} s")


def _outcome(last: Transition | None, job: Job | None) -> ExitCode:
    """Of a watch that has ended: without a word where the end was told before, as a checkpoint knows."""
    status = last.current if last is not None else job.status if job is not None else None
    return ExitCode.OTHERWISE if status is not None and status.is_failure else ExitCode.DONE
