"""Which endpoint, project and credentials to use: the first found of all places that may say so.

In this order: arguments, and the section of the credentials file that one of them chose; `VIZWATCH_*`;
`HUAWEICLOUD_SDK_*`; the credentials file's `[basic]`; `OS_*`, which may name a cloud of clouds.yaml. No
credentials are given as arguments.

Endpoint, project and credentials are each taken from one place: an access key is never completed from the
next one. A cloud of clouds.yaml that an argument chose says all three, so that only arguments go before it.

What is not needed is not looked at, so a blank variable or a broken file further down is no error. But a
token and an access key in the environment contradict each other, whichever variables they are in: one of them
is a leftover, and which one cannot be known.

Where credentials may go:

- An endpoint outside both clouds has to be given in the same place as the credentials, or in an earlier one.
- If the place of the credentials says their cloud, by region, endpoint or IAM address, they do not go to the
  other one.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, final

import attrs

from vizwatch._values import checks, regions
from vizwatch._values.configuration import (
    AccessKey,
    Cloud,
    Configuration,
    Credentials,
    Found,
    Password,
    Token,
)
from vizwatch._values.errors import ConfigError
from vizwatch._values.secrets import Secret, secret
from vizwatch._values.text import UNSAFE, printable

_ARGUMENTS: Final = {name: (name,) for name in ("endpoint", "region", "project_id", "workspace_id")}
_VIZWATCH: Final = {
    "endpoint": ("VIZWATCH_ENDPOINT",),
    "region": ("VIZWATCH_REGION",),
    "project_id": ("VIZWATCH_PROJECT_ID",),
    "token": ("VIZWATCH_TOKEN",),
}
_HUAWEICLOUD: Final = {
    "project_id": ("HUAWEICLOUD_SDK_PROJECT_ID",),
    "access_key": ("HUAWEICLOUD_SDK_AK",),
    "secret_key": ("HUAWEICLOUD_SDK_SK",),
    "security_token": ("HUAWEICLOUD_SDK_SECURITY_TOKEN",),
}
_FILE: Final = {
    "project_id": ("project_id",),
    "access_key": ("ak",),
    "secret_key": ("sk",),
    "security_token": ("security_token",),
    "iam_endpoint": ("iam_endpoint",),
}
_OPENSTACK: Final = {
    "region": ("OS_REGION_NAME",),
    "project_id": ("OS_PROJECT_ID",),
    "project_name": ("OS_PROJECT_NAME",),
    "token": ("OS_TOKEN", "OS_AUTH_TOKEN"),
    "iam_endpoint": ("OS_AUTH_URL",),
    "username": ("OS_USERNAME",),
    "password": ("OS_PASSWORD",),
    "domain_name": ("OS_USER_DOMAIN_NAME", "OS_DOMAIN_NAME"),
    "cloud": ("OS_CLOUD",),
    "auth_type": ("OS_AUTH_TYPE",),
}
_PASSWORD_TYPES: Final = frozenset({"password", "v3password"})
"""What `OS_AUTH_TYPE` says of a user and a password; all other types are openstacksdk's to know."""

_KINDS: Final = (
    ("token",),
    ("access_key", "secret_key", "security_token"),
    ("password", "username"),
    ("cloud", "auth_type", "clouds_file"),
)
_CREDENTIALS: Final = tuple(field for kind in _KINDS for field in kind)
_HEADERS: Final = frozenset({"token", "access_key", "secret_key", "security_token"})


@attrs.frozen(kw_only=True)
class CredentialsFile:
    """What the vendor's credentials file says, or what is wrong with it; empty where there is none."""

    name: str = "~/.huaweicloud/credentials"
    sections: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict, repr=False)
    problem: str | None = None
    notes: tuple[str, ...] = ()


class Address(Protocol):
    """The check of an address: gives `https://host[:port]`, or raises :class:`ConfigError`."""

    def __call__(self, value: object, *, name: str, like: str = "modelarts") -> str: ...


def resolve(
    arguments: Mapping[str, object],
    environment: Mapping[str, str],
    file: CredentialsFile,
    *,
    profile: object = None,
    clouds_file: str | None = None,
    address: Address,
) -> Configuration:
    """The configuration that arguments, environment and credentials file give together.

    Args:
        arguments: By name; ``None`` counts as not given.
        environment: All variables.
        file: The credentials file.
        profile: Its section, or else a cloud of clouds.yaml. Chosen by an argument, it goes before the
            environment; else `basic` goes after.
        clouds_file: The clouds.yaml that there is: its only cloud is used where nothing else is found.
        address: How an address is checked.

    Raises:
        ConfigError: Something is missing, wrong or contradictory: all that is, with source and remedy.
    """
    places = [*_places(arguments, environment, file, profile), _clouds_file(clouds_file)]
    problems: list[str] = []
    home = where = project_id = workspace_id = credentials = None
    with _noted(problems):
        home = _home(places)
    with _noted(problems):
        where = _where(places, home, address)
    with _noted(problems):
        project_id = _project_id(places, home)
    with _noted(problems):
        workspace_id = _workspace_id(places[0])
    if home is not None:
        with _noted(problems):
            credentials = _credentials(places[home], where, address)
    if problems or home is None or credentials is None:
        raise ConfigError(_listed(problems))
    if where is not None:
        _check_destination(where, places, home)
    return Configuration(
        endpoint=where and where.endpoint,
        project_id=project_id,
        workspace_id=workspace_id,
        credentials=credentials,
        unused=tuple(
            place.sources[field] for place in places[home + 1 :] for field in place.having(_CREDENTIALS)
        ),
        notes=file.notes,
    )


# --- the places -----------------------------------------------------------------------------------------


@attrs.frozen
class _Place:
    """One place that may say something: what it does say, and what each thing is called there."""

    raw: Mapping[str, object] = attrs.field(repr=False)
    sources: Mapping[str, str]
    problem: str | None = None
    is_environment: bool = False
    is_all: bool = False
    """Whether nothing is looked for after it: what it does not say here, it says to those who use it."""

    def having(self, fields: Sequence[str]) -> list[str]:
        return [field for field in fields if field in self.raw]

    def take(self, field: str) -> Found:
        source = self.sources[field]
        return Found(_clean(field, source, self.raw[field]), source)

    def take_any(self, field: str) -> Found | None:
        return self.take(field) if field in self.raw else None


def _place(
    keys: Mapping[str, tuple[str, ...]],
    given: Mapping[str, object],
    prefix: str = "",
    problem: str | None = None,
    *,
    is_environment: bool = False,
) -> _Place:
    raw: dict[str, object] = {}
    sources: dict[str, str] = {}
    for field, names in keys.items():
        key = next((name for name in names if given.get(name) is not None), None)
        sources[field] = prefix + (key or names[0])
        if key is not None:
            raw[field] = given[key]
    return _Place(raw, sources, problem, is_environment)


def _places(
    arguments: Mapping[str, object],
    environment: Mapping[str, str],
    file: CredentialsFile,
    profile: object,
) -> list[_Place]:
    vizwatch, huaweicloud = (
        _place(keys, environment, is_environment=True) for keys in (_VIZWATCH, _HUAWEICLOUD)
    )
    openstack = _openstack(environment)
    first = _place(_ARGUMENTS, arguments, "argument ")
    if profile is None:
        return [first, vizwatch, huaweicloud, _section(file, "basic"), openstack]
    name = _clean("profile", "argument profile", profile)
    if name in file.sections:
        chosen = _section(file, name)
    else:
        known = ", ".join(checks.shown(section) for section in file.sections) or "none"
        elsewhere = file.problem or f"the sections of {file.name}: {printable(known)}"
        chosen = _Place({"cloud": name}, {"cloud": f"argument profile; {elsewhere}"}, is_all=True)
    return [first, chosen, vizwatch, huaweicloud, openstack]


def _openstack(environment: Mapping[str, str]) -> _Place:
    """`OS_*` as they stand; of another type than a password, they are openstacksdk's to read."""
    place = _place(_OPENSTACK, environment, is_environment=True)
    if place.raw.get("auth_type", "password") in _PASSWORD_TYPES:
        left_out = {"auth_type"}
    else:
        left_out = set(_CREDENTIALS) - {"auth_type"}
    return attrs.evolve(
        place, raw={field: value for field, value in place.raw.items() if field not in left_out}
    )


def _clouds_file(name: str | None) -> _Place:
    return _Place({} if name is None else {"clouds_file": name}, {"clouds_file": name or "clouds.yaml"})


def _section(file: CredentialsFile, name: str) -> _Place:
    return _place(_FILE, file.sections.get(name, {}), f"{file.name} [{name}] ", file.problem)


def _first(places: Sequence[_Place], fields: Sequence[str]) -> int | None:
    """The number of the first place that says any of these things."""
    for number, place in enumerate(places):
        if place.problem and any(field in place.sources for field in fields):
            raise ConfigError(place.problem)
        if place.having(fields):
            return number
        if place.is_all:
            break
    return None


def _clean(field: str, source: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{source} must be a string, not {type(value).__name__}")
    if not value.strip():
        raise ConfigError(f"{source} is set, but blank: give it a value, or unset it")
    if field in _HEADERS:
        return secret(source, value)
    hidden = {"Cc", "Cs"} if field == "password" else UNSAFE
    if any(unicodedata.category(one) in hidden for one in value):
        raise ConfigError(f"{source} has a control character, perhaps a newline at its end: set it without")
    if field == "password":
        return Secret(value)
    if value != value.strip():
        raise ConfigError(f"{source} begins or ends with white space: set it without")
    return value


# --- what they say --------------------------------------------------------------------------------------


@final
@attrs.frozen
class _Where:
    endpoint: Found
    place: int
    iam_endpoint: Found | None
    """The identity service of the region, where that is known."""


def _home(places: Sequence[_Place]) -> int:
    """The number of the place that the credentials come from."""
    home = _first(places, _CREDENTIALS)
    if home is None:
        raise ConfigError(
            "VIZWATCH_TOKEN is not set, and there are no other credentials: set it; or "
            "HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK; or OS_AUTH_URL, OS_USERNAME, OS_PASSWORD and "
            "OS_USER_DOMAIN_NAME; or OS_CLOUD, which a clouds.yaml with one cloud can go without"
        )
    if places[home].is_environment:
        _check_no_leftover([place for place in places if place.is_environment])
    return home


def _check_no_leftover(environment: Sequence[_Place]) -> None:
    found = [
        next((place.sources[field] for place in environment if field in place.raw), None)
        for field in ("token", "access_key")
    ]
    if all(found):
        raise _contradiction(filter(None, found))


def _contradiction(sources: Iterable[str]) -> ConfigError:
    return ConfigError(f"{' and '.join(sources)} are set together: keep one, and unset the rest")


def _where(places: Sequence[_Place], home: int | None, address: Address) -> _Where | None:
    """Where the service is; ``None`` where a cloud of clouds.yaml says it."""
    number = _first(places, ("endpoint", "region"))
    if number is None:
        says_itself = home is not None and _is_a_cloud(places[home])
        return None if says_itself else _where_iam_is(places, home)
    place = places[number]
    named = place.take_any("region")
    region = regions.region(named.value, named.source) if named else None
    endpoint = place.take_any("endpoint")
    if endpoint is None and named and region:
        return _of_region(region, named.source, number)
    endpoint = _checked_address(place.take("endpoint"), address)
    at = regions.at(endpoint.value)
    if at and named and region != at:
        raise ConfigError(
            f"{endpoint.source} is in {at.name}, and {named.source} is {named.value}: unset one of them"
        )
    iam_endpoint = Found(region.iam_endpoint, named.source) if named and region else None
    if at:
        iam_endpoint = Found(at.iam_endpoint, endpoint.source)
    return _Where(endpoint, number, iam_endpoint)


def _of_region(region: regions.Region, source: str, number: int) -> _Where:
    return _Where(Found(region.endpoint, source), number, Found(region.iam_endpoint, source))


def _where_iam_is(places: Sequence[_Place], home: int | None) -> _Where:
    """The region of the identity service that the credentials belong to: many set nothing else."""
    iam = places[home].take_any("iam_endpoint") if home is not None else None
    region = regions.at(iam.value) if iam else None
    if home is None or iam is None or region is None:
        raise ConfigError(
            "VIZWATCH_ENDPOINT is not set, and nothing else says where: set it to https://host[:port], or "
            "VIZWATCH_REGION to a region such as eu-de"
        )
    return _of_region(region, iam.source, home)


def _checked_address(found: Found, address: Address, like: str = "modelarts") -> Found:
    if "://" not in found.value or any(one in found.value for one in "?#@"):
        raise ConfigError(
            f"{found.source} must be https://host[:port], without user, query and fragment; it is not shown, "
            "since it may hold a secret"
        )
    return Found(address(found.value, name=found.source, like=like), found.source)


def _project_id(places: Sequence[_Place], home: int | None) -> Found | None:
    number = _first(places, ("project_id",))
    if number is None and home is not None and _knows_its_project(places[home]):
        return None
    if number is None:
        named = [place.sources["project_name"] for place in places if "project_name" in place.raw]
        name = f" ({named[0]} gives its name alone)" if named else ""
        raise ConfigError(
            f"VIZWATCH_PROJECT_ID is not set, and nothing else gives the project's id{name}: set it to the "
            "id that the console shows under My Credentials"
        )
    found = places[number].take("project_id")
    regions.project_id(found.source, found.value)
    return found


def _knows_its_project(place: _Place) -> bool:
    return _is_a_cloud(place) or ("password" in place.raw and "project_name" in place.raw)


def _is_a_cloud(place: _Place) -> bool:
    return any(field in place.raw for field in ("cloud", "auth_type", "clouds_file"))


def _workspace_id(arguments: _Place) -> Found | None:
    found = arguments.take_any("workspace_id")
    if found:
        checks.identifier(found.source, found.value)
    return found


def _credentials(place: _Place, where: _Where | None, address: Address) -> Credentials:
    kinds = [found for kind in _KINDS if (found := place.having(kind))]
    secrets = [found[0] for found in kinds if found[0] != "username"]
    if len(secrets) > 1:
        raise _contradiction(place.sources[field] for field in secrets)
    match secrets:
        case ["token"]:
            return Token(place.take("token"))
        case ["cloud"]:
            return Cloud(place.take("cloud"))
        case ["auth_type"] | ["clouds_file"]:
            return Cloud(Found("", place.sources[secrets[0]]))
        case ["password"] | []:
            _check_complete(place, ("username", "password", "domain_name"))
            return Password(
                _iam_endpoint(place, where, address),
                place.take("username"),
                place.take("password"),
                place.take("domain_name"),
                place.take_any("project_name"),
            )
        case _:
            _check_complete(place, ("access_key", "secret_key"))
            temporary = place.take_any("security_token")
            return AccessKey(place.take("access_key"), place.take("secret_key"), temporary)


def _check_complete(place: _Place, fields: Sequence[str]) -> None:
    missing = [place.sources[field] for field in fields if field not in place.raw]
    if missing:
        given = " and ".join(place.sources[field] for field in place.having(_CREDENTIALS))
        raise ConfigError(f"{given} set without {' and '.join(missing)}: they are used together")


def _iam_endpoint(place: _Place, where: _Where | None, address: Address) -> Found:
    found = place.take_any("iam_endpoint")
    if found is not None:
        origin = found.value.rstrip("/").removesuffix("/v3")
        return _checked_address(Found(origin, found.source), address, "iam")
    if where is not None and where.iam_endpoint is not None:
        return where.iam_endpoint
    raise ConfigError(
        f"{place.sources['iam_endpoint']} is not set: set it to the identity service's address, such as "
        "https://iam.eu-de.otc.t-systems.com/v3"
    )


def _check_destination(where: _Where, places: Sequence[_Place], home: int) -> None:
    """Credentials do not go where somebody else, who knew nothing of them, points."""
    place, endpoint = places[home], where.endpoint
    source = place.sources[place.having(_CREDENTIALS)[0]]
    cloud = regions.cloud_of(endpoint.value)
    if cloud is None:
        if where.place > home:
            raise ConfigError(
                f"{endpoint.source} is in neither cloud, and would be sent {source}: give the endpoint as an "
                "argument if that is meant"
            )
        return
    for field in place.having(("endpoint", "region", "iam_endpoint")):
        other = _cloud_named(field, place.take(field).value)
        if other not in {None, cloud}:
            raise ConfigError(
                f"{source} is of {other}, says {place.sources[field]}, and {endpoint.source} is an address "
                f"of {cloud}: give an endpoint and credentials of one cloud"
            )


def _cloud_named(field: str, value: str) -> str | None:
    if field != "region":
        return regions.cloud_of(value)
    return regions.REGIONS[value].cloud if value in regions.REGIONS else None


# --- all problems at once -------------------------------------------------------------------------------


@contextlib.contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        if str(error) not in problems:
            problems.append(str(error))


def _listed(problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    numbered = "; ".join(f"({number}) {one}" for number, one in enumerate(problems, 1))
    return f"{len(problems)} things are wrong with the configuration: {numbered}"
