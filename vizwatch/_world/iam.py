"""Tokens from the identity service (IAM), got with a password."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from vizwatch._rules import codec, wire
from vizwatch._values import checks, regions
from vizwatch._values.errors import ConfigError
from vizwatch._values.exchange import Outgoing, Scope, Token
from vizwatch._values.secrets import Secret, hidden, hidden_address
from vizwatch._values.settings import Settings, given_or_default
from vizwatch._world.session import Session
from vizwatch._world.tokens import TokenGetter


class PasswordAuth(TokenGetter):
    """A user's name and password, with which tokens are got from the identity service (IAM).

    One token serves all requests. It is renewed at 80 % of its life, a little earlier or later by chance, in
    the background: no request waits, and while the identity service is down or hangs the old one is used as
    long as it lives. A refused token is renewed once for however many requests were refused with it, and once
    a minute at most where the new one is refused too. A password that was refused is never sent again:
    accounts get locked.

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
        password, iam_endpoint = hidden(password), hidden_address(iam_endpoint)
        self._settings = given_or_default(settings)
        if isinstance(iam_endpoint, str):
            iam_endpoint = hidden_address(iam_endpoint.rstrip("/").removesuffix("/v3"))
        insecure = self._settings.allow_insecure
        self._endpoint = wire.endpoint(iam_endpoint, name="iam_endpoint", like="iam", allow_insecure=insecure)
        if (project_name is None) == (project_id is None):
            raise ConfigError("one of project_name and project_id must be given: a token is for one project")
        if not isinstance(password, str) or not password.strip():
            raise ConfigError("password must not be empty")
        if any("\ud800" <= one <= "\udfff" for one in password):
            raise ConfigError(
                "password must be text: it has lone surrogates, as bytes read in a wrong encoding"
            )
        self._arguments = {
            "iam_endpoint": self._endpoint,
            "username": username,
            "password": Secret(password),
            "domain_name": domain_name,
            "project_name": project_name,
            "project_id": project_id,
        }
        username = checks.text("username", username, low=1, high=255)
        domain_name = checks.text("domain_name", domain_name, low=1, high=255)
        self.identity: Hashable = (self._endpoint, domain_name, username)
        """What the service knows its user by, whichever project the tokens are for."""
        self._request = wire.get_token(
            username,
            Secret(password),
            domain_name,
            project_name=None
            if project_name is None
            else checks.text("project_name", project_name, high=255),
            project_id=None if project_id is None else checks.identifier("project_id", project_id),
        )
        self._project_id = project_id
        super().__init__()

    def arguments(self) -> dict[str, Any]:
        """What to make the same of elsewhere, the password in the clear; the settings aside."""
        return {**self._arguments, "password": "".join(self._arguments["password"] or "")}

    async def scope(self) -> Scope:
        """The project that tokens are for, asked for if only its name is known, and its region's endpoint."""
        if self._project_id is None:
            self._project_id = (await self._tokens.current()).project_id
        region = regions.at(self._endpoint)
        return Scope(self._project_id, None if region is None else region.endpoint)

    async def _ask(self) -> Token:
        session = Session(self._endpoint, _Nobody(), self._settings)
        try:
            return await session.call(self._request, codec.decode_token)
        finally:
            await session.aclose()

    async def _asked_at(self) -> str:
        return self._endpoint

    def __repr__(self) -> str:
        # A traceback may show it half made.
        return f"PasswordAuth({getattr(self, '_endpoint', None)!r}, '***')"


class _Nobody:
    """Of the token call, whose credentials are its body."""

    async def headers(self, request: Outgoing, /) -> Mapping[str, str]:  # noqa: ARG002
        return {}
