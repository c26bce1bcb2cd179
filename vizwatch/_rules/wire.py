"""Requests as the documents describe them, and what a refusal means."""

from __future__ import annotations

import email.utils
import ipaddress
import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

from vizwatch._values import checks
from vizwatch._values.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServerError,
    WrongEndpointError,
)
from vizwatch._values.exchange import Answer, Failure, Operation, Request
from vizwatch._values.statuses import JobStatus
from vizwatch._values.text import printable

SORT_KEYS: Final = ("job_id", "job_name", "job_desc", "create_time", "status")
ORDERS: Final = ("asc", "desc")
JOB_TYPES: Final = ("tensorboard", "mindinsight")
MAX_PER_PAGE: Final = 1000
MAX_MESSAGE: Final = 500


def endpoint(value: object, *, allow_insecure: bool = False) -> str:
    """An endpoint's address, ``https://host[:port]``, without a trailing slash.

    Raises:
        ConfigError: It has a path, query or user, or is ``http`` to a host that is not loopback.
    """
    allowed = "an address such as https://modelarts.eu-de.otc.t-systems.com"
    if not isinstance(value, str) or len(value) > 300 or not re.fullmatch(r"[!-~]+", value):
        raise checks.refused("endpoint", "(not shown)" if isinstance(value, str) else value, allowed)
    try:
        parts = urllib.parse.urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise checks.refused("endpoint", value, allowed) from None
    if parts.username is not None or parts.password is not None:
        raise checks.refused("endpoint", "(not shown)", f"{allowed}, without user and password")
    if parts.scheme not in {"http", "https"} or not host:
        raise checks.refused("endpoint", value, allowed)
    if parts.path not in {"", "/"} or parts.query or parts.fragment or "?" in value or "#" in value:
        raise checks.refused("endpoint", value, f"{allowed}, without path, query and fragment")
    if parts.scheme == "http" and not allow_insecure and not _is_loopback(host):
        raise checks.refused(
            "endpoint", value, "https, since http carries the token in the clear (or set allow_insecure)"
        )
    authority = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{authority}" + (f":{port}" if port is not None else "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def list_jobs(
    project_id: str,
    *,
    status: JobStatus | None = None,
    search_content: str | None = None,
    sort_by: str = "job_id",
    order: str = "asc",
    workspace_id: str | None = None,
    per_page: int = MAX_PER_PAGE,
    page: int = 1,
) -> Request:
    """``GET /v1/{project_id}/visualization-jobs``: one page of the listing."""
    query: dict[str, object] = {"per_page": per_page, "page": page, "sortBy": sort_by, "order": order}
    optional = {
        "status": None if status is None else int(status),
        "search_content": search_content,
        "workspace_id": workspace_id,
    }
    query.update({name: value for name, value in optional.items() if value is not None})
    encoded = urllib.parse.urlencode(query, quote_via=urllib.parse.quote, safe="")
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


def _jobs_path(project_id: str) -> str:
    return f"/v1/{project_id}/visualization-jobs"


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


def refusal(operation: Operation, answer: Answer, failure: Failure) -> ApiError:
    """The error that an answer stands for, with everything the reader needs next."""
    request_id = answer.headers.get("X-request-id") or failure.request_id
    error = classify(answer.status, failure.error_code)(
        printable(failure.message, MAX_MESSAGE),
        http_status=answer.status,
        error_code=failure.error_code,
        request_id=None if request_id is None else printable(request_id, 64),
        retry_after=retry_after(answer.headers),
        operation=operation.value,
    )
    if failure.error_code == "APIGW.0101":
        error.hint = "This API is not, or no longer, offered at this endpoint: check the endpoint's region."
    return error


def is_foreign(answer: Answer) -> bool:
    """Whether an answer is somebody else's: a redirect, or a web page where this API would send JSON.

    A gateway's page is taken as an error by its HTTP status, but for 404: from a page it does not say that a
    job is gone.
    """
    if 300 <= answer.status < 400:
        return True
    is_page = answer.body.lstrip()[:1] == b"<" or "html" in answer.headers.get("Content-Type", "").lower()
    return is_page and (answer.is_success or answer.status == 404)


def not_this_api(operation: Operation, answer: Answer) -> ProtocolError:
    """The error for a foreign answer; of a redirect's target it names the host alone."""
    if 300 <= answer.status < 400:
        host = _host(answer.headers.get("Location", ""))
        return ProtocolError(
            f"{operation.value}: HTTP {answer.status}: redirected to {host}, which is not followed. "
            "Give the right address as endpoint."
        )
    start = printable(answer.body[:1000].decode("utf-8", "replace"))
    kind = printable(answer.headers.get("Content-Type", "no type"), 40)
    return ProtocolError(
        f"{operation.value}: HTTP {answer.status}: not this API's JSON but {kind}: {start}. "
        "Check the endpoint, and whether a proxy or a login page stands before it."
    )


def _host(location: str) -> str:
    try:
        return printable(urllib.parse.urlsplit(location).hostname or "the same host", 100)
    except ValueError:
        return "an address that cannot be read"


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
