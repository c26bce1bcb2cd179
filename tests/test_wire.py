"""Requests as documented, and refusals as what they mean."""

from __future__ import annotations

import json
import pickle
import urllib.parse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vizwatch
from vizwatch._rules import wire
from vizwatch._values.exchange import Answer, Failure, Operation
from vizwatch._values.text import printable


def clean(text: str, limit: int) -> str:
    return printable(text, limit)


PROJECT = "04f679b17380d32a2f32c00335c4b5ba"
JOBS = f"/v1/{PROJECT}/visualization-jobs"


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("https://modelarts.eu-de.otc.t-systems.com", "https://modelarts.eu-de.otc.t-systems.com"),
        ("https://Example.com/", "https://example.com"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("http://127.0.0.1:80", "http://127.0.0.1:80"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://[::1]:9", "http://[::1]:9"),
    ],
)
def test_an_endpoint_is_scheme_host_and_port(given_: str, expected: str) -> None:
    assert wire.endpoint(given_) == expected


@pytest.mark.fault("X3", "U2")
@pytest.mark.parametrize(
    "value",
    [
        "",
        " https://example.com",
        "https://example.com\n",
        "example.com",
        "ftp://example.com",
        "https://",
        "https://example.com/v1",
        "https://example.com?x=1",
        "https://example.com?",
        "https://example.com#f",
        "https://example.com:99999",
        "https://[::1",
        "https://exämple.com",
        "http://example.com",
        "http://127.0.0.1.example.com",
        "https://a..b",
        "https://.",
        "https://a\\b",
        "https://" + "a" * 64 + ".com",
        "https://" + "a" * 400,
        None,
        7,
    ],
)
def test_any_other_endpoint_is_refused(value: object) -> None:
    with pytest.raises(vizwatch.ConfigError, match="endpoint must be"):
        wire.endpoint(value)


@pytest.mark.parametrize("value", ["canary-token", "canary token", "https://canary\n", "canary" * 100])
def test_what_is_no_address_may_be_a_secret_and_is_not_shown(value: str) -> None:
    with pytest.raises(vizwatch.ConfigError, match=r"iam_endpoint must be .*https://iam\.") as caught:
        wire.endpoint(value, name="iam_endpoint", like="iam")
    assert "canary" not in str(caught.value)


@pytest.mark.fault("U2")
def test_an_endpoint_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(vizwatch.ConfigError) as caught:
        wire.endpoint("https://user:canary@example.com")
    assert "canary" not in str(caught.value)


@pytest.mark.fault("X3")
def test_http_elsewhere_must_be_allowed() -> None:
    assert wire.endpoint("http://10.0.0.1", allow_insecure=True) == "http://10.0.0.1"


def test_a_list_request_has_the_documents_names() -> None:
    query = wire.query(
        status=vizwatch.JobStatus.WAITING,
        search_content="a b+c&d/ü",
        sort_by="status",
        order="desc",
        workspace_id="0",
    )
    request = wire.list_jobs(PROJECT, query, page=2, per_page=10)
    assert (request.method, request.path, request.body) == ("GET", JOBS, b"")
    assert request.target == f"{JOBS}?{request.query}"
    assert dict(urllib.parse.parse_qsl(request.query, strict_parsing=True)) == {
        "status": "7",
        "search_content": "a b+c&d/ü",
        "sortBy": "status",
        "order": "desc",
        "workspace_id": "0",
        "per_page": "10",
        "page": "2",
    }


@pytest.mark.parametrize(
    ("request_", "method", "path", "body"),
    [
        (wire.get_job(PROJECT, 197), "GET", f"{JOBS}/197", None),
        (wire.update_job(PROJECT, 197, "neu: ü"), "PUT", f"{JOBS}/197", {"job_desc": "neu: ü"}),
        (wire.stop_job(PROJECT, 197), "POST", f"{JOBS}/197/stop", None),
        (wire.restart_job(PROJECT, 197), "POST", f"{JOBS}/197/restart", None),
        (wire.delete_job(PROJECT, 197), "DELETE", f"{JOBS}/197", None),
        (
            wire.create_job(PROJECT, "tb", "/obs/name/"),
            "POST",
            JOBS,
            {"job_name": "tb", "train_url": "/obs/name/"},
        ),
        (
            wire.create_job(
                PROJECT,
                "tb",
                "/obs/name/",
                job_desc="d",
                job_type="mindinsight",
                flavor="f",
                auto_stop_hours=24,
                workspace_id="w",
            ),
            "POST",
            JOBS,
            {
                "job_name": "tb",
                "train_url": "/obs/name/",
                "job_desc": "d",
                "job_type": "mindinsight",
                "flavor": {"code": "f"},
                "schedule": [{"type": "stop", "time_unit": "HOURS", "duration": 24}],
                "workspace_id": "w",
            },
        ),
    ],
)
def test_the_other_requests(request_: Any, method: str, path: str, body: object) -> None:
    assert (request_.method, request_.path, request_.query) == (method, path, "")
    assert (json.loads(request_.body) if request_.body else None) == body


@pytest.mark.fault("S12")
@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("job_name", ""),
        ("job_name", "x" * 21),
        ("job_name", "a b"),
        ("job_name", "ü"),
        ("job_name", None),
        ("train_url", ""),
        ("train_url", 7),
        ("job_desc", "x" * 257),
        ("job_type", "TensorBoard"),
        ("job_type", 1),
        ("flavor", ""),
        ("auto_stop_hours", 25),
        ("auto_stop_hours", -1),
        ("auto_stop_hours", 1.5),
        ("auto_stop_hours", True),
    ],
)
def test_what_the_documents_do_not_allow_is_refused_by_name(parameter: str, value: Any) -> None:
    arguments = {"job_name": "tb", "train_url": "/obs/name/", parameter: value}
    with pytest.raises(vizwatch.ConfigError, match=f"{parameter} must be") as caught:
        wire.create_job(PROJECT, **arguments)
    assert len(str(caught.value)) < 300


# --- refusals -------------------------------------------------------------------------------------------

REFUSALS = [
    (500, "ModelArts.0010", vizwatch.ServerError),
    (404, "ModelArts.0015", vizwatch.NotFoundError),
    (400, "ModelArts.0101", vizwatch.BadRequestError),
    (400, "ModelArts.0102", vizwatch.BadRequestError),
    (400, "ModelArts.0103", vizwatch.BadRequestError),
    (400, "ModelArts.0104", vizwatch.BadRequestError),
    (400, "ModelArts.0107", vizwatch.BadRequestError),
    (400, "ModelArts.0105", vizwatch.ConflictError),
    (403, "ModelArts.0105", vizwatch.ConflictError),
    (403, "ModelArts.0108", vizwatch.PermissionDeniedError),
    (500, "ModelArts.0109", vizwatch.PermissionDeniedError),
    (401, "ModelArts.0112", vizwatch.PermissionDeniedError),
    (403, "ModelArts.0112", vizwatch.PermissionDeniedError),
    (400, "ModelArts.0118", vizwatch.BadRequestError),
    (400, "ModelArts.2815", vizwatch.BadRequestError),
    *((401, f"ModelArts.02{n:02}", vizwatch.AuthenticationError) for n in range(1, 11)),
    (401, "ModelArts.0212", vizwatch.AuthenticationError),
    (403, "ModelArts.0203", vizwatch.AuthenticationError),
    (403, "ModelArts.0206", vizwatch.AuthenticationError),
    (400, "ModelArts.0204", vizwatch.WrongEndpointError),
    (400, "ModelArts.0210", vizwatch.WrongEndpointError),
    (403, "ModelArts.0210", vizwatch.WrongEndpointError),
    (404, "ModelArts.2786", vizwatch.WrongEndpointError),
    (404, "APIGW.0101", vizwatch.WrongEndpointError),
    *(
        (429, code, vizwatch.RateLimitError)
        for code in ("ModelArts.2799", "ModelArts.4206", "ModelArts.6101")
    ),
    (429, "APIGW.0308", vizwatch.RateLimitError),
    (408, "ModelArts.4205", vizwatch.ServerError),
    (408, "ModelArts.6100", vizwatch.ServerError),
    (503, "ModelArts.4302", vizwatch.ServerError),
    (503, "ModelArts.4700", vizwatch.ServerError),
    (504, "ModelArts.4503", vizwatch.ServerError),
    (401, "APIGW.0301", vizwatch.AuthenticationError),
]


@pytest.mark.parametrize(("http_status", "code", "error"), REFUSALS)
def test_a_refusal_is_classified_by_status_and_code_together(
    http_status: int, code: str, error: type[vizwatch.ApiError]
) -> None:
    assert wire.classify(http_status, code) is error


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ModelArts.0010", vizwatch.ServerError),
        ("ModelArts.0015", vizwatch.NotFoundError),
        ("ModelArts.0104", vizwatch.BadRequestError),
        ("ModelArts.0105", vizwatch.ConflictError),
        ("ModelArts.0108", vizwatch.PermissionDeniedError),
        ("ModelArts.0109", vizwatch.PermissionDeniedError),
        ("ModelArts.0202", vizwatch.AuthenticationError),
        ("ModelArts.2786", vizwatch.WrongEndpointError),
        ("APIGW.0308", vizwatch.RateLimitError),
        ("ModelArts.9999", vizwatch.BadRequestError),
        (None, vizwatch.BadRequestError),
    ],
)
def test_a_refusal_in_the_body_alone_is_classified_by_the_codes_documented_status(
    code: str | None, error: type[vizwatch.ApiError]
) -> None:
    assert wire.classify(200, code) is error


@given(st.integers(400, 599), st.none() | st.sampled_from([code for _, code, _ in REFUSALS]))
def test_every_refusal_has_a_class_and_server_errors_are_never_permanent_by_accident(
    http_status: int, code: str | None
) -> None:
    error = wire.classify(http_status, code)
    assert issubclass(error, vizwatch.ApiError)
    if http_status >= 500 and code not in {"ModelArts.0105", "ModelArts.0109"}:
        assert error is vizwatch.ServerError


def test_a_refusal_carries_what_the_reader_needs() -> None:
    answer = Answer(400, {"X-request-id": "r-1", "Retry-After": "7"}, b"")
    failure = Failure("ModelArts.0105", "This job can't be stop. job status: 10\x1b[2J")
    error = wire.refusal(Operation.STOP, answer, failure, clean)
    assert isinstance(error, vizwatch.ConflictError)
    assert (error.http_status, error.error_code, error.request_id) == (400, "ModelArts.0105", "r-1")
    assert (error.retry_after, error.operation) == (7.0, "stop job")
    assert str(error) == (
        "stop job: HTTP 400 ModelArts.0105: This job can't be stop. job status: 10\\x1b[2J [request r-1]. "
        "Read the job's status, and try again once it allows the operation."
    )


@pytest.mark.fault("S4", "S9")
@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("This job can't be stop. job status: 10", vizwatch.JobStatus.COMPLETED),
        ("This job can't be resubmit. job status: 8", vizwatch.JobStatus.RUNNING),
        ("This job can't be delete. job status: 9.", vizwatch.JobStatus.KILLING),
        ("job status:23", vizwatch.JobStatus(23)),
        ("job status: " + "9" * 10, None),
        ("job status: ١", None),
        ("job status: -1", None),
        ("wrong state", None),
        ("", None),
    ],
)
def test_a_conflict_tells_the_jobs_status_where_its_text_does(
    text: str, status: vizwatch.JobStatus | None
) -> None:
    error = wire.refusal(Operation.STOP, Answer(400, {}, b""), Failure("ModelArts.0105", text), clean)
    assert isinstance(error, vizwatch.ConflictError)
    assert error.status is status
    assert pickle.loads(pickle.dumps(error)).status == status


@pytest.mark.fault("H12")
@pytest.mark.parametrize(
    ("status", "limit", "way_out"),
    [
        (413, "limit of the request's body", "shorter job_desc"),
        (414, "limit of the address", "shorter search_content"),
        (431, "limit of the request's headers", "the token"),
        (494, "limit of the request's headers", "the token"),
    ],
)
def test_a_gateways_limit_is_named(status: int, limit: str, way_out: str) -> None:
    error = wire.refusal(Operation.LIST, Answer(status, {}, b""), Failure(), clean)
    assert type(error) is vizwatch.BadRequestError
    assert not error.retryable
    assert limit in str(error)
    assert way_out in str(error)


def test_an_api_that_is_no_longer_offered_is_called_so() -> None:
    error = wire.refusal(Operation.LIST, Answer(404, {}, b""), Failure("APIGW.0101", "no such API"), clean)
    assert "no longer" in str(error)
    assert isinstance(error, vizwatch.ConfigError)


@pytest.mark.fault("H4")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("007", 7.0),
        ("3600", 3600.0),
        ("1000000000", 1e9),
        ("1" + "0" * 400, 1e9),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("-1", None),
        ("abc", None),
        ("1e9", None),
        ("", None),
        ("١", None),
        ("Wed, 99 Oct 2026 07:28:30 GMT", None),
    ],
)
def test_retry_after_is_read_or_ignored(value: str, expected: float | None) -> None:
    headers = {"Retry-After": value, "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert wire.retry_after(headers) == expected


def test_a_date_without_the_servers_own_date_says_nothing() -> None:
    assert wire.retry_after({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT"}) is None


@pytest.mark.fault("H4")
@given(st.text(max_size=40), st.text(max_size=40))
def test_retry_after_is_never_negative_nor_endless(value: str, date: str) -> None:
    seconds = wire.retry_after({"Retry-After": value, "Date": date})
    assert seconds is None or 0 <= seconds <= 1e9


@pytest.mark.fault("H15")
@pytest.mark.parametrize(
    ("status", "body", "headers", "foreign"),
    [
        (302, b"", {"Location": "https://evil.example/?token=canary"}, True),
        (200, b"<html>login</html>", {}, True),
        (200, b"login", {"Content-Type": "text/HTML; charset=utf-8"}, True),
        (404, b" \n<html>", {}, False),
        (404, b'{"error_code":"x"}', {}, False),
        (502, b"<html>bad gateway</html>", {}, False),
        (200, b"{}", {"Content-Type": "text/plain"}, False),
    ],
)
def test_pages_and_redirects_are_not_this_api(
    status: int, body: bytes, headers: dict[str, str], foreign: bool
) -> None:
    assert wire.is_foreign(Answer(status, headers, body)) == foreign


@pytest.mark.fault("H7")
@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("https://evil.example:99/?token=canary", "evil.example"),
        ("/elsewhere?token=canary", "the same host"),
        ("https://[::1?canary", "an address that cannot be read"),
    ],
)
def test_a_redirect_names_the_host_alone(location: str, named: str) -> None:
    text = str(wire.not_this_api(Operation.LIST, Answer(307, {"Location": location}, b""), clean))
    assert named in text
    assert "canary" not in text


@pytest.mark.fault("H14")
def test_a_page_is_shown_by_its_start_made_printable() -> None:
    answer = Answer(200, {"Content-Type": "text/html"}, b"<h1>Log in\x1b[2J</h1>" + b"x" * 10_000)
    text = str(wire.not_this_api(Operation.GET, answer, clean))
    assert "<h1>Log in\\x1b[2J" in text
    assert len(text) < 500


@pytest.mark.parametrize(
    ("status", "code", "blamed"),
    [
        *((200, "ModelArts.0104", True), (400, "ModelArts.0101", True), (400, None, True)),
        *((422, "ModelArts.0104", False), (400, "ModelArts.0102", False), (200, "ModelArts.0118", False)),
    ],
)
def test_a_parameter_is_blamed_by_the_documents_codes_and_statuses_alone(
    status: int, code: str | None, blamed: bool
) -> None:
    error = vizwatch.BadRequestError("no", http_status=status, error_code=code)
    assert wire.blames_a_parameter(error) is blamed
