"""Writes that are waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from vizwatch._values.errors import OutcomeUnknownError, VizwatchError
from vizwatch._values.models import Job


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
