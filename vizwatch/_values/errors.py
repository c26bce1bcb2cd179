"""Every error that leaves this package.

::

    VizwatchError
    ├── ConfigError (a ValueError)      wrong argument or setting, before any request
    │   └── CheckpointError             a checkpoint cannot be used, and was left as it is
    ├── TransportError                  no complete answer
    │   ├── ConnectError                never sent
    │   │   └── TlsError                (also a ConfigError) TLS with this endpoint is refused
    │   ├── RequestTimeoutError         (a TimeoutError)
    │   └── OutcomeUnknownError         a write may have happened
    ├── ProtocolError                   an answer that is not this API's: HTML, redirect, another job's
    │   └── DecodeError                 carries the JSON path
    ├── ApiError                        the service refused
    │   ├── AuthenticationError  PermissionDeniedError  NotFoundError  ConflictError
    │   ├── BadRequestError  RateLimitError  ServerError
    │   ├── ClockSkewError              (an AuthenticationError, and a ConfigError) this clock is wrong
    │   └── WrongEndpointError          (also a ConfigError) the endpoint or project is not the token's
    ├── WatchError
    │   ├── WatchTimeoutError           (a TimeoutError)
    │   ├── JobEndedError
    │   └── JobGoneError
    └── ClientClosedError

No error shows a token, key or signature, and none carries more than a bounded part of a server's text.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, ClassVar

from vizwatch._values.statuses import JobStatus

if TYPE_CHECKING:
    from vizwatch._values.models import Job


class VizwatchError(Exception):
    """The base of every error that leaves this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with ``args`` alone, and lose keyword-only details.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[VizwatchError], args: tuple[Any, ...], details: dict[str, Any]) -> VizwatchError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(details)
    return error


class ConfigError(VizwatchError, ValueError):
    """A wrong argument or setting, found before any request: names it, its value and what is allowed."""


class CheckpointError(ConfigError):
    """A checkpoint cannot be used: it is another one's, in use, of a newer version, damaged or out of reach.

    Nothing was read of the service, and nothing written to the checkpoint.
    """


class ClientClosedError(VizwatchError):
    """The client was closed; make a new one."""


class CallError(VizwatchError):
    """What one call to the service came to: the three kinds below."""

    def __init__(self, message: str = "", *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable
        """Whether the same request could come to something else: not with a certificate that is refused."""
        self.attempts = 1
        """How many times the request was tried."""
        self.elapsed: float | None = None
        """How long the whole call took, in seconds; a watch's read, once the budget allowed it."""
        self.not_retried: str | None = None
        """Why it was not tried again although it could have been: a bound that was reached."""
        self.job_id: int | None = None
        """The job that was watched, where a watch raises it."""
        self.retry_after: float | None = None
        """How long the service asks to wait, in seconds."""
        self.page: int | None = None
        """The page of a listing that could not be read: where to go on, in pages of :attr:`per_page` jobs."""
        self.per_page: int | None = None
        """How many jobs that page was asked for, and so what its number means."""

    def _text(self) -> str:
        return super().__str__()

    def __str__(self) -> str:
        text = self._text() if self.job_id is None else f"job {self.job_id}: {self._text()}"
        if self.attempts > 1 and self.elapsed is not None:
            text += f" (after {self.attempts} attempts in {self.elapsed:.1f} s)"
        return text if self.not_retried is None else f"{text} (not tried again: {self.not_retried})"


class TransportError(CallError):
    """No complete answer came."""


class ConnectError(TransportError):
    """The request was never sent: no address, no connection, or no TLS."""

    is_local: bool = False
    """Whether this machine is in the way, and not the service: it has no file descriptor or port left."""


class TlsError(ConnectError, ConfigError):
    """TLS was refused: by the certificate, by the protocol's version, or since the port speaks no TLS.

    It is not tried again: nothing was sent, and nothing will be until the endpoint, its certificate or what
    this machine trusts has changed.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message, retryable=False)


class RequestTimeoutError(TransportError, TimeoutError):
    """No complete answer came in time."""


class OutcomeUnknownError(TransportError):
    """A write was sent and no answer came: it may have happened. Read the job before sending it again."""

    def __init__(self, message: str = "", *, sent_at: dt.datetime) -> None:
        super().__init__(message)
        self.sent_at = sent_at
        """When it was first sent, in UTC by this machine's clock; for :meth:`Client.find_created`."""


class ProtocolError(CallError):
    """An answer that is not this API's: a web page, a redirect, broken HTTP, too large, another job's."""

    def __init__(self, message: str = "", *, http_status: int | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status
        """The HTTP status, where the answer had one that can be read."""


class DecodeError(ProtocolError):
    """An answer whose JSON does not say what this API says."""

    def __init__(self, message: str, *, path: str = "$") -> None:
        super().__init__(f"{message} - at {path}")
        self.reason = message
        self.path = path
        """Where in the JSON, ``$.jobs[3].status`` for example."""


class ApiError(CallError):
    """The service refused the request."""

    def __init__(
        self,
        message: str = "",
        *,
        http_status: int,
        error_code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        operation: str = "request",
    ) -> None:
        super().__init__(message)
        self.message = message
        """The service's own text, made printable, without secrets, and bounded."""
        self.http_status = http_status
        """The HTTP status; 200 where the service refused in the body alone."""
        self.error_code = error_code
        """The service's code, ``ModelArts.0105`` for example."""
        self.request_id = request_id
        """What the service's support asks for."""
        self.retry_after = retry_after
        """How long the service asks to wait, in seconds."""
        self.operation = operation

    hint: str = ""
    """What to do next."""

    def _text(self) -> str:
        code = f" {self.error_code}" if self.error_code else ""
        request = f" [request {self.request_id}]" if self.request_id else ""
        text = f"{self.operation}: HTTP {self.http_status}{code}: {self.message or 'no text'}{request}"
        return f"{text}. {self.hint}" if self.hint else text


class AuthenticationError(ApiError):
    """The service does not know who asks: no token, an expired or a broken one, a wrong signature."""

    hint = "Get a new token, scoped to this project."


class ClockSkewError(AuthenticationError, ConfigError):
    """A signature was refused because this machine's clock is more than 15 minutes off."""


class PermissionDeniedError(ApiError):
    """The service knows who asks, and does not allow it."""

    hint = "Ask for the ModelArts permission, or check that the project is yours."


class NotFoundError(ApiError):
    """There is no such job in this project."""

    hint = "Check the job id and the project: a deleted job is not kept."


class ConflictError(ApiError):
    """The job's status does not allow the operation."""

    status: JobStatus | None = None
    """The job's status, where the service's text tells it: ``job status: 10``."""

    hint = "Read the job's status, and try again once it allows the operation."


class BadRequestError(ApiError):
    """The service refused a parameter, or a quota is used up."""


class RateLimitError(ApiError):
    """Too many requests: the account's limit, which all its clients share."""

    hint = "Wait, and set Settings(requests_per_second=…) below the limit."
    hint_after: ClassVar = "Wait {} s, and set Settings(requests_per_second=…) below the limit."
    allowed_rate: float | None = None
    """How many requests a second the service says that it allows, if it does."""


class ServerError(ApiError):
    """The service, or a gateway before it, failed; it may work later."""

    hint = "Try again later."
    hint_after: ClassVar = "Try again in {} s."


class WrongEndpointError(ApiError, ConfigError):
    """The endpoint does not offer this API, or the project is not the token's: never "the job is deleted"."""

    hint = "Check endpoint, project_id and the project that the token is scoped to."


class WatchError(VizwatchError):
    """A watch or wait ended without what was asked for; carries the job as last read."""

    def __init__(self, message: str, *, job: Job | None = None) -> None:
        super().__init__(message)
        self.job = job
        """The job as last read, or ``None`` if no read succeeded."""


class WatchTimeoutError(WatchError, TimeoutError):
    """The deadline of a watch or wait passed."""


class JobEndedError(WatchError):
    """The job ended in another status than the one waited for."""


class JobGoneError(WatchError):
    """The job was deleted."""
