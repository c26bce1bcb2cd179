"""What `vizwatch doctor` finds, in the order in which it matters, and what it records."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from canaries import shown
from hypothesis import given
from hypothesis import strategies as st
from servers import RawServer, http
from test_clouds import user

import vizwatch
from vizwatch import doctor
from vizwatch._rules.recording import ROWS_KEPT, Scrubber, listed_ids
from vizwatch._rules.wire import get_job
from vizwatch._values import regions
from vizwatch._values.exchange import Answer
from vizwatch._world.project import Project
from vizwatch.doctor import Finding
from vizwatch.emulator import Emulator

CANARY = "canary-5f2e"
PROJECT = "04f679b17380d32a2f32c00335c4b5ba"


async def findings(**arguments: Any) -> list[Finding]:
    return [finding async for finding in doctor.examine(**arguments)]


@pytest.fixture
def environment(cloud: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """What is set for a cloud that works."""
    for name, value in here(cloud).items():
        monkeypatch.setenv(name, value)
    return cloud


def here(cloud: Emulator) -> dict[str, str]:
    return {
        "VIZWATCH_ENDPOINT": cloud.endpoint,
        "VIZWATCH_PROJECT_ID": cloud.project_id,
        "VIZWATCH_TOKEN": cloud.token,
    }


# --- what works -----------------------------------------------------------------------------------------


async def test_what_is_found_where_and_that_it_works(environment: Emulator) -> None:
    environment.add_jobs(3, status=8)
    found = await findings()
    assert [(one.check, one.ok) for one in found] == [
        *[("configuration", True)] * 3,
        ("address", True),
        ("token", True),
        ("listing", True),
    ]
    text = "\n".join(one.text for one in found)
    for said in (
        f"endpoint: {environment.endpoint} (VIZWATCH_ENDPOINT)",
        f"project_id: {environment.project_id} (VIZWATCH_PROJECT_ID)",
        "a token of 43 characters (VIZWATCH_TOKEN)",
        "127.0.0.1 is 127.0.0.1",
        "the default workspace has 3 jobs",
    ):
        assert said in text
    assert environment.token not in text
    assert len(environment.requests) == 1


async def test_arguments_a_workspace_and_what_is_not_used_are_said(
    environment: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_AUTH_URL", "https://iam.eu-de.otc.t-systems.com/v3")
    for name in ("USERNAME", "PASSWORD", "USER_DOMAIN_NAME"):
        monkeypatch.setenv(f"OS_{name}", CANARY)
    environment.add_jobs(2, workspace_id="w7")
    text = "\n".join(one.text for one in await findings(workspace_id="w7", project_id="other"))
    assert "workspace_id: w7 (argument workspace_id)" in text
    assert "project_id: other (argument project_id)" in text
    assert "not used, since the above goes before: OS_PASSWORD" in text
    assert "workspace w7 has 0 jobs" in text
    assert CANARY not in text


# openstacksdk announces with it what its next major versions drop.
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
async def test_a_key_a_password_and_a_cloud_are_tried(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("HUAWEICLOUD_SDK_AK", cloud.access_key)
        patch.setenv("HUAWEICLOUD_SDK_SK", cloud.secret_key)
        found = await findings(endpoint=cloud.endpoint, project_id=cloud.project_id)
        assert found[-1].ok, found
        assert "an access key (HUAWEICLOUD_SDK_AK, HUAWEICLOUD_SDK_SK)" in found[2].text
        assert "not needed: each request is signed" in found[-2].text
        patch.setenv("HUAWEICLOUD_SDK_SECURITY_TOKEN", CANARY)
        found = await findings(endpoint=cloud.endpoint, project_id=cloud.project_id)
        assert "a temporary access key (" in found[2].text
        assert CANARY not in f"{found}"
    openrc = {"OS_USERNAME": cloud.user, "OS_PASSWORD": cloud.password, "OS_USER_DOMAIN_NAME": cloud.domain}
    for name, value in openrc.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OS_AUTH_URL", f"{cloud.endpoint}/v3")
    monkeypatch.setenv("OS_PROJECT_NAME", cloud.project_name)
    found = await findings(endpoint=cloud.endpoint)
    assert found[-1].ok, found
    text = "\n".join(one.text for one in found)
    assert f"password of user {cloud.user} (OS_USERNAME) of {cloud.domain}, at {cloud.endpoint}" in text
    assert f"got from the identity service; {cloud.endpoint}, project {cloud.project_id}" in text
    assert cloud.password not in text
    await _try_cloud(cloud, monkeypatch, tmp_path)


async def _try_cloud(cloud: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "clouds.yaml"
    path.write_text(json.dumps({"clouds": {"here": {"auth": user(cloud)}}}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
    found = await findings(profile="here")
    assert found[-1].ok, found
    text = "\n".join(one.text for one in found)
    assert "cloud here of clouds.yaml (argument profile; the sections of" in text
    assert "endpoint: the credentials tell it" in text
    assert "project_id: the credentials tell it" in text
    assert cloud.password not in text


# --- what is wrong --------------------------------------------------------------------------------------


async def test_all_that_is_missing_is_told_at_once_and_nothing_is_asked(cloud: Emulator) -> None:
    (finding,) = await findings()
    assert (finding.check, finding.ok) == ("configuration", False)
    for name in ("VIZWATCH_TOKEN", "VIZWATCH_ENDPOINT", "VIZWATCH_PROJECT_ID"):
        assert name in finding.text
    assert isinstance(finding.error, vizwatch.ConfigError)


async def test_a_host_without_an_address_is_told_before_any_credentials_are_used(
    environment: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    *_, last = await findings()
    assert (last.check, last.ok) == ("address", False)
    assert "127.0.0.1 (VIZWATCH_ENDPOINT): no address: Name or service not known" in last.text
    assert isinstance(last.error, vizwatch.ConnectError)
    last = (await findings(settings=vizwatch.Settings(trust_env=True)))[-1]
    assert last.check != "address", "a proxy may know the name"


async def test_the_identity_services_host_is_looked_up_too(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AUTH_URL": "https://iam.example.com/v3",
        "USERNAME": "ada",
        "PASSWORD": CANARY,
    }.items():
        monkeypatch.setenv(f"OS_{name}", value)
    monkeypatch.setenv("OS_USER_DOMAIN_NAME", "d")

    async def known(host: str, *_: Any, **__: Any) -> Any:
        if host == "iam.example.com":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(None, None, None, None, (host, 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", known)
    *_, last = await findings(endpoint=cloud.endpoint, project_id="p")
    assert (last.check, last.ok) == ("address", False)
    assert "iam.example.com (OS_AUTH_URL): no address" in last.text


@pytest.mark.fault("X8")
def test_a_finding_is_one_printable_line_whatever_it_is_made_of() -> None:
    assert Finding("token", ok=True, text="a\u202eb\x1b[2J\n  c").text == "a\\u202eb\\x1b[2J c"
    assert len(Finding("token", ok=True, text="a" * 5_000).text) == 1_000


async def test_settings_that_are_none_are_told() -> None:
    wrong: Any = "x"
    (finding,) = await findings(settings=wrong)
    assert (finding.check, finding.ok) == ("configuration", False)
    assert "settings must be a Settings" in finding.text
    for auth in (vizwatch.CloudsAuth, vizwatch.PasswordAuth):
        with pytest.raises(vizwatch.ConfigError, match="settings must be a Settings"):
            auth("x", settings=wrong, **({} if auth is vizwatch.CloudsAuth else PASSWORD))


PASSWORD: dict[str, Any] = {"username": "a", "password": CANARY, "domain_name": "d", "project_id": "p"}


async def test_an_address_that_never_comes_is_given_up(
    environment: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(*_: Any, **__: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(doctor, "_DNS_TIMEOUT", 0.01)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hangs)
    *_, last = await findings()
    assert (last.check, last.ok) == ("address", False)
    assert "no address: no answer" in last.text


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "ModelArts.0202", "HTTP 401 ModelArts.0202"),
        (403, "ModelArts.0108", "Ask for the ModelArts permission"),
        (404, "APIGW.0101", "not, or no longer, offered at this endpoint"),
        (404, "ModelArts.2786", "Check endpoint, project_id"),
    ],
)
async def test_the_first_thing_that_is_wrong_is_the_last_that_is_said(
    environment: Emulator, status: int, code: str, said: str
) -> None:
    environment.fault("status", status=status, code=code, message="no\x1b[2J\nway")
    found = await findings()
    assert [one.ok for one in found] == [True] * (len(found) - 1) + [False]
    assert found[-1].check == "listing"
    assert said in found[-1].text
    assert found[-1].text.isprintable()


async def test_a_wrong_password_is_told_as_the_tokens_matter(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"OS_AUTH_URL": f"{cloud.endpoint}/v3", "OS_USERNAME": "ada", "OS_PASSWORD": CANARY}
    for name, value in {**wrong, "OS_USER_DOMAIN_NAME": "d"}.items():
        monkeypatch.setenv(name, value)
    found = await findings(endpoint=cloud.endpoint, project_id="p")
    assert (found[-1].check, found[-1].ok) == ("token", False)
    assert isinstance(found[-1].error, vizwatch.AuthenticationError)
    assert CANARY not in f"{found}" + shown(found[-1].error)
    assert len(cloud.requests) == 1


async def test_breaking_off_leaves_nothing_open(environment: Emulator) -> None:
    examination = doctor.examine()
    async for finding in examination:
        if finding.check == "token":
            break
    assert [finding.check async for finding in examination] == ["listing"]


# --- recordings -----------------------------------------------------------------------------------------


@pytest.fixture
async def recorded(environment: Emulator) -> dict[str, Any]:
    environment.add_jobs(
        30,
        status=8,
        job_name=f"{CANARY}-name",
        job_desc=f"{CANARY} ü",
        train_url=f"/{CANARY}/logs/",
        service_url=f"https://{CANARY}.example.com/",
    )
    return await doctor.record()


async def test_a_recording_has_the_answers_that_settle_what_documents_leave_open(
    recorded: dict[str, Any], environment: Emulator
) -> None:
    exchanges = {one["name"]: one for one in recorded["exchanges"]}
    assert {name: one["status"] for name, one in exchanges.items()} == {
        "list": 200,
        "page past the end": 200,
        "per_page 1000": 200,
        "search_content of 100 characters": 400,
        "status 8": 200,
        "details of a listed job": 200,
        "missing job": 404,
    }
    assert (recorded["vizwatch_recording"], recorded["region"]) == (1, None)
    listed = exchanges["list"]["body"]
    assert (listed["jobs_answered"], len(listed["jobs"])) == (10, ROWS_KEPT)
    assert exchanges["per_page 1000"]["body"]["jobs_answered"] == 30
    details = exchanges["details of a listed job"]["body"]
    assert {**listed["jobs"][0], "is_success": True, "duration": 0} == {**details, "duration": 0}
    assert exchanges["missing job"]["body"]["error_code"] == "ModelArts.0015"
    assert exchanges["list"]["path"] == "/v1/{project_id}/visualization-jobs"
    assert {request.method for request in environment.requests} == {"GET"}
    assert len(environment.requests) == len(exchanges)


async def test_a_recording_shows_nothing_that_is_somebodys_own(
    recorded: dict[str, Any], environment: Emulator
) -> None:
    text = json.dumps(recorded)
    jobs = environment._world.cloud.projects[environment.project_id].jobs
    resource_ids = {job.resource_id for job in jobs.values()}
    for own in (CANARY, environment.token, environment.project_id, environment.endpoint, *resource_ids):
        assert own not in text
    first = recorded["exchanges"][0]["body"]["jobs"][0]
    assert first["train_url"] == "/obs/train-1/"
    assert first["service_url"] == "https://scrubbed.example.com/1/"
    assert first["job_name"] == "job_name-1"


async def test_an_echoing_service_gives_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def echo(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = server.requests[-1].decode()
        # The first is the listing, without which there is no recording.
        body: dict[str, Any] = {"error_code": "ModelArts.0104", "error_msg": request, request: request}
        body |= {"jobs": [], "is_success": True} if len(server.requests) == 1 else {"is_success": False}
        headers = (f"X-ratelimit: {CANARY}-token", f"X-Own: {CANARY}-token", "Connection: close")
        status = "200 OK" if len(server.requests) == 1 else "400 No"
        writer.write(http(body, status=status, headers=headers))
        await writer.drain()

    async with RawServer(echo) as server:
        monkeypatch.setenv("VIZWATCH_TOKEN", f"{CANARY}-token")
        recorded = await doctor.record(endpoint=server.endpoint, project_id=PROJECT)
    assert len(recorded["exchanges"]) == 6, "no job was listed, whose details could be asked for"
    text = json.dumps(recorded)
    assert f"{CANARY}-token" not in text
    assert PROJECT not in text
    assert "ModelArts.0104" in text


@pytest.mark.parametrize("status", ["401 Unauthorized", "429 Too Many Requests", "400 Bad Request", "200 OK"])
async def test_a_listing_that_is_refused_makes_no_recording(
    status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZWATCH_TOKEN", CANARY)
    refusal = {"is_success": False, "error_code": "ModelArts.0203", "error_msg": f"no {CANARY}"}
    async with RawServer(http(refusal, status=status)) as server:
        with pytest.raises(vizwatch.ApiError, match="list jobs: HTTP") as caught:
            await doctor.record(endpoint=server.endpoint, project_id=PROJECT)
    assert len(server.requests) == 1
    assert CANARY not in shown(caught.value)


async def test_the_workspace_that_is_asked_for_is_recorded_and_not_named(environment: Emulator) -> None:
    environment.add_jobs(2, workspace_id="w7-own", status=8)
    environment.add_jobs(1, status=8)
    recorded = await doctor.record(workspace_id="w7-own")
    listed = recorded["exchanges"][0]
    assert listed["body"]["jobs_answered"] == 2
    assert "workspace_id={workspace_id}" in listed["query"]
    assert "w7-own" not in json.dumps(recorded)


async def test_a_recording_names_its_region(cloud: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in here(cloud).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(regions, "at", lambda _: regions.REGIONS["eu-de"])
    assert (await doctor.record())["region"] == "eu-de"


async def test_a_service_that_is_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZWATCH_TOKEN", CANARY)
    async with RawServer(b"") as server:
        with pytest.raises(vizwatch.TransportError):
            await doctor.record(endpoint=server.endpoint, project_id=PROJECT)


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.fault("C6")
async def test_an_exchange_ends_as_any_call_does() -> None:
    async with RawServer(silent) as server:
        project = Project(
            server.endpoint, PROJECT, vizwatch.TokenAuth("t"), vizwatch.Settings(), None, allow_insecure=False
        )
        await project.open()
        with pytest.raises(vizwatch.ConfigError, match="opened in another event loop"):
            await asyncio.to_thread(asyncio.run, project.exchange(get_job(PROJECT, 7)))
        asking = asyncio.create_task(project.exchange(get_job(PROJECT, 7)))
        while not server.requests:  # noqa: ASYNC110 - the server tells nobody what comes in
            await asyncio.sleep(0.01)
        await project.aclose()
        with pytest.raises(vizwatch.ClientClosedError):
            await asking


FIELDS = st.sampled_from(["jobs", "job_id", "job_name", "status", "service_url", "brand_new", "{x}", "e{"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(min_size=4).map("§".__add__),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(FIELDS, inner, max_size=8),
    max_leaves=30,
)


@given(st.dictionaries(FIELDS, JSON, max_size=8), st.integers(200, 599))
def test_no_text_of_any_answer_stays_and_all_numbers_do(body: dict[str, Any], status: int) -> None:
    answer = Answer(status, {}, json.dumps(body).encode())
    scrubbed = Scrubber(PROJECT).exchange("x", get_job(PROJECT, 1), answer, ["secret"])
    text = json.dumps(scrubbed, ensure_ascii=False)
    assert "§" not in text
    assert scrubbed["status"] == status
    for name in ("job_id", "status"):
        if isinstance(body.get(name), int):
            assert scrubbed["body"][name] == body[name]


@pytest.mark.parametrize(
    "body",
    [b"", b"<p>", b"[1]", b"{" * 5000, b'{"a": NaN}', b'{"a": 1' + b"0" * 5000 + b"}", b"\xff", b"null"],
)
def test_what_is_no_object_is_left_out_whatever_it_is(body: bytes) -> None:
    scrubbed = Scrubber(PROJECT).exchange("x", get_job(PROJECT, 1), Answer(200, {}, body), [])
    assert (scrubbed["body"], scrubbed["bytes"]) == (None, len(body))
    assert listed_ids(Answer(200, {}, body)) == []


def test_deep_nesting_and_long_messages_are_cut() -> None:
    deep = b'{"a": ' * 500 + b"1" + b"}" * 500
    scrubbed = Scrubber(PROJECT).exchange("x", get_job(PROJECT, 1), Answer(200, {}, deep), [])
    assert len(json.dumps(scrubbed)) < 500
    long = json.dumps({"error_msg": "a " * 4_000_000}).encode()
    scrubbed = Scrubber(PROJECT).exchange("x", get_job(PROJECT, 1), Answer(400, {}, long), [])
    assert len(scrubbed["body"]["error_msg"]) <= 500


def scrubbed(scrubber: Scrubber, body: dict[str, Any], status: int = 400) -> dict[str, Any]:
    answer = Answer(status, {}, json.dumps(body).encode())
    exchange = scrubber.exchange("x", get_job(PROJECT, 7), answer, [])
    found = exchange["body"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("board two may not see board (not boards)", "job_name-2 may not see job_name-1 (not ***)"),
        (f"project {PROJECT}, request 04F679B17380D32A2F32C003", "project ***, request ***"),
        ("User lovelace (ada@corp.com) of domain OTC-EU", "User *** (***) of domain ***"),
        ("Lovelace's quota: 7, 123456789012 of 10.0.0.17:8080", "*** quota: 7, *** of ***"),
        ("This job can't be stop. job status: 10", "This job can't be stop. job status: 10"),
        (
            "The length of search content should be in [0,64]",
            "The length of search content should be in [0,64]",
        ),
        ("APIGW.0301: per_page/sortBy 1000 at 07:28:00", "APIGW.0301: per_page/sortBy 1000 at 07:28:00"),
        ("Иван в проекте, 工程师", "*** *** ***, ***"),
        ("7 is no job's name", "7 is no job's name"),
    ],
)
def test_of_messages_stay_numbers_made_up_names_and_everybodys_words(text: str, said: str) -> None:
    scrubber = Scrubber(PROJECT)
    names = ["board", "board two", "job", "7"]
    scrubbed(scrubber, {"jobs": [{"job_id": 7, "job_name": name} for name in names]})
    for field in ("error_msg", "error_message", "message"):
        assert scrubbed(scrubber, {field: text}) == {field: said}
    assert scrubbed(scrubber, {"error": {"message": text}}) == {"error": {"message": said}}


def test_numbers_in_strings_stay_where_the_documents_have_them_and_nowhere_else() -> None:
    job = {"job_id": "123456789012345", "create_time": "1565149736000", "duration": "197"}
    assert scrubbed(Scrubber(PROJECT), {"jobs": [job]}) == {"jobs_answered": 1, "jobs": [job]}
    assert scrubbed(Scrubber(PROJECT), {"create_time": "\u0661", "job_name": "2024"}) == {
        "create_time": "create_time-1",
        "job_name": "job_name-1",
    }


def test_fields_of_objects_that_nobody_described_are_named_by_nobody() -> None:
    body = {
        "brand_new": {"lovelace": {"status": 1}, "status": "on", "code": "ada-7"},
        "flavor": {"code": "ada-7", "type": "HOURS"},
        "error": {"code": "APIGW.0301", "newer": 2},
        "schedule": [{"type": "stop", "timeUnit": "HOURS", "duration": 1}],
        "ada@corp": True,
    }
    assert scrubbed(Scrubber(PROJECT), body) == {
        "brand_new": {"field-1": {"status": 1}, "status": "status-1", "code": "code-1"},
        "flavor": {"code": "code-1", "type": "HOURS"},
        "error": {"code": "APIGW.0301", "newer": 2},
        "schedule": [{"type": "stop", "timeUnit": "HOURS", "duration": 1}],
        "field-2": True,
    }


def test_of_headers_the_names_stay_and_few_values() -> None:
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "X-ratelimit": "remain:199,limit:200,time:5 minute",
        "Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT",
        "Set-Cookie": f"a={CANARY}",
        "Server": "lovelace",
    }
    exchange = Scrubber(PROJECT).exchange("x", get_job(PROJECT, 7), Answer(200, headers, b""), [])
    assert exchange["headers"] == {**headers, "Set-Cookie": "***", "Server": "***"}


def test_a_secret_that_a_cut_would_halve_is_taken_out_before() -> None:
    secret = " ".join(["12345"] * 100)
    answer = Answer(400, {}, json.dumps({"error_msg": f"{secret} " * 9}).encode())
    exchange = Scrubber(PROJECT).exchange("x", get_job(PROJECT, 7), answer, [secret])
    assert "12345" not in json.dumps(exchange)
