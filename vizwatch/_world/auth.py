"""Credentials, and how they get into a request."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from vizwatch._rules import signing
from vizwatch._values.exchange import Outgoing, Scope
from vizwatch._values.secrets import Secret, secret


@runtime_checkable
class Auth(Protocol):
    """What a client asks for credentials.

    One method, so that one's own way of getting a token is a few lines. It is called for each attempt.
    """

    async def headers(self, request: Outgoing, /) -> Mapping[str, str]:
        """The headers that authenticate a request: `X-Auth-Token`, or a signature over what is given.

        An `OSError` raised here, such as `TimeoutError`, counts as a request that could not be sent, and is
        tried again; any other error ends the call.
        """
        ...


@runtime_checkable
class RenewableAuth(Auth, Protocol):
    """Credentials that can be renewed when the service refuses them with HTTP 401."""

    async def renew(self, refused: Mapping[str, str], /) -> bool:
        """Gets other credentials than those refused; tells whether there are any, to send the request again.

        Args:
            refused: What :meth:`headers` gave for the refused attempt. Many requests may be refused with the
                same credentials at once, and together they need one renewal.
        """
        ...


@runtime_checkable
class ScopedAuth(Auth, Protocol):
    """Credentials that know their project, so that a client may be made without its id."""

    async def scope(self) -> Scope:
        """Which project they are for, and where it is; may ask the identity service."""
        ...


class TokenAuth:
    """A token that is scoped to the project, sent as `X-Auth-Token`. It lives for 24 hours at most.

    Args:
        token: As given by the IAM token call's `X-Subject-Token`.

    Raises:
        ConfigError: The token is empty, or has white space or other characters that no header may have.
    """

    def __init__(self, token: str) -> None:
        token = secret("token", Secret(token) if isinstance(token, str) else token)
        self._headers = {"X-Auth-Token": token}

    async def headers(self, request: Outgoing, /) -> Mapping[str, str]:  # noqa: ARG002
        """The token, whatever the request."""
        return self._headers

    def __repr__(self) -> str:
        return "TokenAuth('***')"


class AkSkAuth:
    """An access key, with which each attempt is signed anew (SDK-HMAC-SHA256).

    The gateway refuses signatures whose time is more than 15 minutes off, so this machine's clock matters.

    Args:
        access_key: The key's id.
        secret_key: The key itself; it is never sent.
        security_token: Of a temporary key.

    Raises:
        ConfigError: One of them is empty, or has characters that no header may have.
    """

    def __init__(self, access_key: str, secret_key: str, security_token: str | None = None) -> None:
        self._access_key = secret("access_key", access_key)
        self._secret_key = secret("secret_key", secret_key)
        temporary = security_token is not None
        self._headers = {"X-Security-Token": secret("security_token", security_token)} if temporary else {}

    async def headers(self, request: Outgoing, /) -> Mapping[str, str]:
        """The signature of this request, and the headers that it covers."""
        target = urlsplit(request.url)
        signed = {
            "Host": target.netloc,
            "X-Sdk-Date": signing.timestamp(dt.datetime.now(dt.UTC)),
            "X-Project-Id": target.path.split("/")[2],
            **self._headers,
        }
        signature = signing.authorization(
            request.method,
            target.path,
            target.query,
            signed,
            request.body,
            access_key=self._access_key,
            secret_key=self._secret_key,
        )
        return {**signed, "Authorization": Secret(signature)}

    def __repr__(self) -> str:
        return "AkSkAuth('***', '***')"
