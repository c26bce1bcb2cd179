"""The calls of the ModelArts SDK, as coroutines: code that was written for it moves over line by line.

The import and the session change, and each call is awaited::

    from vizwatch.compat import VisualizationJob

    async with vizwatch.Client.from_env() as session:
        job_list = await VisualizationJob.get_visualization_job_list(
            modelarts_session=session, status=8, sort_by="create_time"
        )
        job = VisualizationJob(modelarts_session=session, visualization_id="8992")
        print(await job.get_visualization_job_info())

A listing is one page, as there; `Client.list_jobs` gives all. Failures are raised, as those of `Client`, and
never returned. Source: the publishers' ModelArts SDK reference, "Visualization Jobs".
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import attrs

from vizwatch._rules import wire
from vizwatch._values import checks
from vizwatch._values.errors import ConfigError
from vizwatch._values.models import Job, JobPage
from vizwatch.client import Client

__all__ = ["VisualizationJob"]

_MAX_PER_PAGE: Final = 100
_DONE: Final = {"is_success": True}


class VisualizationJob:
    """A visualization job by its id, and the calls that need none.

    Args:
        modelarts_session: An open :class:`vizwatch.Client`, in the place of the SDK's session.
        visualization_id: The job's id; without one the object can only create a job.

    Attributes:
        visualization_id: The job's id, a string as in the SDK.
        job_name: Its name; ``None`` until it is known, by creation or listing.
        status: Its status, a number, as it was then.
        create_time: Milliseconds since 1970, as the service sent it.
    """

    def __init__(self, modelarts_session: Client, visualization_id: str | int | None = None) -> None:
        self._client = _client(modelarts_session)
        self.visualization_id: str | None = None
        if visualization_id is not None:
            self.visualization_id = str(checks.job_id(visualization_id))
        self.job_name: str | None = None
        self.status: int | None = None
        self.create_time: int | None = None

    @staticmethod
    async def get_visualization_job_list(
        modelarts_session: Client,
        status: int | str | None = None,
        per_page: int = 10,
        page: int = 1,
        sort_by: str | None = None,
        order: str = "asc",
        search_content: str | None = None,
        *,
        sortBy: str | None = None,  # noqa: N803 - the SDK's name for it where access keys are used
    ) -> dict[str, Any]:
        """One page of the listing: `job_total_count`, `job_count_limit` and `jobs`, each job a dictionary.

        Args:
            modelarts_session: The open client.
            status: One status's number.
            per_page: 1 to 100.
            page: From 1.
            sort_by: `job_name` by default; `job_desc`, `status`, `create_time`, or `job_id`. The SDK's
                `duration` and `log_dir` are refused, since the REST API knows neither.
            order: `asc` or `desc`.
            search_content: Only jobs whose name has this text.
            sortBy: The same as `sort_by`.
        """
        page_found = await _page(
            modelarts_session, status, per_page, page, _sort_key(sort_by, sortBy), order, search_content
        )
        return {
            "is_success": True,
            "job_total_count": page_found.job_total_count,
            "job_count_limit": page_found.job_count_limit,
            "jobs": [_fields(job) for job in page_found.jobs],
        }

    @classmethod
    async def get_visualization_job_object_list(
        cls,
        modelarts_session: Client,
        status: int | str | None = None,
        per_page: int = 10,
        page: int = 1,
        sort_by: str | None = None,
        order: str = "asc",
        search_content: str | None = None,
        *,
        is_show: bool = False,  # noqa: ARG003 - so that a call that gives it can stay as it is
        sortBy: str | None = None,  # noqa: N803 - as above
    ) -> list[VisualizationJob]:
        """As :meth:`get_visualization_job_list`, as objects; whatever `is_show` says, nothing is printed."""
        page_found = await _page(
            modelarts_session, status, per_page, page, _sort_key(sort_by, sortBy), order, search_content
        )
        return [cls._of(modelarts_session, job) for job in page_found.jobs]

    async def create_visualization_job(
        self, train_url: str, job_name: str | None = None, job_desc: str | None = None, **more: Any
    ) -> VisualizationJob:
        """Creates a job.

        Args:
            train_url: The OBS path of the logs.
            job_name: Up to 20 characters; one is made up if there is none.
            job_desc: Up to 256 characters.
            more: What else :meth:`vizwatch.Client.create_job` takes.
        """
        name = f"job-{secrets.token_hex(6)}" if job_name is None else job_name
        job = await self._client.create_job(name, train_url, job_desc=job_desc, **more)
        return self._of(self._client, job)

    async def get_visualization_job_info(self) -> dict[str, Any]:
        """All that the service says of the job."""
        return {**_fields(await self._client.get_job(self._id())), **_DONE}

    async def update_visualization_job(self, job_desc: str) -> dict[str, bool]:
        """Gives the job another description."""
        await self._client.update_job(self._id(), job_desc)
        return dict(_DONE)

    async def stop_visualization_job(self) -> dict[str, bool]:
        """Asks the service to stop the job."""
        await self._client.stop_job(self._id())
        return dict(_DONE)

    async def restart_visualization_job(self) -> dict[str, bool]:
        """Asks the service to run the job again."""
        await self._client.restart_job(self._id())
        return dict(_DONE)

    async def delete_visualization_job(self) -> dict[str, bool]:
        """Asks the service to delete the job."""
        await self._client.delete_job(self._id())
        return dict(_DONE)

    @classmethod
    def _of(cls, client: Client, job: Job) -> VisualizationJob:
        made = cls(client, job.job_id)
        made.job_name, made.status, made.create_time = job.job_name, int(job.status), job.create_time
        return made

    def _id(self) -> str:
        if self.visualization_id is None:
            raise ConfigError("this object has no job: give visualization_id, or use what create gave")
        return self.visualization_id

    def __repr__(self) -> str:
        return f"VisualizationJob({self.visualization_id!r})"


def _client(given: object) -> Client:
    if not isinstance(given, Client):
        raise checks.refused("modelarts_session", given, "an open vizwatch.Client")
    return given


def _sort_key(sort_by: str | None, camel_case: str | None) -> str:
    given = {key for key in (sort_by, camel_case) if key is not None}
    if len(given) > 1:
        raise ConfigError("sort_by and sortBy are the same parameter: give one of them")
    key = given.pop() if given else "job_name"
    if key in {"duration", "log_dir"}:
        raise ConfigError(
            f"sort_by must be one of {', '.join(wire.SORT_KEYS)}, not {key!r}, which the REST API does not "
            "know: sort the jobs that you get"
        )
    return key


async def _page(
    client: object,
    status: int | str | None,
    per_page: int,
    page: int,
    sort_by: str,
    order: str,
    search_content: str | None,
) -> JobPage:
    if status == "":
        status = None
    if isinstance(status, str):
        if not (status.isascii() and status.isdigit() and len(status) < 10):
            raise checks.refused("status", status, "a status's number")
        status = int(status)
    if status is not None:
        checks.status("status", status)  # one, as there
    listing = _client(client).list_jobs(
        status=status,
        per_page=checks.whole("per_page", per_page, low=1, high=_MAX_PER_PAGE),
        page=page,
        sort_by=sort_by,
        order=order,
        search_content=search_content or None,
    )
    return await anext(listing.pages())


def _fields(job: Job) -> dict[str, Any]:
    fields = attrs.asdict(job) | {"status": int(job.status)} | dict(job.extra or {})
    fields["schedule"] = list(fields["schedule"]) or None
    return {name: value for name, value in fields.items() if name != "extra" and value is not None}
