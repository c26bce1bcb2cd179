"""The emulated cloud misbehaves as it is told and for as long, over real HTTP and in virtual time."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import attrs
import pytest
from virtual import elapse

from vizwatch import ConfigError, JobStatus
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


class NoAnswerError(Exception):
    """The connection was closed without an answer."""


@attrs.frozen
class Answer:
    status: int
    headers: Any
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


@attrs.frozen
class Api:
    """A client that tries once, and gives the answer as it came."""

    cloud: Emulator
    session: aiohttp.ClientSession

    async def __call__(self, method: str = "GET", path: str = "", **kwargs: Any) -> Answer:
        base = f"{self.cloud.endpoint}/v1/{self.cloud.project_id}/visualization-jobs"
        headers = {"X-Auth-Token": self.cloud.token}
        async with self.session.request(method, base + path, **{"headers": headers, **kwargs}) as response:
            return Answer(response.status, response.headers, await response.text())

    async def statuses(self, times: int, path: str = "", method: str = "GET") -> list[int]:
        return [(await self(method, path)).status for _ in range(times)]

    async def job_status(self, job_id: int) -> int | None:
        answer = await self("GET", f"/{job_id}")
        return None if answer.status == 404 else int(answer.body["status"])


@pytest.fixture
async def api(cloud: Emulator) -> AsyncIterator[Api]:
    # aiohttp sends GET, PUT and DELETE twice when no answer comes; each test means one request.
    async def once(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        except aiohttp.ServerDisconnectedError as error:
            raise NoAnswerError from error

    async with aiohttp.ClientSession(middlewares=[once]) as session:
        yield Api(cloud, session)


# When a fault strikes


async def test_a_fault_strikes_as_often_as_its_count(api: Api, cloud: Emulator) -> None:
    cloud.fault("status", status=503, count=2)
    assert await api.statuses(4) == [503, 503, 200, 200]


async def test_a_fault_ends_with_its_time_to_live(api: Api, cloud: Emulator) -> None:
    cloud.fault("status", status=500, ttl=10)
    await elapse(9)
    assert await api.statuses(1) == [500]
    cloud.advance(1)
    assert await api.statuses(1) == [200]


async def test_every_and_after_choose_among_the_matching_requests(api: Api, cloud: Emulator) -> None:
    cloud.fault("status", status=500, every=3, after=1)
    assert await api.statuses(8) == [200, 200, 200, 500, 200, 200, 500, 200]


@pytest.mark.parametrize(
    ("match", "struck"),
    [
        ({}, [500, 500, 500]),
        ({"method": "post"}, [200, 200, 500]),
        ({"operation": "details"}, [200, 500, 200]),
        ({"path": "/2"}, [200, 500, 500]),
        ({"path": "*/visualization-jobs"}, [500, 200, 200]),
        ({"path": "*/[12]/stop"}, [200, 200, 500]),
        ({"job_id": 2}, [200, 500, 500]),
        ({"job_id": 2, "method": "GET"}, [200, 500, 200]),
        ({"job_id": 3}, [200, 200, 200]),
        ({"project_id": "other"}, [200, 200, 200]),
        ({"operation": "token"}, [200, 200, 200]),
    ],
    ids=str,
)
async def test_a_fault_strikes_only_what_matches(
    match: dict[str, Any], struck: list[int], api: Api, cloud: Emulator
) -> None:
    cloud.add_jobs(2, status=8)
    cloud.fault("status", status=500, match=match)
    found = [
        (await api(method, path)).status for method, path in (("GET", ""), ("GET", "/2"), ("POST", "/2/stop"))
    ]
    assert found == struck


async def test_the_token_call_can_be_struck_too(api: Api, cloud: Emulator) -> None:
    cloud.fault("status", status=503, match={"operation": "token"})
    async with api.session.post(f"{cloud.endpoint}/v3/auth/tokens", json={}) as response:
        assert response.status == 503


async def test_clearing_ends_every_fault_and_admin_routes_are_never_struck(api: Api, cloud: Emulator) -> None:
    cloud.fault("drop")
    cloud.fault("status")
    async with api.session.delete(f"{cloud.endpoint}/_emulator/faults") as response:
        assert (response.status, await response.json()) == (200, {})
    assert await api.statuses(1) == [200]


async def test_faults_add_up(api: Api, cloud: Emulator) -> None:
    cloud.fault("latency", seconds=3)
    cloud.fault("latency", seconds=4)
    cloud.fault("status", status=504)
    began = cloud.now
    assert await api.statuses(1) == [504]
    assert cloud.now - began == pytest.approx(7)


# What a fault does


async def test_status_answers_in_the_services_form_and_performs_nothing(api: Api, cloud: Emulator) -> None:
    cloud.add_jobs(1, status=8)
    cloud.fault(
        "status", status=429, code="ModelArts.2799", message="busy", retry_after=7, headers={"X-a": "b"}
    )
    answer = await api("POST", "/1/stop")
    assert (answer.status, answer.headers["Retry-After"], answer.headers["X-a"]) == (429, "7", "b")
    assert answer.body == {
        "is_success": False,
        "error_code": "ModelArts.2799",
        "error_message": "busy",
    }
    cloud.clear_faults()
    assert await api.job_status(1) == JobStatus.RUNNING


async def test_retry_after_can_be_any_text(api: Api, cloud: Emulator) -> None:
    cloud.fault("status", retry_after="Wed, 21 Oct 2015 07:28:00 GMT")
    answer = await api()
    assert answer.headers["Retry-After"] == "Wed, 21 Oct 2015 07:28:00 GMT"
    assert "error_code" not in answer.body


async def test_drop_closes_without_an_answer_and_the_log_shows_the_request(api: Api, cloud: Emulator) -> None:
    cloud.add_jobs(1, status=8)
    cloud.fault("drop", count=1)
    with pytest.raises(NoAnswerError):
        await api("POST", "/1/stop")
    assert [(one.method, one.status) for one in cloud.requests] == [("POST", None)]
    assert await api.job_status(1) == JobStatus.RUNNING


@pytest.mark.parametrize(
    ("kind", "params"),
    [("drop", {}), ("status", {"status": 502}), ("body", {"text": "<html>", "content_type": "text/html"})],
)
async def test_the_operation_can_be_performed_though_its_answer_is_lost(
    kind: str, params: dict[str, Any], api: Api, cloud: Emulator
) -> None:
    cloud.fault(kind, performed=True, count=1, **params)
    new = {"job_name": "lost", "train_url": "/obs/"}
    try:
        answer = await api("POST", json=new)
        assert kind != "drop"
        assert answer.status == params.get("status", 200)
    except NoAnswerError:
        assert kind == "drop"
    assert [job["job_name"] for job in (await api()).body["jobs"]] == ["lost"]


@pytest.mark.parametrize("sent", [0, 1, 20, 100_000])
async def test_truncate_sends_the_first_bytes_of_the_body_and_closes(
    sent: int, api: Api, cloud: Emulator
) -> None:
    cloud.add_jobs(3)
    whole = (await api()).text.encode()
    cloud.fault("truncate", bytes=sent)
    host, _, port = cloud.endpoint.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    path = f"/v1/{cloud.project_id}/visualization-jobs"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {cloud.token}\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert f"Content-Length: {len(whole)}".encode() in head
    assert body == whole[:sent]


async def test_latency_delays_the_answer_and_what_a_read_sees(api: Api, cloud: Emulator) -> None:
    cloud.add_jobs(1, plan=[(0, 7), (5, 8)])
    cloud.fault("latency", seconds=10, count=1)
    assert await api.job_status(1) == JobStatus.RUNNING
    assert cloud.now == pytest.approx(10)
    cloud.set_status(1, 7)
    cloud.fault("latency", seconds=10, count=1, performed=True)
    reading = asyncio.create_task(api.job_status(1))
    await elapse(5)
    cloud.set_status(1, 8)
    assert await reading == JobStatus.WAITING


async def test_a_client_that_gives_up_during_latency_ends_the_handler(api: Api, cloud: Emulator) -> None:
    cloud.add_jobs(1, status=8)
    cloud.fault("latency", seconds=60, count=1)
    with pytest.raises(TimeoutError):
        await api("POST", "/1/stop", timeout=aiohttp.ClientTimeout(total=1))
    await elapse(100)
    assert await api.job_status(1) == JobStatus.RUNNING


async def test_body_answers_any_text(api: Api, cloud: Emulator) -> None:
    cloud.fault("body", text="<html>login</html>", content_type="text/html")
    answer = await api()
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html")
    assert answer.text == "<html>login</html>"


async def test_stale_reads_show_the_state_of_some_seconds_ago(api: Api, cloud: Emulator) -> None:
    cloud.add_jobs(1, plan=[(0, 1), (10, 8), (20, 10)])
    cloud.fault("stale", seconds=5)
    seen = []
    for _ in range(6):
        seen.append(await api.job_status(1))
        await elapse(5)
    assert seen == [None, 1, 1, 8, 8, 10]


async def test_stale_lists_and_details_agree_on_created_changed_and_deleted_jobs(
    api: Api, cloud: Emulator
) -> None:
    first, second = cloud.add_jobs(2, status=8, job_desc="old")
    (elsewhere,) = cloud.add_jobs(1, status=8, workspace_id="w")
    await elapse(10)
    await api("PUT", f"/{first}", json={"job_desc": "new"})
    cloud.set_status(second, None)
    cloud.set_status(elsewhere, None)
    (third,) = cloud.add_jobs(1, status=8)
    cloud.fault("stale", seconds=3, ttl=3.0)
    await elapse(1)
    query = {"sortBy": "job_name", "order": "desc", "status": "8"}
    listed = (await api("GET", params=query)).body
    assert [(job["job_id"], job["job_desc"]) for job in listed["jobs"]] == [(second, "old"), (first, "old")]
    assert [(await api("GET", f"/{job_id}")).status for job_id in (first, second, third)] == [200, 200, 404]
    for row in listed["jobs"]:
        assert (await api("GET", f"/{row['job_id']}")).body == {**row, "is_success": True}
    await elapse(3)
    cloud.fault("stale", seconds=1)
    listed = (await api("GET")).body
    assert [(job["job_id"], job["job_desc"]) for job in listed["jobs"]] == [(first, "new"), (third, "")]


async def test_what_a_job_was_is_remembered_up_to_a_bound(api: Api, cloud: Emulator) -> None:
    cloud.add_jobs(1, status=1)
    for status in range(150):
        await elapse(1)
        cloud.set_status(1, status + 100)
    for seconds, status in ((10, 239), (99, 150), (149, 150)):
        cloud.fault("stale", seconds=seconds, count=1)
        assert await api.job_status(1) == status


async def test_writes_are_never_stale(api: Api, cloud: Emulator) -> None:
    cloud.add_jobs(1, status=8)
    await elapse(10)
    cloud.fault("stale", seconds=5, count=1)
    await api("POST", "/1/stop")
    assert (await api("POST", "/1/stop")).body["error_message"] == "This job can't be stop. job status: 9"
    assert await api.job_status(1) == JobStatus.RUNNING


async def test_with_replica_lag_each_second_read_is_behind(api: Api, cloud: Emulator) -> None:
    cloud.add_jobs(1, plan=[(0, 7), (100, 8)])
    cloud.fault("replica_lag", seconds=5)
    await elapse(101)
    assert [await api.job_status(1) for _ in range(5)] == [8, 7, 8, 7, 8]


async def test_token_expiry_ends_every_token_once(api: Api, cloud: Emulator) -> None:
    user = {"name": cloud.user, "password": cloud.password, "domain": {"name": cloud.domain}}
    call = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"id": cloud.project_id}},
        }
    }

    async def new_token() -> str:
        async with api.session.post(f"{cloud.endpoint}/v3/auth/tokens", json=call) as response:
            return response.headers["X-Subject-Token"]

    general, issued = cloud.token, await new_token()
    cloud.fault("token_expiry")
    later = await new_token()
    for token in (general, issued, later):
        answer = await api("GET", headers={"X-Auth-Token": token})
        assert (answer.status, answer.body["error_code"]) == (401, "ModelArts.0202")
    assert cloud.token != general
    for token in (cloud.token, await new_token()):
        assert (await api("GET", headers={"X-Auth-Token": token})).status == 200


async def test_drift_inserts_and_deletes_before_each_page_by_the_seed() -> None:
    async def pages() -> list[list[int]]:
        async with Emulator(seed=7) as cloud, aiohttp.ClientSession() as session:
            api = Api(cloud, session)
            cloud.add_jobs(20)
            cloud.add_jobs(1, workspace_id="w")
            cloud.fault("drift", insert=2, delete=3)
            found = [(await api("GET", params={"page": page})).body for page in ("1", "2")]
            assert [body["job_total_count"] for body in found] == [19, 18]
            cloud.clear_faults()
            assert (await api("GET", params={"workspace_id": "w"})).body["job_total_count"] == 1
            return [[job["job_id"] for job in body["jobs"]] for body in found]

    first, second = await pages(), await pages()
    assert first == second


async def test_drift_of_an_empty_project_deletes_nothing(api: Api, cloud: Emulator) -> None:
    cloud.fault("drift", insert=0, delete=5)
    assert (await api()).body["job_total_count"] == 0


# What is refused


@pytest.mark.parametrize(
    ("kind", "params", "text"),
    [
        ("quake", {}, "kind must be one of status, latency"),
        ("drop", {"seconds": 1}, "a parameter of drop must be one of performed, not 'seconds'"),
        ("status", {"status": 99}, "status must be a whole number from 200 to 599, not 99"),
        ("status", {"code": 5}, "code must be a string"),
        ("status", {"retry_after": "a\nb"}, "retry_after must be a number or a printable string"),
        ("status", {"retry_after": True}, "retry_after must be a number or a printable string"),
        ("status", {"headers": {"X-a": "b\r\nX-c: d"}}, "headers must be an object of header names"),
        ("status", {"headers": []}, "headers must be an object of header names"),
        ("body", {"content_type": "a\nb"}, "content_type must be a number or a printable string"),
        ("latency", {"seconds": -1}, "seconds must be a number from 0"),
        ("latency", {"seconds": None}, "seconds must be a number from 0"),
        ("truncate", {"bytes": 1.5}, "bytes must be a whole number"),
        ("drop", {"performed": "yes"}, "performed must be true or false"),
        ("drop", {"match": "GET"}, "match must be an object"),
        ("drop", {"match": {"verb": "GET"}}, "a condition of match must be one of job_id, method"),
        ("drop", {"match": {"operation": "read"}}, "operation must be one of create, delete"),
        ("drop", {"count": 0}, "count must be a whole number from 1"),
        ("drop", {"ttl": -1}, "ttl must be a number from 0"),
        ("drop", {"every": 0}, "every must be a whole number from 1"),
        ("drop", {"after": -1}, "after must be a whole number from 0"),
    ],
)
async def test_a_fault_that_means_nothing_is_refused_by_method_and_route(
    kind: str, params: dict[str, Any], text: str, api: Api, cloud: Emulator
) -> None:
    with pytest.raises(ConfigError) as caught:
        cloud.fault(kind, **params)
    assert str(caught.value).startswith(text)
    async with api.session.post(
        f"{cloud.endpoint}/_emulator/faults", json={"kind": kind, **params}
    ) as response:
        assert (response.status, await response.json()) == (400, {"error": str(caught.value)})
    assert await api.statuses(1) == [200]


async def test_a_faults_parameter_named_like_pythons_own_is_refused(api: Api, cloud: Emulator) -> None:
    body = {"kind": "drop", "self": 1}
    async with api.session.post(f"{cloud.endpoint}/_emulator/faults", json=body) as response:
        assert (response.status, (await response.json())["error"]) == (
            400,
            "a parameter of drop must be one of performed, not 'self'",
        )
