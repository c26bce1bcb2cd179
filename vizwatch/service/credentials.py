"""Secrets that a configuration names, and the credentials that are made of them."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from vizwatch import AkSkAuth, Auth, CloudsAuth, ConfigError, PasswordAuth, Region, Settings, TokenAuth
from vizwatch.service.tables import Check, Table, accepted, text

_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "token": ("token", "token_env", "token_file"),
    "access key": (
        *("access_key", "access_key_env", "access_key_file"),
        *("secret_key", "secret_key_env", "secret_key_file"),
    ),
    "password": ("username", "password", "password_env", "password_file"),
    "cloud": ("cloud",),
}
"""By which keys each kind of credentials is known."""
_ALLOWED: Final = (
    "token_env or token_file; access_key_env with secret_key_env; "
    "username with password_env and domain_name; cloud"
)
_SECRETS: Final = ("token", "access_key", "secret_key", "security_token", "password")
_NAME: Final = text("a string of 1 to 255 characters", r".{1,255}")
_PREFIX: Final = "whsec_"
_SOME_KEY: Final[Mapping[str, str]] = {"access_key": "x", "secret_key": "x"}
_SOME_PASSWORD: Final[Mapping[str, str]] = {
    "iam_endpoint": "https://localhost",
    "username": "x",
    "password": "x",
    "domain_name": "x",
    "project_id": "x",
}


class Sources(Protocol):
    """Where the parts come from that do not stand in the file. What is missing is a :class:`ConfigError`."""

    def variable(self, name: object, /) -> str:
        """The value of an environment variable."""
        ...

    def content(self, path: object, /) -> str:
        """A file's content, without the white space around it."""
        ...

    def folder(self, path: str, /) -> Path:
        """A folder that can be written, or made; absolute."""
        ...

    def token_of(self, path: object, /) -> Auth:
        """Credentials of a file that holds a token, and later perhaps another one."""
        ...

    def function(self, name: object, /) -> Callable[[dict[str, Any]], object]:
        """What is called by ``package.module:function``, or by the name of an entry point."""
        ...

    def check_stdout(self) -> None:
        """Whether there is one."""
        ...

    def check_installed(self, module: str, extra: str, /) -> None:
        """Whether a module of an extra can be imported."""
        ...


def secret(table: Table, key: str, sources: Sources, check: Check[str] = str) -> str | None:
    """What `{key}_env` or `{key}_file` names; ``None`` if there is neither, or none that can be used."""
    _refuse(table, key)
    if table.has(f"{key}_env") and table.has(f"{key}_file"):
        table.note(f"and {key}_file must not both be given", f"{key}_env")
    by_name = table.take(f"{key}_env", lambda name: check(sources.variable(name)), shows=False)
    by_path = table.take(f"{key}_file", lambda path: check(sources.content(path)), shows=False)
    return by_name if by_path is None else by_path


def needed_secret(table: Table, key: str, sources: Sources, check: Check[str] = str) -> str | None:
    """As :func:`secret`; that there is none is noted too."""
    if not any(table.has(f"{key}{ending}") for ending in ("", "_env", "_file")):
        table.note(f"or {key}_file must be given", f"{key}_env")
    return secret(table, key, sources, check)


def _refuse(table: Table, key: str) -> None:
    table.refuse(key, f"must not stand in this file, since it is a secret: give {key}_env or {key}_file")


def signing_key(table: Table, sources: Sources) -> hmac.HMAC | None:
    """The key of a webhook's signatures, by the Standard Webhooks scheme."""
    value = needed_secret(table, "secret", sources)
    if value is None:
        return None
    try:
        key = base64.b64decode(value.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not value.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        key_name = "secret_env" if table.has("secret_env") else "secret_file"
        table.note(f"must name a secret such as `echo {_PREFIX}$(openssl rand -base64 32)` prints", key_name)
        return None
    return hmac.new(key, digestmod=hashlib.sha256)


def auth(
    table: Table, sources: Sources, settings: Settings, region: Region | None, project_id: str | None
) -> Auth | None:
    """The credentials of a target; ``None`` if they cannot be made, which is noted."""
    kinds = [kind for kind, keys in _KINDS.items() if any(table.has(key) for key in keys)]
    if len(kinds) != 1:
        for key in _SECRETS:
            _refuse(table, key)
        table.note(f"must have exactly one of: {_ALLOWED}")
        return None
    try:
        made = _MAKERS[kinds[0]](table, sources, settings, region, project_id)
    except ConfigError as error:
        table.note(f"is wrong: {error}")
        made = None
    table.close()
    return made


def _token(table: Table, sources: Sources, *_: object) -> Auth | None:
    token = needed_secret(table, "token", sources, accepted("token", TokenAuth))
    if token is None:
        return None
    return sources.token_of(table.values["token_file"]) if table.has("token_file") else TokenAuth(token)


def _access_key(table: Table, sources: Sources, *_: object) -> Auth | None:
    access_key = needed_secret(table, "access_key", sources, accepted("access_key", AkSkAuth, **_SOME_KEY))
    secret_key = needed_secret(table, "secret_key", sources, accepted("secret_key", AkSkAuth, **_SOME_KEY))
    temporary = secret(table, "security_token", sources, accepted("security_token", AkSkAuth, **_SOME_KEY))
    if access_key is None or secret_key is None:
        return None
    return AkSkAuth(access_key, secret_key, temporary)


def _password(
    table: Table, sources: Sources, settings: Settings, region: Region | None, project_id: str | None
) -> Auth | None:
    username = table.need("username", _NAME, shows=False)
    made = functools.partial(PasswordAuth, settings=settings)
    password = needed_secret(table, "password", sources, accepted("password", made, **_SOME_PASSWORD))
    domain_name = table.need("domain_name", _NAME)
    iam_endpoint = table.take("iam_endpoint", accepted("iam_endpoint", made, **_SOME_PASSWORD))
    if not table.has("iam_endpoint"):
        if region is None:
            table.note("must be given where the target has no region", "iam_endpoint")
        else:
            iam_endpoint = region.iam_endpoint
    if username is None or password is None or domain_name is None:
        return None
    if iam_endpoint is None or project_id is None:
        return None
    return made(
        iam_endpoint, username=username, password=password, domain_name=domain_name, project_id=project_id
    )


def _cloud(table: Table, sources: Sources, settings: Settings, *_: object) -> Auth | None:
    cloud = table.need("cloud", _NAME)
    sources.check_installed("openstack", "openstack")
    return None if cloud is None else CloudsAuth(cloud, settings=settings)


_MAKERS: Final[Mapping[str, Callable[..., Auth | None]]] = {
    "token": _token,
    "access key": _access_key,
    "password": _password,
    "cloud": _cloud,
}
