"""Authenticated calls with retries, a rate and one deadline: the one place that sends anything again."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast

import anyio
import attrs

from vizwatch._rules import codec, retrying, wire
from vizwatch._rules.retrying import Fate, Quota
from vizwatch._rules.settling import Settled, settled_by_refusal
from vizwatch._values.errors import (
    AuthenticationError,
    CallError,
    ClientClosedError,
    ConfigError,
    ConnectError,
    DecodeError,
    OutcomeUnknownError,
    ProtocolError,
    RateLimitError,
    VizwatchError,
)
from vizwatch._values.exchange import Answer, Attempt, Failure, Operation, Outgoing, Request, Retry
from vizwatch._values.secrets import Secret
from vizwatch._values.settings import Settings
from vizwatch._values.text import printable, redacted
from vizwatch._world.account import Account
from vizwatch._world.auth import Auth, Credentials, RenewableAuth, renewed
from vizwatch._world.chance import CHANCE
from vizwatch._world.hooks import tell
from vizwatch._world.line import Due, Hold, in_time
from vizwatch._world.tokens import RENEWS_AGAIN_AFTER, TokenGetter
from vizwatch._world.transport import Share, Transport

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")
Settle = Callable[[], Awaitable[Settled]]
"""Finds out what became of a write whose answer was lost."""

_WAITED: Final = 0.1
"""How long credentials were waited for where others came meanwhile, in seconds."""
_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate", "User-Agent": "vizwatch"}


@attrs.define
class _Call:
    """One call, through all its attempts."""

    request: Request
    started: float
    deadline: float
    allowed: int
    """How many attempts there may be."""
    fates: list[Fate] = attrs.field(factory=list)
    """What became of the attempts so far."""
    under_way: bool = False
    """Whether an attempt is with the transport."""
    sent: int = 0
    """How many were."""
    sent_at: dt.datetime | None = None
    """When the first attempt was, by the wall clock."""
    attempt_at: float = -math.inf
    """When the last attempt was."""
    renewed: bool = False
    """Whether the credentials were renewed for it already."""
    is_patient: bool = False
    """Whether it waits for its turn however long that takes, behind all that are not."""
    due: Due | None = None
    """Among the patient, by when it is wanted."""
    settle: Settle | None = None

    @property
    def is_doubtful(self) -> bool:
        """Whether it is a write that may have been carried out, by any of its attempts."""
        return retrying.outcome_is_unknown(self.request.operation, self.fates)


class Session:
    """Calls to one endpoint with one account's credentials.

    Args:
        endpoint: `https://host[:port]`.
        auth: Where the credentials come from.
        settings: Retries, timeouts, rate.
        http: The caller's own `aiohttp.ClientSession`, a share of a pool, or ``None``.
        account: Whose budget it spends; by default that of the settings.
        renewing: Where others see that credentials are waited for.
    """

    def __init__(
        self,
        endpoint: str,
        auth: Auth,
        settings: Settings,
        http: aiohttp.ClientSession | Share | None = None,
        account: Account | None = None,
        renewing: Hold | None = None,
    ) -> None:
        self._renewing = renewing or Hold()
        self._account = account or Account(settings.requests_per_second)
        self._account.enter_loop()
        self.settings = settings
        self._auth = auth
        self._credentials = Credentials(auth)
        self._loop = asyncio.get_running_loop()
        self._transport = Transport(endpoint, settings, http)
        self._quota = Quota(settings.retry_quota)
        self._calls: set[asyncio.Timeout] = set()

    async def call(
        self,
        request: Request,
        decode: Callable[[Answer], T | Failure],
        *,
        is_patient: bool = False,
        due: Due | None = None,
        settle: Settle | None = None,
    ) -> T:
        """Sends the request, again where that is safe and promises something, and decodes its answer.

        Args:
            request: What to send.
            decode: From an answer to its value, or to the failure that it states.
            is_patient: Whether to let all others go first, however long that takes, and to try once only:
                for one who will ask again anyway.
            due: By when a patient one wants the answer, in the event loop's time. Where requests have to
                wait, the earliest due goes first; ``None`` for after all that say when.
            settle: Finds out what became of a write whose answer was lost, where `decode` gives ``None``:
                it is sent again only if that says so.

        Raises:
            ApiError: The service refused.
            TransportError: No complete answer came.
            OutcomeUnknownError: A write may have happened.
            ProtocolError: The answer is not this API's.
            ClientClosedError: The client was closed meanwhile.
        """
        call = self._new_call(request, 1 if is_patient else None)
        call.is_patient, call.due, call.settle = is_patient, due, settle
        return await self._until_closed(call, self._answered(call, decode))

    async def exchange(
        self, request: Request, check: Callable[[Answer], object] | None = None
    ) -> tuple[Answer, tuple[Secret, ...]]:
        """Sends the request once, and gives its answer as it came, with the secrets that it may repeat.

        Args:
            request: What to send.
            check: A decoder of the answer, where a refusal is to be raised.

        Raises:
            ApiError: The service refused, and that is checked.
            TransportError: No complete answer came.
            ProtocolError: The answer is not HTTP, or too large, or not what is checked.
            ClientClosedError: The client was closed meanwhile.
            VizwatchError: There are no credentials.
        """
        call = self._new_call(request, attempts=1)
        answer, credentials = await self._until_closed(call, self._sent(call))
        if check is None:
            self._tell_request(call, answer, None)
        else:
            self._value(call, answer, check, credentials)
        return answer, (*map(Secret, credentials.values()), *request.secrets)

    async def _until_closed(self, call: _Call, work: Coroutine[Any, Any, T]) -> T:
        closing = asyncio.timeout(None)  # until closing says when
        self._calls.add(closing)
        try:
            async with closing:
                return await work
        except VizwatchError as error:
            # What hangs on it unseen may hold what a server repeats, and be pickled along.
            error.__context__ = error.__cause__
            raise
        except TimeoutError:
            if not closing.expired():
                raise
        finally:
            self._calls.discard(closing)
        if not call.request.operation.is_read and (call.under_way or call.is_doubtful):
            self._raise_unknown(call, "the client was closed while it was under way")
        raise ClientClosedError("the client was closed while this call was under way")

    async def _answered(self, call: _Call, decode: Callable[[Answer], T | Failure]) -> T:
        while True:
            try:
                value = await self._attempt(call, decode)
            except CallError as error:
                failure = error
            else:
                self._quota.succeeded(call.fates)
                return value
            fate = retrying.fate(failure, was_sent=call.under_way)
            call.fates.append(fate)
            call.under_way = False
            if isinstance(failure, RateLimitError) and failure.operation == call.request.operation.value:
                self._account.throttled(call.attempt_at, failure.retry_after, failure.allowed_rate)
            pause = self._pause(call, failure, retrying.may_resend(call.request.operation, call.fates))
            if pause is None and call.settle is not None and call.is_doubtful:
                verdict = await self._settled(call, call.settle, failure)
                if verdict is Settled.DONE:
                    return cast("T", None)
                pause = self._pause(call, failure, verdict is Settled.NEEDED)
            if pause is None:
                self._raise(call, failure)
            self._tell_retry(call, failure, pause)
            await anyio.sleep(pause)

    async def _settled(self, call: _Call, settle: Settle, failure: CallError) -> Settled:
        """What became of a write whose answer was lost, as far as that can be found out in time."""
        if settled_by_refusal(call.request.operation, failure) is Settled.DONE:
            return Settled.DONE
        try:
            async with asyncio.timeout_at(call.deadline):
                return await settle()
        except (VizwatchError, TimeoutError):
            return Settled.UNCLEAR

    def _pause(self, call: _Call, failure: CallError, may_resend: bool) -> float | None:  # noqa: FBT001
        """How long to wait before the next attempt; ``None`` where there is none."""
        fate, tries = call.fates[-1], len(call.fates)
        if fate is Fate.UNAUTHENTICATED and call.renewed and call.fates.count(fate) == 1:
            return 0.0
        if failure.attempts > 1:
            return None  # of credentials, which have been asked for again already
        if tries >= call.allowed or not may_resend:
            return None
        pause = retrying.wait_before(tries, self.settings, CHANCE.random(), failure.retry_after)
        if pause is None or self._loop.time() + pause >= call.deadline:
            return None
        is_local = isinstance(failure, ConnectError) and failure.is_local
        if not is_local and not self._quota.take(fate):
            failure.not_retried = "the client's retry quota is used up, Settings.retry_quota"
            return None
        return pause

    def _tell_retry(self, call: _Call, failure: CallError, pause: float) -> None:
        hook, fates = self.settings.on_retry, call.fates
        if hook is None:
            return
        told = Retry(
            operation=call.request.operation.value,
            attempt=len(fates),
            wait=pause,
            error=failure,
            was_sent=fates[-1] is not Fate.NOT_SENT,
        )
        tell("on_retry", hook, told)

    def _tell_request(self, call: _Call, answer: Answer | None, error: BaseException | None) -> None:
        hook, request = self.settings.on_request, call.request
        if hook is None:
            return
        seconds = self._loop.time() - call.attempt_at
        status = error.http_status if isinstance(error, ProtocolError) else None
        told = Attempt(
            operation=request.operation.value,
            method=request.method,
            endpoint=self._transport.endpoint,
            route=wire.ROUTES[request.operation],
            attempt=call.sent,
            http_status=status if answer is None else answer.status,
            error=error,
            started_at=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds),
            seconds=seconds,
            received=0 if answer is None else len(answer.body),
        )
        tell("on_request", hook, told)

    def check_loop(self) -> None:
        """Raises :class:`ConfigError` in another event loop than the one that it was made in."""
        if asyncio.get_running_loop() is not self._loop:
            raise ConfigError("the client was opened in another event loop: open one in each loop")

    def _new_call(self, request: Request, attempts: int | None) -> _Call:
        self.check_loop()
        settings, now = self.settings, self._loop.time()
        budget = settings.call_timeout if request.operation.is_read else settings.write_timeout
        return _Call(request, now, now + budget, settings.attempts if attempts is None else attempts)

    async def _attempt(self, call: _Call, decode: Callable[[Answer], T | Failure]) -> T:
        answer, credentials = await self._sent(call)
        try:
            return self._value(call, answer, decode, credentials)
        except AuthenticationError as error:
            refusal = error
        # Refused for its credentials, a request is not carried out: even a create may be sent again.
        call.under_way = False
        if call.renewed and isinstance(self._auth, TokenGetter):
            self._auth.in_vain(credentials)
        elif not call.renewed and isinstance(self._auth, RenewableAuth):
            call.renewed = await self._in_time(call, self._renewal(call, renewed(self._auth, credentials)))
            if not call.renewed and isinstance(self._auth, TokenGetter):
                refusal.not_retried = "a token that was got just now was refused, too"
                refusal.retry_after = RENEWS_AGAIN_AFTER
        raise refusal

    def _value(
        self,
        call: _Call,
        answer: Answer,
        decode: Callable[[Answer], T | Failure],
        credentials: dict[str, str],
    ) -> T:
        try:
            value = _judged(call.request, answer, decode, credentials)
        except Exception as error:
            self._tell_request(call, answer, error)
            raise
        self._tell_request(call, answer, None)
        return value

    async def _sent(self, call: _Call) -> tuple[Answer, dict[str, str]]:
        """The answer to one attempt, and the credentials that it was sent with."""
        request = call.request
        outgoing = Outgoing(request.method, self._transport.endpoint + request.target, request.body)
        while True:
            await self._admitted(call)
            getting = self._credentials.headers(outgoing)
            if isinstance(self._auth, TokenGetter):
                getting = self._renewal(call, getting)
            credentials = await self._in_time(call, getting)
            async with await self._transport.place(self._within(call)):
                if self._account.rest() > 0.0:
                    continue  # a 429 came while it waited for its place
                call.under_way = True
                call.sent += 1
                call.attempt_at = self._loop.time()
                call.sent_at = call.sent_at or dt.datetime.now(dt.UTC)
                headers = {**_HEADERS, **credentials}
                if request.body:
                    headers["Content-Type"] = "application/json"
                try:
                    answer = await self._transport.send(
                        request.method, request.target, headers, request.body, within=self._within(call)
                    )
                except BaseException as error:
                    self._tell_request(call, None, error)
                    raise
                return answer, credentials
            # Its place was called back. Only who reads has to share: so it may be sent again.
            call.under_way = False

    def _within(self, call: _Call) -> float:
        return max(min(self.settings.attempt_timeout, call.deadline - self._loop.time()), 0.0)

    async def _admitted(self, call: _Call) -> None:
        """Waits until the account allows another request."""
        if not call.is_patient:
            await self._account.admit(call.deadline)
            return
        await self._account.admit(math.inf, is_patient=True, due=call.due)
        call.started = self._loop.time()
        call.deadline = call.started + self.settings.call_timeout

    async def _renewal(self, call: _Call, work: Coroutine[Any, Any, T]) -> T:
        """Waits for credentials; of all those who did so, not all patient ones go on at once."""
        began = self._loop.time()
        with self._renewing.held():
            got = await work
        waited = self._loop.time() - began
        if call.is_patient and waited >= _WAITED:
            await anyio.sleep(waited * CHANCE.random())
        return got

    async def _in_time(self, call: _Call, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await in_time(work, call.deadline)
        except OSError as error:
            late = self._loop.time() >= call.deadline
            reason = "it took too long" if late else f"they failed with {type(error).__name__}"
        raise ConnectError(f"not sent: waiting for credentials: {reason}")

    def _raise(self, call: _Call, failure: CallError) -> NoReturn:
        failure.attempts = max(failure.attempts, len(call.fates))
        failure.elapsed = self._loop.time() - call.started
        if call.is_doubtful:
            self._raise_unknown(call, str(failure), failure)
        raise failure

    def _raise_unknown(self, call: _Call, reason: str, cause: VizwatchError | None = None) -> NoReturn:
        operation = call.request.operation
        look = "look for it with find_created" if operation is Operation.CREATE else "read the job"
        unknown = OutcomeUnknownError(
            f"{operation.value}: it may have happened, so {look} before trying again: {reason}",
            sent_at=call.sent_at or dt.datetime.now(dt.UTC),
        )
        unknown.attempts, unknown.elapsed = max(len(call.fates), 1), self._loop.time() - call.started
        raise unknown from cause

    async def aclose(self) -> None:
        """Ends the calls under way, which raise, and closes the connections; idempotent."""
        self.check_loop()
        while self._calls:
            self._calls.pop().reschedule(self._loop.time())
        await self._transport.aclose()


def _judged(
    request: Request, answer: Answer, decode: Callable[[Answer], T | Failure], credentials: dict[str, str]
) -> T:
    """The value of a successful answer; any other answer is raised as what it means."""
    secrets = [*credentials.values(), *request.secrets]

    def clean(text: str, limit: float = math.inf) -> str:
        # The secrets first: what is cut or escaped is not recognised.
        return printable(redacted(text, secrets), limit)

    if wire.is_foreign(answer):
        raise wire.not_this_api(request.operation, answer, clean)
    if answer.is_success:
        try:
            value = decode(answer)
        except DecodeError as error:
            raise DecodeError(clean(error.reason), path=clean(error.path)) from None
        if not isinstance(value, Failure):
            return value
        failure = value
    else:
        failure = codec.decode_failure(answer.body)
    if answer.status == 404 and failure.error_code is None:
        raise wire.not_this_api(request.operation, answer, clean)
    refusal = wire.refusal(request.operation, answer, failure, clean)
    signed_at = credentials.get("X-Sdk-Date")
    if signed_at is not None and isinstance(refusal, AuthenticationError):
        skew = wire.clock_skew(signed_at, answer, refusal.message)
        if skew is not None:
            raise wire.skewed(refusal, skew)
        refusal.hint = "Check access key and secret key, and that they are of this endpoint's cloud."
    raise refusal
