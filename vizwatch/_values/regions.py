"""The regions of both clouds, and the addresses of ModelArts and of the identity service (IAM) there.

Source: the regions of the vendor's SDK, and the endpoints page of Open Telekom Cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import attrs

from vizwatch._values import checks
from vizwatch._values.errors import ConfigError

_LONGEST: Final = 32


@attrs.frozen
class Region:
    """One region of one cloud."""

    name: str
    cloud: str
    endpoint: str
    iam_endpoint: str
    """The identity service's address, to which `/v3` is still to be added."""


_HUAWEI: Final = "Huawei Cloud"
_OTC: Final = "Open Telekom Cloud"
_CLOUDS: Final = {"myhuaweicloud.com": _HUAWEI, "myhuaweicloud.cn": _HUAWEI, "otc.t-systems.com": _OTC}


def _region(name: str, domain: str, modelarts_domain: str | None = None) -> Region:
    modelarts = f"https://modelarts.{name}.{modelarts_domain or domain}"
    return Region(name, _CLOUDS[domain], modelarts, f"https://iam.{name}.{domain}")


_ALL: Final = (
    *(
        _region(name, "myhuaweicloud.com")
        for name in (
            *("cn-north-1", "cn-north-2", "cn-north-4", "cn-north-9", "cn-north-11", "cn-north-12"),
            *("cn-south-1", "cn-east-3", "cn-east-4", "cn-southwest-2", "cn-southwest-3"),
            *("ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "la-south-2", "la-north-2"),
            *("af-south-1", "af-north-1", "tr-west-1", "me-east-1", "sa-brazil-1"),
        )
    ),
    # The vendor's SDK has `.cn` here and nowhere else: perhaps a typing error, but what it documents.
    _region("ap-southeast-1", "myhuaweicloud.com", "myhuaweicloud.cn"),
    _region("eu-de", "otc.t-systems.com"),
)

REGIONS: Final[Mapping[str, Region]] = {one.name: one for one in sorted(_ALL, key=lambda one: one.name)}


def region(name: str, parameter: str = "region") -> Region:
    """The region of that name, with its addresses.

    Raises:
        ConfigError: There is none; names the parameter, and the regions with the most similar ones first.

    >>> region("eu-de").endpoint
    'https://modelarts.eu-de.otc.t-systems.com'
    """
    if name in REGIONS:
        return REGIONS[name]
    if len(name) > _LONGEST:
        raise ConfigError(f"{parameter} must be a region's name, such as eu-de, not {len(name)} characters")
    import difflib  # noqa: PLC0415 - for an error alone

    close = difflib.get_close_matches(name.lower(), REGIONS, n=3)
    known = ", ".join([*close, *(one for one in REGIONS if one not in close)])
    raise checks.refused(parameter, name, f"a known region ({known})")


def at(address: str) -> Region | None:
    """The region that a ModelArts or IAM address belongs to, or ``None`` if it is in no table."""
    return _BY_HOST.get(_host(address))


def cloud_of(address: str) -> str | None:
    """The cloud that serves ModelArts or IAM at this address, regions that are not in the table included.

    >>> cloud_of("https://iam.myhuaweicloud.com/v3"), cloud_of("https://modelarts.eu-de.example.com")
    ('Huawei Cloud', None)
    """
    service, _, rest = _host(address).partition(".")
    if service not in {"modelarts", "iam"}:
        return None
    return _CLOUDS.get(rest) or _CLOUDS.get(rest.partition(".")[2])


def check_one_cloud(iam_address: str, address: str) -> None:
    """Lets no token of one cloud go to the other one.

    Raises:
        ConfigError: The identity service that gives the tokens and the address are of different clouds.

    >>> check_one_cloud("https://iam.eu-de.otc.t-systems.com", "https://modelarts.example.com/v1/")
    """
    clouds = cloud_of(iam_address), cloud_of(address)
    if None not in clouds and len(set(clouds)) > 1:
        raise ConfigError(
            f"the credentials are of {clouds[0]} ({_host(iam_address)}), and the endpoint is of {clouds[1]} "
            f"({_host(address)}): give an endpoint and credentials of one cloud"
        )


def project_id(parameter: str, value: object) -> str:
    """A project's id.

    Raises:
        ConfigError: It is none; a project's name, which both clouds begin with the region's, is told apart.

    >>> project_id("project_id", "04f679b17380d32a2f32c00335c4b5ba")
    '04f679b17380d32a2f32c00335c4b5ba'
    """
    if isinstance(value, str) and len(value) > 64:
        raise ConfigError(f"{parameter} must be a project's id, not {len(value)} characters")
    found = checks.identifier(parameter, value)
    if found.partition("_")[0] in REGIONS:
        raise ConfigError(
            f"{parameter} must be the project's id, such as 04f679b17380d32a2f32c00335c4b5ba, and "
            f"{checks.shown(found)} is a project's name: the console shows both under My Credentials"
        )
    return found


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


_BY_HOST: Final = {_host(address): one for one in _ALL for address in (one.endpoint, one.iam_endpoint)}
