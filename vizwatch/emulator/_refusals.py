"""What the service says no with: the HTTP status, the code, and the body of its documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from vizwatch import JobStatus

ASYNCHRONOUS: Final = {"stop": "stop", "restart": "resubmit", "delete": "delete"}
"""Operations that depend on the job's status, and the word of the refusal's text."""


@attrs.frozen(kw_only=True)
class Answer:
    """What goes back over the wire: JSON of ``body``, or the very text if ``body`` is a string."""

    status: int = 200
    body: Mapping[str, Any] | str = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict)
    content_type: str = "application/json"


class Refusal(Exception):  # noqa: N818 - an answer, not a failure of the emulator
    """Ends an operation with a refusal of the service's."""

    def __init__(
        self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, body)
        self.answer = Answer(status=status, body=body, headers=headers or {})


def service(status: int, code: str, message: str) -> Refusal:
    """A refusal in the service's own form."""
    return Refusal(status, {"is_success": False, "error_code": f"ModelArts.{code}", "error_message": message})


def gateway(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """A refusal in the form of the gateway that stands before the service."""
    return Refusal(status, {"error_code": f"APIGW.{code}", "error_msg": message}, headers)


def iam(status: int, title: str, message: str) -> Refusal:
    """A refusal in Keystone's form."""
    return Refusal(status, {"error": {"code": status, "title": title, "message": message}})


def invalid(message: str, *, code: str = "0104") -> Refusal:
    """An argument that the service does not take: 0104, as in the error codes' table; 0103 for create."""
    return service(400, code, message)


def wrong_state(operation: str, status: JobStatus) -> Refusal:
    """The status does not allow the operation: the texts are those of the documents' failed samples."""
    return service(400, "0105", f"This job can't be {ASYNCHRONOUS[operation]}. job status: {int(status)}")


def no_such_job(job_id: int) -> Refusal:
    """There is no such job in this project, or none any more (China document: 0015)."""
    return service(404, "0015", f"The resource does not exist. job id: {job_id}")


def other_project() -> Refusal:
    """The caller's project is not the one of the URL: a 404 that does not mean "deleted"."""
    return service(404, "2786", "The project of the token is not the project of the URL.")


def unauthenticated(reason: str) -> Refusal:
    """The gateway's refusal of a signature."""
    return gateway(401, "0301", f"Incorrect IAM authentication information: {reason}")


def no_such_api() -> Refusal:
    """The endpoint offers nothing at this method and path."""
    return gateway(404, "0101", "The API does not exist or has not been published in the environment")
