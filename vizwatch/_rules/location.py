"""Locations: where a Redis is, and how to get in, by its URL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs

from vizwatch._values.errors import ConfigError
from vizwatch._values.secrets import Secret, hidden
from vizwatch._values.text import printable

_PORT: Final = 6379
_LONGEST: Final = 4_096
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_OF_TLS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})


@attrs.frozen
class Location:
    """A Redis. As text it has no secret: ``redis.example.com:6379/0``."""

    host: str = ""
    """Its host; empty for a socket of this machine."""
    port: int = _PORT
    path: str = ""
    """The path of the socket."""
    database: int = 0
    is_tls: bool = False
    tls_files: Mapping[str, str] = attrs.field(factory=dict)
    """Paths of certificates and of a key, by redis-py's names."""
    username: Secret | None = None
    password: Secret | None = None

    def __str__(self) -> str:
        if self.path:
            return f"{printable(self.path)}, database {self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{printable(host)}:{self.port}/{self.database}"

    @property
    def secrets(self) -> list[Secret]:
        """What must not show, wherever a server repeats it."""
        return [one for one in (self.password, self.username) if one]


def locate(url: str, name: str) -> Location:
    """The location that a URL says: ``redis://[user:password@]host[:port][/database]``, or as below.

    ``rediss://…`` for TLS, with ``?ssl_ca_certs=FILE``, ``ssl_certfile`` and ``ssl_keyfile`` if need be;
    ``unix:///path?db=0`` for a socket.

    Args:
        url: The URL.
        name: What it is called in an error.

    Raises:
        ConfigError: It is none. The error does not show it, as it may hold a password.
    """
    url = hidden(url)
    is_text = isinstance(url, str) and len(url) <= _LONGEST and url.isprintable() and " " not in url
    found = _located(url) if is_text else None
    if isinstance(found, Location):
        return found
    reason = f"; {found}" if found else ""
    raise ConfigError(
        f"{name} must be redis://[user:password@]host[:port][/database], rediss://… for TLS, or "
        f"unix:///path[?db=number], with what is special in a password percent-encoded{reason}; it is not "
        "shown, since it may hold a password"
    )


def _located(url: str) -> Location | str:
    """The location, or what is wrong: told, not raised, as these frames hold what must not show."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        port = parts.port or _PORT
    except ValueError:
        return "its host, port or query is none"
    if parts.scheme not in {"redis", "rediss", "unix"}:
        return "its scheme is another"
    is_tls = parts.scheme == "rediss"
    if parts.fragment or not options.keys() <= ({"db"} | (_OF_TLS if is_tls else set())):
        return "it has an option that is unknown, or a fragment"
    database = options.pop("db", "0")
    if parts.scheme != "unix" and parts.path not in {"", "/"}:
        database = parts.path[1:]
    if not _NUMBER.fullmatch(database):
        return "its database is no number"
    if not _leads_somewhere(parts):
        return "it has no host, or no path"
    is_unix = parts.scheme == "unix"
    return Location(
        host="" if is_unix else parts.hostname or "",
        port=port,
        path=unquote(parts.path) if is_unix else "",
        database=int(database),
        is_tls=is_tls,
        tls_files=options,
        username=_secret(parts.username),
        password=_secret(parts.password),
    )


def _leads_somewhere(parts: SplitResult) -> bool:
    if parts.scheme == "unix":
        return len(parts.path) > 1 and not parts.hostname and "\0" not in unquote(parts.path)
    return bool(re.fullmatch(r"[0-9A-Za-z._:%-]+", parts.hostname or ""))


def _secret(quoted: str | None) -> Secret | None:
    return Secret(unquote(quoted)) if quoted else None
