"""Credentials as openstacksdk finds them: in clouds.yaml, and in `OS_*`."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import os
import stat
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import urlsplit

from vizwatch._rules import wire
from vizwatch._values import checks, regions
from vizwatch._values.errors import (
    CallError,
    ConfigError,
    ConnectError,
    ProtocolError,
    RequestTimeoutError,
    TlsError,
)
from vizwatch._values.exchange import Operation, Scope, Token
from vizwatch._values.secrets import Secret, secret
from vizwatch._values.settings import Settings, given_or_default
from vizwatch._values.text import printable, redacted
from vizwatch._world.tokens import TokenGetter

T = TypeVar("T")

_SERVICE_TYPES: Final = ("modelarts", "modelartsv1")
_UNKNOWN_LIFE: Final = 3600.0
_MAX_FILE: Final = 2**20
_NO_SECRETS: Final = frozenset(
    {"auth_url", "username", "user_id", "project_id", "project_name", "default_domain", "system_scope"}
)


class CloudsAuth(TokenGetter):
    """A cloud of clouds.yaml, or of the `OS_*` variables, as openstacksdk reads them.

    Whatever kind of credentials stand there: keystoneauth gets a token with them. All that blocks - reading
    files, importing, asking - is done in a thread, for `Settings.call_timeout` at most. Tokens are kept and
    renewed as :class:`PasswordAuth` does. Needs the extra `openstack`.

    Args:
        cloud: The cloud's name; by default the one that `OS_CLOUD` names, or the variables themselves.
        settings: Timeouts, and whether environment proxies are used.
        source: Where the name is from, for errors.

    Raises:
        ConfigError: The name is none. What is wrong with the cloud is raised when it is first used.
    """

    def __init__(
        self, cloud: str | None = None, *, settings: Settings | None = None, source: str | None = None
    ) -> None:
        self._name = None if cloud is None else checks.text("cloud", cloud, low=1, high=255)
        self._title = "OS_*" if self._name is None else f"the cloud {checks.shown(self._name)} of clouds.yaml"
        if source is not None:
            self._title += f" ({source})"
        self._settings = given_or_default(settings)
        self._cloud: _Cloud | None = None
        self._finding = asyncio.Lock()
        super().__init__()

    @property
    def identity(self) -> Hashable:
        """What the service knows its user by, as far as is known: the cloud's name."""
        return self._name or "OS_*"

    def arguments(self) -> dict[str, Any]:
        """What to make the same of elsewhere; the settings aside."""
        return {"cloud": self._name}

    async def scope(self) -> Scope:
        """The project of the cloud, and where ModelArts is: by the service catalog, or else by the region."""
        token = await self._tokens.current()
        cloud = await self._found()
        return await self._in_thread(lambda: cloud.scope(token))

    async def _ask(self) -> Token:
        return await self._in_thread((await self._found()).token)

    async def _asked_at(self) -> str:
        return (await self._found()).auth_url

    async def _found(self) -> _Cloud:
        if self._cloud is None:
            async with self._finding:
                if self._cloud is None:
                    self._cloud = await self._in_thread(
                        lambda: _Cloud(self._name, self._title, self._settings)
                    )
        return self._cloud

    async def _in_thread(self, function: Callable[[], T]) -> T:
        within = self._settings.call_timeout
        try:
            async with asyncio.timeout(within) as deadline:
                return await _in_daemon_thread(function)
        except TimeoutError:
            if not deadline.expired():
                raise
        raise RequestTimeoutError(f"get token: {self._title}: nothing within {within:g} s")

    def __repr__(self) -> str:
        return f"CloudsAuth({self._name!r})"


def _in_daemon_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """What the function gives, from a thread that neither cancellation nor the process's end waits for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        settle: Callable[[], None]
        try:
            settle = functools.partial(future.set_result, function())
        except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
            settle = functools.partial(future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(lambda: None if future.done() else settle())

    threading.Thread(target=work, name="vizwatch-openstack", daemon=True).start()
    return future


class _Cloud:
    """One cloud as openstacksdk knows it. Everything here blocks, and belongs into a thread."""

    def __init__(self, name: str | None, title: str, settings: Settings) -> None:
        self._title = title
        self._settings = settings
        self._secrets: tuple[Secret, ...] = ()
        self._catalog: Any = None
        self._guarded(lambda: self._read(name))

    def _read(self, name: str | None) -> None:
        self._region: Any = _region(name)
        self._secrets = tuple(
            Secret(value)
            for key, value in self._region.config.get("auth", {}).items()
            if key not in _NO_SECRETS and isinstance(value, str)
        )
        self.auth_url = self._auth("auth_url") or ""
        if self.auth_url:
            title = f"auth_url of {self._title}"
            insecure = self._settings.allow_insecure
            wire.endpoint(_origin(self.auth_url, title), name=title, like="iam", allow_insecure=insecure)
        self._project_id = self._auth("project_id")
        self._plugin: Any = self._region.get_auth()

    def _auth(self, key: str) -> str | None:
        value = self._region.config.get("auth", {}).get(key)
        return str(value) if value else None

    def token(self) -> Token:
        """A new token. Raises as :meth:`CloudsAuth.headers`."""
        return self._guarded(self._new_token)

    def _new_token(self) -> Token:
        verify, cert = self._region.get_requests_verify_args()
        session = _session(verify=verify, cert=cert, timeout=self._settings.attempt_timeout)
        # Neither proxies nor a .netrc of the environment, unless asked for.
        session.session.trust_env = self._settings.trust_env
        try:
            self._plugin.invalidate()
            if not hasattr(self._plugin, "get_access"):
                return Token(secret("token", self._plugin.get_token(session)), _UNKNOWN_LIFE)
            access = self._plugin.get_access(session)
        finally:
            session.session.close()
        self._catalog = access.service_catalog
        return Token(secret("token", access.auth_token), _lifetime(access), access.project_id)

    def scope(self, token: Token) -> Scope:
        """What a token is for, and where. Raises as :meth:`CloudsAuth.headers`."""
        return self._guarded(lambda: Scope(token.project_id or self._project_id, self._endpoint()))

    def _endpoint(self) -> str | None:
        """Where ModelArts is, `https://host[:port]`; ``None`` if nothing tells."""
        region = self._region
        for service_type in _SERVICE_TYPES:
            address = region.get_endpoint(service_type)
            if not address and self._catalog is not None:
                address = self._in_catalog(service_type)
            if address:
                return _origin(address, f"the endpoint of {service_type}, of {self._title},")
        known = regions.REGIONS.get(str(region.region_name)) or regions.at(self.auth_url)
        # A region's name says nothing of the cloud: credentials stay in the one that they were given for.
        return known.endpoint if known and regions.cloud_of(self.auth_url) == known.cloud else None

    def _in_catalog(self, service_type: str) -> str | None:
        region = self._region
        found = self._catalog.get_endpoints_data(
            service_type=service_type,
            interface=region.get_interface() or "public",
            region_name=region.region_name or None,
        )
        return next((str(one.url) for several in found.values() for one in several), None)

    def _guarded(self, function: Callable[[], T]) -> T:
        """What the function gives; errors of openstacksdk and keystoneauth become ours."""
        try:
            return function()
        except (ConfigError, CallError):
            raise
        except ImportError:
            problem: Exception = ConfigError(
                f"{self._title} needs openstacksdk: pip install 'vizwatch[openstack]'"
            )
        except Exception as error:  # noqa: BLE001 - of three libraries and of any plugin of theirs
            problem = self._of_ours(error)
        raise problem

    def _of_ours(self, error: Exception) -> Exception:
        from keystoneauth1 import exceptions  # noqa: PLC0415 - an extra, and slow to import

        text = printable(redacted(str(error) or type(error).__name__, self._secrets), wire.MAX_MESSAGE)
        match error:
            case exceptions.HttpError(http_status=int(status)) if status != 404:  # which says nothing of jobs
                return wire.classify(status, None)(text, http_status=status, operation=Operation.TOKEN.value)
            case exceptions.SSLError():
                return TlsError(f"get token: no TLS with {self._title}: {text}")
            case exceptions.ConnectionError():
                return ConnectError(f"get token: {self._title}: {text}")
            case exceptions.HttpError() | exceptions.InvalidResponse() | exceptions.DiscoveryFailure():
                return ProtocolError(f"get token: {self._title}: not the identity service's answer: {text}")
            case _:
                return ConfigError(f"{self._title}: {text}")


def _session(**options: Any) -> Any:
    from keystoneauth1 import exceptions, session  # noqa: PLC0415 - an extra, and slow to import

    class WithoutToken(session.Session):
        """Of calls that get a token.

        Where the list of versions is answered with 401, keystoneauth would send a token with it: the one
        that it is just getting, so that it would wait for itself for ever.
        """

        def get_auth_headers(self, *_: Any, **__: Any) -> NoReturn:
            raise exceptions.Unauthorized("the identity service wants a token for the list of its versions")

    return WithoutToken(redirect=False, **options)


def _region(name: str | None) -> Any:
    from openstack.config.loader import (  # noqa: PLC0415 - as above
        CONFIG_FILES,
        SECURE_FILES,
        VENDOR_FILES,
        OpenStackConfig,
    )

    # What openstacksdk looks through by itself, looked at before it reads any of it whole.
    for variable, paths in (
        ("OS_CLIENT_CONFIG_FILE", CONFIG_FILES),
        ("OS_CLIENT_SECURE_FILE", SECURE_FILES),
        (None, VENDOR_FILES),
    ):
        named = os.environ.get(variable, "") if variable else ""
        for path in filter(None, (named, *paths)):
            _check_file(path)
    config = OpenStackConfig()
    names = sorted(set(config.get_cloud_names()) - {"defaults"})
    if name is None and config.default_cloud not in names and len(names) > 1:
        clouds = printable(", ".join(map(str, names)))
        raise ConfigError(f"clouds.yaml has several clouds ({clouds}): name one, by OS_CLOUD or as profile")
    return config.get_one(name)


def _check_file(path: str) -> None:
    """Raises for a file of clouds that is too large to be one, or a pipe or device, which may never end."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return  # openstacksdk goes on with the next one
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{printable(path)} is not a regular file, and so is not read")
    if found.st_size > _MAX_FILE:
        raise ConfigError(
            f"{printable(path)} has {found.st_size} bytes, and is not read: a file of clouds has "
            f"{_MAX_FILE} at most"
        )


def _origin(address: object, name: str) -> str:
    try:
        parts = urlsplit(str(address))
    except ValueError:
        parts = urlsplit("")
    if not parts.scheme or not parts.netloc:
        raise ConfigError(f"{name} must be an address, such as https://host/v3; it is not shown")
    return parts._replace(path="", query="", fragment="").geturl()


def _lifetime(access: Any) -> float:
    begins, ends = access.issued, access.expires
    if not isinstance(begins, dt.datetime) or not isinstance(ends, dt.datetime):
        return _UNKNOWN_LIFE
    return max((ends - begins).total_seconds(), 0.0)
