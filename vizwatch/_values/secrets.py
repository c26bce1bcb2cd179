"""Secrets that do not show themselves."""

from __future__ import annotations

import re
from typing import Final, NoReturn, TypeVar

from vizwatch._values.errors import ConfigError

T = TypeVar("T")

_LONGEST: Final = 65_536


class Secret(str):
    """A string that shows itself only to those who ask for it: not in tracebacks, reprs and pickles."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Three stars, whatever the secret."""
        return "'***'"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: make the credentials anew where they are needed")


class SecretBytes(bytes):
    """As :class:`Secret`, for a body that holds one."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Three stars, whatever the secret."""
        return "b'***'"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: make the credentials anew where they are needed")


class SecretDict(dict[str, str]):
    """A dictionary with secrets among its values, such as a process's environment."""

    __slots__ = ()

    def __repr__(self) -> str:
        """The names alone."""
        return f"{{{', '.join(map(repr, self))}}}"


def hidden(value: T) -> T | Secret:
    """A string as a secret, anything else as it is: before what holds it can fail, and be shown."""
    return Secret(value) if isinstance(value, str) else value


def hidden_address(value: T) -> T | Secret:
    """An address as a secret, if it has what may hold one: a user, a query or a fragment."""
    return Secret(value) if isinstance(value, str) and any(one in value for one in "@?#") else value


def secret(name: str, value: object) -> Secret:
    """The value as a secret, if a header can carry it. Raises :class:`ConfigError` without showing it."""
    value = hidden(value)
    if isinstance(value, str) and len(value) <= _LONGEST and re.fullmatch(r"[!-~]+", value):
        return Secret(value)
    padded = isinstance(value, str) and value.strip() and value != value.strip()
    reason = "; it begins or ends in a newline or a space, as a file's content does" if padded else ""
    raise ConfigError(f"{name} must be 1 to {_LONGEST} printable ASCII characters without spaces{reason}")
