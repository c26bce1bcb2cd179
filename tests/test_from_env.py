"""From the credentials that users have already to a first listing; and what is wrong with them, at once."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from canaries import shown
from virtual import elapse

import vizwatch
from vizwatch.emulator import Emulator

CANARY = "canary-5f2e"


KINDS = (
    *("token", "key", "temporary key", "token of OS_*"),
    *("openrc with the project's id", "openrc with the project's name"),
)


def of(cloud: Emulator) -> dict[str, dict[str, str]]:
    """What each tool's users have in their environment."""
    openrc = {
        "OS_AUTH_URL": f"{cloud.endpoint}/v3",
        "OS_USERNAME": cloud.user,
        "OS_PASSWORD": cloud.password,
        "OS_USER_DOMAIN_NAME": cloud.domain,
        "VIZWATCH_ENDPOINT": cloud.endpoint,
    }
    here = {"VIZWATCH_ENDPOINT": cloud.endpoint, "VIZWATCH_PROJECT_ID": cloud.project_id}
    keys = {"HUAWEICLOUD_SDK_AK": cloud.access_key, "HUAWEICLOUD_SDK_SK": cloud.secret_key}
    return {
        "token": {**here, "VIZWATCH_TOKEN": cloud.token},
        "key": {**here, **keys},
        "temporary key": {**here, **keys, "HUAWEICLOUD_SDK_SECURITY_TOKEN": str(cloud.security_token)},
        "openrc with the project's id": {**openrc, "OS_PROJECT_ID": cloud.project_id},
        "openrc with the project's name": {**openrc, "OS_PROJECT_NAME": cloud.project_name},
        "token of OS_*": {**here, "OS_TOKEN": cloud.token},
    }


@pytest.mark.looptime
@pytest.mark.parametrize("kind", KINDS)
async def test_credentials_of_every_tool_come_to_a_first_listing(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Emulator(security_token="s" if kind == "temporary key" else None) as cloud:
        job_ids = cloud.add_jobs(3, status=8)
        for name, value in of(cloud)[kind].items():
            monkeypatch.setenv(name, value)
        async with vizwatch.Client.from_env() as client:
            assert [job.job_id async for job in client.list_jobs()] == job_ids
            assert (client.project_id, client.endpoint) == (cloud.project_id, cloud.endpoint)


@pytest.mark.looptime
async def test_the_credentials_file_comes_to_a_first_listing(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    keys = f"ak = {cloud.access_key}\nsk = {cloud.secret_key}\nproject_id = {cloud.project_id}\n"
    file.write_text(f"[basic]\nak = wrong\nsk = wrong\nproject_id = wrong\n[work]\n{keys}")
    file.chmod(0o600)
    monkeypatch.setenv("HUAWEICLOUD_SDK_CREDENTIALS_FILE", str(file))
    async with vizwatch.Client.from_env("work", endpoint=cloud.endpoint) as client:
        assert await client.list_jobs().collect() == []


@pytest.mark.looptime
async def test_a_session_of_ones_own_and_http_beyond_loopback_are_taken(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in of(cloud)["openrc with the project's name"].items():
        monkeypatch.setenv(name, value)
    async with aiohttp.ClientSession() as session:
        async with vizwatch.Client.from_env(session=session) as client:
            assert await client.list_jobs().collect() == []
        assert not session.closed
        assert session.connector is not None
        assert len(session.connector._conns) == 1, "it was used"
    monkeypatch.setenv("OS_AUTH_URL", "http://iam.example.com/v3")
    for settings, allow in ((None, True), (vizwatch.Settings(allow_insecure=True), False)):
        client = vizwatch.Client.from_env(
            endpoint="http://example.com", settings=settings, allow_insecure=allow
        )
        assert client.endpoint == "http://example.com"
    with pytest.raises(vizwatch.ConfigError, match="must be https"):
        vizwatch.Client.from_env(endpoint="http://example.com")


# --- a project that the credentials know -----------------------------------------------------------------


def password_auth(cloud: Emulator, **options: Any) -> vizwatch.PasswordAuth:
    given = {"username": cloud.user, "password": cloud.password, "domain_name": cloud.domain}
    return vizwatch.PasswordAuth(cloud.endpoint, **{**given, "project_name": cloud.project_name, **options})


@pytest.mark.looptime
async def test_a_projects_name_costs_one_token_call_and_no_other_request(cloud: Emulator) -> None:
    auth = password_auth(cloud)
    client = vizwatch.Client(cloud.endpoint, None, auth=auth)
    with pytest.raises(vizwatch.ConfigError, match="project_id is not known yet: open the client"):
        _ = client.project_id
    assert repr(client) == f"Client('{cloud.endpoint}', None)"
    async with client, vizwatch.Client(cloud.endpoint, None, auth=auth) as twin:
        await client.list_jobs().collect()
        assert client.project_id == twin.project_id == cloud.project_id
    assert len(cloud.requests) == 2
    async with vizwatch.Client(
        cloud.endpoint, None, auth=password_auth(cloud, project_name=None, project_id="p")
    ) as client:
        assert client.project_id == "p"
    assert len(cloud.requests) == 2, "an id needs no call"


@pytest.mark.looptime
async def test_a_client_that_cannot_be_opened_can_be_tried_again(cloud: Emulator) -> None:
    settings = vizwatch.Settings(attempts=1)
    client = vizwatch.Client(cloud.endpoint, None, auth=password_auth(cloud, settings=settings))
    cloud.fault("status", status=503, count=1)
    with pytest.raises(vizwatch.ServerError, match="get token"):
        await client.__aenter__()
    async with client:
        assert await client.list_jobs().collect() == []


@pytest.mark.looptime
async def test_a_client_that_is_closed_while_it_is_opened_stays_closed(cloud: Emulator) -> None:
    client = vizwatch.Client(cloud.endpoint, None, auth=password_auth(cloud))
    cloud.fault("latency", seconds=5)
    opening = asyncio.create_task(client.__aenter__())
    await asyncio.sleep(1)
    with pytest.raises(vizwatch.ConfigError, match="open already"):
        await client.__aenter__()
    await client.aclose()
    with pytest.raises(vizwatch.ClientClosedError):
        await opening


@pytest.mark.looptime
async def test_credentials_that_never_tell_their_scope_are_given_up(cloud: Emulator) -> None:
    class Hangs(Odd):
        async def scope(self) -> vizwatch.Scope:
            await asyncio.get_running_loop().create_future()
            raise AssertionError

    settings = vizwatch.Settings(call_timeout=40)
    client = vizwatch.Client(cloud.endpoint, None, auth=Hangs(), settings=settings)
    for _ in range(2):
        with pytest.raises(vizwatch.RequestTimeoutError, match=r"Hangs did not tell .* within 40 s"):
            await client.__aenter__()
    assert asyncio.get_running_loop().time() == 80
    opening = asyncio.create_task(client.__aenter__())
    await elapse(1)
    await client.aclose()
    with pytest.raises(vizwatch.ClientClosedError):
        await opening
    assert asyncio.get_running_loop().time() == 81, "closing does not wait for it"


@pytest.mark.looptime
async def test_a_password_tells_the_endpoint_of_its_region() -> None:
    names: dict[str, Any] = {"username": "ada", "password": CANARY, "domain_name": "d", "project_id": "p"}
    auth = vizwatch.PasswordAuth("https://iam.eu-de.otc.t-systems.com/v3", **names)
    async with vizwatch.Client(None, None, auth=auth) as client:
        assert client.endpoint == "https://modelarts.eu-de.otc.t-systems.com"
        assert client.project_id == "p"
    auth = vizwatch.PasswordAuth("https://iam.example.com", **names)
    with pytest.raises(vizwatch.ConfigError, match="do not tell where ModelArts is: give endpoint"):
        await vizwatch.Client(None, "p", auth=auth).__aenter__()


class Odd:
    """Credentials of somebody's own that know a project."""

    def __init__(self, project_id: str = "p") -> None:
        self._project_id = project_id

    async def headers(self, request: vizwatch.Outgoing, /) -> Mapping[str, str]:
        return {}

    async def scope(self) -> vizwatch.Scope:
        return vizwatch.Scope(self._project_id)


def test_what_the_credentials_do_not_know_must_be_given() -> None:
    for endpoint, project_id in ((None, "p"), ("https://example.com", None)):
        with pytest.raises(vizwatch.ConfigError, match="endpoint and project_id must be given"):
            vizwatch.Client(endpoint, project_id, auth="t")


@pytest.mark.looptime
@pytest.mark.parametrize("project_id", ["../x", "eu-de_x", "p" * 65, ""])
async def test_a_project_of_the_identity_services_is_no_more_trusted_than_any(
    cloud: Emulator, project_id: str
) -> None:
    with pytest.raises(vizwatch.ConfigError, match="the credentials' project_id"):
        await vizwatch.Client(cloud.endpoint, None, auth=Odd(project_id)).__aenter__()
    assert not cloud.requests


# --- bad input -------------------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, str], str]] = {
    "nothing": ({"VIZWATCH_ENDPOINT": "", "VIZWATCH_TOKEN": "", "VIZWATCH_PROJECT_ID": ""}, "set, but blank"),
    "empty token": ({"VIZWATCH_TOKEN": ""}, "VIZWATCH_TOKEN is set, but blank"),
    "blank project": ({"VIZWATCH_PROJECT_ID": " \t"}, "VIZWATCH_PROJECT_ID is set, but blank"),
    "newline at the token's end": ({"VIZWATCH_TOKEN": f"{CANARY}\n"}, "VIZWATCH_TOKEN must be .* newline"),
    "token and AK/SK": (
        {"HUAWEICLOUD_SDK_AK": f"{CANARY}-ak", "HUAWEICLOUD_SDK_SK": f"{CANARY}-sk"},
        "VIZWATCH_TOKEN and HUAWEICLOUD_SDK_AK are set together",
    ),
    "AK without SK": (
        {"VIZWATCH_TOKEN": "unset", "HUAWEICLOUD_SDK_AK": f"{CANARY}-ak"},
        "HUAWEICLOUD_SDK_AK set without HUAWEICLOUD_SDK_SK",
    ),
    "project's name": (
        {"VIZWATCH_PROJECT_ID": "eu-de_vision"},
        "VIZWATCH_PROJECT_ID must be the project's id",
    ),
    "endpoint with a path": (
        {"VIZWATCH_ENDPOINT": "{endpoint}/v1"},
        "VIZWATCH_ENDPOINT must be .* without path",
    ),
    "endpoint with a query": (
        {"VIZWATCH_ENDPOINT": f"{{endpoint}}?t={CANARY}"},
        "VIZWATCH_ENDPOINT must be .* without user, query and fragment",
    ),
    "endpoint without a host": (
        {"VIZWATCH_ENDPOINT": "https://"},
        "VIZWATCH_ENDPOINT must be an address such as https://modelarts",
    ),
    "endpoint with a user": (
        {"VIZWATCH_ENDPOINT": f"https://ada:{CANARY}@example.com"},
        "VIZWATCH_ENDPOINT must be .* without user",
    ),
    "token for the endpoint": ({"VIZWATCH_ENDPOINT": CANARY}, "VIZWATCH_ENDPOINT must be https"),
    "http": ({"VIZWATCH_ENDPOINT": "http://example.com"}, "VIZWATCH_ENDPOINT must be https, since http"),
    "unknown region": ({"VIZWATCH_ENDPOINT": "unset", "VIZWATCH_REGION": "eu-du"}, "VIZWATCH_REGION must be"),
}


@pytest.mark.fault("U1", "U3", "U5")
@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("way", ["library", "command"])
async def test_bad_input_is_told_before_any_request_and_shows_no_secret(
    case: str, way: str, cloud: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    environment, said = BAD[case]
    good = {"VIZWATCH_ENDPOINT": cloud.endpoint, "VIZWATCH_PROJECT_ID": "p", "VIZWATCH_TOKEN": CANARY}
    for name, value in {**good, **environment}.items():
        if value != "unset":
            monkeypatch.setenv(name, value.format(endpoint=cloud.endpoint))
    if way == "library":
        with pytest.raises(vizwatch.ConfigError, match=f"(?s)^.*{said}") as caught:
            vizwatch.Client.from_env()
        seen = shown(caught.value) + repr(pickle.dumps(caught.value)) + caplog.text
    else:
        command = [sys.executable, "-m", "vizwatch", "list"]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, env=dict(os.environ), check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        seen = done.stderr
    assert CANARY not in seen
    assert not cloud.requests
