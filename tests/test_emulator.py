"""The emulated cloud answers and refuses as the documents say, over real HTTP and in virtual time."""

import asyncio
import datetime as dt
import email.utils
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual import elapse

from vizwatch import ConfigError, JobStatus
from vizwatch.emulator import Emulator
from vizwatch.emulator._iam import Tokens
from vizwatch.emulator._refusals import Refusal

pytestmark = pytest.mark.looptime

NEW_JOB = {"job_name": "tb-1", "train_url": "/obs/logs/"}


@attrs.frozen
class Answer:
    status: int
    body: Any
    headers: Any


@attrs.frozen
class Api:
    """A client that knows nothing: one method a verb, the answer as it came."""

    cloud: Emulator
    session: aiohttp.ClientSession
    token: str | None = None
    project_id: str | None = None

    async def __call__(self, method: str, path: str = "", **kwargs: Any) -> Answer:
        project_id = self.project_id or self.cloud.project_id
        base = f"{self.cloud.endpoint}/v1/{project_id}/visualization-jobs"
        kwargs.setdefault("headers", {"X-Auth-Token": self.token or self.cloud.token})
        return await self.at(method, base + path, **kwargs)

    async def at(self, method: str, url: str, **kwargs: Any) -> Answer:
        url = url if url.startswith("http") else self.cloud.endpoint + url
        async with self.session.request(method, url, **kwargs) as response:
            text = await response.text()
            body = json.loads(text) if response.content_type == "application/json" else text
            return Answer(response.status, body, response.headers)

    async def status(self, job_id: int) -> int | None:
        answer = await self("GET", f"/{job_id}")
        return None if answer.status == 404 else int(answer.body["status"])


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def api(cloud: Emulator, session: aiohttp.ClientSession) -> Api:
    return Api(cloud, session)


def refusal(answer: Answer) -> tuple[int, str, str]:
    assert answer.body["is_success"] is False
    return answer.status, answer.body["error_code"], answer.body["error_message"]


# A job's life


async def test_a_job_walks_the_documented_statuses_by_the_clock(api: Api) -> None:
    created = await api("POST", json=NEW_JOB)
    job_id = created.body["job_id"]
    seen = []
    for _ in range(10):
        seen.append(await api.status(job_id))
        await elapse(1)
    assert seen == [1, 4, 4, 7, 7, 7, 7, 7, 8, 8]


async def test_the_clock_can_be_stepped_and_run_faster_than_the_loop(session: aiohttp.ClientSession) -> None:
    async with Emulator(jobs=1, speed=100) as cloud:
        api = Api(cloud, session)
        await elapse(0.05)
        assert await api.status(1) == JobStatus.WAITING
        cloud.advance(3600)
        assert await api.status(1) == JobStatus.RUNNING
        assert cloud.now == pytest.approx(3605)


async def test_duration_counts_the_milliseconds_of_running_alone(api: Api, cloud: Emulator) -> None:
    (job_id,) = cloud.add_jobs(plan=[(0, 1), (10, 8), (25, 15), (60, 8), (70, 10)])
    seen = []
    for _ in range(5):
        seen.append((await api("GET", f"/{job_id}")).body["duration"])
        await elapse(20)
    assert seen == [0, 10_000, 15_000, 15_000, 25_000]


async def test_a_running_job_that_is_stopped_is_killing_and_then_killed(api: Api, cloud: Emulator) -> None:
    (job_id,) = cloud.add_jobs(status=8)
    assert (await api("POST", f"/{job_id}/stop")).body == {"is_success": True}
    assert await api.status(job_id) == JobStatus.KILLING
    await elapse(2)
    assert await api.status(job_id) == JobStatus.KILLED


async def test_a_job_that_is_stopped_before_it_ran_is_canceled(api: Api, cloud: Emulator) -> None:
    (job_id,) = cloud.add_jobs()
    await api("POST", f"/{job_id}/stop")
    await elapse(100)
    assert await api.status(job_id) == JobStatus.CANCELED


async def test_a_deleted_job_is_killing_for_a_moment_and_then_gone(api: Api, cloud: Emulator) -> None:
    first, second = cloud.add_jobs(2, status=8)
    assert (await api("DELETE", f"/{first}")).body == {"is_success": True}
    assert await api.status(first) == JobStatus.KILLING
    await elapse(2)
    gone = await api("GET", f"/{first}")
    assert refusal(gone)[:2] == (404, "ModelArts.0015")
    assert [job["job_id"] for job in (await api("GET")).body["jobs"]] == [second]


async def test_a_restart_keeps_the_id_and_lives_anew(api: Api, cloud: Emulator) -> None:
    (job_id,) = cloud.add_jobs(plan=[(0, 8), (30, 12)])
    await elapse(40)
    assert (await api("GET", f"/{job_id}")).body["duration"] == 30_000
    assert (await api("POST", f"/{job_id}/restart")).body == {"is_success": True}
    assert await api.status(job_id) == JobStatus.INIT
    await elapse(10)
    again = (await api("GET", f"/{job_id}")).body
    assert (again["status"], again["duration"]) == (JobStatus.RUNNING, 2_000)


@pytest.mark.parametrize("unit", ["time_unit", "timeUnit"])
@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: [one]], ids=["object", "array"])
async def test_a_schedule_stops_a_job_hours_after_it_began_to_run(unit: str, wrap: Any, api: Api) -> None:
    schedule = wrap({"type": "stop", unit: "HOURS", "duration": 2})
    job_id = (await api("POST", json=NEW_JOB | {"schedule": schedule})).body["job_id"]
    shown = (await api("GET", f"/{job_id}")).body["schedule"]
    assert shown == [{"type": "stop", "timeUnit": "HOURS", "duration": 2}]
    seen = []
    await elapse(8 + 2 * 3600 - 1)
    for _ in range(5):
        seen.append(await api.status(job_id))
        await elapse(1)
    assert seen == [8, 9, 9, 12, 12]


async def test_a_job_made_with_a_status_keeps_it_until_told_otherwise(api: Api, cloud: Emulator) -> None:
    (job_id,) = cloud.add_jobs(status=99)
    await elapse(1e6)
    assert await api.status(job_id) == 99
    cloud.set_status(job_id, 8)
    await elapse(1e6)
    assert await api.status(job_id) == JobStatus.RUNNING
    cloud.set_status(job_id, None)
    assert await api.status(job_id) is None


async def test_a_scripted_life_may_end_in_the_jobs_deletion(api: Api, cloud: Emulator) -> None:
    (job_id,) = cloud.add_jobs(plan=[(5, 10), (9, None)])
    seen = [await api.status(job_id)]
    for pause in (5, 3, 1):
        await elapse(pause)
        seen.append(await api.status(job_id))
    assert seen == [1, 10, 10, None]


# Refusals that depend on the status


@pytest.mark.parametrize(
    ("status", "request_", "text"),
    [
        (10, ("POST", "/{}/stop"), "This job can't be stop. job status: 10"),
        (9, ("POST", "/{}/stop"), "This job can't be stop. job status: 9"),
        (8, ("POST", "/{}/restart"), "This job can't be resubmit. job status: 8"),
        (9, ("DELETE", "/{}"), "This job can't be delete. job status: 9"),
    ],
)
async def test_the_wrong_status_is_refused_with_the_documents_text(
    status: int, request_: tuple[str, str], text: str, api: Api, cloud: Emulator
) -> None:
    (job_id,) = cloud.add_jobs(status=status)
    method, path = request_
    assert refusal(await api(method, path.format(job_id))) == (400, "ModelArts.0105", text)
    assert await api.status(job_id) == status


@pytest.mark.parametrize("path", ["/77", "/77/stop", "/77/restart"])
async def test_an_unknown_job_is_not_found_by_any_operation(path: str, api: Api) -> None:
    method = "GET" if path == "/77" else "POST"
    assert refusal(await api(method, path))[:2] == (404, "ModelArts.0015")
    assert refusal(await api("PUT", "/77", json={"job_desc": ""}))[:2] == (404, "ModelArts.0015")
    assert refusal(await api("DELETE", "/77"))[:2] == (404, "ModelArts.0015")


@pytest.mark.parametrize("job_id", ["abc", "7x", "-1", "1" * 20, "%D9%A1", "%7B", "1%2F2"])
async def test_a_job_id_that_is_no_number_is_refused(job_id: str, api: Api) -> None:
    assert refusal(await api("GET", f"/{job_id}"))[:2] == (400, "ModelArts.0104")


# Create and update


async def test_create_answers_with_the_documents_fields_and_details_show_the_rest(api: Api) -> None:
    fields = {**NEW_JOB, "job_desc": "d", "job_type": "MindInsight", "flavor": {"code": "x"}, "other": 1}
    created = await api("POST", json=fields)
    assert created.status == 200
    assert set(created.body) == {"job_id", "job_name", "status", "create_time", "service_url", "is_success"}
    details = (await api("GET", f"/{created.body['job_id']}")).body
    assert details.items() >= created.body.items()
    assert details.items() >= {"job_desc": "d", "train_url": "/obs/logs/", "remaining_duration": None}.items()
    assert "mindinsight" in details["service_url"]
    assert abs(details["create_time"] / 1000 - time.time()) < 60


async def test_numbers_of_a_created_job_can_be_strings_as_in_the_sample(
    session: aiohttp.ClientSession,
) -> None:
    async with Emulator(string_numbers=True) as cloud:
        created = (await Api(cloud, session)("POST", json=NEW_JOB)).body
    assert (created["job_id"], created["status"]) == ("1", "1")
    assert created["create_time"].isdigit()


@pytest.mark.parametrize(
    "wrong",
    [
        {"job_name": ""},
        {"job_name": "x" * 21},
        {"job_name": "a b"},
        {"job_name": None},
        {"train_url": "obs"},
        {"train_url": None},
        {"job_desc": "d" * 257},
        {"job_desc": 7},
        {"job_type": "tensor"},
        {"flavor": "code"},
        {"flavor": {}},
        {"schedule": {"type": "start", "time_unit": "HOURS", "duration": 1}},
        {"schedule": {"type": "stop", "time_unit": "DAYS", "duration": 1}},
        {"schedule": {"type": "stop", "time_unit": "HOURS", "duration": 25}},
        {"schedule": {"type": "stop", "time_unit": "HOURS", "duration": True}},
        {"schedule": [{}, {}]},
    ],
    ids=str,
)
async def test_create_refuses_what_is_outside_the_documents_limits(wrong: dict[str, Any], api: Api) -> None:
    assert refusal(await api("POST", json={**NEW_JOB, **wrong}))[:2] == (400, "ModelArts.0103")
    assert (await api("GET")).body["job_total_count"] == 0


async def test_create_takes_what_is_just_within_the_limits(api: Api) -> None:
    schedule = {"type": "stop", "time_unit": "HOURS", "duration": 0}
    widest = {"job_name": "x" * 20, "train_url": "/b/", "job_desc": "d" * 256, "schedule": schedule}
    assert (await api("POST", json=widest)).status == 200


async def test_update_changes_the_description_and_nothing_else(api: Api, cloud: Emulator) -> None:
    (job_id,) = cloud.add_jobs(status=8)
    before = (await api("GET", f"/{job_id}")).body
    assert (await api("PUT", f"/{job_id}", json={"job_desc": "new"})).body == {"is_success": True}
    assert (await api("GET", f"/{job_id}")).body == {**before, "job_desc": "new"}


@pytest.mark.parametrize("body", [{}, {"job_desc": None}, {"job_desc": "d" * 257}, {"job_name": "x"}, []])
async def test_update_refuses_a_missing_or_long_description(body: Any, api: Api, cloud: Emulator) -> None:
    (job_id,) = cloud.add_jobs(status=8)
    assert refusal(await api("PUT", f"/{job_id}", json=body))[:2] == (400, "ModelArts.0104")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}"])
async def test_a_body_that_is_no_json_is_refused(data: bytes, api: Api) -> None:
    assert refusal(await api("POST", data=data))[:2] == (400, "ModelArts.0104")


async def test_a_body_over_the_bound_is_refused(session: aiohttp.ClientSession) -> None:
    async with Emulator(max_body=2048) as cloud:
        answer = await Api(cloud, session)("POST", data=b"x" * 4096)
    assert refusal(answer) == (413, "ModelArts.0104", "The request body is over 2048 bytes.")


async def test_a_used_up_quota_is_refused_until_a_job_is_deleted(session: aiohttp.ClientSession) -> None:
    async with Emulator(quota=1) as cloud:
        api = Api(cloud, session)
        job_id = (await api("POST", json=NEW_JOB)).body["job_id"]
        assert (await api("GET")).body["job_count_limit"] == 0
        assert refusal(await api("POST", json=NEW_JOB))[:2] == (400, "ModelArts.0118")
        cloud.set_status(job_id, None)
        assert (await api("POST", json=NEW_JOB)).status == 200


async def test_refusals_of_the_samples_can_come_with_http_200(session: aiohttp.ClientSession) -> None:
    async with Emulator(refusal_status=200) as cloud:
        api = Api(cloud, session)
        assert refusal(await api("GET", params={"page": "0"}))[:2] == (200, "ModelArts.0104")
        assert refusal(await api("GET", "/5"))[:2] == (404, "ModelArts.0015")


# Listing


async def test_a_list_has_the_documents_envelope(api: Api, cloud: Emulator) -> None:
    cloud.add_jobs(3, status=8)
    body = (await api("GET")).body
    details = (await api("GET", "/2")).body
    assert {key: body[key] for key in body if key != "jobs"} == {
        "is_success": True,
        "job_total_count": 3,
        "job_count_limit": 997,
        "quotas": 100,
    }
    assert details == {**body["jobs"][1], "is_success": True}


async def test_per_page_is_10_unless_given_and_pages_go_by_job_id(api: Api, cloud: Emulator) -> None:
    ids = cloud.add_jobs(25)
    pages = [
        [job["job_id"] for job in (await api("GET", params={"page": page})).body["jobs"]]
        for page in ("1", "2", "3", "4")
    ]
    assert pages == [ids[:10], ids[10:20], ids[20:], []]


async def test_status_search_content_and_workspace_id_filter(api: Api, cloud: Emulator) -> None:
    cloud.add_jobs(1, status=8, job_name="alpha")
    cloud.add_jobs(1, status=8, job_name="beta")
    cloud.add_jobs(1, status=12, job_name="alphabet")
    cloud.add_jobs(1, status=8, job_name="alpha", workspace_id="w")

    async def ids(**params: str) -> list[int]:
        body = (await api("GET", params=params)).body
        assert body["job_total_count"] == len(body["jobs"])
        return [job["job_id"] for job in body["jobs"]]

    assert await ids() == [1, 2, 3]
    assert await ids(status="8") == [1, 2]
    assert await ids(search_content="alpha") == [1, 3]
    assert await ids(search_content="lph", status="12") == [3]
    assert await ids(workspace_id="w") == [4]
    assert await ids(status="7") == []


async def test_sorting_is_by_the_asked_key_then_by_job_id(api: Api, cloud: Emulator) -> None:
    for name, status in (("b", 8), ("a", 12), ("b", 7), ("c", 8)):
        cloud.add_jobs(1, status=status, job_name=name, job_desc=name * 2)

    async def ids(**params: str) -> list[int]:
        return [job["job_id"] for job in (await api("GET", params=params)).body["jobs"]]

    assert await ids(sortBy="job_name") == [2, 1, 3, 4]
    assert await ids(sortBy="job_desc", order="desc") == [4, 3, 1, 2]
    assert await ids(sortBy="status") == [3, 1, 4, 2]
    assert await ids(sortBy="create_time", order="desc") == [4, 3, 2, 1]
    assert await ids(order="desc") == [4, 3, 2, 1]


async def test_parameters_that_mean_nothing_are_ignored(api: Api, cloud: Emulator) -> None:
    cloud.add_jobs(2)
    body = (await api("GET", params={"sort_by": "job_name", "limit": "1", "status": "", "order": ""})).body
    assert [job["job_id"] for job in body["jobs"]] == [1, 2]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"per_page": "0"}, "The per_page should be in [1,1000]"),
        ({"per_page": "1001"}, "The per_page should be in [1,1000]"),
        ({"per_page": "x"}, "The per_page should be in [1,1000]"),
        ({"page": "0"}, f"The page should be in [1,{2**31 - 1}]"),
        ({"page": "9" * 40}, f"The page should be in [1,{2**31 - 1}]"),
        ({"order": "up"}, "The order should be asc or desc"),
        ({"status": "8,9"}, "The status should be one job status code"),
        ({"search_content": "x" * 65}, "The length of search content should be in [0,64]"),
        (
            {"sortBy": "duration"},
            "The sortBy should be one of job_id, job_name, job_desc, create_time, status",
        ),
    ],
)
async def test_a_query_outside_the_limits_is_refused(params: dict[str, str], text: str, api: Api) -> None:
    assert refusal(await api("GET", params=params)) == (400, "ModelArts.0104", text)


async def test_limits_that_the_documents_disagree_on_are_options(session: aiohttp.ClientSession) -> None:
    async with Emulator(search_limit=100, per_page_limit=100) as cloud:
        api = Api(cloud, session)
        assert (await api("GET", params={"search_content": "x" * 100, "per_page": "100"})).status == 200
        assert refusal(await api("GET", params={"per_page": "101"}))[2].endswith("[1,100]")
        text = "The length of search content should be in [0,100]"
        assert refusal(await api("GET", params={"search_content": "x" * 101}))[2] == text


async def test_a_workspace_whose_id_cannot_be_is_refused(api: Api) -> None:
    assert refusal(await api("GET", params={"workspace_id": "a b"}))[:2] == (400, "ModelArts.0102")
    assert refusal(await api("POST", json={**NEW_JOB, "workspace_id": ""}))[:2] == (400, "ModelArts.0102")


async def test_a_page_of_many_jobs_costs_in_proportion_to_the_page(api: Api, cloud: Emulator) -> None:
    """Counted in looks at jobs, not in time: a page by id touches no job of another page."""
    cloud.add_jobs(20_000, status=8)
    looks = 0
    state = type(cloud._world.cloud.projects[cloud.project_id].jobs[1]).state

    def counted(job: Any) -> Any:
        nonlocal looks
        looks += 1
        return state.fget(job)  # type: ignore[attr-defined] # a property, read from its class

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vizwatch.emulator._cloud.Job.state", property(counted))
        body = (await api("GET", params={"per_page": "1000", "page": "7"})).body
    assert (len(body["jobs"]), body["job_total_count"], looks) == (1000, 20_000, 1000)


# Who may ask


async def test_a_request_without_a_valid_token_is_refused(api: Api) -> None:
    assert refusal(await api("GET", headers={}))[:2] == (401, "ModelArts.0201")
    assert refusal(await api("GET", headers={"X-Auth-Token": "guess"}))[:2] == (401, "ModelArts.0203")


async def test_the_general_token_opens_any_project_and_projects_are_apart(api: Api, cloud: Emulator) -> None:
    cloud.add_jobs(1)
    other = attrs.evolve(api, project_id="other")
    assert (await other("GET")).body["job_total_count"] == 0
    created = await other("POST", json=NEW_JOB)
    assert refusal(await api("GET", f"/{created.body['job_id']}"))[0] == 404
    assert (await api("GET")).body["job_total_count"] == 1
    assert refusal(await attrs.evolve(api, project_id="a.b")("GET"))[:2] == (400, "ModelArts.0104")


def password_call(cloud: Emulator, *, password: str | None = None, scope: Any = None) -> dict[str, Any]:
    user = {
        "name": cloud.user,
        "password": password or cloud.password,
        "domain": {"name": cloud.domain},
    }
    auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
    return {"auth": auth if scope is None else {**auth, "scope": scope}}


async def test_the_password_call_gives_a_token_for_one_project_until_it_expires(
    api: Api, cloud: Emulator
) -> None:
    scope = {"project": {"name": cloud.project_name}}
    answer = await api.at("POST", "/v3/auth/tokens", json=password_call(cloud, scope=scope))
    assert answer.status == 201
    assert answer.body["token"]["project"]["id"] == cloud.project_id
    issued, expires = (
        dt.datetime.fromisoformat(answer.body["token"][key]) for key in ("issued_at", "expires_at")
    )
    assert expires - issued == dt.timedelta(hours=24)
    api = attrs.evolve(api, token=answer.headers["X-Subject-Token"])
    await elapse(86_399)
    assert (await api("GET")).status == 200
    wrong = await attrs.evolve(api, project_id="other")("GET")
    assert refusal(wrong)[:2] == (404, "ModelArts.2786")
    await elapse(1)
    assert refusal(await api("GET"))[:2] == (401, "ModelArts.0202")


async def test_tokens_can_be_scoped_by_id_and_by_names_that_always_mean_the_same(
    api: Api, cloud: Emulator
) -> None:
    named = [
        await api.at(
            "POST", "/v3/auth/tokens", json=password_call(cloud, scope={"project": {"name": "eu-de"}})
        )
        for _ in range(2)
    ]
    first, second = (answer.body["token"]["project"]["id"] for answer in named)
    assert first == second
    scope = {"project": {"id": "p-1"}}
    by_id = await api.at("POST", "/v3/auth/tokens", json=password_call(cloud, scope=scope))
    api = attrs.evolve(api, token=by_id.headers["X-Subject-Token"], project_id="p-1")
    assert (await api("GET")).status == 200


async def test_a_token_without_a_project_is_refused(api: Api, cloud: Emulator) -> None:
    answer = await api.at("POST", "/v3/auth/tokens", json=password_call(cloud))
    api = attrs.evolve(api, token=answer.headers["X-Subject-Token"])
    assert refusal(await api("GET"))[:2] == (401, "ModelArts.0212")


async def test_a_wrong_password_is_refused_in_keystones_form(api: Api, cloud: Emulator) -> None:
    answer = await api.at("POST", "/v3/auth/tokens", json=password_call(cloud, password="wrong"))
    assert answer.status == 401
    assert answer.body["error"]["message"] == "The username or password is wrong."


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"auth": 1},
        {"auth": {"identity": {"methods": ["token"]}}},
        {"auth": {"identity": {"methods": ["password"], "password": {"user": {"domain": 3}}}}},
    ],
    ids=str,
)
async def test_a_malformed_password_call_is_refused_in_keystones_form(body: Any, api: Api) -> None:
    answer = await api.at("POST", "/v3/auth/tokens", json=body)
    assert (answer.status, answer.body["error"]["code"]) == (400, 400)


async def test_a_scope_needs_an_id_or_a_name(api: Api, cloud: Emulator) -> None:
    call = password_call(cloud, scope={"project": {"id": "a/b"}})
    assert (await api.at("POST", "/v3/auth/tokens", json=call)).status == 400


async def test_a_scopes_domain_may_be_left_out_but_not_be_wrong(api: Api, cloud: Emulator) -> None:
    for domain, status in (({"name": cloud.domain}, 201), ({"name": "x"}, 401), ({"id": 7}, 401), (7, 400)):
        call = password_call(cloud, scope={"project": {"name": "eu-de", "domain": domain}})
        assert (await api.at("POST", "/v3/auth/tokens", json=call)).status == status


async def test_ids_stand_for_the_names_of_user_and_domain(api: Api, cloud: Emulator) -> None:
    user = (await api.at("POST", "/v3/auth/tokens", json=password_call(cloud))).body["token"]["user"]

    async def ask(**given: Any) -> int:
        identity = {
            "methods": ["password"],
            "password": {"user": {"password": cloud.password, **given}},
        }
        return (await api.at("POST", "/v3/auth/tokens", json={"auth": {"identity": identity}})).status

    assert await ask(id=user["id"]) == 201
    assert await ask(name=user["name"], domain={"id": user["domain"]["id"]}) == 201
    assert await ask(id="other") == 401
    assert await ask(id=["x"]) == 401
    assert await ask(name=user["name"], domain={"id": "other"}) == 401
    assert await ask(name=user["name"]) == 400


def token_call(token: Any, project_id: str) -> dict[str, Any]:
    identity = {"methods": ["token"], "token": {"id": token}}
    return {"auth": {"identity": identity, "scope": {"project": {"id": project_id}}}}


async def test_a_token_is_exchanged_for_one_of_another_project_that_lives_no_longer(
    api: Api, cloud: Emulator
) -> None:
    scope = {"project": {"name": cloud.project_name}}
    first = await api.at("POST", "/v3/auth/tokens", json=password_call(cloud, scope=scope))
    await elapse(3600)
    call = token_call(first.headers["X-Subject-Token"], "other")
    second = await api.at("POST", "/v3/auth/tokens", json=call)
    assert (second.status, second.body["token"]["methods"]) == (201, ["token"])
    assert second.body["token"]["expires_at"] == first.body["token"]["expires_at"]
    other = attrs.evolve(api, token=second.headers["X-Subject-Token"], project_id="other")
    assert (await other("GET")).status == 200
    await elapse(86_400 - 3600)
    assert refusal(await other("GET"))[:2] == (401, "ModelArts.0202")
    assert (await api.at("POST", "/v3/auth/tokens", json=call)).status == 401


async def test_the_general_token_is_exchanged_for_one_of_the_usual_life(api: Api, cloud: Emulator) -> None:
    answer = await api.at("POST", "/v3/auth/tokens", json=token_call(cloud.token, "other"))
    issued, expires = (
        dt.datetime.fromisoformat(answer.body["token"][key]) for key in ("issued_at", "expires_at")
    )
    assert expires - issued == dt.timedelta(hours=24)


@pytest.mark.parametrize(
    ("token", "status"), [("guess", 401), ("", 401), ("\ud800", 401), (7, 400), (None, 400)]
)
async def test_what_is_no_token_is_exchanged_for_none(token: Any, status: int, api: Api) -> None:
    answer = await api.at("POST", "/v3/auth/tokens", json=token_call(token, "other"))
    assert (answer.status, answer.body["error"]["code"]) == (status, status)


async def test_openstacks_clients_find_the_identity_version(api: Api, cloud: Emulator) -> None:
    version = (await api.at("GET", "/v3")).body["version"]
    assert version["links"] == [{"rel": "self", "href": f"{cloud.endpoint}/v3/"}]
    choices = await api.at("GET", "/")
    assert (choices.status, choices.body) == (300, {"versions": {"values": [version]}})


async def test_the_catalog_has_each_regions_endpoints_by_the_name_that_the_client_used(
    session: aiohttp.ClientSession,
) -> None:
    async with Emulator(regions=["eu-de", "eu-nl"]) as cloud:
        assert list(cloud.endpoints) == ["eu-de", "eu-nl"]
        assert cloud.endpoint == cloud.endpoints["eu-de"] != cloud.endpoints["eu-nl"]
        call = password_call(cloud, scope={"project": {"id": "p"}})
        for asked, endpoint in cloud.endpoints.items():
            answer = await Api(cloud, session).at(
                "POST",
                f"{endpoint}/v3/auth/tokens",
                json=call,
                headers={"Host": endpoint.removeprefix("http://").replace("127.0.0.1", "cloud")},
            )
            catalog = {
                (service["type"], one["region_id"]): one["url"]
                for service in answer.body["token"]["catalog"]
                for one in service["endpoints"]
            }
            assert catalog == {
                (name, region): url.replace("127.0.0.1", "cloud") + path
                for region, url in cloud.endpoints.items()
                for name, path in (("identity", "/v3"), ("modelarts", "/v1/p"), ("modelartsv1", "/v1/p"))
            }, asked


async def test_a_project_belongs_to_the_region_that_its_name_begins_with(
    session: aiohttp.ClientSession,
) -> None:
    async with Emulator(regions=("eu-de", "eu-nl")) as cloud:
        api = Api(cloud, session)
        for name, home in (("eu-nl", "eu-nl"), ("eu-nl_team", "eu-nl"), ("eu-de_team", "eu-de")):
            call = password_call(cloud, scope={"project": {"name": name}})
            answer = await api.at("POST", "/v3/auth/tokens", json=call)
            project_id = answer.body["token"]["project"]["id"]
            for region, endpoint in cloud.endpoints.items():
                jobs = await api.at(
                    "GET",
                    f"{endpoint}/v1/{project_id}/visualization-jobs",
                    headers={"X-Auth-Token": answer.headers["X-Subject-Token"]},
                )
                if region == home:
                    assert jobs.status == 200
                else:
                    assert refusal(jobs)[:2] == (401, "ModelArts.0207")


async def test_any_other_project_belongs_to_the_region_that_uses_it_first(
    session: aiohttp.ClientSession,
) -> None:
    async with Emulator(regions=("eu-de", "eu-nl")) as cloud:
        api = Api(cloud, session)

        async def status(region: str, project_id: str, token: str) -> int:
            url = f"{cloud.endpoints[region]}/v1/{project_id}/visualization-jobs"
            return (await api.at("GET", url, headers={"X-Auth-Token": token})).status

        assert await status("eu-de", "p", "guess") == 401, "which is no use of it"
        assert await status("eu-nl", "p", cloud.token) == 200
        assert await status("eu-de", "p", cloud.token) == 401
        assert await status("eu-nl", cloud.project_id, cloud.token) == 401
        assert await status("eu-de", cloud.project_id, cloud.token) == 200


def signed(cloud: Emulator, path: str, query: str, date: str, **headers: str) -> dict[str, str]:
    """The documented signature, worked out by hand for a request without a body."""
    host = cloud.endpoint.removeprefix("http://")
    names = "host;x-sdk-date"
    canonical = "\n".join(
        (
            "GET",
            f"{path}/",
            query,
            f"host:{host}\nx-sdk-date:{date}\n",
            names,
            hashlib.sha256(b"").hexdigest(),
        )
    )
    text = f"SDK-HMAC-SHA256\n{date}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(cloud.secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()
    value = f"SDK-HMAC-SHA256 Access={cloud.access_key}, SignedHeaders={names}, Signature={signature}"
    return {"X-Sdk-Date": date, "Authorization": value, **headers}


def wall(offset: float = 0.0) -> str:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=offset)
    return f"{moment:%Y%m%dT%H%M%SZ}"


async def test_an_aksk_signature_is_checked(api: Api, cloud: Emulator) -> None:
    path = f"/v1/{cloud.project_id}/visualization-jobs"
    good = signed(cloud, path, "order=desc&page=2", wall())
    assert (await api("GET", params={"page": "2", "order": "desc"}, headers=good)).status == 200
    for wrong in (
        {**good, "Authorization": good["Authorization"] + "0"},
        {**good, "Authorization": good["Authorization"].replace(cloud.access_key, "other")},
        {**good, "Authorization": "Basic x"},
        {**good, "X-Sdk-Date": "today"},
        {**good, "X-Security-Token": "surplus"},
        signed(cloud, path, "order=desc&page=3", wall()),
    ):
        answer = await api("GET", params={"page": "2", "order": "desc"}, headers=wrong)
        assert (answer.status, answer.body["error_code"]) == (401, "APIGW.0301")


async def test_a_signature_over_15_minutes_off_is_refused_with_the_servers_time(
    session: aiohttp.ClientSession,
) -> None:
    async with Emulator(clock_skew=1200) as cloud:
        api = Api(cloud, session)
        path = f"/v1/{cloud.project_id}/visualization-jobs"
        refused = await api("GET", headers=signed(cloud, path, "", wall()))
        assert refused.status == 401
        assert "calc aksk signature fail:signature expired, signature time:" in refused.body["error_msg"]
        assert (await api("GET", headers=signed(cloud, path, "", wall(1200)))).status == 200
        ahead = email.utils.parsedate_to_datetime(refused.headers["Date"]) - dt.datetime.now(dt.UTC)
        assert 1100 < ahead.total_seconds() < 1300


async def test_temporary_keys_need_their_security_token(session: aiohttp.ClientSession) -> None:
    async with Emulator(security_token="sts") as cloud:
        api = Api(cloud, session)
        path = f"/v1/{cloud.project_id}/visualization-jobs"
        given = signed(cloud, path, "", wall(), **{"X-Security-Token": "sts"})
        assert (await api("GET", headers=given)).status == 200
        assert (await api("GET", headers=signed(cloud, path, "", wall()))).status == 401


# The gateway


async def test_an_unknown_path_or_method_is_no_api(api: Api) -> None:
    for answer in (
        await api.at("GET", "/v1/p/visualization-job"),
        await api("PATCH", "/1"),
        await api("GET", "/1/stop"),
    ):
        assert (answer.status, answer.body["error_code"]) == (404, "APIGW.0101")


async def test_the_rate_limit_says_how_long_to_wait_and_keeps_its_word(
    session: aiohttp.ClientSession,
) -> None:
    async with Emulator(rate_limit=2, rate_window=60) as cloud:
        api = Api(cloud, session)
        await elapse(0.5)
        passed = [await api("GET") for _ in range(2)]
        assert [answer.headers["X-ratelimit-used"] for answer in passed] == ["1", "2"]
        refused = await api("GET")
        assert (refused.status, refused.body["error_code"]) == (429, "APIGW.0308")
        assert (refused.headers["X-ratelimit"], refused.headers["X-ratelimit-window"]) == ("2", "60")
        await elapse(int(refused.headers["Retry-After"]))
        assert (await api("GET")).status == 200


async def test_every_answer_has_a_request_id_of_its_own(api: Api) -> None:
    answers = [
        await api("GET"),
        await api("GET", "/1"),
        await api("GET", headers={}),
        await api.at("GET", "/x"),
    ]
    assert len({answer.headers["X-request-id"] for answer in answers}) == 4


# The admin routes


async def test_the_admin_routes_do_what_the_methods_do(api: Api, cloud: Emulator) -> None:
    async def admin(method: str, path: str, body: Any = None) -> Any:
        answer = await api.at(method, f"/_emulator/{path}", json=body)
        assert answer.status == 200
        return answer.body

    assert await admin("POST", "jobs", {"count": 2, "status": 8, "project_id": None}) == {"job_ids": [1, 2]}
    assert await admin("POST", "jobs/2/status", {"status": 12, "project_id": None}) == {}
    assert await admin("POST", "jobs", {"statuses": [[0, 1], [60, None]], "job_name": "s"}) == {
        "job_ids": [3]
    }
    listed = (await api("GET")).body["jobs"]
    assert [(job["status"], job["job_name"]) for job in listed] == [(8, "job-1"), (12, "job-2"), (1, "s")]
    assert await admin("POST", "clock/advance", {"seconds": 60}) == {}
    assert [job["job_id"] for job in (await api("GET")).body["jobs"]] == [1, 2]
    path = f"/v1/{cloud.project_id}/visualization-jobs"
    seen = {"method": "GET", "path": path, "query": {}, "status": 200}
    assert await admin("GET", "requests") == {"requests": [seen, seen]}
    assert await admin("POST", "faults", {"kind": "status"}) == {"fault_id": 1}
    assert (await api("GET")).status == 503
    assert await admin("DELETE", "faults") == {}
    assert await admin("POST", "reset") == {}
    assert await admin("GET", "requests") == {"requests": []}
    assert (await api("GET")).body["job_total_count"] == 0
    assert await admin("POST", "jobs", {"project_id": "other"}) == {"job_ids": [4]}


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("jobs", {"jobs": 3}, "key must be one of count, job_desc"),
        ("jobs", {"count": -1}, "count must be a whole number from 0 to 1000000, not -1"),
        ("jobs", {"status": "8"}, "status must be a whole number"),
        ("jobs", {"status": 8, "plan": [[0, 1]]}, "status and plan must not both be given"),
        ("jobs", {"plan": [[0, None], [1, 8]]}, "plan must be 1 to 1000 pairs"),
        ("jobs", {"plan": [[0, 8, 9]]}, "plan must be 1 to 1000 pairs"),
        ("jobs", {"plan": "8"}, "plan must be 1 to 1000 pairs"),
        ("jobs", {"project_id": "a/b"}, "project_id must be 1 to 64"),
        ("jobs", [], "the body must be a JSON object, not []"),
        ("jobs/1/status", {"status": 8}, "job_id must be that of a job of this project, not 1"),
        ("jobs/1/status", {}, "status must be given"),
        ("jobs/x/status", {"status": 8}, "job_id must be a whole number, not 'x'"),
        ("clock/advance", {"seconds": -1}, "seconds must be a number from 0 to 1e+09, not -1"),
        ("clock/advance", {"minutes": 1}, "key must be one of seconds, not 'minutes'"),
        ("reset", {"x": 1}, "key must be one of"),
        ("faults", {"kind": "earthquake"}, "kind must be one of status, latency"),
        ("faults", {}, "kind must be one of status, latency"),
    ],
)
async def test_bad_admin_input_is_refused_with_what_is_allowed(
    path: str, body: Any, text: str, api: Api
) -> None:
    answer = await api.at("POST", f"/_emulator/{path}", json=body)
    assert answer.status == 400
    assert answer.body["error"].startswith(text)


async def test_an_admin_body_that_is_no_json_and_an_unknown_route_are_refused(api: Api) -> None:
    assert (await api.at("POST", "/_emulator/jobs", data=b"{")).body == {"error": "the body must be JSON"}
    answer = await api.at("GET", "/_emulator/jobs")
    assert answer.status == 404
    assert "POST /_emulator/jobs" in answer.body["error"]


async def test_requests_are_remembered_as_sent_up_to_a_bound(session: aiohttp.ClientSession) -> None:
    async with Emulator(request_log=2) as cloud:
        api = Api(cloud, session)
        for page in ("1", "2", "0"):
            await api("GET", params={"page": page})
        assert [(one.method, one.query, one.status) for one in cloud.requests] == [
            ("GET", {"page": "2"}, 200),
            ("GET", {"page": "0"}, 400),
        ]


@pytest.mark.parametrize(
    "lines",
    [
        b"GET %b HTTP/1.1\r\nHost: x\r\nX-Auth-Token: \xff\xfe\r\n",
        b"GET %b HTTP/1.1\r\nHost: [\r\nAuthorization: SDK-HMAC-SHA256 \xff\r\n",
        b"GET %b?search_content=%%ff&status=\xff HTTP/1.1\r\nHost: a b\r\n",
        b"GET %b/%%00 HTTP/1.0\r\n",
        b"POST /v3/auth/tokens HTTP/1.1\r\nHost: \xff\r\nContent-Length: 2\r\n\r\n{}",
        b"DELETE /_emulator/faults HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n\xff",
    ],
)
async def test_nothing_that_a_client_sends_makes_the_emulator_fail(lines: bytes, cloud: Emulator) -> None:
    host, _, port = cloud.endpoint.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    path = f"/v1/{cloud.project_id}/visualization-jobs".encode()
    writer.write(lines.replace(b"%b", path).replace(b"%%", b"%") + b"\r\n")
    status = (await reader.readline()).split()[1]
    writer.close()
    assert 400 <= int(status) < 500


def test_only_so_many_tokens_are_kept_the_oldest_goes_first() -> None:
    tokens = Tokens()
    first = tokens.issue("p", 60)
    second, *_ = [tokens.issue("p", 60) for _ in range(10_000)]
    tokens.check(second, "general", "p", 59)
    with pytest.raises(Refusal, match="0203"):
        tokens.check(first, "general", "p", 59)


# Starting and stopping


async def test_stopping_leaves_no_task_and_no_port_though_clients_hold_connections() -> None:
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as session:
        async with Emulator() as cloud:
            api = Api(cloud, session)
            await api("GET")
            cloud.fault("latency", seconds=1e6)
            waiting = asyncio.create_task(api("GET"))
            await elapse(1)
            endpoint = cloud.endpoint
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 1
        assert asyncio.all_tasks() - before - {waiting} == set()
        with pytest.raises(aiohttp.ClientError):
            await waiting
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(endpoint)


async def test_an_emulator_says_that_it_does_not_run() -> None:
    cloud = Emulator()
    with pytest.raises(ConfigError, match="not running"):
        _ = cloud.endpoint
    async with cloud:
        with pytest.raises(ConfigError, match="running already"):
            await cloud.__aenter__()


async def test_a_port_that_is_taken_is_an_error_and_the_emulator_can_be_started_once_it_is_free() -> None:
    async with Emulator() as other:
        port = int(other.endpoint.rpartition(":")[2])
        cloud = Emulator(port=port)
        with pytest.raises(OSError, match="in use"):
            await cloud.__aenter__()
    async with cloud:
        assert cloud.endpoint == f"http://127.0.0.1:{port}"


async def test_what_is_made_before_the_start_is_there_after_it(session: aiohttp.ClientSession) -> None:
    cloud = Emulator()
    cloud.add_jobs(2, status=8)
    async with cloud:
        assert (await Api(cloud, session)("GET")).body["job_total_count"] == 2
    assert len(cloud.requests) == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("port", 70_000),
        ("port", True),
        ("jobs", -1),
        ("speed", 0),
        ("speed", float("nan")),
        ("life", []),
        ("life", [(1, 8), (0, 9)]),
        ("project_id", "a/b"),
        ("token", ""),
        ("token", "line\nbreak"),
        ("token", "ünicode"),
        ("password", 5),
        ("quota", -1),
        ("rate_limit", 0),
        ("string_numbers", 1),
        ("refusal_status", 500),
        ("regions", ()),
        ("regions", "eu-de"),
        ("regions", ["eu-de", "eu-de"]),
        ("regions", ["eu de"]),
        ("regions", [["eu-de"]]),
    ],
)
def test_an_option_out_of_its_range_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{option} must be"):
        Emulator(**{option: value})


def test_secrets_are_in_no_repr_and_each_emulator_has_its_own() -> None:
    one, two = Emulator(security_token="sts-secret"), Emulator()
    for name in ("token", "password", "access_key", "secret_key"):
        assert getattr(one, name) not in repr(one)
        assert getattr(one, name) != getattr(two, name)
    assert "sts-secret" not in repr(one)


# What must hold always

LIVES = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([0, 1, 4, 7, 8, 9, 10, 11, 12, 15, 99, None])),
    min_size=1,
    max_size=5,
).map(lambda steps: _ordered([(float(at), status) for at, status in steps]))
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), LIVES),
        st.tuples(st.just("advance"), st.floats(0, 40)),
        st.tuples(st.sampled_from(["stop", "restart", "delete"]), st.integers(1, 8)),
    ),
    max_size=15,
)


def _ordered(steps: list[tuple[float, int | None]]) -> list[tuple[float, int | None]]:
    ordered = sorted(steps, key=lambda step: step[0])
    gone = next((index for index, step in enumerate(ordered) if step[1] is None), None)
    return ordered if gone is None else ordered[: gone + 1]


@given(
    actions=ACTIONS,
    per_page=st.integers(1, 7),
    sort_by=st.sampled_from(["job_id", "job_name", "job_desc", "create_time", "status"]),
    order=st.sampled_from(["asc", "desc"]),
    status=st.sampled_from(["", "8", "12"]),
    seed=st.integers(0, 3),
)
def test_pages_partition_the_matching_jobs_and_details_equal_their_rows(
    actions: list[Any], per_page: int, sort_by: str, order: str, status: str, seed: int
) -> None:
    asyncio.run(
        _check_consistency(actions, per_page, {"sortBy": sort_by, "order": order, "status": status}, seed)
    )


async def _check_consistency(actions: list[Any], per_page: int, query: dict[str, str], seed: int) -> None:
    # At this speed the clock moves by `advance` alone, as far as milliseconds show.
    async with Emulator(seed=seed, speed=1e-6) as cloud, aiohttp.ClientSession() as session:
        api = Api(cloud, session)
        for action, argument in actions:
            if action == "add":
                cloud.add_jobs(plan=argument)
            elif action == "advance":
                cloud.advance(argument)
            else:
                method, path = ("DELETE", "") if action == "delete" else ("POST", f"/{action}")
                answer = await api(method, f"/{argument}{path}")
                assert answer.status == 200 or refusal(answer)[1] in {"ModelArts.0105", "ModelArts.0015"}
        await _check_pages(api, per_page, query)


async def _check_pages(api: Api, per_page: int, query: dict[str, str]) -> None:
    whole = (await api("GET", params={**query, "per_page": "1000"})).body
    everything = (await api("GET", params={"per_page": "1000"})).body["jobs"]
    paged = []
    for page in range(1, len(whole["jobs"]) // per_page + 2):
        body = (await api("GET", params={**query, "per_page": str(per_page), "page": str(page)})).body
        assert body["job_total_count"] == whole["job_total_count"] == len(whole["jobs"])
        paged += body["jobs"]
    key = query["sortBy"]
    values = [(job[key], job["job_id"]) for job in paged]
    assert values == sorted(values, reverse=query["order"] == "desc")
    assert paged == whole["jobs"]
    matching = [job for job in everything if query["status"] in {"", str(job["status"])}]
    assert sorted(paged, key=lambda job: job["job_id"]) == matching
    for row in paged:
        assert (await api("GET", f"/{row['job_id']}")).body == {**row, "is_success": True}
