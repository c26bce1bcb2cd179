"""A real service's ways, as ``vizwatch doctor --record`` found them, for what the documents leave open.

Taken over are the jobs that were listed, the fields that rows, details and envelope have and the types of
their values, the limits of ``per_page`` and ``search_content``, and how a missing job and a page past the end
are answered. Whatever a recording does not show stays as the options say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from vizwatch import ConfigError
from vizwatch.emulator import _checks
from vizwatch.emulator._refusals import Answer

_MAX_FILE: Final = 2**20
VERSION: Final = 1
_OLD_LIMITS: Final = {"per_page_limit": 100, "search_limit": 64}
_NEW_LIMITS: Final = {"per_page_limit": 1_000, "search_limit": 100}
_ASKED_FOR: Final = {
    "per_page 1000": "per_page_limit",
    "search_content of 100 characters": "search_limit",
}
_LIST: Final = "list"
_DETAILS: Final = "details of a listed job"
_MISSING: Final = "missing job"
_PAST_THE_END: Final = "page past the end"
QUESTIONS: Final = (*_ASKED_FOR, _LIST, _DETAILS, _MISSING, _PAST_THE_END)
"""The names of the exchanges that say something."""
BESIDE: Final = "jobs_answered"
"""What stands in a recorded body that the service did not send."""
_ONLY_IF_THERE: Final = frozenset({"schedule"})
_OF_A_PARAMETER: Final = frozenset(
    {None, *(f"ModelArts.{code}" for code in ("0101", "0103", "0104", "0107"))}
)


@attrs.frozen
class Exchange:
    """One question's answer."""

    path: str
    status: int
    body: Mapping[str, Any]

    @property
    def succeeded(self) -> bool:
        """Whether it was answered with what was asked for."""
        refused = self.body.get("is_success") is False or "error_code" in self.body
        return 200 <= self.status < 300 and not refused

    @property
    def blames_a_parameter(self) -> bool:
        """Whether it was refused for what was asked for, and not for who asked, or how often."""
        return (
            not self.succeeded
            and self.status in {200, 400}
            and self.body.get("error_code") in _OF_A_PARAMETER
        )


@attrs.frozen
class Recording:
    """What a recording says; nothing, if there is none."""

    exchanges: Mapping[str, Exchange] = attrs.field(factory=dict)

    def _answered(self, name: str) -> Exchange | None:
        found = self.exchanges.get(name)
        return found if found is not None and found.succeeded else None

    def _refused(self, name: str) -> Exchange | None:
        found = self.exchanges.get(name)
        return None if found is None or found.succeeded else found

    @property
    def options(self) -> dict[str, int]:
        """What it says of the emulator's options."""
        options: dict[str, int] = {}
        for name, option in _ASKED_FOR.items():
            found = self.exchanges.get(name)
            if found is not None and found.blames_a_parameter:
                options[option] = _OLD_LIMITS[option]
                options["refusal_status"] = found.status
            elif found is not None and found.succeeded:
                options[option] = _NEW_LIMITS[option]
        return options

    @property
    def jobs(self) -> list[Mapping[str, Any]]:
        """The jobs that were listed, those with an id and a status, in the order of their ids."""
        found: dict[int, Mapping[str, Any]] = {}
        for exchange in self.exchanges.values():
            for row in _rows(exchange.body):
                job_id, status = whole(row.get("job_id")), whole(row.get("status"))
                if job_id is not None and status is not None:
                    found[job_id] = {**row, "job_id": job_id, "status": status}
        return [found[job_id] for job_id in sorted(found)]

    def row(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A listed job's fields, as a listing of the recorded service has them."""
        listed = self._answered(_LIST)
        return _like(next(iter(_rows(listed.body)), None) if listed else None, fields)

    def details(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A job's details, as the recorded service answers them."""
        found = self._answered(_DETAILS)
        return _like(None if found is None else found.body, fields)

    def envelope(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A listing's own fields, as the recorded service has them."""
        listed = self._answered(_LIST)
        if listed is None:
            return fields
        return {name: fields.get(name, value) for name, value in listed.body.items()}

    def past_the_end(self, fields: dict[str, Any]) -> Answer | None:
        """The answer to a page past the end; ``None``: an empty page like any other."""
        refused = self._refused(_PAST_THE_END)
        if refused is not None:
            return Answer(status=refused.status, body=refused.body)
        found = self._answered(_PAST_THE_END)
        if found is None or _rows(found.body):
            return None
        body = {
            name: value if name == "jobs" else fields.get(name, value) for name, value in found.body.items()
        }
        return Answer(status=found.status, body=body)

    def missing(self, job_id: int) -> Answer | None:
        """The answer to a question for a job that is not there; ``None``: as the documents have it."""
        refused = self._refused(_MISSING)
        if refused is None:
            return None
        asked_for = refused.path.rpartition("/")[2]
        text = json.dumps(dict(refused.body))
        if asked_for.isdigit():
            text = re.sub(rf"(?<!\d){asked_for}(?!\d)", str(job_id), text)
        return Answer(status=refused.status, body=json.loads(text))


def _like(example: Mapping[str, Any] | None, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that the example has, each in the example's form; what it alone has, as it is there."""
    if example is None:
        return fields
    names = [name for name in example if name in fields or name not in _ONLY_IF_THERE]
    names += [name for name in fields if name in _ONLY_IF_THERE and name not in example]
    return {name: _in_the_form_of(example.get(name), fields.get(name, example.get(name))) for name in names}


def _in_the_form_of(example: Any, value: Any) -> Any:
    if isinstance(example, str) and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list) and isinstance(example, list | dict) and example:
        first = example if isinstance(example, dict) else example[0]
        unit = "time_unit" if isinstance(first, dict) and "time_unit" in first else "timeUnit"
        named = [{unit if key == "timeUnit" else key: part for key, part in one.items()} for one in value]
        return named if isinstance(example, list) else named[0]
    return value


def _rows(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    jobs = body.get("jobs")
    return [row for row in jobs if isinstance(row, dict)] if isinstance(jobs, list) else []


def whole(value: object) -> int | None:
    """A number, also one in a string; ``None`` for anything else."""
    text = str(value)
    return int(text) if not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,15}", text) else None


def read(value: Any) -> Recording:
    """A recording, from its file or its JSON; raises ``ConfigError`` saying what is wrong with it."""
    if value is None or isinstance(value, Recording):
        return value or Recording()
    if isinstance(value, str | Path):
        value = _in_file(Path(value))
    if not isinstance(value, Mapping) or value.get("vizwatch_recording") != VERSION:
        raise ConfigError(f"recording must be one of `vizwatch doctor --record`, of version {VERSION}")
    exchanges = value.get("exchanges")
    if not isinstance(exchanges, Sequence) or isinstance(exchanges, str):
        raise ConfigError("recording must have its exchanges as an array")
    return Recording(dict(_exchange(number, one) for number, one in enumerate(exchanges)))


def _exchange(number: int, given: Any) -> tuple[str, Exchange]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"recording: exchanges[{number}] must be an object")
    body = given.get("body")
    if body is not None and not isinstance(body, dict):
        raise ConfigError(f"recording: exchanges[{number}].body must be an object or null")
    status = _checks.whole(f"exchanges[{number}].status", given.get("status"), low=100, high=999)
    name = _checks.text(f"exchanges[{number}].name", given.get("name"), high=200)
    path = _checks.text(f"exchanges[{number}].path", given.get("path"), high=1_000)
    # What the service sent, without what the recording says beside it.
    sent = {key: value for key, value in (body or {}).items() if key != BESIDE}
    return name, Exchange(path, status, sent)


def _in_file(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except (OSError, ValueError) as error:  # the latter for a path with a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"recording cannot be read: {reason}") from None
    if len(content) > _MAX_FILE:
        raise ConfigError(f"recording must be a file of at most {_MAX_FILE} bytes")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise ConfigError("recording must be a file of JSON") from None
