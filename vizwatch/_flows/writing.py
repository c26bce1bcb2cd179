"""Writes whose answer may be lost: the job's details settle what became of them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import anyio

from vizwatch._rules import retrying
from vizwatch._rules.settling import Settled, settled
from vizwatch._values.errors import CallError, NotFoundError, OutcomeUnknownError, VizwatchError
from vizwatch._values.exchange import Operation
from vizwatch._values.models import Job
from vizwatch._values.settings import Settings


async def carried_out(
    operation: Operation,
    write: Callable[[], Awaitable[None]],
    read: Callable[[], Awaitable[Job]],
    settings: Settings,
) -> None:
    """Returns once the write is carried out; sends it again only if the job's details say that it is needed.

    Raises:
        OutcomeUnknownError: No answer came, and the details do not tell, or could not be read.
        VizwatchError: The write was refused, or not sent.
    """
    deadline = anyio.current_time() + settings.write_timeout
    tries = 0
    while True:
        tries += 1
        try:
            await write()
        except OutcomeUnknownError as error:
            unknown = error
        else:
            return
        match await _details(operation, read, unknown):
            case Settled.DONE:
                return
            case Settled.UNCLEAR:
                raise unknown
        pause = retrying.wait_before(tries, settings, random.random(), None) or 0.0
        if tries >= settings.attempts or anyio.current_time() + pause >= deadline:
            raise unknown
        await anyio.sleep(pause)


async def _details(
    operation: Operation, read: Callable[[], Awaitable[Job]], unknown: OutcomeUnknownError
) -> Settled:
    try:
        return settled(operation, await read())
    except NotFoundError:
        return settled(operation, None)
    except CallError:
        raise unknown from unknown.__cause__


async def arrival(write: Callable[[], Awaitable[None]], arrived: Callable[[], Awaitable[Job]]) -> Job:
    """The job, once what a write asked for has come about; if no answer came, the job itself tells.

    Raises:
        OutcomeUnknownError: No answer came, and the job does not show that it was carried out.
    """
    unsure: OutcomeUnknownError | None = None
    try:
        await write()
    except OutcomeUnknownError as error:
        unsure = error
    try:
        return await arrived()
    except VizwatchError as error:
        if unsure is None:
            raise
        raise unsure from error
