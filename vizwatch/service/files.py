"""A configuration file, and what it names: read, and made ready for use, without a request."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
import tomllib
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Final

from vizwatch import Auth, ConfigError, Outgoing, TokenAuth, printable
from vizwatch.service.configuration import configured
from vizwatch.service.options import Configuration
from vizwatch.service.tables import Fault, line_numbers

_MAX_FILE: Final = 2**20
_MAX_SECRET: Final = 2**17
_GROUP: Final = "vizwatch.sinks"
_CALL: Final = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINE: Final = re.compile(r"at line ([0-9]+)")


class FaultyConfigurationError(ConfigError):
    """A configuration file with faults, each of them a line of the text."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


async def load(file: Path) -> Configuration:
    """What the file says; nothing is asked of any server.

    Raises:
        FaultyConfigurationError: Says all that is wrong, each with file and line.
    """
    found = await _configuration(file)
    if isinstance(found, tuple):
        raise FaultyConfigurationError(tuple(_said(file, fault) for fault in found))
    return found


def _said(file: Path, fault: Fault) -> str:
    place = printable(str(file)) + (f":{fault.line}" if fault.line is not None else "")
    return f"{place}: {fault.text}"


async def _configuration(file: Path) -> Configuration | tuple[Fault, ...]:
    """In a frame of its own: what it holds may have a secret in the wrong place."""
    try:
        text = _read(file, _MAX_FILE)
    except ConfigError as error:
        return (Fault(str(error)),)
    try:
        document = tomllib.loads(text)
    except RecursionError:
        return (Fault("it is nested too deeply"),)
    except ValueError as error:
        line = _LINE.search(str(error))
        return (Fault(f"it is no TOML: {printable(str(error))}", line and int(line[1])),)
    return await configured(document, line_numbers(text), Surroundings())


def _read(file: Path, limit: int) -> str:
    """The text of a file. Raises :class:`ConfigError`, without any of it."""
    try:
        if not file.is_file():  # a pipe would be waited for
            raise ConfigError("it cannot be read: it does not exist, or is no file")
        with file.open("rb") as opened:
            content = opened.read(limit + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = getattr(error, "strerror", None) or "it is no path"
        problem = f"it cannot be read: {reason}"
    else:
        if len(content) > limit:
            raise ConfigError(f"it is larger than {limit >> 10} KiB")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            problem = f"it is not UTF-8, from byte {error.start} on"
    del file
    raise ConfigError(problem)


class Surroundings:
    """This process's environment, files and modules."""

    def variable(self, name: object, /) -> str:
        """The value of an environment variable."""
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise ConfigError("must be the name of an environment variable")
        if not os.environ.get(name, "").strip():
            raise ConfigError("names an environment variable that is not set, or empty")
        return os.environ[name]

    def content(self, path: object, /) -> str:
        """A file's content, without the white space around it."""
        if not isinstance(path, str) or not path:
            raise ConfigError("must be the path of a file")
        try:
            content = _read(Path(path), _MAX_SECRET).strip()
        except ConfigError as error:
            problem = f"names a file: {error}"
        else:
            if content:
                return content
            problem = "names a file that is empty"
        raise ConfigError(problem)

    def folder(self, path: str, /) -> Path:
        """A folder that can be written, or made."""
        try:
            folder = Path(path).absolute()  # also after a sink has changed the directory
            nearest = next(one for one in (folder, *folder.parents) if _is_there(one))
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or "it is no path"
        else:
            if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
                return folder
            problem = f"{printable(str(nearest))} is none"
        raise ConfigError(f"must be a folder that can be written: {problem}")

    def token_of(self, path: object, /) -> Auth:
        """Credentials of a file that holds a token, and later perhaps another one."""
        return _TokenFile(str(Path(str(path)).absolute()), self)

    def function(self, name: object, /) -> Callable[[dict[str, Any]], object]:
        """What is called by ``package.module:function``, or by the name of an entry point."""
        if not isinstance(name, str):
            raise ConfigError("must be package.module:function, or the name of an entry point")
        try:
            found = _found(name)
        except (ConfigError, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - it is the user's code, and may even call sys.exit
            text = printable(f"{type(error).__name__}: {error}")
            raise ConfigError(f"cannot be imported: {text}") from None
        if not callable(found):
            raise ConfigError("must name a function")
        if inspect.isasyncgenfunction(found) or inspect.isgeneratorfunction(found):
            raise ConfigError("must name a function without yield: called, a generator does nothing")
        function: Callable[[dict[str, Any]], object] = found
        return function

    def check_stdout(self) -> None:
        """Whether there is one."""
        if sys.stdout is None:
            raise ConfigError("is stdout, which is closed: start the service with a place for it to go")

    def check_installed(self, module: str, extra: str, /) -> None:
        """Whether a module of an extra can be imported."""
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"needs {module}: pip install 'vizwatch[{extra}]'")


def _is_there(path: Path) -> bool:
    """Whether something is, be it a link to nothing. Raises `OSError` or `ValueError` where it cannot be."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _found(name: str) -> Any:
    parts = _CALL.fullmatch(name)
    if parts is not None:
        found: Any = importlib.import_module(parts[1])
        for attribute in parts[2].split("."):
            found = getattr(found, attribute)
        return found
    known = importlib.metadata.entry_points(group=_GROUP)
    if name not in known.names:
        names = ", ".join(sorted(known.names)) or "none is installed"
        raise ConfigError(
            f"must be package.module:function, or the name of an entry point of {_GROUP}: {names}"
        )
    return known[name].load()


class UnreadableTokenFileError(OSError):
    """A file has no token just now: whoever renews it may be about to write one."""


class _TokenFile:
    """A token in a file that others renew, such as a mounted secret."""

    def __init__(self, path: str, files: Surroundings) -> None:
        self._path, self._files = path, files
        self._token: TokenAuth | None = None

    def _read(self) -> TokenAuth:
        with contextlib.suppress(ConfigError):
            return TokenAuth(self._files.content(self._path))
        raise UnreadableTokenFileError  # which passes, as what a configuration says does not

    @property
    def identity(self) -> Hashable:
        """What tells its user from others: the file."""
        return self._path

    async def headers(self, request: Outgoing, /) -> Mapping[str, str]:
        """Those of the token as last read."""
        if self._token is None:
            self._token = await asyncio.to_thread(self._read)
        return await self._token.headers(request)

    async def renew(self, refused: Mapping[str, str], /) -> bool:
        """Reads the file anew; tells whether it has another token than the refused one."""
        token = await asyncio.to_thread(self._read)
        if token.identity in refused.values():
            return False
        self._token = token
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path, self._files)  # the token is read where it is needed

    def __repr__(self) -> str:
        return "_TokenFile('***')"
