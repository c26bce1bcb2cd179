"""Authenticated calls with retries, a rate and one deadline: the one place that sends anything again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import stamina
from aiolimiter import AsyncLimiter

from vizwatch._rules import codec, retrying, wire
from vizwatch._values.errors import (
    ApiError,
    ClientClosedError,
    ConfigError,
    ConnectError,
    DecodeError,
    OutcomeUnknownError,
    ProtocolError,
    TransportError,
    VizwatchError,
)
from vizwatch._values.exchange import Answer, Failure, Operation, Request
from vizwatch._values.settings import Settings
from vizwatch._values.text import redacted
from vizwatch._world.auth import Auth, Secret
from vizwatch._world.transport import Transport

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

# stamina logs each retry as a warning, which Python prints bare where logging is not set up.
logging.getLogger("stamina").addHandler(logging.NullHandler())

_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate", "User-Agent": "vizwatch"}


class Session:
    """Calls to one endpoint with one account's credentials.

    Args:
        endpoint: `https://host[:port]`.
        auth: Where the credentials come from.
        settings: Retries, timeouts, rate.
        http: The caller's own `aiohttp.ClientSession`, or ``None``.
    """

    def __init__(
        self, endpoint: str, auth: Auth, settings: Settings, http: aiohttp.ClientSession | None = None
    ) -> None:
        self.settings = settings
        self._auth = auth
        self._loop = asyncio.get_running_loop()
        self._transport = Transport(endpoint, settings, http)
        self._random = random.Random()
        rate = settings.requests_per_second
        self._limiter = AsyncLimiter(max(rate, 1.0), max(rate, 1.0) / rate) if rate else None
        self._closed = False

    async def call(
        self, request: Request, decode: Callable[[bytes], T | Failure], *, attempts: int | None = None
    ) -> T:
        """Sends the request, again where that is safe and promises something, and decodes its answer.

        Args:
            request: What to send.
            decode: From an answer's body to its value, or to the failure that it states.
            attempts: Instead of `Settings.attempts`.

        Raises:
            ApiError: The service refused.
            TransportError: No complete answer came.
            OutcomeUnknownError: As much, of a write, which may have happened.
            ProtocolError: The answer is not this API's.
            ClientClosedError: The client was closed meanwhile.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise ConfigError("the client was opened in another event loop: open one in each loop")
        settings = self.settings
        started = self._loop.time()
        budget = settings.call_timeout if request.operation.is_read else settings.write_timeout
        call = _Call(request, started + budget, settings.attempts if attempts is None else attempts)
        try:
            return await self._attempt(call, decode)
        except (ApiError, TransportError, ProtocolError) as error:
            failure = error
        if call.allowed > 1 and retrying.may_resend(request.operation, failure, call.attempts):
            try:
                return await self._retry(call, decode, failure)
            except (ApiError, TransportError, ProtocolError) as error:
                failure = error
        raise self._final(call, failure, self._loop.time() - started)

    async def _retry(self, call: _Call, decode: Callable[[bytes], T | Failure], first: VizwatchError) -> T:
        # stamina is entered with the first failure in hand: without one it would cost more than the call.
        async for attempt in stamina.retry_context(on=self._pause(call), attempts=call.allowed, timeout=None):
            with attempt:
                if attempt.num == 1:
                    raise first
                return await self._attempt(call, decode)
        raise first

    def _pause(self, call: _Call) -> Callable[[Exception], bool | float]:
        def pause(error: Exception) -> bool | float:
            if self._closed or not isinstance(error, VizwatchError):
                return False
            if not retrying.may_resend(call.request.operation, error, call.attempts):
                return False
            asked = error.retry_after if isinstance(error, ApiError) else None
            wait = retrying.wait_before(call.attempts, self.settings, self._random.random(), asked)
            return False if wait is None or self._loop.time() + wait >= call.deadline else wait

        return pause

    async def _attempt(self, call: _Call, decode: Callable[[bytes], T | Failure]) -> T:
        call.attempts += 1
        request = call.request
        try:
            async with asyncio.timeout_at(call.deadline):
                if self._limiter is not None:
                    await self._limiter.acquire()
                credentials = await self._credentials(request)
        except TimeoutError:
            raise ConnectError("not sent: waiting for credentials and request budget took too long") from None
        headers = {**_HEADERS, **credentials}
        if request.body:
            headers["Content-Type"] = "application/json"
        within = min(self.settings.attempt_timeout, call.deadline - self._loop.time())
        answer = await self._transport.send(
            request.method, request.target, headers, request.body, within=within
        )
        return _judged(request.operation, answer, decode, credentials.values())

    async def _credentials(self, request: Request) -> dict[str, str]:
        url = self._transport.endpoint + request.target
        given = await self._auth.headers(request.method, url, request.body)
        for name, value in given.items():
            if not isinstance(value, str) or not value.isprintable() or not value.isascii():
                raise ConfigError(f"auth gave a header {name} that is not printable ASCII: check the token")
        return {name: Secret(value) for name, value in given.items()}

    def _final(
        self, call: _Call, error: ApiError | TransportError | ProtocolError, elapsed: float
    ) -> VizwatchError:
        if self._closed:
            return ClientClosedError("the client was closed while this call was under way")
        operation = call.request.operation
        error.attempts, error.elapsed = call.attempts, elapsed
        if not retrying.outcome_is_unknown(operation, error):
            return error
        unknown = OutcomeUnknownError(
            f"{operation.value}: it may have happened, so read the job before trying again: {error}"
        )
        unknown.__cause__ = error
        return unknown

    async def aclose(self) -> None:
        """Ends the calls under way and closes the connections; idempotent."""
        if not self._closed:
            self._closed = True
            await self._transport.aclose()


@attrs.define
class _Call:
    """One call, through all its attempts."""

    request: Request
    deadline: float
    allowed: int
    """How many attempts there may be."""
    attempts: int = 0
    """How many there were."""


def _judged(
    operation: Operation, answer: Answer, decode: Callable[[bytes], T | Failure], secrets: Iterable[str]
) -> T:
    """The value of a successful answer; any other answer is raised as what it means."""
    if answer.is_success:
        with contextlib.suppress(DecodeError):
            value = decode(answer.body)
            if not isinstance(value, Failure):
                return value
    body = redacted(answer.body.decode("latin-1"), secrets).encode("latin-1")
    answer = attrs.evolve(answer, body=body)
    if wire.is_foreign(answer):
        raise wire.not_this_api(operation, answer)
    if answer.is_success:
        stated = decode(answer.body)
        failure = stated if isinstance(stated, Failure) else Failure()
    else:
        failure = codec.decode_failure(answer.body)
    raise wire.refusal(operation, answer, failure)
