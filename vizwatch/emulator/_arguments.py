"""The service's reading of queries and bodies: values within the documents' limits, or a refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from vizwatch.emulator import _refusals
from vizwatch.emulator._cloud import Listing, NewJob
from vizwatch.emulator._options import Options
from vizwatch.emulator._refusals import Refusal

SORT_KEYS: Final = ("job_id", "job_name", "job_desc", "create_time", "status")
JOB_TYPES: Final = ("tensorboard", "mindinsight")
_JOB_NAME: Final = re.compile(r"[0-9A-Za-z_-]{1,20}")
_WORKSPACE: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
_MAX_DESC: Final = 256
_MAX_URL: Final = 1_024
_MAX_HOURS: Final = 24
_MAX_PAGE: Final = 2**31 - 1
_JOB_ID: Final = re.compile(r"[0-9]{1,19}")


def job_id(value: str) -> int:
    """A job's id, as it stands in the path."""
    if not _JOB_ID.fullmatch(value):
        raise _refusals.invalid("The job id must be a number.")
    return int(value)


def listing(query: Mapping[str, str], options: Options) -> Listing:
    """The list's query; parameters that mean nothing here are ignored, as servers do."""
    sort_by = query.get("sortBy") or "job_id"
    if sort_by not in SORT_KEYS:
        raise _refusals.invalid(f"The sortBy should be one of {', '.join(SORT_KEYS)}")
    order = query.get("order") or "asc"
    if order not in {"asc", "desc"}:
        raise _refusals.invalid("The order should be asc or desc")
    search_content = query.get("search_content", "")
    if len(search_content) > options.search_limit:
        raise _refusals.invalid(f"The length of search content should be in [0,{options.search_limit}]")
    workspace_id = query.get("workspace_id") or "0"
    if not _WORKSPACE.fullmatch(workspace_id):
        raise _refusals.service(400, "0102", "The workspace does not exist.")
    return Listing(
        status=_status(query.get("status") or None),
        search_content=search_content,
        workspace_id=workspace_id,
        sort_by=sort_by,
        descending=order == "desc",
        page=_whole("page", query.get("page", "1"), _MAX_PAGE),
        per_page=_whole("per_page", query.get("per_page", "10"), options.per_page_limit),
    )


def _status(value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise _refusals.invalid("The status should be one job status code")
    return int(value)


def _whole(name: str, value: str, high: int) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", value) or not 1 <= int(value) <= high:
        raise _refusals.invalid(f"The {name} should be in [1,{high}]")
    return int(value)


def json_object(body: bytes, refuse: Callable[[str], Refusal] = _refusals.invalid) -> dict[str, Any]:
    """The body as a JSON object."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise refuse("The request body is not JSON.") from None
    if not isinstance(value, dict):
        raise refuse("The request body is not a JSON object.")
    return value


def description(body: bytes) -> str:
    """The one field of an update."""
    value = json_object(body).get("job_desc")
    if not isinstance(value, str):
        raise _refusals.invalid("The job_desc is required.")
    return _described(value, "0104")


def _described(value: object, code: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_DESC:
        raise _refusals.invalid(f"The length of job_desc should be in [0,{_MAX_DESC}]", code=code)
    return value


def new_job(body: bytes) -> NewJob:
    """The fields of a create; unknown ones are ignored, ``workspace_id`` is an extension of the emulator."""
    fields = {key: value for key, value in json_object(body).items() if value is not None}
    job_name, train_url = fields.get("job_name"), fields.get("train_url")
    if not isinstance(job_name, str) or not _JOB_NAME.fullmatch(job_name):
        raise _create("The job_name should be 1 to 20 of letters, digits, underscores and hyphens")
    if not isinstance(train_url, str) or not train_url.startswith("/") or len(train_url) > _MAX_URL:
        raise _create("The train_url should be an OBS path such as /obs/name/")
    job_type = fields.get("job_type", "tensorboard")
    # The documents' prose writes the types in mixed case.
    if not isinstance(job_type, str) or job_type.lower() not in JOB_TYPES:
        raise _create(f"The job_type should be one of {', '.join(JOB_TYPES)}")
    flavor = fields.get("flavor")
    if flavor is not None and not (isinstance(flavor, dict) and isinstance(flavor.get("code"), str)):
        raise _create("The flavor should have a code")
    workspace_id = fields.get("workspace_id", "0")
    if not isinstance(workspace_id, str) or not _WORKSPACE.fullmatch(workspace_id):
        raise _refusals.service(400, "0102", "The workspace does not exist.")
    return NewJob(
        job_name=job_name,
        job_desc=_described(fields.get("job_desc", ""), "0103"),
        train_url=train_url,
        job_type=job_type.lower(),
        workspace_id=workspace_id,
        auto_stop_hours=_auto_stop_hours(fields.get("schedule")),
    )


def _auto_stop_hours(schedule: object) -> int | None:
    """The schedule: an object by the documents' table, an array of one by every sample."""
    if schedule is None or schedule == []:
        return None
    if isinstance(schedule, list) and len(schedule) == 1:
        schedule = schedule[0]
    if not isinstance(schedule, dict) or schedule.get("type") != "stop":
        raise _create("The schedule should be one of type stop")
    if schedule.get("time_unit", schedule.get("timeUnit")) != "HOURS":
        raise _create("The time_unit of the schedule should be HOURS")
    hours = schedule.get("duration")
    if isinstance(hours, bool) or not isinstance(hours, int) or not 0 <= hours <= _MAX_HOURS:
        raise _create(f"The duration of the schedule should be in [0,{_MAX_HOURS}]")
    return hours


def _create(message: str) -> Refusal:
    return _refusals.invalid(message, code="0103")
