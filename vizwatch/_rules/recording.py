"""Takes what is somebody's own out of a real service's answers, so that they can be shown to others.

Kept are statuses, codes, types, the presence of fields, numbers and times. Every name, description, address
and id that is a string becomes a made-up one, the same for the same, and so do the project's id and whatever
looks like an id in a message.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import attrs

from vizwatch._values.exchange import Answer, Request
from vizwatch._values.text import printable, redacted

VERSION: Final = 1
ROWS_KEPT: Final = 5
"""How many jobs of a listing are kept; `jobs_answered` says how many there were."""

_MESSAGES: Final = frozenset({"error_message", "error_msg", "errorMsg", "message"})
_WORDS: Final = frozenset({"error_code", "errorCode", "code", "type", "time_unit", "timeUnit", "job_type"})
_NUMBERS: Final = frozenset({"job_id", "status", "create_time", "duration", "remaining_duration"})
_HEADERS: Final = frozenset(
    {"content-type", "retry-after", "x-ratelimit", "x-ratelimit-used", "x-ratelimit-window"}
)
_MADE_UP: Final = {"train_url": "/obs/train-{}/", "service_url": "https://scrubbed.example.com/{}/"}
_AN_ID: Final = re.compile(r"[0-9A-Fa-f-]{12,}")
_MAX_MESSAGE: Final = 500
_MAX_NAME: Final = 64
_MAX_DEPTH: Final = 20


@attrs.define
class Scrubber:
    """Scrubs the answers of one recording.

    Args:
        project_id: The project's id.
        names: Who asks, by any name that a message may have.
    """

    project_id: str
    names: Collection[str] = ()
    _made_up: dict[str, str] = attrs.field(factory=dict, init=False)
    _counts: dict[str, int] = attrs.field(factory=dict, init=False)

    def exchange(
        self, name: str, request: Request, answer: Answer, secrets: Collection[str]
    ) -> dict[str, Any]:
        """One question and its answer, as JSON.

        Args:
            name: What the question is called.
            request: The question.
            answer: Its answer, as it came.
            secrets: What was sent with it, and may not be shown.
        """
        unsaid = [*secrets, *self.names, self.project_id]
        document = _document(answer.body)
        return {
            "name": name,
            "method": request.method,
            "path": request.path.replace(self.project_id, "{project_id}"),
            "query": request.query,
            "status": answer.status,
            "headers": {
                _name(key, unsaid): self._text(value, unsaid) if key.lower() in _HEADERS else "***"
                for key, value in answer.headers.items()
            },
            "bytes": len(answer.body),
            "body": None if document is None else self._object(document, unsaid, _MAX_DEPTH),
        }

    def _object(self, given: Mapping[str, Any], unsaid: list[str], depth: int) -> dict[str, Any]:
        scrubbed: dict[str, Any] = {}
        for key, value in given.items():
            name = _name(key, unsaid)
            if name == "jobs" and isinstance(value, list):
                scrubbed["jobs_answered"] = len(value)
                value = value[:ROWS_KEPT]  # noqa: PLW2901 - the rest says nothing more
            scrubbed[name] = self._value(name, value, unsaid, depth - 1)
        return scrubbed

    def _value(self, key: str, value: Any, unsaid: list[str], depth: int) -> Any:
        match value:
            case dict() | list() if depth <= 0:
                return None
            case dict():
                return self._object(value, unsaid, depth)
            case list():
                return [self._value(key, one, unsaid, depth - 1) for one in value]
            case str() if key in _MESSAGES | _WORDS or (key in _NUMBERS and value.isdigit()):
                return self._text(value, unsaid)
            case str() if value:
                return self._pseudonym(key, value)
            case _:
                return value

    def _pseudonym(self, key: str, value: str) -> str:
        if value not in self._made_up:
            number = self._counts[key] = self._counts.get(key, 0) + 1
            form = _MADE_UP.get(key) or re.sub(r"\W", "", key, flags=re.ASCII) + "-{}"
            self._made_up[value] = form.format(number)
        return self._made_up[value]

    def _text(self, text: str, unsaid: list[str]) -> str:
        # Before it is cut: of what is cut, the rest would not be recognised.
        text = redacted(text, unsaid)[: 4 * _MAX_MESSAGE]
        for value, made_up in sorted(self._made_up.items(), key=lambda one: -len(one[0])):
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", made_up, text)
        return printable(_AN_ID.sub("***", text), _MAX_MESSAGE)


def recording(exchanges: list[dict[str, Any]], region: str | None, at: dt.datetime) -> dict[str, Any]:
    """The whole recording, as JSON; `region` only where it is one that everybody knows."""
    return {
        "vizwatch_recording": VERSION,
        "recorded_on": f"{at:%Y-%m-%d}",
        "region": region,
        "exchanges": exchanges,
    }


def listed_ids(answer: Answer) -> list[int]:
    """The ids of the jobs that an answer lists, as far as they can be read."""
    jobs = (_document(answer.body) or {}).get("jobs")
    ids = [str(job.get("job_id")) for job in jobs if isinstance(job, dict)] if isinstance(jobs, list) else []
    return [int(one) for one in ids if re.fullmatch(r"[0-9]{1,15}", one)]


def _name(key: str, unsaid: list[str]) -> str:
    return printable(redacted(key, unsaid), _MAX_NAME)


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
