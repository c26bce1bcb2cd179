"""Credentials of clouds.yaml and `OS_*`, through openstacksdk, in threads and so in real time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from canaries import shown
from servers import RawServer, http

import vizwatch
from vizwatch import Client, CloudsAuth
from vizwatch._values.configuration import Password
from vizwatch._values.exchange import Token
from vizwatch._values.secrets import Secret
from vizwatch._world import sources
from vizwatch._world.clouds import _Cloud, _session
from vizwatch.emulator import Emulator

CANARY = "canary-5f2e"

pytestmark = [
    # openstacksdk announces with it what its next major versions drop.
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

Write = Callable[..., Path]


@pytest.fixture
def clouds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a clouds.yaml with one cloud, and makes openstacksdk read it alone."""

    def write(text: str | None = None, /, *, region: str | None = None, top: str = "", **auth: str) -> Path:
        path = tmp_path / "clouds.yaml"
        lines = [f"      {key}: '{value}'" for key, value in auth.items()]
        at = [f"    region_name: {region}"] if region else []
        cloud = ["clouds:", "  here:", f"    {top}", *at, "    auth:", *lines]
        path.write_text("\n".join(cloud) if text is None else text)
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
        return path

    return write


def user(cloud: Emulator, **auth: str) -> dict[str, str]:
    return {
        "auth_url": f"{cloud.endpoint}/v3",
        "username": cloud.user,
        "password": cloud.password,
        "user_domain_name": cloud.domain,
        "project_name": cloud.project_name,
        "project_domain_name": cloud.domain,
        **auth,
    }


def token_calls(cloud: Emulator) -> int:
    return sum(request.path == "/v3/auth/tokens" for request in cloud.requests)


async def settled(auth: CloudsAuth) -> None:
    """Waits for the renewal that is under way in the background."""
    renewal = auth._tokens._renewal
    assert renewal is not None
    await renewal


@contextlib.asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """How long the event loop was away, each time, while the block ran."""
    loop, away = asyncio.get_running_loop(), [0.0]

    async def tick() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)
            away.append(loop.time() - before)

    task = asyncio.create_task(tick())
    try:
        yield away
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


# --- from clouds.yaml to a listing ------------------------------------------------------------------------


async def test_a_cloud_of_clouds_yaml_is_all_that_a_listing_needs(cloud: Emulator, clouds: Write) -> None:
    job_ids = cloud.add_jobs(3, status=8)
    clouds(**user(cloud))
    async with Client(None, None, auth=CloudsAuth("here")) as client:
        assert (client.endpoint, client.project_id) == (cloud.endpoint, cloud.project_id)
        found = await asyncio.gather(*(client.list_jobs().collect() for _ in range(20)))
    assert [[job.job_id for job in jobs] for jobs in found] == [job_ids] * 20
    assert token_calls(cloud) == 1


@pytest.mark.parametrize("way", ["profile", "OS_CLOUD"])
async def test_from_env_takes_a_cloud_by_its_name(
    way: str, cloud: Emulator, clouds: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    clouds(**user(cloud))
    if way == "OS_CLOUD":
        monkeypatch.setenv("OS_CLOUD", "here")
    async with Client.from_env("here" if way == "profile" else None) as client:
        assert await client.list_jobs().collect() == []
        assert client.project_id == cloud.project_id


async def test_the_only_cloud_of_clouds_yaml_needs_no_name(cloud: Emulator, clouds: Write) -> None:
    path = clouds(**user(cloud))
    async with Client.from_env() as client:
        assert await client.list_jobs().collect() == []
        assert client.project_id == cloud.project_id
    path.write_text(path.read_text().replace("  here:", "  there: {auth: {}}\n  here:"))
    with pytest.raises(vizwatch.ConfigError, match=r"several clouds \(here, there\): name one, by OS_CLOUD"):
        await Client.from_env().__aenter__()


async def test_clouds_yaml_comes_after_all_other_credentials(
    cloud: Emulator, clouds: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clouds(**user(cloud, password=CANARY))
    for name in ("endpoint", "project_id", "token"):
        monkeypatch.setenv(f"VIZWATCH_{name.upper()}", getattr(cloud, name))
    async with Client.from_env() as client:
        assert await client.list_jobs().collect() == []
    assert str(path) in sources.find({}).unused


async def test_another_type_of_openstack_credentials_is_openstacksdks_to_know(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "AUTH_TYPE": "v3token",
        "AUTH_URL": f"{cloud.endpoint}/v3",
        "TOKEN": cloud.token,
        "PROJECT_ID": "p",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"OS_{name}", value)
    async with Client.from_env() as client:
        assert await client.list_jobs().collect() == []
        assert (client.endpoint, client.project_id) == (cloud.endpoint, "p")
    assert token_calls(cloud) == 1, "the token is exchanged, and not used as it stands"
    for name, value in {**user(cloud), "auth_type": "password"}.items():
        monkeypatch.setenv(f"OS_{name.upper()}", value)
    monkeypatch.delenv("OS_TOKEN")
    assert isinstance(sources.find({"endpoint": cloud.endpoint}).credentials, Password)


async def test_the_variables_alone_are_a_cloud_too(cloud: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in user(cloud).items():
        monkeypatch.setenv(f"OS_{name.upper()}", value)
    async with Client(None, None, auth=CloudsAuth()) as client:
        assert await client.list_jobs().collect() == []


async def test_a_token_of_clouds_yaml_is_exchanged_for_one_of_the_project(
    cloud: Emulator, clouds: Write
) -> None:
    clouds(top="auth_type: v3token", auth_url=f"{cloud.endpoint}/v3", token=cloud.token, project_id="other")
    async with Client(None, None, auth=CloudsAuth("here")) as client:
        assert await client.list_jobs().collect() == []
        assert client.project_id == "other"


async def test_a_plain_token_without_identity_service_is_used_as_it_is(
    cloud: Emulator, clouds: Write
) -> None:
    clouds(
        top=f"auth_type: admin_token\n    modelarts_endpoint_override: {cloud.endpoint}/v1/p",
        endpoint=cloud.endpoint,
        token=cloud.token,
    )
    async with Client(None, "p", auth=CloudsAuth("here")) as client:
        assert await client.list_jobs().collect() == []
    assert token_calls(cloud) == 0
    with pytest.raises(vizwatch.ConfigError, match="the credentials name no project: give project_id"):
        await Client(None, None, auth=CloudsAuth("here")).__aenter__()


async def test_the_catalogs_endpoint_is_that_of_the_clouds_region(clouds: Write) -> None:
    async with Emulator(regions=["eu-de", "eu-nl"]) as cloud:
        for region in ("eu-nl", "eu-de"):
            clouds(region=region, **user(cloud, project_name=f"{region}_team"))
            scope = await CloudsAuth("here").scope()
            assert scope.endpoint == cloud.endpoints[region]


async def test_an_endpoint_of_clouds_yaml_wins_over_the_catalog(cloud: Emulator, clouds: Write) -> None:
    clouds(top="modelarts_endpoint_override: https://modelarts.example.com:8443/v1/p", **user(cloud))
    assert (await CloudsAuth("here").scope()).endpoint == "https://modelarts.example.com:8443"


@pytest.mark.fault("X13")
@pytest.mark.parametrize(
    ("auth_url", "region", "endpoint"),
    [
        ("https://iam.eu-de.otc.t-systems.com/v3", None, "https://modelarts.eu-de.otc.t-systems.com"),
        ("https://iam.eu-de.otc.t-systems.com/v3", "eu-de", "https://modelarts.eu-de.otc.t-systems.com"),
        ("https://iam.myhuaweicloud.com/v3", "cn-north-4", "https://modelarts.cn-north-4.myhuaweicloud.com"),
        ("https://keystone.example.com/v3", "eu-de", None),
        ("https://iam.myhuaweicloud.com/v3", "eu-de", None),
    ],
)
def test_without_a_catalog_the_region_tells_but_only_of_the_same_cloud(
    auth_url: str, region: str | None, endpoint: str | None, clouds: Write
) -> None:
    clouds(region=region, auth_url=auth_url, username="ada", password=CANARY, project_name="p")
    token = Token(Secret(CANARY), 1.0, "p")
    assert _Cloud("here", "here", vizwatch.Settings()).scope(token) == vizwatch.Scope("p", endpoint)


async def test_a_client_that_is_not_told_where_says_so(cloud: Emulator, clouds: Write) -> None:
    class Nowhere(CloudsAuth):
        async def scope(self) -> vizwatch.Scope:
            return vizwatch.Scope("p")

    with pytest.raises(vizwatch.ConfigError, match="the credentials do not tell where ModelArts is"):
        await Client(None, None, auth=Nowhere("here")).__aenter__()


# --- the loop, tokens, cancellation ----------------------------------------------------------------------


async def test_the_event_loop_is_never_blocked(cloud: Emulator, clouds: Write) -> None:
    clouds(**user(cloud))
    cloud.fault("latency", seconds=0.2, match={"path": "/v3/auth/tokens"})
    async with ticking() as away:
        await CloudsAuth("here").scope()
    # Importing and parsing hold the interpreter, but never as long as the call takes.
    assert len(away) > 5


async def test_the_constructor_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openstack.config.loader", None)
    assert repr(CloudsAuth("here")) == "CloudsAuth('here')"
    with pytest.raises(vizwatch.ConfigError, match="cloud must be a string"):
        CloudsAuth(7)  # type: ignore[arg-type] # the mistake is the point
    with pytest.raises(vizwatch.ConfigError, match=r"pip install 'vizwatch\[openstack\]'"):
        await CloudsAuth("here").scope()


async def test_a_token_that_is_refused_is_renewed_once_for_all(cloud: Emulator, clouds: Write) -> None:
    clouds(**user(cloud))
    async with Client(None, None, auth=CloudsAuth("here")) as client:
        cloud.fault("token_expiry")
        await asyncio.gather(*(client.list_jobs().collect() for _ in range(50)))
    assert token_calls(cloud) == 2


@pytest.mark.fault("A6")
async def test_a_token_near_its_end_is_renewed_and_a_dead_identity_service_is_survived(
    cloud: Emulator, clouds: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    clouds(**user(cloud))
    auth = CloudsAuth("here")
    loop = asyncio.get_running_loop()
    clock = loop.time  # which goes on, so that whatever waits comes to an end
    async with Client(None, None, auth=auth) as client:
        with monkeypatch.context() as patch:
            cloud.fault("status", status=503, match={"path": "/v3/auth/tokens"})
            patch.setattr(loop, "time", lambda: clock() + 0.9 * 86_400)
            await client.list_jobs().collect()
            await client.list_jobs().collect()
            await settled(auth)
            assert token_calls(cloud) == 2, "the old token lives, and is asked about again in a minute"
            patch.setattr(loop, "time", lambda: clock() + 0.9 * 86_400 + 61)
            cloud.clear_faults()
            await client.list_jobs().collect()
            await settled(auth)
            assert token_calls(cloud) == 3


@pytest.mark.fault("C9")
async def test_if_the_task_that_asks_is_cancelled_another_one_asks(cloud: Emulator, clouds: Write) -> None:
    clouds(**user(cloud))
    auth = CloudsAuth("here")
    cloud.fault("latency", seconds=0.3, match={"path": "/v3/auth/tokens"}, count=1)
    first, second = (asyncio.create_task(auth.scope()) for _ in range(2))
    while not cloud.requests:  # noqa: ASYNC110 - the emulator tells nobody what comes in
        await asyncio.sleep(0.01)
    before = asyncio.get_running_loop().time()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert asyncio.get_running_loop().time() - before < 0.2, "the thread is not waited for"
    assert (await second).project_id == cloud.project_id


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def dripping(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"H")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.fault("A15", "N9")
async def test_an_identity_service_that_drips_takes_no_longer_than_a_call(clouds: Write) -> None:
    async with RawServer(dripping) as server, asyncio.timeout(20):
        clouds(auth_url=f"{server.endpoint}/v3", username="ada", password=CANARY, project_name="p")
        settings = vizwatch.Settings(connect_timeout=1, attempt_timeout=1, call_timeout=1)
        with pytest.raises(vizwatch.RequestTimeoutError, match=r"cloud 'here' .*nothing within 1 s"):
            await CloudsAuth("here", settings=settings).scope()


async def test_an_identity_service_that_is_silent_takes_no_longer_than_an_attempt(clouds: Write) -> None:
    async with RawServer(silent) as server, asyncio.timeout(20):
        clouds(auth_url=f"{server.endpoint}/v3", username="ada", password=CANARY, project_name="p")
        settings = vizwatch.Settings(connect_timeout=0.2, attempt_timeout=0.2)
        with pytest.raises(vizwatch.ConnectError, match=r"get token: the cloud 'here' of clouds\.yaml"):
            await CloudsAuth("here", settings=settings).scope()


@pytest.mark.fault("N15")
@pytest.mark.parametrize("trust_env", [False, True])
async def test_the_environments_proxies_are_used_where_that_is_asked_for_alone(
    trust_env: bool, cloud: Emulator, clouds: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        for spelt in (name, name.upper()):
            monkeypatch.delenv(spelt, raising=False)
    async with RawServer(http({}, status="502 No")) as trap:
        monkeypatch.setenv("HTTP_PROXY", trap.endpoint)
        clouds(**user(cloud))
        auth = CloudsAuth("here", settings=vizwatch.Settings(trust_env=trust_env))
        if trust_env:
            with pytest.raises(vizwatch.VizwatchError):
                await auth.scope()
        else:
            assert (await auth.scope()).project_id == cloud.project_id
        assert (trap.connections > 0) is trust_env


@pytest.mark.parametrize("password", ["right", "wrong"])
async def test_connections_to_the_identity_service_are_closed(
    password: str, cloud: Emulator, clouds: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    close = requests.Session.close

    def keep(**options: Any) -> Any:
        made.append(_session(**options))  # which closes itself only once nobody has it
        return made[-1]

    def note(session: requests.Session) -> None:
        made.append("closed")
        close(session)

    monkeypatch.setattr("vizwatch._world.clouds._session", keep)
    monkeypatch.setattr(requests.Session, "close", note)
    clouds(**user(cloud, **({} if password == "right" else {"password": CANARY})))
    with contextlib.suppress(vizwatch.AuthenticationError):
        await CloudsAuth("here").scope()
    assert made[1:] == ["closed"]


async def test_a_failing_command_says_one_line_whatever_libraries_log(clouds: Write) -> None:
    async with RawServer(http({}, status="503 No")) as server:
        path = clouds(auth_url=f"{server.endpoint}/v3", username="ada", password=CANARY, project_name="p")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vizwatch", "list", "--profile", "here"),
            env={**os.environ, "OS_CLIENT_CONFIG_FILE": str(path)},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 1
    assert said.decode().startswith("vizwatch: get token: ")
    assert said.count(b"\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="signals are of POSIX")
@pytest.mark.fault("C9")
async def test_a_signal_ends_a_command_whatever_the_identity_service_does(clouds: Write) -> None:
    async with RawServer(silent) as server:
        path = clouds(auth_url=f"{server.endpoint}/v3", username="ada", password=CANARY, project_name="p")
        environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(path)}
        command = (sys.executable, "-m", "vizwatch", "list", "--profile", "here")
        child = await asyncio.create_subprocess_exec(*command, env=environment)
        try:
            while not server.requests:  # noqa: ASYNC110 - the server tells nobody what comes in
                await asyncio.sleep(0.01)
            child.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(child.wait(), 10) == 143
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


# --- what is wrong ---------------------------------------------------------------------------------------


@pytest.mark.fault("A7")
async def test_a_wrong_password_is_sent_once_and_never_again(cloud: Emulator, clouds: Write) -> None:
    clouds(**user(cloud, password=CANARY))
    auth = CloudsAuth("here")
    async with Client(cloud.endpoint, "p", auth=auth) as client:
        for _ in range(3):
            with pytest.raises(vizwatch.AuthenticationError, match="get token") as caught:
                await client.list_jobs().collect()
            assert CANARY not in shown(caught.value)
    assert token_calls(cloud) == 1


def _cloud(text: str) -> str:
    return f"clouds:\n  here:\n    {text}\n"


WRONG: dict[str, tuple[str, str, str]] = {
    "unknown cloud": ("elsewhere", _cloud("auth: {}"), "cloud 'elsewhere' of clouds.yaml: .*not found"),
    "no auth": ("here", _cloud("region_name: eu-de"), "cloud 'here' of clouds.yaml: .*auth_url"),
    "broken YAML": ("here", f"clouds: [{CANARY}", "cloud 'here' of clouds.yaml"),
    "no cloud at all": ("here", f"[{CANARY}]", "cloud 'here' of clouds.yaml"),
    "unknown kind": (
        "here",
        _cloud(f"auth_type: banana\n    auth: {{password: {CANARY}}}"),
        "cloud 'here' of clouds.yaml: .*banana",
    ),
    "auth_url that is no address": (
        "here",
        _cloud(f"auth: {{auth_url: 'http://[', username: a, password: {CANARY}}}"),
        "auth_url of the cloud 'here' of clouds.yaml must be an address",
    ),
    "auth_url that is a number": (
        "here",
        _cloud(f"auth: {{auth_url: 7, username: a, password: {CANARY}}}"),
        "cloud 'here' of clouds.yaml: 'int'",
    ),
    "http": (
        "here",
        _cloud(f"auth: {{auth_url: http://iam.example.com/v3, username: a, password: {CANARY}}}"),
        "auth_url of the cloud 'here' of clouds.yaml must be https",
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_cloud_is_told_by_its_name_and_shows_no_secret(
    case: str, clouds: Write, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    name, text, said = WRONG[case]
    clouds(text)
    with pytest.raises(vizwatch.ConfigError, match=f"(?s)^.*{said}") as caught:
        await CloudsAuth(name).scope()
    assert len(str(caught.value)) < 800
    assert str(caught.value).isprintable()
    assert CANARY not in shown(caught.value) + repr(pickle.dumps(caught.value)) + (
        caplog.text if "YAML" not in case else ""
    )


@pytest.mark.fault("X10")
@pytest.mark.parametrize("variable", ["OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE"])
@pytest.mark.parametrize("kind", ["large", "pipe", "device"])
async def test_a_file_that_is_no_file_of_clouds_is_not_read(
    kind: str, variable: str, clouds: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody writes to the pipe, and the device gives zeros for ever: reading would not end."""
    clouds(_cloud("auth: {auth_url: https://iam.example.com/v3}"))
    path = Path("/dev/zero") if kind == "device" else tmp_path / "odd.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(2**30)
    monkeypatch.setenv(variable, str(path))
    said = "1073741824 bytes, and is not read" if kind == "large" else "is not a regular file"
    with pytest.raises(vizwatch.ConfigError, match=said):
        await CloudsAuth("here").scope()


@pytest.mark.fault("X10")
async def test_a_file_of_clouds_may_have_a_mebibyte(cloud: Emulator, clouds: Write) -> None:
    path = clouds(**user(cloud))
    text = path.read_text() + "\n#"
    path.write_text(text + "x" * (2**20 - len(text)))
    assert (await CloudsAuth("here").scope()).project_id == cloud.project_id
    path.write_text(text + "x" * (2**20 - len(text) + 1))
    with pytest.raises(vizwatch.ConfigError, match="has 1048577 bytes"):
        await CloudsAuth("here").scope()


@pytest.mark.fault("N14")
async def test_an_identity_service_whose_certificate_is_refused_is_asked_once(clouds: Write) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    async with RawServer(http({}), tls=context) as server:
        address = server.endpoint.replace("127.0.0.1", "localhost")
        clouds(auth_url=f"{address}/v3", username="ada", password=CANARY, project_name="p")
        with pytest.raises(vizwatch.TlsError, match="no TLS with the cloud 'here'") as caught:
            await CloudsAuth("here").scope()
    assert CANARY not in shown(caught.value)
    assert server.requests == []


@pytest.mark.parametrize("address", ["https://[", "7", f"{CANARY}", "//example.com"])
async def test_an_endpoint_of_clouds_yaml_that_is_none_is_told(
    address: str, cloud: Emulator, clouds: Write
) -> None:
    clouds(top=f"modelarts_endpoint_override: {address}", **user(cloud))
    with pytest.raises(
        vizwatch.ConfigError, match=r"of the cloud 'here' of clouds\.yaml, must be an"
    ) as caught:
        await CloudsAuth("here").scope()
    assert CANARY not in str(caught.value)


async def test_a_profile_that_is_nowhere_is_told_with_both_places(
    clouds: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[basic]\nak = a\nsk = s\n")
    monkeypatch.setenv("HUAWEICLOUD_SDK_CREDENTIALS_FILE", str(file))
    clouds(_cloud("auth: {}"))
    said = rf"^the cloud 'work' of clouds.yaml \(argument profile; .* {file}: 'basic'\): .*not found"
    with pytest.raises(vizwatch.ConfigError, match=said):
        await Client.from_env("work").__aenter__()
    monkeypatch.setitem(sys.modules, "openstack.config.loader", None)
    with pytest.raises(vizwatch.ConfigError, match=r"'work' .*'basic'\) needs openstacksdk: pip install"):
        await Client.from_env("work").__aenter__()


OTC_IAM = "https://iam.eu-de.otc.t-systems.com/v3"
HUAWEI = "https://modelarts.cn-north-4.myhuaweicloud.com"


@pytest.mark.fault("X13")
@pytest.mark.parametrize("way", ["argument", "OS_CLOUD", "password"])
async def test_no_token_is_even_asked_for_to_be_sent_to_the_other_cloud(
    way: str, clouds: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    clouds(auth_url=OTC_IAM, username="ada", password=CANARY, project_name="p")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("nothing may be asked"))
    if way == "password":
        names: dict[str, Any] = {"username": "ada", "password": CANARY, "domain_name": "d", "project_id": "p"}
        client = Client(HUAWEI, "p", auth=vizwatch.PasswordAuth(OTC_IAM, **names))
    elif way == "argument":
        client = Client.from_env("here", endpoint=HUAWEI, project_id="p")
    else:
        for name, value in {
            "OS_CLOUD": "here",
            "VIZWATCH_ENDPOINT": HUAWEI,
            "VIZWATCH_PROJECT_ID": "p",
        }.items():
            monkeypatch.setenv(name, value)
        client = Client.from_env()
    async with client:
        with pytest.raises(vizwatch.ConfigError, match=r"of Open Telekom Cloud .* of Huawei Cloud") as caught:
            await client.get_job(7)
    assert CANARY not in shown(caught.value)


PLACES: dict[str, tuple[bytes, type[vizwatch.VizwatchError]]] = {
    "401": (http({"error": {"message": f"no {CANARY}"}}, status="401 No"), vizwatch.AuthenticationError),
    "403": (http({"error": {"message": CANARY}}, status="403 No"), vizwatch.PermissionDeniedError),
    "404": (http({"error": {"message": CANARY}}, status="404 No"), vizwatch.ProtocolError),
    "503": (http({"error": {"message": CANARY}}, status="503 No"), vizwatch.ServerError),
    "page": (http(raw=b"<p>" + CANARY.encode()), vizwatch.ProtocolError),
    "no token": (http({"token": {}}, status="201 Created"), vizwatch.VizwatchError),
    "closed": (b"", vizwatch.ConnectError),
}


@pytest.mark.parametrize("case", PLACES)
async def test_an_identity_service_that_fails_is_an_error_of_ours_and_shows_no_secret(
    case: str, clouds: Write, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    reply, kind = PLACES[case]
    async with RawServer(reply) as server:
        clouds(auth_url=f"{server.endpoint}/v3", username="ada", password=CANARY, project_name="p")
        with pytest.raises(kind) as caught:
            await CloudsAuth("here").scope()
    assert CANARY in server.requests[-1].decode()
    assert CANARY not in shown(caught.value) + repr(pickle.dumps(caught.value)) + str(caught.value)
    assert CANARY not in "".join(
        record.getMessage() for record in caplog.records if "RESP BODY" not in record.getMessage()
    )


@pytest.mark.fault("X2")
async def test_a_password_is_not_sent_on_by_a_redirect(clouds: Write) -> None:
    async with RawServer(http({"token": {}})) as trap:
        moved = http(status="307 Moved", headers=(f"Location: {trap.endpoint}/v3/auth/tokens",))
        async with RawServer(moved) as server:
            clouds(auth_url=f"{server.endpoint}/v3", username="ada", password=CANARY, project_name="p")
            with pytest.raises(vizwatch.VizwatchError):
                await CloudsAuth("here").scope()
        assert trap.connections == 0


async def test_nothing_is_shown_or_pickled(cloud: Emulator, clouds: Write) -> None:
    clouds(**user(cloud))
    auth = CloudsAuth("here")
    await auth.scope()
    assert cloud.password not in f"{auth}{auth!r}{vars(auth)!r}{vars(auth._cloud)!r}{vars(auth._tokens)!r}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(auth)


def test_openstacksdk_is_not_imported_with_the_package() -> None:
    code = "import vizwatch, sys; vizwatch.CloudsAuth('x'); assert 'openstack' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
