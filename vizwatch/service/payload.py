"""Jobs and transitions as JSON: what the command line prints for machines, and what every sink gets."""

from __future__ import annotations

import datetime as dt
import enum
import json
from collections.abc import Mapping
from typing import Any

import attrs

from vizwatch import Job, JobStatus, Transition


def job_fields(job: Job) -> dict[str, Any]:
    """The job as JSON: its own fields, and `status_name` and `created_at` beside them."""
    fields = attrs.asdict(job, recurse=False, value_serializer=_plain)
    fields["schedule"] = [attrs.asdict(schedule) for schedule in job.schedule]
    return {**fields, "status_name": job.status.name, "created_at": _iso(job.created_at)}


def transition_fields(transition: Transition) -> dict[str, Any]:
    """The transition as JSON: its own fields, and `previous_name` and `current_name` beside them."""
    fields = attrs.asdict(transition, recurse=False, value_serializer=_plain)
    return {
        **fields,
        "previous_name": _name(transition.previous),
        "current_name": _name(transition.current),
        "job": job_fields(transition.job),
    }


def merged(first: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """One transition, as JSON, for the first and the last of several of one job.

    It goes from the status before the first to the status after the last, and `skipped` grows by all that it
    leaves out. One that leads back to where it began stays: its receiver learns that the job went and came.
    """
    return {
        **last,
        "previous": first["previous"],
        "previous_name": first["previous_name"],
        "not_before": first["not_before"],
        "gap": first["gap"] or last["gap"],
        "skipped": first["skipped"] + last["skipped"] + 1,
    }


def json_line(fields: Mapping[str, Any]) -> str:
    """The JSON object in one line; in ASCII, so that control characters are escaped."""
    return json.dumps(fields, ensure_ascii=True, separators=(", ", ": "))


def _plain(_: object, __: object, value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return int(value) if isinstance(value, enum.IntEnum) else value


def _iso(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _name(status: JobStatus | None) -> str | None:
    return None if status is None else status.name
