"""Credentials, and how they get into a request."""

from __future__ import annotations

import datetime as dt
import inspect
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Protocol, runtime_checkable
from urllib.parse import urlsplit

from vizwatch._rules import signing
from vizwatch._values.errors import ConfigError, VizwatchError
from vizwatch._values.exchange import Outgoing, Scope
from vizwatch._values.secrets import Secret, hidden, secret
from vizwatch._values.text import printable

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")


@runtime_checkable
class Auth(Protocol):
    """What a client asks for credentials.

    One method, so that one's own way of getting a token is a few lines. It is called for each attempt.
    """

    async def headers(self, request: Outgoing, /) -> Mapping[str, str]:
        """The headers that authenticate a request: `X-Auth-Token`, or a signature over what is given.

        An `OSError` raised here, such as `TimeoutError`, counts as a request that could not be sent, and is
        tried again, until the call's deadline. Any other error that is no :class:`VizwatchError` becomes a
        :class:`ConfigError` that names its type and not its text, which may hold a secret; so does a header
        without a value, or one that no request may have.
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


class Credentials:
    """The headers that an :class:`Auth` gives, checked, and with values that do not show.

    Args:
        auth: Whose.
    """

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._last: dict[str, str] = {}

    async def headers(self, request: Outgoing) -> dict[str, str]:
        """Those for a request.

        Raises:
            ConfigError: They are none, or the credentials failed in a way that no network does.
            OSError: They failed as a network does.
            VizwatchError: As the credentials raise it.
        """
        given = await _guarded("headers", lambda: self._auth.headers(request))
        if given == self._last:
            return self._last
        checked = _checked_headers(given)
        del given  # which may be a secret, and this frame is shown
        if isinstance(checked, str):
            raise ConfigError(checked)
        self._last = checked
        return checked


def _checked_headers(given: object) -> dict[str, str] | str:
    """The headers, or what is wrong with them: told, not raised, as this frame holds what must not show."""
    if not isinstance(given, Mapping):
        return f"auth.headers must give a mapping of headers, not {_type(given)}"
    for name, text in given.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return "auth.headers gave a header whose name is none: it has characters that no name may have"
        if not isinstance(text, str) or not _VALUE.fullmatch(text):
            return (
                "auth.headers gave a header with a value that none may have: it must be printable ASCII, and "
                "neither be empty nor begin or end in a blank"
            )
    return {name: Secret(text) for name, text in given.items()}


async def renewed(auth: RenewableAuth, refused: Mapping[str, str]) -> bool:
    """Whether the credentials were renewed. Raises as :meth:`Credentials.headers` does."""
    return bool(await _guarded("renew", lambda: auth.renew(refused)))


async def scope_of(auth: ScopedAuth) -> Scope:
    """What the credentials are for. Raises as :meth:`Credentials.headers` does."""
    checked = _checked_scope(await _guarded("scope", auth.scope))
    if isinstance(checked, str):
        raise ConfigError(checked)
    return checked


def _checked_scope(given: object) -> Scope | str:
    return given if isinstance(given, Scope) else f"auth.scope must give a Scope, not {_type(given)}"


async def _guarded(method: str, ask: Callable[[], object]) -> object:
    try:
        given = ask()
        if inspect.isawaitable(given):
            return await given
        del given  # which may be a secret, and this frame is shown
        problem = f"must be a coroutine function: write `async def {method}`"
    except (VizwatchError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - it is the user's code
        problem = f"failed with {_type(error)}, whose text is not shown, since it may hold a secret"
    # Outside of the except clause: the user's exception must not hang on ours as context.
    raise ConfigError(f"auth.{method} {problem}")


def _type(value: object) -> str:
    return printable(type(value).__name__, 60)


class TokenAuth:
    """A token that is scoped to the project, sent as `X-Auth-Token`. It lives for 24 hours at most.

    Args:
        token: As given by the IAM token call's `X-Subject-Token`.

    Raises:
        ConfigError: The token is empty, or has white space or other characters that no header may have.
    """

    def __init__(self, token: str) -> None:
        token = hidden(token)
        self._headers = {"X-Auth-Token": secret("token", token)}

    def arguments(self) -> dict[str, Any]:
        """What to make the same of elsewhere, the token in the clear."""
        return {"token": "".join(self._headers["X-Auth-Token"])}

    @property
    def identity(self) -> Hashable:
        """What the service knows its user by: the token."""
        return self._headers["X-Auth-Token"]

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
        access_key, secret_key = hidden(access_key), hidden(secret_key)
        security_token = hidden(security_token)
        self._access_key = secret("access_key", access_key)
        self._secret_key = secret("secret_key", secret_key)
        temporary = security_token is not None
        self._headers = {"X-Security-Token": secret("security_token", security_token)} if temporary else {}

    def arguments(self) -> dict[str, Any]:
        """What to make the same of elsewhere, the keys in the clear."""
        names = {"access_key": self._access_key, "secret_key": self._secret_key}
        if self._headers:
            names["security_token"] = self._headers["X-Security-Token"]
        return {name: "".join(value) for name, value in names.items()}

    @property
    def identity(self) -> Hashable:
        """What the service knows its user by: the key's id."""
        return self._access_key

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
