"""Where configuration comes from - the environment, the vendor's credentials file - and what it makes."""

from __future__ import annotations

import configparser
import contextlib
import errno
import functools
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from vizwatch._rules import configuration, wire
from vizwatch._rules.configuration import CredentialsFile
from vizwatch._values import checks
from vizwatch._values.configuration import AccessKey, Cloud, Configuration, Password, Token
from vizwatch._values.secrets import SecretDict
from vizwatch._values.settings import Settings, given_or_default
from vizwatch._values.text import printable
from vizwatch._world.auth import AkSkAuth, Auth, TokenAuth
from vizwatch._world.clouds import CloudsAuth
from vizwatch._world.iam import PasswordAuth

_VARIABLE: Final = "HUAWEICLOUD_SDK_CREDENTIALS_FILE"
_MAX_FILE: Final = 2**20


@attrs.frozen
class Account:
    """What a client is made of."""

    found: Configuration
    auth: Auth
    settings: Settings
    endpoint: str | None
    project_id: str | None
    workspace_id: str | None


def account(
    arguments: Mapping[str, object], *, profile: object, settings: object, allow_insecure: bool = False
) -> Account:
    """What is :func:`found <find>`, made ready for use.

    Raises:
        ConfigError: Something is missing, wrong or contradictory.
    """
    chosen = given_or_default(settings)
    insecure = chosen.allow_insecure or checks.switch("allow_insecure", allow_insecure)
    found = find(arguments, profile=profile, allow_insecure=insecure)
    values = (one and one.value for one in (found.endpoint, found.project_id, found.workspace_id))
    return Account(found, _auth(found, attrs.evolve(chosen, allow_insecure=insecure)), chosen, *values)


def _auth(found: Configuration, settings: Settings) -> Auth:
    match found.credentials:
        case Token(token):
            return TokenAuth(token.value)
        case AccessKey(access_key, secret_key, temporary):
            return AkSkAuth(access_key.value, secret_key.value, temporary and temporary.value)
        case Cloud(cloud):
            return CloudsAuth(cloud.value or None, settings=settings, source=cloud.source)
        case Password() as user:
            name = user.project_name if found.project_id is None else None
            return PasswordAuth(
                user.iam_endpoint.value,
                username=user.username.value,
                password=user.password.value,
                domain_name=user.domain_name.value,
                project_name=name and name.value,
                project_id=found.project_id and found.project_id.value,
                settings=settings,
            )


def find(
    arguments: Mapping[str, object], *, profile: object = None, allow_insecure: bool = False
) -> Configuration:
    """The configuration that these arguments, the environment and the credentials file give.

    Args:
        arguments: `endpoint`, `region`, `project_id` and `workspace_id`; ``None`` counts as not given.
        profile: The section of the credentials file, instead of `basic`, or else a cloud of clouds.yaml.
        allow_insecure: Whether `http` is allowed beyond loopback.

    Raises:
        ConfigError: Something is missing, wrong or contradictory.
    """
    return configuration.resolve(
        arguments,
        SecretDict(os.environ),
        credentials_file(os.environ),
        profile=profile,
        clouds_file=_clouds_file(os.environ),
        address=functools.partial(wire.endpoint, allow_insecure=allow_insecure),
    )


def _clouds_file(environment: Mapping[str, str]) -> str | None:
    """A clouds.yaml where most people have it; openstacksdk looks in a few more places."""
    named = environment.get("OS_CLIENT_CONFIG_FILE")
    home = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME", "/"), ".config"))
    folders = ("", f"{home}/openstack", "/etc/openstack")
    for path in (named,) if named else (Path(folder, "clouds.yaml") for folder in folders):
        with contextlib.suppress(OSError, ValueError):
            if Path(path).is_file():
                return printable(str(path))
    return None


def credentials_file(environment: Mapping[str, str]) -> CredentialsFile:
    """The file that `HUAWEICLOUD_SDK_CREDENTIALS_FILE` names, or `~/.huaweicloud/credentials`.

    What is wrong with it is told in its `problem`, never raised: it may not be needed.
    """
    named = environment.get(_VARIABLE)
    home = environment.get("USERPROFILE" if sys.platform == "win32" else "HOME")
    if named:
        path, name = Path(named), printable(named)
    elif named is None and home:
        path, name = Path(home, ".huaweicloud", "credentials"), CredentialsFile().name
    elif named is None:
        return CredentialsFile()
    else:
        return CredentialsFile(problem=f"{_VARIABLE} is set, but blank: give it a path, or unset it")
    try:
        text, mode = _read(path)
    except FileNotFoundError:
        problem = f"{_VARIABLE} names {name}, which does not exist" if named else None
        return CredentialsFile(name=name, problem=problem)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return CredentialsFile(name=name, problem=f"{name}, line {line}: it is not UTF-8")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        return CredentialsFile(name=name, problem=f"{name} cannot be read: {reason}")
    shared = os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH)
    notes = (f"{name} can be read by others on this machine: chmod 600 it",) if shared else ()
    return _parsed(name, text, notes)


def _read(path: Path) -> tuple[str, int]:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):  # a pipe would be waited for
        raise OSError(errno.EINVAL, "it is not a file")
    with path.open("rb") as file:
        content = file.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        raise OSError(errno.EFBIG, "it is larger than 1 MiB")
    return content.decode("utf-8-sig"), mode


def _parsed(name: str, text: str, notes: tuple[str, ...]) -> CredentialsFile:
    """As the vendor's SDK reads it. Its parser's own errors would show the line, and the secret on it."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.MissingSectionHeaderError as error:
        problem = f"line {error.lineno}: it stands before any section, such as [basic]"
    except configparser.DuplicateSectionError as error:
        problem = f"line {error.lineno}: a section stands there for the second time"
    except configparser.DuplicateOptionError as error:
        problem = f"line {error.lineno}: a key stands there for the second time"
    except configparser.ParsingError as error:
        problem = f"line {error.errors[0][0]}: it is no `key = value`"
    else:
        sections = {section: dict(parser[section]) for section in parser.sections()}
        return CredentialsFile(name=name, sections=sections, notes=notes)
    return CredentialsFile(name=name, problem=f"{name}, {problem}", notes=notes)
