"""Takes what is somebody's own out of a real service's answers, so that they can be shown to others.

Kept are HTTP statuses, the names of fields in the objects that the documents describe, true, false, null,
numbers and times, the latter also where fields of the documents have them as strings. Every other string is
replaced by a made-up one, the same for the same, and so is the name of a field in any other object.

In the texts of failures, in codes, units and some headers, the made-up ones stand for those strings. Of the
rest, numbers and the words of a list stay; any other word becomes ``***``, and so does what looks like an id
or a host's address.
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

_OBJECTS: Final = frozenset({"jobs", "schedule", "flavor", "error"})
"""What the documents describe, beside the answer itself."""
_TEXTS: Final = frozenset(
    {
        *("error_message", "error_msg", "errorMsg", "message", "error_code", "errorCode"),
        *("type", "time_unit", "timeUnit", "job_type"),
    }
)
_NUMBERS: Final = frozenset(
    {
        *("job_id", "status", "create_time", "duration", "remaining_duration"),
        *("job_total_count", "job_count_limit", "quotas"),
    }
)
_HEADERS: Final = frozenset(
    {"content-type", "retry-after", "x-ratelimit", "x-ratelimit-used", "x-ratelimit-window"}
)
_MADE_UP: Final = {"train_url": "/obs/train-{}/", "service_url": "https://scrubbed.example.com/{}/"}
_FIELD: Final = re.compile(r"[A-Za-z][0-9A-Za-z_]{0,63}")
_AN_ID: Final = re.compile(r"[0-9A-Fa-f-]{12,}|[0-9]+(?:[.:][0-9]+){3}")
_PART: Final = r"\w+(?:[-.:/@'+\\%]+\w+)*"
_MAX_MESSAGE: Final = 500
_MAX_NAME: Final = 64
_MAX_DEPTH: Final = 20

# Any other word may be somebody's name.
_LISTED: Final = """
a about access account all allow allowed already an and another any api apigw are argument as asc at auth
authenticate authenticated authentication authorization authorize authorized backend bad be because been
before being body both busy but by can can't cannot canonicalrequest character characters check client
cloud code completed conflict connection contain contains content count create created creating credential
credentials current day default delete deleted deleting denied desc description details digits do does
doesn't domain don't duplicate duration empty endpoint enter environment err error exceed exceeded exceeds
exist existed exists expected expire expired expires fail failed failure false flavor for forbidden format
found from gateway get given gmt greater has have header host hour hours http https iam id if in incorrect
information init integer internal invalid is it its job jobs json key killed killing large least length
less limit limits list logs long match maximum may message method mindinsight minimum minute minutes
missing modelarts more must name names no not null number obs of on one only operation or order other out
page parameter parameters password path per permission permissions please project published query quota
quotas rate ratelimit read refused region remain remaining request requests required resource resources
response restart restarted resubmit retry running s scaling schedule search second seconds secret see
server service services set short should signature size sort sortby space specified start state status
stop string success supported tensorboard than that the there this time timeout times to token too total
train type unable unauthenticated unauthorized unavailable under unit unknown unsupported up update
updated upper url use used user utf valid value version visualization wait waiting was when which while
will with within workspace wrong you your application charset html plain text mon tue wed thu fri sat sun
jan feb mar apr jun jul aug sep oct nov dec
"""
_WORDS: Final = frozenset(_LISTED.split())


@attrs.define
class Scrubber:
    """Scrubs the answers of one recording.

    Args:
        project_id: The project's id.
    """

    project_id: str
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
        unsaid = [*secrets, self.project_id]
        document = _document(answer.body)
        return {
            "name": name,
            "method": request.method,
            "path": request.path.replace(self.project_id, "{project_id}"),
            "query": re.sub(r"(?<=workspace_id=)[^&]+", "{workspace_id}", request.query),
            "status": answer.status,
            "headers": {
                printable(redacted(key, unsaid), _MAX_NAME): self._text(value, unsaid)
                if key.lower() in _HEADERS
                else "***"
                for key, value in answer.headers.items()
            },
            "bytes": len(answer.body),
            "body": None if document is None else self._object("", document, unsaid, _MAX_DEPTH),
        }

    def _object(self, place: str, given: Mapping[str, Any], unsaid: list[str], depth: int) -> dict[str, Any]:
        scrubbed: dict[str, Any] = {}
        for key, value in given.items():
            name = key if self._is_a_field(place, key, unsaid) else self._pseudonym("field", key)
            if name == "jobs" and isinstance(value, list):
                scrubbed["jobs_answered"] = len(value)
                value = value[:ROWS_KEPT]  # noqa: PLW2901 - the rest says nothing more
            scrubbed[name] = self._value(place, name, value, unsaid, depth - 1)
        return scrubbed

    def _is_a_field(self, place: str, key: str, unsaid: list[str]) -> bool:
        described = (not place or place in _OBJECTS) and _FIELD.fullmatch(key) is not None
        return (described or key.lower() in _WORDS) and redacted(key, unsaid) == key

    def _value(self, place: str, key: str, value: Any, unsaid: list[str], depth: int) -> Any:
        match value:
            case dict() | list() if depth <= 0:
                return None
            case dict():
                return self._object(key, value, unsaid, depth)
            case list():
                return [self._value(place, key, one, unsaid, depth - 1) for one in value]
            case str() if key in _NUMBERS and _is_number(value):
                return value
            case str() if key in _TEXTS or (key == "code" and place in {"", "error"}):
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
        longest_first = sorted(self._made_up, key=len, reverse=True)
        either = [*(rf"(?<!\w){re.escape(one)}(?!\w)" for one in longest_first), _PART]
        return printable(re.sub("|".join(either), self._said, text), _MAX_MESSAGE)

    def _said(self, found: re.Match[str]) -> str:
        text = found[0]
        if _is_plain(text):  # even where a job is called so: the text hardly means that one
            return text
        return self._made_up.get(text) or (text if _is_made_of_plain(text) else "***")


def _is_plain(text: str) -> bool:
    """Whether it is a listed word, or a number that is no id."""
    return text.lower() in _WORDS or (_is_number(text) and not _AN_ID.search(text))


def _is_made_of_plain(token: str) -> bool:
    return not _AN_ID.search(token) and all(map(_is_plain, re.split(r"[\W_]+", token)))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


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


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
