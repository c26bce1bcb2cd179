"""otcextensions, a client that nobody here wrote, uses the emulated cloud unchanged, over real HTTP.

It reaches the cloud by a token alone (no IAM), by a token that Keystone exchanges, and by password.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import attrs
import pytest
from anyio.from_thread import start_blocking_portal

import vizwatch
from vizwatch import JobStatus
from vizwatch.emulator import Emulator

pytestmark = [
    pytest.mark.foreign,
    # openstacksdk announces with it what its next major versions drop, which otcextensions still uses.
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

NEW_JOB = {"job_name": "tb-1", "train_url": "/obs/logs/"}
SCHEDULE = {"type": "stop", "time_unit": "HOURS", "duration": 1}
WAYS = ("admin_token", "token", "password")


@attrs.frozen
class Cloud:
    """A cloud that runs elsewhere, in another process or thread, told what to do over HTTP."""

    endpoint: str
    project_id: str
    token: str = attrs.field(repr=False)

    def admin(self, method: str, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.endpoint}/_emulator/{path}", method=method, data=json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def add_jobs(self, count: int = 1, **fields: Any) -> list[int]:
        job_ids: list[int] = self.admin("POST", "jobs", count=count, **fields)["job_ids"]
        return job_ids

    def advance(self, seconds: float) -> None:
        self.admin("POST", "clock/advance", seconds=seconds)

    def fault(self, kind: str, **params: Any) -> None:
        self.admin("POST", "faults", kind=kind, **params)

    def requests(self) -> list[tuple[str, str, dict[str, str], int]]:
        """What came in: method, the last part of the path, query and status."""
        seen = self.admin("GET", "requests")["requests"]
        return [(one["method"], one["path"].split("/")[-1], one["query"], one["status"]) for one in seen]


Connect = Callable[..., Any]


@pytest.fixture(scope="module")
def child() -> Iterator[Cloud]:
    """An emulator of the command line, in a process of its own."""
    command = [sys.executable, "-m", "vizwatch", "emulator"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            yield Cloud(first["endpoint"], first["project_id"], first["token"])
        finally:
            process.terminate()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """An emulator in a thread of its own, with two regions."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Emulator(regions=("eu-de", "eu-nl"))) as running,
    ):
        yield running


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connects the real client, which takes half a second to import."""
    import openstack
    from otcextensions import sdk

    with contextlib.ExitStack() as stack:

        def connect(auth_type: str, *, region_name: str | None = None, **auth: str) -> Any:
            connection: Any = stack.enter_context(
                openstack.connect(
                    auth_type=auth_type,
                    auth=auth,
                    region_name=region_name,
                    load_yaml_config=False,
                    load_envvars=False,
                )
            )
            sdk.load(connection)
            return connection.modelartsv1

        yield connect


@pytest.fixture
def password(emulator: Emulator) -> dict[str, str]:
    """What keystoneauth1 asks for a token with, as people have it in their clouds.yaml."""
    return {
        "auth_url": f"{emulator.endpoint}/v3",
        "username": emulator.user,
        "password": emulator.password,
        "user_domain_name": emulator.domain,
        "project_domain_name": emulator.domain,
        "project_name": emulator.project_name,
    }


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cloud(way: str, request: pytest.FixtureRequest) -> Cloud:
    if way == "password":
        emulator = request.getfixturevalue("emulator")
        return Cloud(emulator.endpoint, emulator.project_id, emulator.token)
    child: Cloud = request.getfixturevalue("child")
    child.admin("DELETE", "faults")
    child.admin("POST", "reset")
    return child


@pytest.fixture
def theirs(way: str, cloud: Cloud, connect: Connect, request: pytest.FixtureRequest) -> Any:
    """The real client's calls for ModelArts."""
    if way == "password":
        return connect("password", region_name="eu-de", **request.getfixturevalue("password"))
    if way == "token":
        return connect("token", auth_url=cloud.endpoint, token=cloud.token, project_id=cloud.project_id)
    return connect("admin_token", endpoint=f"{cloud.endpoint}/v1/{cloud.project_id}", token=cloud.token)


# What it can do


def test_it_lists_the_pages_that_it_is_asked_for(theirs: Any, cloud: Cloud) -> None:
    job_ids = cloud.add_jobs(25)
    pages = [[job.id for job in theirs.visualization_jobs(limit=10, offset=page)] for page in (1, 2, 3, 4)]
    assert pages == [job_ids[:10], job_ids[10:20], job_ids[20:], []]


def test_it_filters_by_status_and_search_content_in_either_order(theirs: Any, cloud: Cloud) -> None:
    cloud.add_jobs(job_name="alpha", status=8)
    second, third = cloud.add_jobs(2, job_name="beta", status=8)
    cloud.add_jobs(job_name="beta", status=12)
    found = theirs.visualization_jobs(status=8, search_content="eta", order="desc")
    assert [job.id for job in found] == [third, second]


@pytest.mark.parametrize("schedule", [SCHEDULE, [SCHEDULE]], ids=["object", "array"])
def test_it_creates_a_job_with_the_schedule_as_an_object_and_as_an_array(
    schedule: Any, theirs: Any, cloud: Cloud
) -> None:
    created = theirs.create_visualization_job(**NEW_JOB, schedule=schedule, job_desc="d")
    assert (created.job_name, created.status) == ("tb-1", JobStatus.INIT)
    cloud.advance(3600)
    assert theirs.get_visualization_job(created.id).status == JobStatus.RUNNING
    cloud.advance(100)
    assert theirs.get_visualization_job(created.id).status == JobStatus.KILLED


def test_it_reads_every_field_of_the_details(theirs: Any, cloud: Cloud) -> None:
    (job_id,) = cloud.add_jobs(job_name="tb", job_desc="d", status=8, service_url="https://example.com/1")
    cloud.advance(60)
    job = theirs.get_visualization_job(job_id)
    assert (job.job_id, job.job_name, job.job_desc, job.status) == (job_id, "tb", "d", 8)
    assert (job.train_url, job.service_url) == ("/obs/name/", "https://example.com/1")
    assert 60_000 <= job.duration < 120_000
    assert job.created_at > 1_600_000_000_000
    assert job.is_success is True


def test_it_updates_a_jobs_description(theirs: Any, cloud: Cloud) -> None:
    (job_id,) = cloud.add_jobs(job_name="tb", status=8)
    theirs.update_visualization_job(job_id, "new")
    job = theirs.get_visualization_job(job_id)
    assert (job.job_name, job.job_desc) == ("tb", "new")


def test_it_stops_restarts_and_deletes_a_job(theirs: Any, cloud: Cloud) -> None:
    (job_id,) = cloud.add_jobs(status=8)

    def status() -> int:
        return int(theirs.get_visualization_job(job_id).status)

    theirs.stop_visualization_job(job_id)
    assert status() == JobStatus.KILLING
    cloud.advance(10)
    assert status() == JobStatus.KILLED
    theirs.restart_visualization_job(job_id)
    assert status() == JobStatus.INIT
    cloud.advance(10)
    assert status() == JobStatus.RUNNING
    theirs.delete_visualization_job(job_id)
    cloud.advance(10)
    assert list(theirs.visualization_jobs()) == []


def test_a_missing_job_is_its_not_found_whatever_it_asks_for(theirs: Any, cloud: Cloud) -> None:
    from openstack.exceptions import NotFoundException

    for ask in (
        theirs.get_visualization_job,
        theirs.delete_visualization_job,
        theirs.stop_visualization_job,
        theirs.restart_visualization_job,
    ):
        with pytest.raises(NotFoundException, match=r"ModelArts\.0015"):
            ask(999)
    with pytest.raises(NotFoundException, match=r"ModelArts\.0015"):
        theirs.update_visualization_job(999, "new")
    assert theirs.delete_visualization_job(999, ignore_missing=True) is None


def test_the_wrong_state_and_a_bad_argument_are_its_bad_request(theirs: Any, cloud: Cloud) -> None:
    from openstack.exceptions import BadRequestException

    (job_id,) = cloud.add_jobs(status=10)
    with pytest.raises(BadRequestException, match=r"ModelArts\.0105"):
        theirs.stop_visualization_job(job_id)
    with pytest.raises(BadRequestException, match=r"ModelArts\.0103"):
        theirs.create_visualization_job(job_name="no spaces", train_url="/obs/")


# Keystone


@pytest.mark.parametrize("path", ["", "/", "/v3", "/v3/"])
def test_it_finds_keystone_at_the_endpoint_with_and_without_the_version(
    path: str, emulator: Emulator, connect: Connect, password: dict[str, str]
) -> None:
    password["auth_url"] = emulator.endpoint + path
    theirs = connect("password", region_name="eu-de", **password)
    assert theirs.get_endpoint() == f"{emulator.endpoint}/v1/{emulator.project_id}"


def test_it_gets_the_same_token_by_the_ids_of_user_project_and_domain(
    emulator: Emulator, connect: Connect, password: dict[str, str]
) -> None:
    by_name = connect("password", region_name="eu-de", **password)
    access = by_name.session.auth.get_access(by_name.session)
    by_id = connect(
        "password",
        region_name="eu-de",
        auth_url=emulator.endpoint,
        user_id=access.user_id,
        password=emulator.password,
        project_id=access.project_id,
    )
    assert by_id.get_endpoint() == by_name.get_endpoint()
    assert by_id.session.auth.get_access(by_id.session).project_name == emulator.project_name
    by_domain_id = {key: value for key, value in password.items() if "domain" not in key}
    for key in ("user_domain_id", "project_domain_id"):
        by_domain_id[key] = access.user_domain_id
    assert list(connect("password", region_name="eu-de", **by_domain_id).visualization_jobs()) == []


@pytest.mark.parametrize("wrong", ["username", "password", "user_domain_name", "project_domain_name"])
def test_it_is_told_that_a_credential_is_wrong_and_asks_but_once(
    wrong: str, emulator: Emulator, connect: Connect, password: dict[str, str]
) -> None:
    from openstack.exceptions import SDKException

    password[wrong] = "wrong"
    with pytest.raises(SDKException, match=r"is wrong|is unknown"):
        connect("password", region_name="eu-de", **password)
    assert [one.status for one in emulator.requests] == [200, 401]


def test_it_meets_an_expired_token_with_a_new_one(
    emulator: Emulator, connect: Connect, password: dict[str, str]
) -> None:
    theirs = connect("password", region_name="eu-de", **password)
    emulator.advance(86_399)
    assert list(theirs.visualization_jobs()) == []
    emulator.advance(1)
    assert list(theirs.visualization_jobs()) == []
    seen = [(one.path.split("/")[-1], one.status) for one in emulator.requests[2:]]
    listed = "visualization-jobs"
    assert seen == [(listed, 200), (listed, 401), ("tokens", 201), (listed, 200)]


def test_a_token_is_no_way_to_outlive_that_token(
    emulator: Emulator, connect: Connect, password: dict[str, str]
) -> None:
    """Keystone: what a token is exchanged for expires when it does."""
    from keystoneauth1.exceptions import Unauthorized

    first = connect("password", region_name="eu-de", **password)
    mine = first.session.auth.get_access(first.session)
    emulator.advance(3600)
    exchanged = connect(
        "token",
        region_name="eu-de",
        auth_url=emulator.endpoint,
        token=mine.auth_token,
        project_id=mine.project_id,
    )
    theirs = exchanged.session.auth.get_access(exchanged.session)
    assert theirs.auth_token != mine.auth_token
    assert theirs.expires == mine.expires
    emulator.advance(86_400 - 3600)
    with pytest.raises(Unauthorized, match="The token is invalid or has expired"):
        list(exchanged.visualization_jobs())


# Projects and regions


def test_it_finds_each_region_in_the_catalog_and_jobs_stay_in_their_project(
    emulator: Emulator, connect: Connect, password: dict[str, str]
) -> None:
    here = connect("password", region_name="eu-de", **password)
    there = connect("password", region_name="eu-nl", **{**password, "project_name": "eu-nl_team"})
    assert there.get_endpoint().startswith(f"{emulator.endpoints['eu-nl']}/v1/")
    assert not there.get_endpoint().startswith(emulator.endpoint)
    mine = here.create_visualization_job(**NEW_JOB)
    another = there.create_visualization_job(**NEW_JOB)
    assert [job.id for job in here.visualization_jobs()] == [mine.id]
    assert [job.id for job in there.visualization_jobs()] == [another.id]


def test_a_region_refuses_the_project_of_another_one(connect: Connect, password: dict[str, str]) -> None:
    from openstack.exceptions import HttpException

    misled = connect("password", region_name="eu-de", **{**password, "project_name": "eu-nl_team"})
    with pytest.raises(HttpException, match=r"ModelArts\.0207") as caught:
        list(misled.visualization_jobs())
    assert caught.value.status_code == 401


# What it gets wrong, and this package right


def ours(cloud: Cloud, use: Callable[[vizwatch.Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        once = vizwatch.Settings(attempts=1)
        async with vizwatch.Client(
            cloud.endpoint, cloud.project_id, auth=cloud.token, settings=once
        ) as client:
            return await use(client)

    return asyncio.run(run())


one_way = pytest.mark.parametrize("way", ["admin_token"], indirect=True)


@one_way
def test_its_list_never_leaves_the_first_page_and_ours_goes_to_the_last(theirs: Any, cloud: Cloud) -> None:
    job_ids = cloud.add_jobs(25)
    assert [job.id for job in theirs.visualization_jobs()] == job_ids[:10]
    listed = ours(cloud, lambda client: client.list_jobs().collect())
    assert [job.job_id for job in listed] == job_ids


@one_way
def test_it_sends_a_sort_key_that_the_service_does_not_know(theirs: Any, cloud: Cloud) -> None:
    for job_name in ("a", "c", "b"):
        cloud.add_jobs(job_name=job_name)
    assert [job.job_name for job in theirs.visualization_jobs(sort_by="job_name")] == ["a", "c", "b"]
    listed = ours(cloud, lambda client: client.list_jobs(sort_by="job_name").collect())
    assert [job.job_name for job in listed] == ["a", "b", "c"]
    assert [sorted({"sort_by", "sortBy"} & set(query)) for *_, query, _ in cloud.requests()] == [
        ["sort_by"],
        ["sortBy"],
    ]


@one_way
def test_it_does_not_ask_for_the_workspace_that_it_is_given(theirs: Any, cloud: Cloud) -> None:
    (outside,) = cloud.add_jobs()
    (inside,) = cloud.add_jobs(workspace_id="w")
    assert [job.id for job in theirs.visualization_jobs(workspace_id="w")] == [outside]
    listed = ours(cloud, lambda client: client.list_jobs(workspace_id="w").collect())
    assert [job.job_id for job in listed] == [inside]


@one_way
def test_it_takes_a_failure_with_http_200_for_success(theirs: Any, cloud: Cloud) -> None:
    (job_id,) = cloud.add_jobs(status=8)
    text = json.dumps({"is_success": False, "error_code": "ModelArts.0105", "error_message": "no"})
    cloud.fault("body", text=text, match={"operation": "stop"})
    assert theirs.stop_visualization_job(job_id) is None
    with pytest.raises(vizwatch.ConflictError, match="no"):
        ours(cloud, lambda client: client.stop_job(job_id))


@one_way
@pytest.mark.parametrize(
    ("status", "code", "right"),
    [
        (400, "ModelArts.0104", vizwatch.BadRequestError),
        (401, "ModelArts.0203", vizwatch.AuthenticationError),
        (429, "APIGW.0308", vizwatch.RateLimitError),
        (503, "ModelArts.4302", vizwatch.ServerError),
    ],
)
def test_it_says_not_found_of_every_failure_and_loses_its_text(
    status: int, code: str, right: type[vizwatch.ApiError], theirs: Any, cloud: Cloud
) -> None:
    from openstack.exceptions import HttpException

    (job_id,) = cloud.add_jobs(status=8)
    cloud.fault("status", status=status, code=code, message="the reason", match={"operation": "details"})
    with pytest.raises(HttpException, match="No VisualizationJob found for") as caught:
        theirs.get_visualization_job(job_id)
    assert "the reason" not in str(caught.value)
    asked = [seen for _, _, _, seen in cloud.requests()]
    assert asked == [status], "it does not try again"
    cloud.admin("DELETE", "faults")
    cloud.fault("status", status=status, code=code, message="the reason", match={"operation": "details"})
    with pytest.raises(right, match=f"the reason.*{re.escape(code)}|{re.escape(code)}.*the reason"):
        ours(cloud, lambda client: client.get_job(job_id))
