"""Tokens from the identity service, got with a password: cached, renewed in time, and by one call for all."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Mapping
from typing import Final

from vizwatch._rules import codec, wire
from vizwatch._values import checks
from vizwatch._values.errors import (
    AuthenticationError,
    CallError,
    ConfigError,
)
from vizwatch._values.exchange import Outgoing, Token
from vizwatch._values.secrets import Secret
from vizwatch._values.settings import Settings
from vizwatch._world.session import Session

_RENEW_AT: Final = 0.8
_SPREAD: Final = 0.05
_RETRY_RENEWAL: Final = 60.0


class PasswordAuth:
    """A user's name and password, with which tokens are got from the identity service (IAM).

    One token serves all requests. It is renewed at 80 % of its life, a little earlier or later by chance, and
    once for however many requests the service refuses with it; while the identity service is down the old
    one is used as long as it lives. A password that was refused is never sent again: accounts get locked.

    Args:
        iam_endpoint: `https://iam.{region}…`, with or without `/v3`.
        username: The user's name.
        password: The user's password.
        domain_name: The account's name.
        project_name: The project that tokens are scoped to, by name (`eu-de_project`) …
        project_id: … or by id.
        settings: Timeouts and retries of the token call.

    Raises:
        ConfigError: Something is missing or contradictory.
    """

    def __init__(
        self,
        iam_endpoint: str,
        *,
        username: str,
        password: str,
        domain_name: str,
        project_name: str | None = None,
        project_id: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._settings = Settings() if settings is None else settings
        if isinstance(iam_endpoint, str):
            iam_endpoint = iam_endpoint.rstrip("/").removesuffix("/v3")
        insecure = self._settings.allow_insecure
        self._endpoint = wire.endpoint(iam_endpoint, name="iam_endpoint", allow_insecure=insecure)
        if (project_name is None) == (project_id is None):
            raise ConfigError("one of project_name and project_id must be given: a token is for one project")
        if not isinstance(password, str) or not password.strip():
            raise ConfigError("password must not be empty")
        self._request = wire.get_token(
            checks.text("username", username, low=1, high=255),
            Secret(password),
            checks.text("domain_name", domain_name, low=1, high=255),
            project_name=None
            if project_name is None
            else checks.text("project_name", project_name, high=255),
            project_id=None if project_id is None else checks.identifier("project_id", project_id),
        )
        self._token: Token | None = None
        self._renew_at = 0.0
        self._expires_at = 0.0
        self._asking = asyncio.Lock()
        self._asked = 0
        self._failure: CallError | None = None

    async def headers(self, request: Outgoing, /) -> Mapping[str, str]:  # noqa: ARG002
        """The token, whatever the request; a new one where the old one is, or soon will be, at its end.

        Raises:
            AuthenticationError: The identity service refused the password.
            VizwatchError: It gave no token, and there is no old one that still lives.
        """
        now = asyncio.get_running_loop().time()
        if self._token is None or now >= self._expires_at:
            return self._headers(await self._other_than(self._token))
        if now >= self._renew_at and not self._asking.locked():
            self._renew_at = now + _RETRY_RENEWAL
            try:
                return self._headers(await self._other_than(self._token))
            except CallError:
                pass  # the old token lives, and is asked about again in a minute
        return self._headers(self._token)

    async def renew(self, refused: Mapping[str, str], /) -> bool:
        """A token other than the refused one: by one call, for however many requests were refused with it."""
        if self._token is None or self._token.value == refused.get("X-Auth-Token"):
            await self._other_than(self._token)
        return True

    @staticmethod
    def _headers(token: Token) -> Mapping[str, str]:
        return {"X-Auth-Token": token.value}

    async def _other_than(self, old: Token | None) -> Token:
        """Asks for a token, or takes the one, or the failure, that another task is just getting.

        If the task that asks is cancelled, the next one in the line asks.
        """
        asked = self._asked
        async with self._asking:
            if self._token is not None and self._token is not old:
                return self._token
            refused = isinstance(self._failure, AuthenticationError)
            if self._failure is not None and (refused or self._asked != asked):
                raise copy.copy(self._failure)
            try:
                token = self._token = await self._ask()
            except CallError as error:
                self._asked += 1
                self._failure = error
                raise copy.copy(error) from None
            self._asked += 1
            self._failure = None
            return token

    async def _ask(self) -> Token:
        session = Session(self._endpoint, _Nobody(), self._settings)
        try:
            token = await session.call(self._request, codec.decode_token)
        finally:
            await session.aclose()
        now = asyncio.get_running_loop().time()
        spread = random.uniform(-_SPREAD, _SPREAD)
        self._renew_at = now + token.lifetime * (_RENEW_AT + spread)
        self._expires_at = now + token.lifetime
        return token

    def __repr__(self) -> str:
        return f"PasswordAuth({self._endpoint!r}, '***')"


class _Nobody:
    """Of the token call, whose credentials are its body."""

    async def headers(self, request: Outgoing, /) -> Mapping[str, str]:  # noqa: ARG002
        return {}
