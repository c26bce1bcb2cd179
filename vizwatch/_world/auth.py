"""Credentials, and how they get into a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NoReturn, Protocol, runtime_checkable

from vizwatch._values.errors import ConfigError

_MAX_TOKEN: Final = 65_536


class Secret(str):
    """A string that shows itself only to those who ask for it: not in tracebacks, reprs and pickles."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Three stars, whatever the secret."""
        return "'***'"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: make the credentials anew where they are needed")


@runtime_checkable
class Auth(Protocol):
    """What a client asks for credentials.

    One method, so that one's own way of getting a token is a few lines. It is called for each attempt.
    """

    async def headers(self, method: str, url: str, body: bytes) -> Mapping[str, str]:
        """The headers that authenticate this request: `X-Auth-Token`, or a signature over what is given.

        Args:
            method: `GET`, `POST`, `PUT` or `DELETE`.
            url: The whole address, percent-encoded, with its query.
            body: The body as it will be sent; empty where there is none.
        """
        ...


class TokenAuth:
    """A token that is scoped to the project, sent as `X-Auth-Token`. It lives for 24 hours at most.

    Args:
        token: As given by the IAM token call's `X-Subject-Token`.

    Raises:
        ConfigError: The token is empty, or has white space or other characters that no header may have.
    """

    def __init__(self, token: str) -> None:
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token) or len(token) > _MAX_TOKEN:
            reason = "it ends in a newline or a space" if _is_padded(token) else "this one is not"
            raise ConfigError(f"token must be 1 to {_MAX_TOKEN} printable ASCII characters; {reason}")
        self._headers = {"X-Auth-Token": Secret(token)}

    async def headers(self, method: str, url: str, body: bytes) -> Mapping[str, str]:  # noqa: ARG002
        """The token; it does not depend on the request."""
        return self._headers

    def __repr__(self) -> str:
        return "TokenAuth('***')"


def _is_padded(token: object) -> bool:
    return isinstance(token, str) and token != token.strip()
