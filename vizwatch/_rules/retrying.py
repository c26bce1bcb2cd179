"""When a failed attempt may be sent again, and after how long: a table, and two small functions over it."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from vizwatch._values.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    CallError,
    ConflictError,
    ConnectError,
    DecodeError,
    ProtocolError,
    RateLimitError,
    ServerError,
)
from vizwatch._values.exchange import Operation
from vizwatch._values.settings import Settings


class Fate(enum.Enum):
    """What became of one attempt, as far as sending it again is concerned."""

    NOT_SENT = "not sent"
    THROTTLED = "429"
    UNAVAILABLE = "503"
    UNAVAILABLE_UNTIL = "503 with Retry-After"
    HELD_BACK = "503 of the gateway, with Retry-After"
    FAILED = "500, 502, 504 or 408"
    UNKNOWN = "sent, and no complete answer"
    GARBLED = "an answer that is not this API's"
    REDIRECTED = "a redirect"
    UNAUTHENTICATED = "401"
    REFUSED = "refused"


_READ: Final = frozenset(
    {
        Fate.NOT_SENT,
        Fate.THROTTLED,
        Fate.UNAVAILABLE,
        Fate.UNAVAILABLE_UNTIL,
        Fate.HELD_BACK,
        Fate.FAILED,
        Fate.UNKNOWN,
        Fate.GARBLED,
        Fate.REDIRECTED,
    }
)

_NEVER_ARRIVED: Final = frozenset({Fate.NOT_SENT, Fate.THROTTLED, Fate.HELD_BACK})
_UNAVAILABLE: Final = frozenset({Fate.UNAVAILABLE, Fate.UNAVAILABLE_UNTIL})

# A write is sent again only where it provably was not carried out, or where twice is the same as once.
RESEND: Final[Mapping[Operation, frozenset[Fate]]] = {
    Operation.LIST: _READ,
    Operation.GET: _READ,
    Operation.UPDATE: _READ - {Fate.GARBLED, Fate.REDIRECTED},
    Operation.TOKEN: _READ,
    Operation.STOP: _NEVER_ARRIVED | _UNAVAILABLE,
    Operation.DELETE: _NEVER_ARRIVED | _UNAVAILABLE,
    Operation.RESTART: _NEVER_ARRIVED | {Fate.UNAVAILABLE_UNTIL},
    Operation.CREATE: _NEVER_ARRIVED,
}

_AMBIGUOUS: Final = frozenset(
    {Fate.UNKNOWN, Fate.FAILED, Fate.UNAVAILABLE, Fate.UNAVAILABLE_UNTIL, Fate.GARBLED}
)
_DOUBTED_ONCE: Final = frozenset({Fate.GARBLED, Fate.REDIRECTED})


def fate(error: CallError, *, was_sent: bool = True) -> Fate:  # noqa: C901 - a table
    """What became of the attempt that ended in `error`, which had or had not come as far as the network."""
    match error:
        case CallError(retryable=False):
            return Fate.REFUSED
        case AuthenticationError():
            return Fate.UNAUTHENTICATED
        case ApiError() if not isinstance(error, ServerError | RateLimitError):
            return Fate.REFUSED
        case ConnectError():
            return Fate.NOT_SENT
        case _ if not was_sent:
            return Fate.NOT_SENT
        case RateLimitError():
            return Fate.THROTTLED
        case ServerError(http_status=503):
            return _unavailable(error)
        case ServerError():
            return Fate.FAILED
        case ProtocolError(http_status=int(status)) if 300 <= status < 400:
            return Fate.REDIRECTED
        case ProtocolError():
            return Fate.GARBLED
        case _:
            return Fate.UNKNOWN


def _unavailable(error: ServerError) -> Fate:
    if error.retry_after is None:
        return Fate.UNAVAILABLE
    # These codes are the gateway's, which passed the request on to nobody.
    code = error.error_code or ""
    is_gateways = code in {"ModelArts.4302", "ModelArts.4700"} or code.startswith("APIGW.")
    return Fate.HELD_BACK if is_gateways else Fate.UNAVAILABLE_UNTIL


def may_resend(operation: Operation, fates: Sequence[Fate]) -> bool:
    """Whether the request may be sent again after attempts that came to `fates`, the last one last."""
    last = fates[-1]
    return last in RESEND[operation] and not (last in _DOUBTED_ONCE and fates.count(last) > 1)


def outcome_is_unknown(operation: Operation, fates: Sequence[Fate]) -> bool:
    """Whether it is a write that may have been carried out, by any of the attempts."""
    return not operation.is_read and not _AMBIGUOUS.isdisjoint(fates)


def is_permanent(error: CallError) -> bool:
    """Whether no later request will come to anything else.

    A refusal without a code is not the service's, and may be of the moment; and what was not tried again only
    because of a bound may still come to something else.
    """
    unexplained = (
        isinstance(error, BadRequestError | ConflictError)
        and error.error_code is None
        and error.operation != Operation.TOKEN.value  # the identity service has no codes
    )
    is_final = fate(error) in {Fate.REFUSED, Fate.UNAUTHENTICATED} and error.not_retried is None
    return not error.retryable or (is_final and not unexplained)


_OUTAGE: Final = frozenset(
    {Fate.NOT_SENT, Fate.UNAVAILABLE, Fate.UNAVAILABLE_UNTIL, Fate.HELD_BACK, Fate.FAILED, Fate.UNKNOWN}
)


def is_outage(error: CallError) -> bool:
    """Whether the service, or the way to it, seems to be down.

    Any other failure is an answer: also a 500 or garbage, which may be one job's alone.
    """
    if isinstance(error, DecodeError):
        return False
    if isinstance(error, ProtocolError):
        return error.http_status is None or error.http_status >= 500
    return fate(error) in _OUTAGE and not (isinstance(error, ApiError) and error.http_status == 500)


def wait_before(retry: int, settings: Settings, chance: float, retry_after: float | None) -> float | None:
    """How long to wait before the `retry`-th retry, in seconds, or ``None`` where that is not worth it.

    Full jitter: up to `backoff_base`, doubled with each retry, at most `backoff_max`. `Retry-After` is the
    least that is waited, with the jitter on top, and beyond `retry_after_max` nothing is waited at all.

    Args:
        retry: 1 for the first retry.
        settings: The bounds.
        chance: A random number from [0, 1).
        retry_after: What the service asked for.
    """
    jitter = chance * min(settings.backoff_max, settings.backoff_base * 2.0 ** min(retry - 1, 60))
    if retry_after is None:
        return jitter
    return None if retry_after > settings.retry_after_max else retry_after + jitter


@attrs.define
class Quota:
    """How many retries may follow each other without a success, over all calls of a session.

    When a service is down, retries only add to its load: each takes from the quota, and each success gives
    back. First attempts cost nothing. As the standard mode of AWS's SDKs, whose figures these are.
    """

    capacity: int
    _left: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.capacity

    def take(self, fate: Fate) -> bool:
        """Takes what a retry costs after an attempt that came to `fate`; tells whether there was enough."""
        cost = _TIMEOUT_COST if fate is Fate.UNKNOWN else _RETRY_COST
        if cost > self._left:
            return False
        self._left -= cost
        return True

    def succeeded(self, fates: Sequence[Fate]) -> None:
        """A call has succeeded after attempts that came to `fates`: gives back what its last retry cost."""
        given = _REFUND if not fates else _TIMEOUT_COST if fates[-1] is Fate.UNKNOWN else _RETRY_COST
        self._left = min(self._left + given, self.capacity)


_RETRY_COST: Final = 5
_TIMEOUT_COST: Final = 10
_REFUND: Final = 1
