"""One project of one endpoint: located by its credentials if need be, opened, called and closed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import anyio

from vizwatch._rules import wire
from vizwatch._values import checks, regions
from vizwatch._values.errors import ClientClosedError, ConfigError, ConnectError, RequestTimeoutError
from vizwatch._values.exchange import Answer, Failure, Request, Scope
from vizwatch._values.secrets import Secret
from vizwatch._values.settings import Settings
from vizwatch._world import transport
from vizwatch._world.account import Account, own_account
from vizwatch._world.auth import Auth, ScopedAuth, TokenAuth, scope_of
from vizwatch._world.line import Due, Hold
from vizwatch._world.session import Session, Settle
from vizwatch._world.tokens import TokenGetter
from vizwatch._world.transport import Share

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")


class Project:
    """Where the calls of one client go.

    Args:
        endpoint: `https://host[:port]`, or ``None`` where the credentials know it.
        project_id: The project's id, or ``None`` where the credentials know it.
        auth: Credentials, or a token.
        settings: Retries, timeouts, rate.
        http: The caller's own `aiohttp.ClientSession`, a share of a pool, or ``None``.
        allow_insecure: Whether `http` is allowed to any host.
        account: Whose budget the calls spend; by default that of the settings.

    Raises:
        ConfigError: One of them is wrong, or missing.
    """

    def __init__(
        self,
        endpoint: str | None,
        project_id: str | None,
        auth: Auth | str,
        settings: Settings,
        http: aiohttp.ClientSession | Share | None,
        *,
        allow_insecure: bool,
        account: Account | None = None,
    ) -> None:
        insecure = settings.allow_insecure or checks.switch("allow_insecure", allow_insecure)
        self._address = functools.partial(wire.endpoint, allow_insecure=insecure)
        self._endpoint = None if endpoint is None else self._address(endpoint)
        self._project_id = None if project_id is None else regions.project_id("project_id", project_id)
        self._auth = TokenAuth(auth) if isinstance(auth, str) else auth
        if isinstance(self._auth, type) or not isinstance(self._auth, Auth):
            raise ConfigError(f"auth must be a token or an Auth such as TokenAuth, not {type(auth).__name__}")
        if None in {self._endpoint, self._project_id} and not isinstance(self._auth, ScopedAuth):
            raise ConfigError(
                "endpoint and project_id must be given: these credentials do not tell them, as those of "
                "CloudsAuth and PasswordAuth do"
            )
        self._settings = settings
        self._http = transport.own_session(http)
        self._account = own_account(account)
        self._session: Session | None = None
        self.renewing = Hold()
        """The renewal of its credentials, while calls wait for it."""
        self._opening: anyio.CancelScope | None = None
        self._closed = False

    @property
    def endpoint(self) -> str:
        """The service's address."""
        return self._known("endpoint", self._endpoint)

    @property
    def project_id(self) -> str:
        """The project's id."""
        return self._known("project_id", self._project_id)

    def _known(self, name: str, value: str | None) -> str:
        if value is None:
            raise ConfigError(f"the {name} is not known yet: open the client, and the credentials tell it")
        return value

    def check_open(self) -> None:
        """Raises unless calls can be made."""
        self._opened()

    def check_loop(self) -> None:
        """Raises in another event loop than the one that it was opened in."""
        if self._session is not None:
            self._session.check_loop()

    async def call(
        self,
        request: Request,
        decode: Callable[[bytes], T | Failure],
        *,
        settle: Settle | None = None,
    ) -> T:
        """As :meth:`Session.call`, with a decoder of the body."""
        return await self._opened().call(request, lambda answer: decode(answer.body), settle=settle)

    async def read(
        self, request: Request, decode: Callable[[bytes], T | Failure], *, due: Due
    ) -> tuple[T, float]:
        """As :meth:`call` for one who is patient; gives also when the request was sent."""
        sent_at = math.nan

        def noted(answer: Answer) -> T | Failure:
            nonlocal sent_at
            sent_at = answer.sent_at
            return decode(answer.body)

        value = await self._opened().call(request, noted, is_patient=True, due=due)
        return value, sent_at

    async def exchange(
        self, request: Request, check: Callable[[bytes], object] | None = None
    ) -> tuple[Answer, tuple[Secret, ...]]:
        """As :meth:`Session.exchange`, with a decoder of the body."""
        decode = None if check is None else lambda answer: check(answer.body)
        return await self._opened().exchange(request, decode)

    def _opened(self) -> Session:
        if self._closed:
            raise ClientClosedError("this client is closed: make a new one")
        if self._session is None:
            raise ConfigError("this client is not open yet: use it inside `async with Client(…) as client`")
        return self._session

    async def open(self) -> None:
        """Asks the credentials for what was not given, and makes calls possible; once.

        Raises:
            RequestTimeoutError: They did not tell within `Settings.call_timeout`.
            ClientClosedError: The project was closed meanwhile.
            VizwatchError: They do not tell, or cannot be used.
        """
        if self._closed:
            raise ClientClosedError("this client is closed: make a new one")
        if self._opening is not None:
            raise ConfigError("this client is open already: enter it once, and share it between tasks")
        within = self._settings.call_timeout
        try:
            with anyio.move_on_after(within) as self._opening:
                await self._locate()
                if not self._closed:
                    self._session = Session(
                        self.endpoint, self._auth, self._settings, self._http, self._account, self.renewing
                    )
        finally:
            if self._session is None:
                self._opening = None
        if self._closed:
            raise ClientClosedError("this client was closed while it was opened")
        if self._session is None:
            raise RequestTimeoutError(
                f"{type(self._auth).__name__} did not tell project and endpoint within {within:g} s"
            )

    async def _locate(self) -> None:
        if None not in {self._endpoint, self._project_id} or not isinstance(self._auth, ScopedAuth):
            return
        scope = await self._scope(self._auth)
        if self._project_id is None:
            if scope.project_id is None:
                raise ConfigError("the credentials name no project: give project_id")
            self._project_id = regions.project_id("the credentials' project_id", scope.project_id)
        if self._endpoint is None:
            if scope.endpoint is None:
                raise ConfigError("the credentials do not tell where ModelArts is: give endpoint")
            self._endpoint = self._address(scope.endpoint, name="the credentials' endpoint")

    async def _scope(self, auth: ScopedAuth) -> Scope:
        try:
            return await scope_of(auth)
        except OSError as error:
            reason = type(error).__name__
        raise ConnectError(f"the credentials did not tell their project: they failed with {reason}")

    async def aclose(self) -> None:
        """Ends opening and the calls under way, which raise, and closes the connections; idempotent."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        try:
            if self._session is not None:
                await self._session.aclose()
        finally:
            if isinstance(self._auth, TokenGetter):
                await self._auth.aclose()

    def __repr__(self) -> str:
        return f"{getattr(self, '_endpoint', None)!r}, {getattr(self, '_project_id', None)!r}"
