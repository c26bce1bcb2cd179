"""Requests as the documents describe them, and what a refusal means."""

from __future__ import annotations

import datetime as dt
import email.utils
import ipaddress
import json
import math
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final, Protocol

import attrs

from vizwatch._values import checks
from vizwatch._values.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ClockSkewError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServerError,
    WrongEndpointError,
)
from vizwatch._values.exchange import CLOCKS_DIFFER, Answer, Failure, Operation, Request
from vizwatch._values.secrets import Secret, SecretBytes
from vizwatch._values.statuses import JobStatus

SORT_KEYS: Final = ("job_id", "job_name", "job_desc", "create_time", "status")
ORDERS: Final = ("asc", "desc")
JOB_TYPES: Final = ("tensorboard", "mindinsight")
DEFAULT_WORKSPACE: Final = "0"
"""The workspace that a listing shows if none is named, as all documents of it say."""
MAX_PER_PAGE: Final = 1000
MAX_MESSAGE: Final = 500


def endpoint(
    value: object, *, name: str = "endpoint", like: str = "modelarts", allow_insecure: bool = False
) -> str:
    """An endpoint's address, ``https://host[:port]``, without a trailing slash.

    Args:
        value: The address.
        name: What it is called, for errors.
        like: The service whose address is shown as an example.
        allow_insecure: Whether `http` is allowed to any host.

    Raises:
        ConfigError: It has a path, query or user, or is ``http`` to a host that is not loopback.
    """
    allowed = f"an address such as https://{like}.eu-de.otc.t-systems.com"
    if not isinstance(value, str):
        raise checks.refused(name, value, allowed)
    if any(one in value for one in "@?#"):
        raise checks.refused(name, "(not shown)", f"{allowed}, without user and password, query and fragment")
    if len(value) > 300 or not re.fullmatch(r"[a-z]+://[!-~]+", value, re.IGNORECASE):
        # It may be a secret that was given in the address's place.
        raise checks.refused(name, "(not shown)", allowed)
    try:
        parts = urllib.parse.urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise checks.refused(name, value, allowed) from None
    if parts.scheme not in {"http", "https"} or not host or not _is_host(host):
        raise checks.refused(name, value, allowed)
    if parts.path not in {"", "/"}:
        raise checks.refused(name, value, f"{allowed}, without path")
    if parts.scheme == "http" and not allow_insecure and not _is_loopback(host):
        raise checks.refused(
            name, value, "https, since http carries the token in the clear (or set allow_insecure)"
        )
    authority = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{authority}" + (f":{port}" if port is not None else "")


def _is_host(host: str) -> bool:
    if ":" in host:
        return True  # an IPv6 address, which urlsplit has checked
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(re.fullmatch(r"[0-9a-z_-]{1,63}", label) for label in labels)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@attrs.frozen
class Query:
    """What one listing shows, and in which order."""

    status: JobStatus | None
    search_content: str | None
    sort_by: str
    order: str
    workspace_id: str | None


def query(
    *,
    status: object = None,
    search_content: object = None,
    sort_by: object = "job_id",
    order: object = "asc",
    workspace_id: object = None,
) -> Query:
    """A listing's query, ``None`` for what it leaves to the service.

    Raises:
        ConfigError: A parameter is outside the limits that the documents give.
    """
    return Query(
        None if status is None else checks.status("status", status),
        None if search_content is None else checks.text("search_content", search_content, high=100),
        checks.choice("sort_by", sort_by, SORT_KEYS),
        checks.choice("order", order, ORDERS),
        None if workspace_id is None else checks.identifier("workspace_id", workspace_id),
    )


def list_jobs(project_id: str, query: Query, *, page: int, per_page: int) -> Request:
    """``GET /v1/{project_id}/visualization-jobs``: one page of the listing."""
    given: dict[str, object] = {
        "per_page": per_page,
        "page": page,
        "sortBy": query.sort_by,
        "order": query.order,
    }
    optional = {
        "status": None if query.status is None else int(query.status),
        "search_content": query.search_content,
        "workspace_id": query.workspace_id,
    }
    given.update({name: value for name, value in optional.items() if value is not None})
    # Sorted, since a signature is over the sorted query, and the gateway checks it over the one sent.
    encoded = urllib.parse.urlencode(sorted(given.items()), quote_via=urllib.parse.quote, safe="")
    return Request(Operation.LIST, "GET", _jobs_path(project_id), encoded)


def get_job(project_id: str, job_id: int) -> Request:
    """``GET …/{job_id}``: the job's details."""
    return Request(Operation.GET, "GET", f"{_jobs_path(project_id)}/{job_id:d}")


def create_job(
    project_id: str,
    job_name: object,
    train_url: object,
    *,
    job_desc: object = None,
    job_type: object = None,
    flavor: object = None,
    auto_stop_hours: object = None,
    workspace_id: str | None = None,
) -> Request:
    """``POST …``: the schedule is sent as the samples send it, an array of one.

    Raises:
        ConfigError: A parameter is outside the limits that the documents give.
    """
    if not isinstance(job_name, str) or not re.fullmatch(r"[0-9A-Za-z_-]{1,20}", job_name):
        raise checks.refused("job_name", job_name, "1 to 20 of the characters 0-9 A-Z a-z _ -")
    body: dict[str, Any] = {
        "job_name": job_name,
        "train_url": checks.text("train_url", train_url, low=1, high=1024),
    }
    if job_desc is not None:
        body["job_desc"] = checks.text("job_desc", job_desc, high=256)
    if job_type is not None:
        body["job_type"] = checks.choice("job_type", job_type, JOB_TYPES)
    if flavor is not None:
        body["flavor"] = {"code": checks.text("flavor", flavor, low=1, high=128)}
    if auto_stop_hours is not None:
        hours = checks.whole("auto_stop_hours", auto_stop_hours, low=0, high=24)
        body["schedule"] = [{"type": "stop", "time_unit": "HOURS", "duration": hours}]
    if workspace_id is not None:
        body["workspace_id"] = workspace_id
    return Request(Operation.CREATE, "POST", _jobs_path(project_id), body=_json(body))


def update_job(project_id: str, job_id: int, job_desc: object) -> Request:
    """``PUT …/{job_id}``: a new description."""
    body = _json({"job_desc": checks.text("job_desc", job_desc, high=256)})
    return Request(Operation.UPDATE, "PUT", f"{_jobs_path(project_id)}/{job_id:d}", body=body)


def stop_job(project_id: str, job_id: int) -> Request:
    """``POST …/{job_id}/stop``."""
    return Request(Operation.STOP, "POST", f"{_jobs_path(project_id)}/{job_id:d}/stop")


def restart_job(project_id: str, job_id: int) -> Request:
    """``POST …/{job_id}/restart``."""
    return Request(Operation.RESTART, "POST", f"{_jobs_path(project_id)}/{job_id:d}/restart")


def delete_job(project_id: str, job_id: int) -> Request:
    """``DELETE …/{job_id}``."""
    return Request(Operation.DELETE, "DELETE", f"{_jobs_path(project_id)}/{job_id:d}")


def get_token(
    username: str, password: Secret, domain_name: str, *, project_name: str | None, project_id: str | None
) -> Request:
    """``POST /v3/auth/tokens``: a token that is scoped to one project. Source: the publishers' IAM pages."""
    user = {"name": username, "password": password, "domain": {"name": domain_name}}
    project = {"name": project_name} if project_id is None else {"id": project_id}
    body = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }
    }
    # An answer may repeat the body in any encoding, which changes the odd characters alone.
    parts = map(Secret, re.findall(r"\w+", password))
    return Request(
        Operation.TOKEN, "POST", "/v3/auth/tokens", body=SecretBytes(_json(body)), secrets=(password, *parts)
    )


def _jobs_path(project_id: str) -> str:
    return f"/v1/{project_id}/visualization-jobs"


_JOBS: Final = _jobs_path("{project_id}")
ROUTES: Final[Mapping[Operation, str]] = {
    Operation.LIST: _JOBS,
    Operation.CREATE: _JOBS,
    **dict.fromkeys((Operation.GET, Operation.UPDATE, Operation.DELETE), f"{_JOBS}/{{job_id}}"),
    Operation.STOP: f"{_JOBS}/{{job_id}}/stop",
    Operation.RESTART: f"{_JOBS}/{{job_id}}/restart",
    Operation.TOKEN: "/v3/auth/tokens",
}
"""The paths of the requests above, with names in the places of the ids."""


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


# What stands for the HTTP status where the service refuses in a body alone, with HTTP 200.
_DOCUMENTED_STATUS: Final[Mapping[str, int]] = {
    "ModelArts.0010": 500,
    "ModelArts.0015": 404,
    "ModelArts.0108": 403,
    "ModelArts.0109": 500,
    "ModelArts.0112": 403,
    **dict.fromkeys((f"ModelArts.02{n:02}" for n in (1, 2, 3, 5, 6, 7, 8, 9, 12)), 401),
    "ModelArts.2786": 404,
    **dict.fromkeys(("ModelArts.2799", "ModelArts.4206", "ModelArts.6101", "APIGW.0308"), 429),
    **dict.fromkeys(("ModelArts.4205", "ModelArts.6100"), 408),
    **dict.fromkeys(("ModelArts.4302", "ModelArts.4700"), 503),
    "ModelArts.4503": 504,
    "APIGW.0101": 404,
    "APIGW.0301": 401,
}

# One code stands at several HTTP statuses, so that neither says enough alone.
_BY_STATUS_AND_CODE: Final[Mapping[tuple[int, str], type[ApiError]]] = {
    (400, "ModelArts.0204"): WrongEndpointError,  # the token has no project
    (400, "ModelArts.0210"): WrongEndpointError,  # project of URL and token differ
    (401, "ModelArts.0112"): PermissionDeniedError,
    (403, "ModelArts.0203"): AuthenticationError,
    (403, "ModelArts.0206"): AuthenticationError,
    (403, "ModelArts.0210"): WrongEndpointError,
    (404, "ModelArts.2786"): WrongEndpointError,
    (404, "APIGW.0101"): WrongEndpointError,
    (500, "ModelArts.0109"): PermissionDeniedError,
}

_BY_STATUS: Final[Mapping[int, type[ApiError]]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: ServerError,
    409: ConflictError,
    429: RateLimitError,
}


def classify(http_status: int, error_code: str | None) -> type[ApiError]:
    """Which error an HTTP status and a service code mean together. Source: the publishers' error codes."""
    if error_code == "ModelArts.0105":
        return ConflictError
    if http_status < 400:
        http_status = _DOCUMENTED_STATUS.get(error_code or "", 400)
    exact = _BY_STATUS_AND_CODE.get((http_status, error_code or ""))
    return exact or _BY_STATUS.get(http_status) or (ServerError if http_status >= 500 else BadRequestError)


class Clean(Protocol):
    """Makes text of the server's fit to show: without secrets, printable, and cut to a length."""

    def __call__(self, text: str, limit: int, /) -> str:
        """The text, made fit."""
        ...


_PARAMETER_CODES: Final = frozenset(
    {None, *(f"ModelArts.{code}" for code in ("0101", "0103", "0104", "0107"))}
)


def blames_a_parameter(error: ApiError) -> bool:
    """Whether a refusal may be for a parameter that is beyond the service's limits."""
    return (
        isinstance(error, BadRequestError)
        and error.http_status in {200, 400}
        and error.error_code in _PARAMETER_CODES
    )


def refusal(operation: Operation, answer: Answer, failure: Failure, clean: Clean) -> ApiError:
    """The error that an answer stands for, with everything the reader needs next."""
    request_id = answer.headers.get("X-request-id") or failure.request_id
    error = classify(answer.status, failure.error_code)(
        clean(failure.message, MAX_MESSAGE),
        http_status=answer.status,
        error_code=failure.error_code and clean(failure.error_code, 64),
        request_id=request_id and clean(request_id, 64),
        retry_after=retry_after(answer.headers),
        operation=operation.value,
    )
    if operation is Operation.TOKEN and isinstance(error, AuthenticationError):
        error.hint = "Check the user's name, password and domain: what was refused is not sent again."
    if isinstance(error, RateLimitError):
        error.allowed_rate = allowed_rate(answer.headers)
    if isinstance(error, ServerError | RateLimitError) and error.retry_after is not None:
        error.hint = error.hint_after.format(math.ceil(error.retry_after))
    if failure.error_code == "APIGW.0101":
        error.hint = "This API is not, or no longer, offered at this endpoint: check the endpoint's region."
    elif answer.status in _TOO_LARGE:
        error.hint, error.retryable = _TOO_LARGE[answer.status], False
    if isinstance(error, ConflictError):
        error.status = _status_told(failure.message)
    return error


_HEADERS_TOO_LARGE: Final = (
    "A gateway's limit of the request's headers is exceeded, and most of them is the token: get a shorter "
    "one (scoped to this project alone, without the catalog), or sign with AkSkAuth."
)
_TOO_LARGE: Final[Mapping[int, str]] = {
    413: "A gateway's limit of the request's body is exceeded: give a shorter job_desc or train_url.",
    414: "A gateway's limit of the address is exceeded: give a shorter search_content.",
    431: _HEADERS_TOO_LARGE,
    494: _HEADERS_TOO_LARGE,
}
"""What a gateway finds too large, by its HTTP status; 494 is nginx's own."""


def _status_told(text: str) -> JobStatus | None:
    """The job's status, where the text of a conflict tells it, as those of the documents' samples do."""
    told = re.search(r"job status: *([0-9]{1,9})(?![0-9])", text)
    return JobStatus(int(told[1])) if told else None


def is_foreign(answer: Answer) -> bool:
    """Whether an answer is somebody else's: a redirect, or a web page where this API would send JSON.

    A gateway's page with an HTTP status of failure is taken by that status.
    """
    if 300 <= answer.status < 400:
        return True
    is_page = answer.body.lstrip()[:1] == b"<" or "html" in answer.headers.get("Content-Type", "").lower()
    return is_page and answer.is_success


def not_this_api(operation: Operation, answer: Answer, clean: Clean) -> ProtocolError:
    """The error for a foreign answer; of a redirect's target it names the host alone."""
    if 300 <= answer.status < 400:
        host = clean(_host(answer.headers.get("Location", "")), 100)
        return ProtocolError(
            f"{operation.value}: HTTP {answer.status}: redirected to {host}, which is not followed. "
            "Give the right address as endpoint.",
            http_status=answer.status,
        )
    start = clean(answer.body.decode("utf-8", "replace"), 200) or "an empty body"
    kind = clean(answer.headers.get("Content-Type", "no type"), 40)
    return ProtocolError(
        f"{operation.value}: HTTP {answer.status}: not this API's JSON but {kind}: {start}. "
        "Check the endpoint, and whether a proxy or a login page stands before it.",
        http_status=answer.status,
    )


def _host(location: str) -> str:
    try:
        return urllib.parse.urlsplit(location).hostname or "the same host"
    except ValueError:
        return "an address that cannot be read"


_ALLOWED_SKEW: Final = CLOCKS_DIFFER.total_seconds()


def clock_skew(signed_at: str, answer: Answer, message: str) -> float | None:
    """How many seconds this machine's clock is ahead of the service's, where that explains a refusal.

    Args:
        signed_at: The `X-Sdk-Date` that was refused.
        answer: Whose `Date` says what time it is there.
        message: The refusal's text, which says it too.
    """
    told = re.search(r"server time: ?([0-9]{8}T[0-9]{6}Z)", message)
    try:
        there = _stamp(told[1]) if told else email.utils.parsedate_to_datetime(answer.headers.get("Date", ""))
        skew = (_stamp(signed_at) - there).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return skew if abs(skew) > _ALLOWED_SKEW else None


def _stamp(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)


def skewed(error: ApiError, skew: float) -> ClockSkewError:
    """The refusal of a signature whose time is off, in place of the service's own."""
    ahead = "ahead of" if skew > 0 else "behind"
    told = ClockSkewError(
        error.message,
        http_status=error.http_status,
        error_code=error.error_code,
        request_id=error.request_id,
        operation=error.operation,
    )
    off = f"{abs(skew):.0f} s {ahead} the service's"
    told.hint = f"This machine's clock is {off}, and {_ALLOWED_SKEW:.0f} s are allowed: set the clock."
    return told


_FAR: Final = 1e9


def retry_after(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds, 0 to 1e9, or ``None`` where it is missing or cannot be read.

    A date is taken relative to the answer's own ``Date``, so that no clock of ours matters.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+", value):
        return min(float(value[-12:]), _FAR) if len(value.lstrip("0")) <= 9 else _FAR
    try:
        until = email.utils.parsedate_to_datetime(value)
        now = email.utils.parsedate_to_datetime(headers.get("Date", ""))
        return min(max((until - now).total_seconds(), 0.0), _FAR)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def allowed_rate(headers: Mapping[str, str]) -> float | None:
    """Requests a second by `X-ratelimit` and `X-ratelimit-window`; ``None`` where these cannot be read.

    No document gives the window's unit, which is taken as seconds: another one would only allow more.
    """
    limit, window = (headers.get(name, "") for name in ("X-ratelimit", "X-ratelimit-window"))
    if not re.fullmatch(r"[0-9]{1,9}", limit) or not re.fullmatch(r"[0-9]{1,9}", window):
        return None
    return int(limit) / int(window) if int(limit) and int(window) else None
