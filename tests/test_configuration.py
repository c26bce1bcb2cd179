"""Where configuration is found, which of several places wins, and what is said of what is wrong."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from conftest import ENDPOINT, PROJECT
from hypothesis import example, given
from hypothesis import strategies as st

import vizwatch
from vizwatch import ConfigError
from vizwatch._rules import configuration, wire
from vizwatch._rules.configuration import CredentialsFile
from vizwatch._values import regions
from vizwatch._values.configuration import AccessKey, Cloud, Configuration, Found, Password, Token
from vizwatch._world import sources

CANARY = "canary-5f2e"
CUSTOM = "https://gateway.example.com"
HUAWEI = "https://modelarts.cn-north-4.myhuaweicloud.com"
FILE = "~/.huaweicloud/credentials"

VIZWATCH = {"VIZWATCH_REGION": "eu-de", "VIZWATCH_PROJECT_ID": PROJECT, "VIZWATCH_TOKEN": CANARY}
HUAWEICLOUD = {
    "HUAWEICLOUD_SDK_AK": f"{CANARY}-ak",
    "HUAWEICLOUD_SDK_SK": f"{CANARY}-sk",
    "HUAWEICLOUD_SDK_PROJECT_ID": PROJECT,
}
OPENRC = {
    "OS_AUTH_URL": "https://iam.eu-de.otc.t-systems.com:443/v3",
    "OS_USERNAME": "ada",
    "OS_PASSWORD": f"{CANARY} pass/wörd",
    "OS_USER_DOMAIN_NAME": "OTC-EU-DE-00000000001000000001",
    "OS_PROJECT_NAME": "eu-de_vision",
}
SECTION = {"ak": f"{CANARY}-file-ak", "sk": f"{CANARY}-file-sk", "project_id": "of-the-file"}


def resolved(
    environment: Mapping[str, str] | None = None,
    sections: Mapping[str, Mapping[str, str]] | None = None,
    *,
    profile: object = None,
    problem: str | None = None,
    allow_insecure: bool = False,
    **arguments: Any,
) -> Configuration:
    return configuration.resolve(
        arguments,
        environment or {},
        CredentialsFile(sections=sections or {}, problem=problem),
        profile=profile,
        address=functools.partial(wire.endpoint, allow_insecure=allow_insecure),
    )


def value(found: Found | None) -> str | None:
    return None if found is None else found.value


def source(found: Found | None) -> str | None:
    return None if found is None else found.source


# --- regions --------------------------------------------------------------------------------------------


def test_the_regions_of_both_clouds_are_those_of_the_documents() -> None:
    named = "cn-north-1 2 4 9 11 12 cn-south-1 cn-east-3 4 cn-southwest-2 3 ap-southeast-1 2 3 4 la-south-2"
    expected, stem = {"eu-de", "la-north-2", "af-south-1", "af-north-1"}, ""
    expected |= {"tr-west-1", "me-east-1", "sa-brazil-1"}
    for word in named.split():
        stem = word.rpartition("-")[0] or stem
        expected.add(word if "-" in word else f"{stem}-{word}")
    assert set(regions.REGIONS) == expected
    for name, region in regions.REGIONS.items():
        assert wire.endpoint(region.endpoint) == region.endpoint
        assert region.endpoint.startswith(f"https://modelarts.{name}.")
        assert region.iam_endpoint.startswith(f"https://iam.{name}.")
        assert regions.at(region.endpoint) is regions.at(f"{region.iam_endpoint}:443/v3") is region
        assert regions.cloud_of(region.endpoint) == regions.cloud_of(region.iam_endpoint) == region.cloud


def test_two_addresses_are_not_as_the_others() -> None:
    odd = regions.region("ap-southeast-1")
    assert odd.endpoint == "https://modelarts.ap-southeast-1.myhuaweicloud.cn"
    assert odd.iam_endpoint == "https://iam.ap-southeast-1.myhuaweicloud.com"
    otc = regions.region("eu-de")
    assert (otc.endpoint, otc.iam_endpoint) == (ENDPOINT, "https://iam.eu-de.otc.t-systems.com")


@pytest.mark.fault("U1")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cn-north4", r"VIZWATCH_REGION must be a known region \(cn-north-4, .*eu-de.*\), not 'cn-north4'"),
        ("EU-DE", r"known region \(eu-de, "),
        ("", "known region"),
        ("\x1b[2J\u202e", r"not '\\x1b\[2J\\u202e'"),
        ("e" * 32, f"not '{'e' * 32}'"),
        (CANARY * 3, "not 33 characters"),
    ],
)
def test_an_unknown_region_is_told_with_the_known_ones_the_closest_first(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        regions.region(name, "VIZWATCH_REGION")
    assert CANARY not in str(caught.value)
    assert str(caught.value).count("cn-north-4") == 1 or len(name) > 32


@pytest.mark.fault("X13")
@pytest.mark.parametrize(
    ("address", "cloud"),
    [
        ("https://modelarts.cn-north-99.myhuaweicloud.com", "Huawei Cloud"),
        ("https://iam.myhuaweicloud.com/v3", "Huawei Cloud"),
        ("https://IAM.EU-NL.otc.t-systems.com:443/v3", "Open Telekom Cloud"),
        ("https://modelarts.eu-de.otc.t-systems.com.example.com", None),
        ("https://modelarts.cn-north-4.myhuaweicloud.com.example.com", None),
        ("https://not-iam.cn-north-4.myhuaweicloud.com", None),
        ("https://example.com/modelarts.eu-de.otc.t-systems.com", None),
        ("https://bucket.obs.cn-north-4.myhuaweicloud.com", None),
        ("https://modelarts.a.b.myhuaweicloud.com", None),
        ("https://modelarts.evilmyhuaweicloud.com", None),
        ("https://[broken", None),
        ("modelarts.eu-de.otc.t-systems.com", None),
    ],
)
def test_a_cloud_is_known_by_its_whole_host(address: str, cloud: str | None) -> None:
    assert regions.cloud_of(address) == cloud


# --- what is found --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "sections", "expected"),
    [
        (VIZWATCH, {}, (ENDPOINT, "VIZWATCH_REGION", "VIZWATCH_PROJECT_ID", "VIZWATCH_TOKEN")),
        (
            HUAWEICLOUD | {"VIZWATCH_REGION": "cn-north-4"},
            {},
            (HUAWEI, "VIZWATCH_REGION", "HUAWEICLOUD_SDK_PROJECT_ID", "HUAWEICLOUD_SDK_AK"),
        ),
        (
            {"VIZWATCH_ENDPOINT": f"{CUSTOM}:8443/"},
            {"basic": SECTION},
            (
                f"{CUSTOM}:8443",
                "VIZWATCH_ENDPOINT",
                f"{FILE} [basic] project_id",
                f"{FILE} [basic] ak",
            ),
        ),
        (
            {},
            {"basic": SECTION | {"iam_endpoint": "https://iam.cn-north-4.myhuaweicloud.com"}},
            (
                HUAWEI,
                f"{FILE} [basic] iam_endpoint",
                f"{FILE} [basic] project_id",
                f"{FILE} [basic] ak",
            ),
        ),
        (OPENRC | {"OS_PROJECT_ID": PROJECT}, {}, (ENDPOINT, "OS_AUTH_URL", "OS_PROJECT_ID", "OS_USERNAME")),
        (
            {"OS_CLOUD": "otc", "OS_REGION_NAME": "eu-de", "OS_PROJECT_ID": PROJECT},
            {},
            (ENDPOINT, "OS_REGION_NAME", "OS_PROJECT_ID", "OS_CLOUD"),
        ),
        (
            {
                "OS_AUTH_TOKEN": CANARY,
                "OS_REGION_NAME": "eu-de",
                "OS_PROJECT_ID": PROJECT,
                "OS_USERNAME": "a",
            },
            {},
            (ENDPOINT, "OS_REGION_NAME", "OS_PROJECT_ID", "OS_AUTH_TOKEN"),
        ),
    ],
    ids=["vizwatch", "huaweicloud", "file", "file-iam", "openrc", "os-cloud", "os-token"],
)
def test_each_place_is_enough_and_each_value_says_where_it_is_from(
    environment: dict[str, str], sections: dict[str, dict[str, str]], expected: tuple[str, ...]
) -> None:
    found = resolved(environment, sections)
    first = getattr(found.credentials, attrs.fields(type(found.credentials))[0].name)
    if isinstance(found.credentials, Password):
        first = found.credentials.username
    assert (value(found.endpoint), source(found.endpoint), source(found.project_id), first.source) == expected


def test_credentials_of_every_kind_carry_their_parts() -> None:
    assert resolved(VIZWATCH).credentials == Token(Found(CANARY, "VIZWATCH_TOKEN"))
    temporary = HUAWEICLOUD | {"HUAWEICLOUD_SDK_SECURITY_TOKEN": "s"}
    assert resolved(temporary, region="eu-de").credentials == AccessKey(
        Found(f"{CANARY}-ak", "HUAWEICLOUD_SDK_AK"),
        Found(f"{CANARY}-sk", "HUAWEICLOUD_SDK_SK"),
        Found("s", "HUAWEICLOUD_SDK_SECURITY_TOKEN"),
    )
    assert resolved(OPENRC, project_id=PROJECT).credentials == Password(
        Found("https://iam.eu-de.otc.t-systems.com:443", "OS_AUTH_URL"),
        Found("ada", "OS_USERNAME"),
        Found(f"{CANARY} pass/wörd", "OS_PASSWORD"),
        Found("OTC-EU-DE-00000000001000000001", "OS_USER_DOMAIN_NAME"),
        Found("eu-de_vision", "OS_PROJECT_NAME"),
    )
    in_file = resolved({}, {"basic": SECTION | {"security_token": "t"}}, region="eu-de").credentials
    assert isinstance(in_file, AccessKey)
    assert in_file.security_token == Found("t", f"{FILE} [basic] security_token")
    by_cloud = resolved({"OS_CLOUD": "otc"}, endpoint=ENDPOINT, project_id=PROJECT)
    assert by_cloud.credentials == Cloud(Found("otc", "OS_CLOUD"))
    given = resolved(VIZWATCH, workspace_id="7")
    assert given.workspace_id == Found("7", "argument workspace_id")


@pytest.mark.parametrize(
    "where",
    [
        {"VIZWATCH_REGION": "eu-de"},
        {"VIZWATCH_ENDPOINT": CUSTOM, "VIZWATCH_REGION": "eu-de"},
        {"VIZWATCH_ENDPOINT": ENDPOINT},
    ],
)
def test_a_password_goes_to_the_identity_service_of_the_region_where_none_is_named(
    where: dict[str, str],
) -> None:
    environment = OPENRC | {"OS_DOMAIN_NAME": OPENRC["OS_USER_DOMAIN_NAME"]}
    for name in ("OS_AUTH_URL", "OS_USER_DOMAIN_NAME"):
        del environment[name]
    found = resolved(environment | where, project_id=PROJECT)
    assert isinstance(found.credentials, Password)
    assert found.credentials.domain_name.source == "OS_DOMAIN_NAME"
    assert found.credentials.iam_endpoint == Found("https://iam.eu-de.otc.t-systems.com", list(where)[-1])


def test_a_section_is_chosen_by_the_profile_and_then_goes_before_the_environment() -> None:
    other = {"ak": "other-ak", "sk": "other-sk"}
    sections = {"basic": SECTION, "other": other}
    found = resolved(HUAWEICLOUD | {"VIZWATCH_REGION": "eu-de"}, sections, profile="other")
    assert isinstance(found.credentials, AccessKey)
    assert found.credentials.access_key == Found("other-ak", f"{FILE} [other] ak")
    assert source(found.project_id) == "HUAWEICLOUD_SDK_PROJECT_ID"
    assert found.unused == ("HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK")
    found = resolved(HUAWEICLOUD | {"VIZWATCH_REGION": "eu-de"}, sections)
    assert isinstance(found.credentials, AccessKey)
    assert found.credentials.access_key.source == "HUAWEICLOUD_SDK_AK"
    assert found.unused == (f"{FILE} [basic] ak", f"{FILE} [basic] sk")


def test_a_password_and_a_cloud_say_themselves_which_project_they_are_for() -> None:
    found = resolved(OPENRC)
    assert isinstance(found.credentials, Password)
    assert found.project_id is None
    assert found.credentials.project_name == Found("eu-de_vision", "OS_PROJECT_NAME")
    found = resolved({"OS_CLOUD": "otc"})
    assert (found.endpoint, found.project_id) == (None, None)
    found = resolved({"OS_CLOUD": "otc", "VIZWATCH_REGION": "eu-de", "VIZWATCH_PROJECT_ID": PROJECT})
    assert (value(found.endpoint), value(found.project_id)) == (ENDPOINT, PROJECT)


OF_PROFILE = f"argument profile; the sections of {FILE}: 'basic', 'other'"


def test_a_profile_names_a_section_or_else_a_cloud_of_clouds_yaml() -> None:
    sections = {"basic": SECTION, "other": {"ak": "a", "sk": "s"}}
    found = resolved(VIZWATCH, sections, profile="otc")
    assert found.credentials == Cloud(Found("otc", OF_PROFILE))
    assert found.unused == ("VIZWATCH_TOKEN",)
    found = resolved(VIZWATCH, sections, profile="other")
    assert isinstance(found.credentials, AccessKey)
    found = resolved(profile="otc")
    assert found.credentials == Cloud(Found("otc", f"argument profile; the sections of {FILE}: none"))


def test_a_broken_file_is_told_with_the_cloud_that_may_be_a_section_of_it() -> None:
    found = resolved(problem=f"{FILE}, line 3: broken", profile="work")
    assert found.credentials == Cloud(Found("work", f"argument profile; {FILE}, line 3: broken"))


def test_a_cloud_that_an_argument_chose_is_not_completed_from_the_environment() -> None:
    leftovers = {"VIZWATCH_REGION": "cn-north-4", "VIZWATCH_PROJECT_ID": "leftover", "OS_PROJECT_ID": "other"}
    found = resolved(leftovers, {"basic": SECTION}, profile="otc")
    assert (found.endpoint, found.project_id) == (None, None)
    assert isinstance(found.credentials, Cloud)
    given = resolved(leftovers, profile="otc", region="eu-de", project_id=PROJECT)
    assert (value(given.endpoint), value(given.project_id)) == (ENDPOINT, PROJECT)


def test_what_is_not_needed_is_not_looked_at() -> None:
    environment = VIZWATCH | {"HUAWEICLOUD_SDK_SK": " ", "OS_REGION_NAME": "RegionOne", "OS_TOKEN": ""}
    found = resolved(environment, problem=f"{FILE}, line 3: broken")
    assert found.credentials == Token(Found(CANARY, "VIZWATCH_TOKEN"))
    with pytest.raises(ConfigError, match=r"line 3: broken$"):
        resolved({"OS_TOKEN": "t", "OS_REGION_NAME": "eu-de"}, problem=f"{FILE}, line 3: broken")


# The places in the order of the documentation, each with a whole set of values of its own.
_PLACES: dict[str, tuple[str, str]] = {
    "argument": ("", "project_id"),  # which never are credentials
    "VIZWATCH": ("VIZWATCH_TOKEN", "VIZWATCH_PROJECT_ID"),
    "HUAWEICLOUD": ("HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_PROJECT_ID"),
    "file": ("ak", "project_id"),
    "OS": ("OS_TOKEN", "OS_PROJECT_ID"),
}


@given(
    who=st.sets(st.sampled_from(list(_PLACES)[1:]), min_size=1),
    which=st.sets(st.sampled_from(list(_PLACES)), min_size=1),
    where=st.sets(st.sampled_from(["argument", "VIZWATCH", "OS"]), min_size=1),
)
@example({"file", "OS"}, {"file", "OS"}, {"OS"})
@example({"HUAWEICLOUD", "file"}, {"HUAWEICLOUD", "file"}, {"VIZWATCH", "OS"})
@example({"HUAWEICLOUD"}, {"VIZWATCH", "HUAWEICLOUD"}, {"argument", "VIZWATCH"})
@example({"VIZWATCH", "HUAWEICLOUD"}, {"HUAWEICLOUD"}, {"VIZWATCH"})
@example({"VIZWATCH"}, {"argument", "VIZWATCH"}, {"argument", "OS"})
def test_the_first_found_wins_for_each_of_credentials_project_and_endpoint(
    who: set[str], which: set[str], where: set[str]
) -> None:
    given_to: dict[str, dict[str, str]] = {"argument": {}, "file": {}, "environment": {}}
    for place, (secret, project) in _PLACES.items():
        values = given_to.get(place, given_to["environment"])
        if place in who:
            values[secret] = f"{CANARY}-{place}"
        if place in who and secret.lower().endswith("ak"):
            values["sk" if secret == "ak" else "HUAWEICLOUD_SDK_SK"] = "sk"
        if place in which:
            values[project] = f"project-{place}"
    # Each region of the first cloud, so that nothing contradicts anything.
    named = {"argument": "cn-north-1", "VIZWATCH": "cn-north-2", "OS": "cn-north-4"}
    variables = {"argument": "region", "VIZWATCH": "VIZWATCH_REGION", "OS": "OS_REGION_NAME"}
    for place in where:
        given_to.get(place, given_to["environment"])[variables[place]] = named[place]

    arguments: dict[str, Any] = dict(given_to["argument"])
    if "HUAWEICLOUD" in who and who & {"VIZWATCH", "OS"}:
        with pytest.raises(ConfigError, match="_TOKEN and HUAWEICLOUD_SDK_AK are set together: keep one"):
            resolved(given_to["environment"], {"basic": given_to["file"]}, **arguments)
        return
    found = resolved(given_to["environment"], {"basic": given_to["file"]}, **arguments)

    def first(places: set[str]) -> str:
        return next(place for place in _PLACES if place in places)

    one = found.credentials
    assert isinstance(one, Token | AccessKey)
    assert (one.token if isinstance(one, Token) else one.access_key).value == f"{CANARY}-{first(who)}"
    assert value(found.project_id) == f"project-{first(which)}"
    assert value(found.endpoint) == regions.REGIONS[named[first(where)]].endpoint
    assert str(source(found.endpoint)).endswith(variables[first(where)])
    assert len(found.unused) == sum(2 if p in {"HUAWEICLOUD", "file"} else 1 for p in who - {first(who)})


# --- what is wrong --------------------------------------------------------------------------------------

_AK = "HUAWEICLOUD_SDK_AK"
_SK = "HUAWEICLOUD_SDK_SK"


def _without(values: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if name not in names}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    # Blank, padded, and otherwise broken values: U6.
    "blank token": (VIZWATCH | {"VIZWATCH_TOKEN": ""}, "^VIZWATCH_TOKEN is set, but blank: .* or unset it$"),
    "white project": (VIZWATCH | {"VIZWATCH_PROJECT_ID": " \t"}, "^VIZWATCH_PROJECT_ID is set, but blank"),
    "blank region": (VIZWATCH | {"VIZWATCH_REGION": " "}, "^VIZWATCH_REGION is set, but blank"),
    "blank endpoint": (VIZWATCH | {"VIZWATCH_ENDPOINT": "\n"}, "^VIZWATCH_ENDPOINT is set, but blank"),
    "blank AK": (HUAWEICLOUD | {"region": "eu-de", _AK: ""}, f"^{_AK} is set, but blank"),
    "blank security token": (
        HUAWEICLOUD | {"region": "eu-de", "HUAWEICLOUD_SDK_SECURITY_TOKEN": ""},
        "^HUAWEICLOUD_SDK_SECURITY_TOKEN is set, but blank",
    ),
    "blank password": (
        OPENRC | {"project_id": PROJECT, "OS_PASSWORD": "  "},
        "^OS_PASSWORD is set, but blank",
    ),
    "blank key in the file": (
        {"region": "eu-de", "sections": {"basic": SECTION | {"sk": ""}}},
        rf"^{FILE} \[basic\] sk is set, but blank",
    ),
    "token with a newline": (
        VIZWATCH | {"VIZWATCH_TOKEN": f"{CANARY}\n"},
        "^VIZWATCH_TOKEN must be .*; it begins or ends in a newline or a space",
    ),
    "token with a space": (VIZWATCH | {"VIZWATCH_TOKEN": f"{CANARY} {CANARY}"}, "^VIZWATCH_TOKEN must be"),
    "token too long": (VIZWATCH | {"VIZWATCH_TOKEN": CANARY * 6_000}, "^VIZWATCH_TOKEN must be 1 to 65536"),
    "SK with a newline": (
        HUAWEICLOUD | {"region": "eu-de", _SK: f"{CANARY}\r\n"},
        f"^{_SK} must be .* newline",
    ),
    "password with a newline": (
        OPENRC | {"project_id": PROJECT, "OS_PASSWORD": f"{CANARY}\n"},
        "^OS_PASSWORD has a control character, perhaps a newline at its end",
    ),
    "password that is no text": (
        OPENRC | {"project_id": PROJECT, "OS_PASSWORD": f"{CANARY}\udcff"},
        "^OS_PASSWORD has a control character",
    ),
    "padded user": (
        OPENRC | {"project_id": PROJECT, "OS_USERNAME": "ada "},
        "^OS_USERNAME begins or ends with white space",
    ),
    "user with a hidden character": (
        OPENRC | {"project_id": PROJECT, "OS_USERNAME": "a\u202eda"},
        "^OS_USERNAME has a control character",
    ),
    "profile with a hidden character": (
        VIZWATCH | {"profile": "a\u200bda"},
        "^argument profile has a control",
    ),
    "argument of another type": (
        VIZWATCH | {"project_id": 7},
        "^argument project_id must be a string, not int",
    ),
    "blank profile": (VIZWATCH | {"profile": " "}, "^argument profile is set, but blank"),
    "profile of another type": (VIZWATCH | {"profile": 7}, "^argument profile must be a string"),
    # Missing ones.
    "nothing": (
        {},
        r"^3 things .*: \(1\) VIZWATCH_TOKEN is not.*; \(2\) VIZWATCH_ENDPOINT is not.*; \(3\) VIZWATCH_PRO",
    ),
    "no endpoint": (_without(VIZWATCH, "VIZWATCH_REGION"), "^VIZWATCH_ENDPOINT is not set.* VIZWATCH_REGION"),
    "no endpoint, IAM elsewhere": (
        OPENRC | {"project_id": PROJECT, "OS_AUTH_URL": "https://iam.myhuaweicloud.com/v3"},
        "^VIZWATCH_ENDPOINT is not set",
    ),
    "no project": (_without(VIZWATCH, "VIZWATCH_PROJECT_ID"), "^VIZWATCH_PROJECT_ID is not set"),
    "project's name alone": (
        VIZWATCH | {"VIZWATCH_PROJECT_ID": None, "OS_PROJECT_NAME": "eu-de_vision"},
        r"gives the project's id \(OS_PROJECT_NAME gives its name alone\): set",
    ),
    "AK/SK with a project's name": (
        _without(HUAWEICLOUD, "HUAWEICLOUD_SDK_PROJECT_ID") | {"region": "eu-de", "OS_PROJECT_NAME": "eu-de"},
        "^VIZWATCH_PROJECT_ID is not set",
    ),
    "token with a project's name": (
        {"OS_TOKEN": CANARY, "OS_REGION_NAME": "eu-de", "OS_PROJECT_NAME": "eu-de_vision"},
        r"^VIZWATCH_PROJECT_ID is not set.* \(OS_PROJECT_NAME gives its name alone\)",
    ),
    "no credentials": (_without(VIZWATCH, "VIZWATCH_TOKEN"), "^VIZWATCH_TOKEN is not set"),
    "AK without SK": (
        _without(HUAWEICLOUD, _SK) | {"region": "eu-de"},
        f"^{_AK} set without {_SK}: they are used together$",
    ),
    "SK without AK": (_without(HUAWEICLOUD, _AK) | {"region": "eu-de"}, f"^{_SK} set without {_AK}"),
    "ak without sk in the file": (
        {"region": "eu-de", "sections": {"basic": _without(SECTION, "sk")}},
        rf"^{FILE} \[basic\] ak set without {FILE} \[basic\] sk",
    ),
    "AK here, SK in the file": (
        _without(HUAWEICLOUD, _SK) | {"region": "eu-de", "sections": {"basic": SECTION}},
        f"^{_AK} set without {_SK}",
    ),
    "SK and security token alone": (
        _without(HUAWEICLOUD, _AK) | {"region": "eu-de", "HUAWEICLOUD_SDK_SECURITY_TOKEN": CANARY},
        f"^{_SK} and HUAWEICLOUD_SDK_SECURITY_TOKEN set without {_AK}: ",
    ),
    "security token alone": (
        VIZWATCH | {"VIZWATCH_TOKEN": None, "HUAWEICLOUD_SDK_SECURITY_TOKEN": CANARY},
        f"^HUAWEICLOUD_SDK_SECURITY_TOKEN set without {_AK} and {_SK}",
    ),
    "user alone": (
        {"OS_USERNAME": "ada", "region": "eu-de", "project_id": PROJECT},
        "^OS_USERNAME set without OS_PASSWORD and OS_USER_DOMAIN_NAME: ",
    ),
    "no identity service": (
        _without(OPENRC, "OS_AUTH_URL") | {"endpoint": CUSTOM, "project_id": PROJECT},
        "^OS_AUTH_URL is not set: set it to",
    ),
    # Contradictory ones: U5, X13.
    "token and AK/SK in the environment": (
        VIZWATCH | HUAWEICLOUD,
        f"^VIZWATCH_TOKEN and {_AK} are set together: keep one, and unset the rest$",
    ),
    "AK/SK and a token of OS_*": (
        HUAWEICLOUD | {"OS_TOKEN": CANARY, "region": "eu-de"},
        f"^OS_TOKEN and {_AK} are set together",
    ),
    "token and password": (
        OPENRC | {"OS_TOKEN": CANARY, "project_id": PROJECT},
        "^OS_TOKEN and OS_PASSWORD are set together",
    ),
    "password and cloud": (
        OPENRC | {"OS_CLOUD": "otc", "project_id": PROJECT},
        "^OS_PASSWORD and OS_CLOUD are set together",
    ),
    "region and endpoint": (
        VIZWATCH | {"VIZWATCH_ENDPOINT": HUAWEI},
        "^VIZWATCH_ENDPOINT is in cn-north-4, and VIZWATCH_REGION is eu-de: unset one of them$",
    ),
    "key of a profile to a gateway of the environment": (
        {"VIZWATCH_ENDPOINT": CUSTOM, "profile": "basic", "sections": {"basic": SECTION}},
        rf"^VIZWATCH_ENDPOINT is in neither cloud, and would be sent {FILE} \[basic\] ak: give",
    ),
    "token to the other cloud": (
        VIZWATCH | {"endpoint": HUAWEI},
        "^VIZWATCH_TOKEN is of Open Telekom Cloud, says VIZWATCH_REGION, and argument endpoint is .* Huawei",
    ),
    "token to the other cloud, by its endpoint": (
        {"endpoint": HUAWEI, "VIZWATCH_ENDPOINT": ENDPOINT, "VIZWATCH_TOKEN": CANARY, "project_id": PROJECT},
        "^VIZWATCH_TOKEN is of Open Telekom Cloud, says VIZWATCH_ENDPOINT, and argument endpoint is",
    ),
    "password to the other cloud": (
        OPENRC | {"VIZWATCH_REGION": "cn-north-4", "project_id": PROJECT},
        "^OS_PASSWORD is of Open Telekom Cloud, says OS_AUTH_URL, and VIZWATCH_REGION is",
    ),
    "OS_* of two clouds": (
        OPENRC | {"OS_REGION_NAME": "cn-north-4", "project_id": PROJECT},
        "^OS_PASSWORD is of Open Telekom Cloud, says OS_AUTH_URL, and OS_REGION_NAME is",
    ),
    # Names for ids, and other projects that are none: U3.
    "project's name": (
        VIZWATCH | {"VIZWATCH_PROJECT_ID": "eu-de_vision"},
        "^VIZWATCH_PROJECT_ID must be the project's id, such as .{32}, and 'eu-de_vision' is a project's",
    ),
    "region's project": (
        HUAWEICLOUD | {"region": "cn-north-4", "HUAWEICLOUD_SDK_PROJECT_ID": "cn-north-4"},
        "^HUAWEICLOUD_SDK_PROJECT_ID must be the project's id",
    ),
    "project with a path": (
        VIZWATCH | {"project_id": "../x"},
        r"^argument project_id must be .* not '\.\./x'",
    ),
    "a longer id": (VIZWATCH | {"project_id": "p" * 65}, "^argument project_id must be .* not 65 characters"),
    "token for project": (VIZWATCH | {"VIZWATCH_PROJECT_ID": CANARY * 9}, "project's id, not 99 characters"),
    "workspace with a path": (VIZWATCH | {"workspace_id": "a/b"}, "^argument workspace_id must be"),
    # Endpoints: U1, U2.
    "unknown region": (VIZWATCH | {"VIZWATCH_REGION": "eu-d"}, r"^VIZWATCH_REGION must be .* \(eu-de, "),
    "secret for region": (VIZWATCH | {"VIZWATCH_REGION": CANARY * 4}, "^VIZWATCH_REGION must be"),
    "endpoint with a path": (VIZWATCH | {"endpoint": f"{ENDPOINT}/v1"}, "^argument endpoint .* without path"),
    "endpoint with a query": (
        VIZWATCH | {"endpoint": f"{ENDPOINT}?t={CANARY}"},
        "^argument endpoint .*query",
    ),
    "endpoint with a user": (
        VIZWATCH | {"endpoint": f"https://u:{CANARY}@host"},
        "^argument endpoint must be .* without user",
    ),
    "token for endpoint": (VIZWATCH | {"endpoint": CANARY}, "^argument endpoint must be .* not shown"),
    "http": (VIZWATCH | {"endpoint": "http://example.com"}, "^argument endpoint must be https"),
    "IAM by http": (
        OPENRC | {"OS_AUTH_URL": "http://iam.example.com/v3", "region": "eu-de", "project_id": PROJECT},
        "^OS_AUTH_URL must be https",
    ),
    "IAM of an old version": (
        OPENRC | {"OS_AUTH_URL": "https://iam.example.com/v2.0", "region": "eu-de", "project_id": PROJECT},
        "^OS_AUTH_URL must be .* without path",
    ),
    "several at once": (
        {"VIZWATCH_TOKEN": f"{CANARY}\n", "VIZWATCH_REGION": "eu", "VIZWATCH_PROJECT_ID": "eu-de_x"},
        r"^3 things are wrong .*\(1\) VIZWATCH_REGION.*\(2\) VIZWATCH_PROJECT_ID.*\(3\) VIZWATCH_TOKEN",
    ),
    "one cause, said once": ({"region": "eu-de", "problem": "the file is broken"}, "^the file is broken$"),
}


def _of(case: Mapping[str, Any]) -> Configuration:
    environment = {name: value for name, value in case.items() if name.isupper() and value is not None}
    return resolved(environment, **{name: value for name, value in case.items() if not name.isupper()})


@pytest.mark.fault("X13")
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_its_source_and_no_secret(name: str) -> None:
    case, said = WRONG[name]
    with pytest.raises(ConfigError, match=said) as caught:
        _of(case)
    error = caught.value
    assert CANARY not in f"{error}{error!r}{''.join(traceback.format_exception(error))}"
    assert CANARY not in repr(pickle.loads(pickle.dumps(error)))
    assert str(error).isprintable()
    assert len(str(error)) < 900


@pytest.mark.parametrize(
    "case",
    [
        {"endpoint": "http://127.0.0.1:8080", **VIZWATCH},
        {"endpoint": CUSTOM, **VIZWATCH},
        {"VIZWATCH_ENDPOINT": CUSTOM, **VIZWATCH},
        {"VIZWATCH_ENDPOINT": CUSTOM, "project_id": PROJECT, **OPENRC},
        {"endpoint": CUSTOM, "profile": "basic", "sections": {"basic": SECTION}},
        {"VIZWATCH_REGION": "cn-north-1", "OS_REGION_NAME": "cn-north-4", "OS_TOKEN": "t", "project_id": "p"},
        {"endpoint": "http://example.com", "allow_insecure": True, **VIZWATCH},
        {**OPENRC, "OS_AUTH_URL": "http://127.0.0.1:5000/v3/", "project_id": PROJECT, "endpoint": CUSTOM},
        {**VIZWATCH, "VIZWATCH_PROJECT_ID": "my_project-1"},
        {**VIZWATCH, "VIZWATCH_PROJECT_ID": "p" * 64},
    ],
)
def test_what_is_asked_for_plainly_is_allowed(case: dict[str, Any]) -> None:
    assert str(value(_of(case).endpoint)).startswith("http")


@pytest.mark.fault("X1")
def test_no_secret_is_shown_by_what_is_found() -> None:
    sections = {"basic": SECTION | {"security_token": CANARY}}
    for found in (
        resolved(VIZWATCH | OPENRC, sections),
        resolved(HUAWEICLOUD | {"HUAWEICLOUD_SDK_SECURITY_TOKEN": CANARY}, region="eu-de"),
        resolved(OPENRC, project_id=PROJECT),
        resolved({}, sections, region="eu-de"),
    ):
        assert CANARY not in f"{found}{found!r}{found.credentials!r}{attrs.asdict(found)}"
        assert "***" in repr(found)
        for way in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="not pickled"):
                way(found)
    assert CANARY not in repr(CredentialsFile(sections=sections))


# --- the process's environment, and the file ------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and none of this process's own variables."""
    for name in os.environ:
        if name.startswith(("VIZWATCH_", "HUAWEICLOUD_", "OS_")):
            monkeypatch.delenv(name)
    windows = os.name == "nt"
    monkeypatch.setenv("HOME", "elsewhere" if windows else str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path) if windows else "elsewhere")
    (tmp_path / ".huaweicloud").mkdir()
    return tmp_path


def _write(home: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path = home / ".huaweicloud" / "credentials"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def test_the_file_is_read_as_the_vendors_sdk_reads_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(
        home,
        "# comment\n[basic]\nAK = file-ak\nsk=100%%sk%d\nproject_id : p\n[global]\nak = g\nsk = g\n",
    )
    monkeypatch.setenv("VIZWATCH_REGION", "eu-de")
    found = sources.find({})
    assert isinstance(found.credentials, AccessKey)
    assert found.credentials.access_key == Found("file-ak", f"{FILE} [basic] ak")
    assert found.credentials.secret_key.value == "100%%sk%d"
    assert (value(found.project_id), found.notes) == ("p", ())
    chosen = sources.find({"project_id": "q"}, profile="global").credentials
    assert isinstance(chosen, AccessKey)
    assert chosen.access_key == Found("g", f"{FILE} [global] ak")


def test_another_file_is_named_by_the_vendors_variable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(home, "[basic]\nak = a\nsk = s\n").rename(home / "elsewhere.ini")
    monkeypatch.setenv("HUAWEICLOUD_SDK_CREDENTIALS_FILE", str(path))
    found = sources.find({"region": "eu-de", "project_id": "p"})
    assert isinstance(found.credentials, AccessKey)
    assert found.credentials.access_key.source == f"{path} [basic] ak"


def test_arguments_go_through_to_the_rules(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZWATCH_TOKEN", "t")
    arguments = {"endpoint": "http://example.com", "project_id": "p", "workspace_id": None}
    assert value(sources.find(arguments, allow_insecure=True).endpoint) == "http://example.com"
    with pytest.raises(ConfigError, match="must be https"):
        sources.find(arguments)


def test_without_a_file_there_is_nothing_and_no_problem(home: Path) -> None:
    assert sources.credentials_file(os.environ) == CredentialsFile()
    assert sources.credentials_file({}) == CredentialsFile()


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
@pytest.mark.parametrize(("mode", "noted"), [(0o600, False), (0o640, True), (0o604, True), (0o622, False)])
def test_a_file_that_others_can_read_is_accepted_and_noted(home: Path, mode: int, noted: bool) -> None:
    _write(home, "[basic]\nak = a\nsk = s\n", mode)
    found = sources.find({"region": "eu-de", "project_id": "p"})
    assert [note.startswith(f"{FILE} can be read by others") for note in found.notes] == [True] * noted


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (f"ak = {CANARY}\n", f"{FILE}, line 1: it stands before any section"),
        (f"[basic]\nak = a\n{CANARY}\n", f"{FILE}, line 3: it is no `key = value`"),
        (f"[basic]\nak = a\nAK = {CANARY}\n", f"{FILE}, line 3: a key stands there for the second time"),
        ("[basic]\nak = a\n[basic]\n", f"{FILE}, line 3: a section stands there for the second time"),
        (b"[basic]\nak = canary-5f2e\nsk = \xff\xfe\n", f"{FILE}, line 3: it is not UTF-8"),
        (b"#" * (2**20 + 1), f"{FILE} cannot be read: it is larger than 1 MiB"),
    ],
)
def test_a_broken_file_is_told_by_its_line_and_never_by_its_content(
    home: Path, content: str | bytes, problem: str
) -> None:
    _write(home, content)
    with pytest.raises(ConfigError) as caught:
        sources.find({"region": "eu-de", "project_id": "p"})
    assert str(caught.value).startswith(problem)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_the_largest_file_is_read(home: Path) -> None:
    start = "[basic]\nak = a\nsk = s\n"
    _write(home, start + "#" * (2**20 - len(start)))
    assert sources.credentials_file(os.environ).sections["basic"]["ak"] == "a"


def test_a_file_that_cannot_be_read_is_told_where_it_is_needed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def problem(path: object) -> str | None:
        monkeypatch.setenv("HUAWEICLOUD_SDK_CREDENTIALS_FILE", str(path))
        return sources.credentials_file(os.environ).problem

    missing = home / "missing"
    assert problem(missing) == f"HUAWEICLOUD_SDK_CREDENTIALS_FILE names {missing}, which does not exist"
    assert problem(home) == f"{home} cannot be read: it is not a file"
    assert problem("") == "HUAWEICLOUD_SDK_CREDENTIALS_FILE is set, but blank: give it a path, or unset it"
    monkeypatch.setenv("VIZWATCH_TOKEN", "t")
    found = sources.find({"region": "eu-de", "project_id": "p"})
    assert found.credentials == Token(Found("t", "VIZWATCH_TOKEN"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are of POSIX")
def test_a_pipe_is_not_waited_for(home: Path) -> None:
    os.mkfifo(home / ".huaweicloud" / "credentials")
    assert sources.credentials_file(os.environ).problem == f"{FILE} cannot be read: it is not a file"


def test_what_is_found_makes_a_client(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VIZWATCH.items():
        monkeypatch.setenv(name, value)
    found = sources.find({})
    assert isinstance(found.credentials, Token)
    client = vizwatch.Client(ENDPOINT, PROJECT, auth=found.credentials.token.value)
    assert CANARY not in repr(client)
