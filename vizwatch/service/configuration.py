"""A configuration, from the tables of a TOML file: values, or all that is wrong with them at once."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import attrs

from vizwatch import Client, ConfigError, Fleet, JobStatus, RedisCheckpoint, Region, Settings, Target, region
from vizwatch.service.credentials import Sources, auth, signing_key
from vizwatch.service.options import (
    Configuration,
    Destination,
    Filter,
    PythonCall,
    RedisStream,
    SinkOptions,
    Stdout,
    Watching,
    Webhook,
)
from vizwatch.service.tables import (
    Fault,
    Faults,
    KeyPath,
    Table,
    accepted,
    choice,
    seconds,
    several,
    shown,
    switch,
    text,
    whole,
)

_NAME: Final = text("1 to 64 of the characters 0-9 A-Z a-z _ . -", r"[0-9A-Za-z_.-]{1,64}")
_TEXT: Final = text("a string of 1 to 1024 characters")
_LISTEN: Final = ("127.0.0.1", 9464)
_BACKLOG: Final = 10_000
_TIMEOUTS: Final = {"stdout": 30.0, "webhook": 15.0, "redis": 10.0, "python": 30.0}
"""By a sink's type."""
_SOME_REGION: Final = region("eu-de")
_SOME_CLIENT: Final[Mapping[str, Any]] = {"endpoint": "https://localhost", "project_id": "x", "auth": "x"}
"""What is right, and so are those in credentials: whatever is refused beside them is wrong by itself."""
_SETTINGS: Final = tuple(field.name for field in attrs.fields(Settings) if not field.name.startswith("on_"))
"""All numbers and switches: what is called is no matter of a file's."""


async def configured(
    document: Mapping[str, Any], lines: Mapping[KeyPath, int], sources: Sources
) -> Configuration | tuple[Fault, ...]:
    """What a file says, or what is wrong with it, in the order of the file.

    It is given back and not raised: this frame holds what must not show, should it be a secret.

    Args:
        document: The parsed file.
        lines: Where each key stands.
        sources: Where secrets and functions come from.
    """
    faults = Faults(lines)
    file = Table(document, (), faults)
    state = file.table("state")
    path = state.need("path", lambda value: sources.folder(_TEXT(value)))
    checkpoint = _checkpoint(state, sources)
    state.close()
    settings = _settings(file.table("settings"))
    watch = await _watch(file.table("watch"), settings)
    http = file.table("http")
    listen = http.take("listen", _address)
    http.close()
    targets = [_target(one, sources, settings) for one in file.tables("targets")]
    names = _names(document.get("targets"))
    sinks = [_sink(one, sources, names) for one in file.tables("sinks")]
    file.close()
    _check_unique(faults, "targets", "name", targets)
    # Transitions say their project, and not their workspace.
    _check_unique(faults, "targets", "project_id", targets)
    _check_unique(faults, "sinks", "name", sinks)
    _check_one_stdout(faults, document.get("sinks"))
    if faults.found:
        return faults.sorted()
    return Configuration(
        state=path or Path(),
        checkpoint=checkpoint,
        settings=settings,
        watch=watch,
        listen=listen or _LISTEN,
        targets=tuple(filter(None, targets)),
        sinks=tuple(filter(None, sinks)),
    )


def _names(targets: object) -> frozenset[str]:
    """What the targets are called, those with faults included."""
    tables = [one for one in targets if isinstance(one, dict)] if isinstance(targets, list) else []
    names = (one.get("name", one.get("project_id")) for one in tables)
    return frozenset(name for name in names if isinstance(name, str))


def _check_unique(faults: Faults, what: str, key: str, made: Sequence[Target | SinkOptions | None]) -> None:
    values = [getattr(one, key, None) for one in made]
    counts = Counter(values)
    for number, value in enumerate(values):
        if value is not None and counts[value] > 1:
            faults.note((what, number, key), f"is that of another one, too: {shown(value)}")


def _check_one_stdout(faults: Faults, sinks: object) -> None:
    """What stands in a file may be faulty otherwise, too."""
    tables = sinks if isinstance(sinks, list) else []
    numbers = [
        number for number, one in enumerate(tables) if isinstance(one, dict) and one.get("type") == "stdout"
    ]
    for number in numbers[1:]:
        problem = "is stdout a second time, and two would write into each other's lines: let one have it all"
        faults.note(("sinks", number, "type"), problem)


def _checkpoint(table: Table, sources: Sources) -> RedisCheckpoint | None:
    """A checkpoint in a Redis, by its address; what has a password in it is named by `checkpoint_env`."""

    def made(url: object) -> RedisCheckpoint:
        sources.check_installed("redis", "redis")
        try:
            return RedisCheckpoint(str(url))
        except ConfigError as error:
            problem = str(error).removeprefix("url ")
        raise ConfigError(problem)

    def made_openly(url: object) -> RedisCheckpoint:
        if isinstance(url, str) and "@" in url:
            raise ConfigError("must have no user or password, which are secrets: give checkpoint_env")
        return made(url)

    if table.has("checkpoint") and table.has("checkpoint_env"):
        table.note("and checkpoint_env must not both be given", "checkpoint")
    openly = table.take("checkpoint", made_openly, shows=False)
    named = table.take("checkpoint_env", lambda name: made(sources.variable(name)), shows=False)
    return named if openly is None else openly


def _settings(table: Table) -> Settings:
    """The settings, without those that are wrong."""
    given: dict[str, Any] = {}
    for name in _SETTINGS:
        value = table.take(name, _setting(name))
        if value is not None:
            given[name] = value
    table.close()
    left_out: set[str] = set()
    while True:
        try:
            return Settings(**given)
        except ConfigError as error:
            problem = str(error)
        named = set(re.findall(r"Settings\.(\w+)", problem))
        contradicting = [name for name in given if name in named]
        if not named & left_out:  # the default of what was left out is no fault of the file's
            table.note(f"is wrong: {problem}", contradicting[0])
        left_out.update(contradicting)
        for name in contradicting:
            del given[name]


def _setting(name: str) -> Callable[[object], Any]:
    def check(value: object) -> Any:
        # Alone it may contradict another one's default, but not its own range.
        try:
            return getattr(Settings(**{name: value}), name)  # type: ignore[arg-type]
        except ConfigError as error:
            problem = str(error).removeprefix(f"Settings.{name} ")
        if problem.startswith("must be "):
            raise ConfigError(problem)
        return value

    return check


async def _watch(table: Table, settings: Settings) -> Watching:
    # A watch asks nothing before its first step, and of no target nothing at all.
    async with Fleet((), settings=settings) as fleet:
        options = Watching(
            status=table.take("status", several(_status)),
            search_content=table.take("search_content", text("a string of 1 to 100 characters", ".{1,100}")),
            interval=table.take("interval", accepted("interval", fleet.watch_jobs)),
            max_age=table.take("max_age", accepted("max_age", fleet.watch_jobs)),
        )
    table.close()
    return options


def _status(value: object) -> JobStatus:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9:
        return JobStatus(value)
    name = value.upper().replace("-", "_") if isinstance(value, str) else ""
    if name not in JobStatus.__members__:
        raise ValueError("a status's name or number, such as running or 8")
    return JobStatus[name]


def _status_or_deleted(value: object) -> JobStatus | None:
    return None if value == "deleted" else _status(value)


def _region(value: object) -> Region:
    if not isinstance(value, str):
        raise ValueError("a region's name, such as eu-de")  # noqa: TRY004 - as all checks
    try:
        return region(value)
    except ConfigError as error:
        problem = str(error).removeprefix("region ")
    raise ConfigError(problem)


def _target(table: Table, sources: Sources, settings: Settings) -> Target | None:
    client = functools.partial(Client, settings=settings)
    project_id = table.need("project_id", accepted("project_id", client, **_SOME_CLIENT))
    name = table.take("name", _NAME)
    where = table.take("region", _region)
    endpoint = table.take("endpoint", accepted("endpoint", client, **_SOME_CLIENT))
    if table.has("region") == table.has("endpoint"):
        table.note("must have one of endpoint and region")
    workspace_id = table.take("workspace_id", accepted("workspace_id", client, **_SOME_CLIENT))
    credentials = None
    if table.has("auth"):
        # In the place of a wrong region, which is noted, so that no address seems to be missing.
        around = where or (_SOME_REGION if table.has("region") else None)
        credentials = auth(table.table("auth"), sources, settings, around, project_id)
    else:
        table.need("auth", _TEXT)
    table.close()
    if where is not None:
        endpoint = where.endpoint
    if project_id is None or endpoint is None or credentials is None:
        return None
    return Target(endpoint, project_id, auth=credentials, workspace_id=workspace_id, name=name or project_id)


def _sink(table: Table, sources: Sources, targets: frozenset[str]) -> SinkOptions | None:
    name = table.need("name", _NAME)
    kind = table.need("type", choice(*_DESTINATIONS))
    passing = Filter(
        targets=table.take("targets", several(_one_of(targets))),
        statuses=table.take("status", several(_status_or_deleted)),
        terminal_only=table.take("terminal_only", switch) or False,
    )
    backlog = table.take("backlog", whole(1, 1_000_000))
    timeout = table.take("timeout", seconds(0.1, 300))
    if kind is None:
        return None  # what else stands there depends on it
    destination = _DESTINATIONS[kind](table, sources)
    table.close()
    if name is None or destination is None:
        return None
    return SinkOptions(
        name=name,
        destination=destination,
        filter=passing,
        backlog=backlog or _BACKLOG,
        timeout=timeout or _TIMEOUTS[kind],
    )


def _one_of(targets: frozenset[str]) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or value not in targets:
            raise ValueError(f"the name of a target ({', '.join(sorted(targets)) or 'none is right'})")
        return value

    return check


def _stdout(table: Table, sources: Sources) -> Destination:
    try:
        sources.check_stdout()
    except ConfigError as error:
        table.note(str(error), "type")
    return Stdout()


def _webhook(table: Table, sources: Sources) -> Destination | None:
    key = signing_key(table, sources)
    url = _url(table, sources, "https, or http for loopback", _is_for_webhooks)
    return None if url is None or key is None else Webhook(url, key)


def _redis(table: Table, sources: Sources) -> Destination | None:
    stream = table.need("stream", _TEXT)
    max_length = table.take("max_length", whole(1, 10**12))
    url = _url(
        table, sources, "redis or rediss, with a database's number and files of TLS at most", _is_redis
    )
    try:
        sources.check_installed("redis", "redis")
    except ConfigError as error:
        table.note(str(error), "type")
    return None if url is None or stream is None else RedisStream(url, stream, max_length)


def _python(table: Table, sources: Sources) -> Destination | None:
    name = table.need("call", _TEXT)
    function = table.take("call", sources.function)
    return None if name is None or function is None else PythonCall(name, function)


_DESTINATIONS: Final[Mapping[str, Callable[[Table, Sources], Destination | None]]] = {
    "stdout": _stdout,
    "webhook": _webhook,
    "redis": _redis,
    "python": _python,
}


def _url(
    table: Table, sources: Sources, schemes: str, is_allowed: Callable[[SplitResult], bool]
) -> str | None:
    """The address in `url`, or in what `url_env` or `url_file` names, where it may hold a secret."""

    def check(value: object) -> str:
        found = _split(value)
        if found is None or not is_allowed(found):
            raise ConfigError(f"must be an address with a host, by {schemes}")
        return str(value)

    def check_open(value: object) -> str:
        found = _split(value)
        if found is not None and ("@" in found.netloc or found.query):
            raise ConfigError("must have no user, password or query, which may be secrets: give url_env")
        return check(value)

    if table.has("url"):
        return table.take("url", check_open, shows=False)
    if table.has("url_env"):
        return table.take("url_env", lambda name: check(sources.variable(name)), shows=False)
    if table.has("url_file"):
        return table.take("url_file", lambda path: check(sources.content(path)), shows=False)
    table.note("or url_env must be given", "url")
    return None


def _split(value: object) -> SplitResult | None:
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()) or " " in value:
        return None
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        return None
    return url if url.hostname and port != 0 and len(value) <= 2_048 else None


def _is_for_webhooks(url: SplitResult) -> bool:
    return url.scheme == "https" or (url.scheme == "http" and _is_loopback(url.hostname or ""))


def _is_redis(url: SplitResult) -> bool:
    try:
        RedisCheckpoint(url.geturl())  # which knows what redis-py takes
    except ConfigError:
        return False
    return url.scheme in {"redis", "rediss"}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(value: object) -> tuple[str, int]:
    try:
        url = urlsplit(f"//{value}" if isinstance(value, str) and value.isprintable() else "")
        host, port = url.hostname, url.port
        (host or "").encode("idna")  # as it will be to be looked up
    except ValueError:
        host, port = None, None
    if host is None or port is None or "@" in url.netloc or url.netloc != value:
        raise ValueError("a host and a port, such as 127.0.0.1:9464")
    return host, port
