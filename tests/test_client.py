"""The seven operations, listings and errors, over real HTTP against the emulated cloud."""

from __future__ import annotations

import asyncio
import contextlib
import typing
from typing import Any

import anyio
import pytest
from aioresponses import aioresponses
from conftest import ENDPOINT, JOBS, PROJECT
from virtual import elapse

import vizwatch
from vizwatch import JobStatus
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime

now = asyncio.get_running_loop


# --- the seven operations -------------------------------------------------------------------------------


async def test_a_job_lives_through_all_operations(here: vizwatch.Client) -> None:
    job = await here.create_job(
        "board_1", "/obs/name/", job_desc="first", job_type="mindinsight", auto_stop_hours=24
    )
    assert (job.job_name, job.status) == ("board_1", JobStatus.INIT)
    await here.update_job(job.job_id, "second")
    details = await here.get_job(str(job.job_id))
    assert (details.job_desc, details.train_url) == ("second", "/obs/name/")
    assert details.schedule == (vizwatch.Schedule("stop", "HOURS", 24),)
    await here.wait(job.job_id, until=JobStatus.RUNNING, timeout=120)
    await here.stop_job(job.job_id)
    assert (await here.wait(job.job_id, timeout=120)).status is JobStatus.KILLED
    await here.restart_job(job.job_id)
    await here.wait(job.job_id, until=JobStatus.RUNNING, timeout=120)
    await here.delete_job(job.job_id)
    with pytest.raises(vizwatch.JobGoneError) as caught:
        await here.wait(job.job_id, until=JobStatus.COMPLETED, timeout=300)
    assert caught.value.job is not None
    assert caught.value.job.job_id == job.job_id
    with pytest.raises(vizwatch.NotFoundError):
        await here.get_job(job.job_id)


@pytest.mark.fault("S9")
@pytest.mark.parametrize(
    ("call", "status", "text"),
    [
        ("stop_job", 10, "This job can't be stop. job status: 10"),
        ("restart_job", 8, "This job can't be resubmit. job status: 8"),
        ("delete_job", 9, "This job can't be delete. job status: 9"),
    ],
)
async def test_the_documented_refusals(
    cloud: Emulator, here: vizwatch.Client, call: str, status: int, text: str
) -> None:
    (job_id,) = cloud.add_jobs(1, status=status)
    with pytest.raises(vizwatch.ConflictError) as caught:
        await getattr(here, call)(job_id)
    assert (caught.value.error_code, caught.value.message) == ("ModelArts.0105", text)
    assert caught.value.request_id


@pytest.mark.parametrize("call", ["get_job", "stop_job", "restart_job", "delete_job"])
async def test_a_job_that_is_not_there_is_not_found(here: vizwatch.Client, call: str) -> None:
    with pytest.raises(vizwatch.NotFoundError, match=r"ModelArts\.0015"):
        await getattr(here, call)(4711)


@pytest.mark.fault("A9")
async def test_a_wrong_token_is_not_tried_again(cloud: Emulator) -> None:
    async with vizwatch.Client(cloud.endpoint, cloud.project_id, auth="wrong") as client:
        with pytest.raises(vizwatch.AuthenticationError, match=r"ModelArts\.0203"):
            await client.get_job(1)
    assert len(cloud.requests) == 1


@pytest.mark.fault("S1")
async def test_http_200_that_states_a_failure_is_one(answers: aioresponses, client: vizwatch.Client) -> None:
    body = {"is_success": False, "error_code": "ModelArts.0104", "error_message": "parameter error"}
    answers.get(f"{JOBS}/197", payload=body)
    answers.put(f"{JOBS}/197", payload=body)
    for call in (client.get_job(197), client.update_job(197, "text")):
        with pytest.raises(vizwatch.BadRequestError, match="parameter error") as caught:
            await call
        assert (caught.value.http_status, caught.value.error_code) == (200, "ModelArts.0104")


@pytest.mark.fault("H9")
@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_any_2xx_is_success(answers: aioresponses, client: vizwatch.Client, status: int) -> None:
    answers.delete(f"{JOBS}/197", status=status)
    await client.delete_job(197)


async def test_the_job_that_was_asked_for_is_the_one_that_is_given(
    answers: aioresponses, client: vizwatch.Client
) -> None:
    answers.get(f"{JOBS}/197", payload={"job_id": 198, "status": 8}, repeat=True)
    with pytest.raises(vizwatch.ProtocolError, match="asked for job 197, and job 198 was answered"):
        await client.get_job(197)


# --- retries --------------------------------------------------------------------------------------------


@pytest.mark.fault("H1", "H6")
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_read_is_tried_again_and_the_user_does_not_notice(
    cloud: Emulator, here: vizwatch.Client, status: int
) -> None:
    (job_id,) = cloud.add_jobs(1)
    cloud.fault("status", status=status, count=2)
    assert (await here.get_job(job_id)).job_id == job_id
    assert [request.status for request in cloud.requests] == [status, status, 200]


@pytest.mark.fault("H3")
async def test_retry_after_is_the_least_that_is_waited(cloud: Emulator, here: vizwatch.Client) -> None:
    (job_id,) = cloud.add_jobs(1)
    cloud.fault("status", status=503, retry_after=7, count=1)
    started = now().time()
    await here.get_job(job_id)
    assert 7.0 <= now().time() - started <= 8.0


@pytest.mark.fault("H4")
async def test_a_retry_after_that_is_too_long_is_raised_with_its_value(
    cloud: Emulator, here: vizwatch.Client
) -> None:
    (job_id,) = cloud.add_jobs(1)
    cloud.fault("status", status=503, retry_after=90, count=1)
    with pytest.raises(vizwatch.ServerError, match=r"Try again in 90 s\.$"):
        await here.get_job(job_id)
    cloud.fault("status", status=429, code="APIGW.0308", retry_after=3600)
    with pytest.raises(vizwatch.RateLimitError) as caught:
        await here.get_job(job_id)
    assert caught.value.retry_after == 3600
    assert "Wait 3600 s, and set Settings(requests_per_second=…)" in str(caught.value)
    assert len(cloud.requests) == 2


async def test_attempts_are_counted_and_bounded(cloud: Emulator, here: vizwatch.Client) -> None:
    cloud.fault("status", status=503)
    with pytest.raises(vizwatch.ServerError, match=r"after 4 attempts in") as caught:
        await here.get_job(1)
    assert (caught.value.attempts, len(cloud.requests)) == (4, 4)


@pytest.mark.fault("H2")
async def test_a_create_whose_answer_is_lost_is_not_sent_again(
    cloud: Emulator, here: vizwatch.Client
) -> None:
    cloud.fault("status", status=502, match={"operation": "create"})
    with pytest.raises(vizwatch.OutcomeUnknownError, match="create job: it may have happened") as caught:
        await here.create_job("tb", "/obs/name/")
    assert isinstance(caught.value.__cause__, vizwatch.ServerError)
    assert len(cloud.requests) == 1


async def test_requests_keep_within_their_budget(cloud: Emulator) -> None:
    settings = vizwatch.Settings(requests_per_second=2)
    (job_id,) = cloud.add_jobs(1)
    async with vizwatch.Client(
        cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings
    ) as client:
        started = now().time()
        await asyncio.gather(*(client.get_job(job_id) for _ in range(22)))
        assert 9.5 <= now().time() - started <= 11


# --- listings -------------------------------------------------------------------------------------------


async def test_a_listing_goes_through_all_pages(cloud: Emulator, here: vizwatch.Client) -> None:
    ids = cloud.add_jobs(25, status=8)
    assert [job.job_id async for job in here.list_jobs(per_page=10)] == ids
    assert [request.query.get("page") for request in cloud.requests] == ["1", "2", "3"]


async def test_pages_are_given_with_the_wires_own_numbers(cloud: Emulator, here: vizwatch.Client) -> None:
    cloud.add_jobs(25)
    pages = [page async for page in here.list_jobs(per_page=10).pages()]
    assert [(page.page, len(page.jobs), page.job_total_count) for page in pages] == [
        (1, 10, 25),
        (2, 10, 25),
        (3, 5, 25),
    ]
    assert all(page.job_count_limit is not None and page.quotas is not None for page in pages)


async def test_filters_and_order_are_the_services(cloud: Emulator, here: vizwatch.Client) -> None:
    running = cloud.add_jobs(3, status=8)
    failed = cloud.add_jobs(2, status=11)
    assert [job.job_id for job in await here.list_jobs(status=JobStatus.FAILED).collect()] == failed
    newest = here.list_jobs(order="desc", per_page=2)
    assert [job.job_id async for job in newest] == [*reversed(failed), *reversed(running)]
    by_name = await here.list_jobs(sort_by="job_name", search_content="job-1").collect()
    assert [job.job_id for job in by_name] == running[:1]


async def test_a_workspace_shows_its_own_jobs(cloud: Emulator) -> None:
    options: Any = {"auth": cloud.token, "workspace_id": "w1"}
    async with vizwatch.Client(cloud.endpoint, cloud.project_id, **options) as client:
        job = await client.create_job("tb", "/obs/name/")
        assert [one.job_id for one in await client.list_jobs().collect()] == [job.job_id]
        assert await client.list_jobs(workspace_id="0").collect() == []


@pytest.mark.parametrize(("limit", "requests"), [(0, 0), (3, 1), (10, 1), (12, 2), (100, 3)])
async def test_a_limit_ends_a_listing_without_another_request(
    cloud: Emulator, here: vizwatch.Client, limit: int, requests: int
) -> None:
    ids = cloud.add_jobs(25, status=8)
    jobs = await here.list_jobs(limit=limit, per_page=10).collect()
    assert [job.job_id for job in jobs] == ids[:limit]
    assert len(cloud.requests) == requests


async def test_a_listing_may_begin_at_a_later_page(cloud: Emulator, here: vizwatch.Client) -> None:
    ids = cloud.add_jobs(25, status=8)
    assert [job.job_id async for job in here.list_jobs(per_page=10, page=2)] == ids[10:]


@pytest.mark.fault("P8")
async def test_a_listing_broken_off_leaves_nothing_open_and_can_be_read_again(
    cloud: Emulator, here: vizwatch.Client
) -> None:
    ids = cloud.add_jobs(25, status=8)
    pager = here.list_jobs(per_page=10)
    async for job in pager:
        assert job.job_id == ids[0]
        break
    assert len(cloud.requests) == 1
    assert not [task for task in asyncio.all_tasks() if "aclose" in repr(task)]
    assert len(await pager.collect()) == 25


async def test_an_error_on_a_later_page_comes_after_the_jobs_before_it(
    cloud: Emulator, here: vizwatch.Client
) -> None:
    ids = cloud.add_jobs(25, status=8)
    cloud.fault("status", status=403, code="ModelArts.0108", after=1)
    seen: list[int] = []
    with pytest.raises(vizwatch.PermissionDeniedError):
        async for job in here.list_jobs(per_page=10):
            seen.append(job.job_id)  # noqa: PERF401 - what came before the error is the point
    assert seen == ids[:10]


# --- arguments ------------------------------------------------------------------------------------------


@pytest.mark.fault("S12")
@pytest.mark.parametrize(
    "arguments",
    [
        {"per_page": 0},
        {"per_page": 1001},
        {"per_page": "10"},
        {"page": 0},
        {"limit": -1},
        {"limit": True},
        {"sort_by": "duration"},
        {"sort_by": None},
        {"order": "up"},
        {"status": "8"},
        {"status": True},
        {"search_content": "x" * 101},
        {"search_content": 7},
        {"workspace_id": "a/b"},
    ],
)
async def test_a_wrong_argument_of_a_listing_is_named_before_any_request(
    cloud: Emulator, here: vizwatch.Client, arguments: dict[str, Any]
) -> None:
    (name,) = arguments
    with pytest.raises(vizwatch.ConfigError, match=f"{name} must be .*, not "):
        here.list_jobs(**arguments)
    assert not cloud.requests


@pytest.mark.fault("X5")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"endpoint": "example.com"}, "endpoint must be"),
        ({"endpoint": f"{ENDPOINT}/v1"}, "without path, not"),
        ({"endpoint": "http://example.com"}, "allow_insecure"),
        ({"project_id": "my project"}, "project_id must be"),
        ({"workspace_id": ""}, "workspace_id must be"),
        ({"auth": ""}, "token must be"),
        ({"auth": "canary-token\n"}, "it begins or ends in a newline or a space"),
        ({"auth": "canary\r\nX: y"}, "token must be"),
        ({"auth": None}, "auth must be a token or an Auth"),
        ({"settings": {}}, "settings must be a Settings"),
        ({"allow_insecure": "yes"}, "allow_insecure must be True or False"),
    ],
)
def test_a_wrong_argument_of_a_client_is_named(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(vizwatch.ConfigError, match=text) as caught:
        vizwatch.Client(**{"endpoint": ENDPOINT, "project_id": PROJECT, "auth": "t", **arguments})
    assert "canary" not in str(caught.value)


@pytest.mark.fault("X5")
async def test_credentials_that_no_header_may_have_are_refused() -> None:
    class Broken:
        async def headers(self, request: vizwatch.Outgoing, /) -> dict[str, str]:
            return {"X-Auth-Token": "canary\r\nX-Other: y"}

    async with vizwatch.Client(ENDPOINT, PROJECT, auth=Broken()) as client:
        with pytest.raises(vizwatch.ConfigError, match="it must be printable ASCII") as caught:
            await client.get_job(197)
    assert "canary" not in str(caught.value)


async def test_credentials_that_never_come_end_with_the_call() -> None:
    class Hanging:
        async def headers(self, request: vizwatch.Outgoing, /) -> dict[str, str]:
            await elapse(3600)
            return {}

    async with vizwatch.Client(ENDPOINT, PROJECT, auth=Hanging()) as client:
        with pytest.raises(vizwatch.ConnectError, match="waiting for credentials"):
            await client.get_job(197)


@pytest.mark.fault("U6")
def test_a_client_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"VIZWATCH_ENDPOINT": ENDPOINT, "VIZWATCH_PROJECT_ID": PROJECT, "VIZWATCH_TOKEN": "t"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    client = vizwatch.Client.from_env()
    assert (client.endpoint, client.project_id) == (ENDPOINT, PROJECT)
    given = vizwatch.Client.from_env(region="eu-de", project_id="other", workspace_id="7")
    assert given.endpoint == ENDPOINT
    assert (given.project_id, given.workspace_id) == ("other", "7")
    for name in values:
        with monkeypatch.context() as patch:
            patch.setenv(name, "  ")
            with pytest.raises(vizwatch.ConfigError, match=f"^{name} is set, but blank"):
                vizwatch.Client.from_env()
    with pytest.raises(vizwatch.ConfigError, match="settings must be a Settings"):
        vizwatch.Client.from_env(settings=typing.cast("vizwatch.Settings", {}))


# --- opening and closing --------------------------------------------------------------------------------


@pytest.mark.fault("C6", "U7")
async def test_a_client_is_used_inside_async_with() -> None:
    client = vizwatch.Client(ENDPOINT, PROJECT, auth="t")
    with pytest.raises(vizwatch.ConfigError, match="async with"):
        await client.get_job(197)
    with pytest.raises(vizwatch.ConfigError, match="async with"):
        client.watch(197)
    async with client:
        with pytest.raises(vizwatch.ConfigError, match="open already"):
            await client.__aenter__()
    await client.aclose()
    for use in (client.get_job(197), client.__aenter__()):
        with pytest.raises(vizwatch.ClientClosedError):
            await use


@pytest.mark.fault("U8")
async def test_a_listing_is_neither_awaited_nor_iterated_without_async(client: vizwatch.Client) -> None:
    with pytest.raises(vizwatch.ConfigError, match="async for"):
        list(client.list_jobs())  # type: ignore[call-overload] # the mistake is the point
    with pytest.raises(vizwatch.ConfigError, match="async for"):
        await client.list_jobs()  # type: ignore[misc] # the mistake is the point


@pytest.mark.fault("U8")
async def test_a_watch_is_neither_awaited_nor_iterated_without_async(client: vizwatch.Client) -> None:
    with pytest.raises(vizwatch.ConfigError, match=r"`async for transition in client\.watch\(…\)`"):
        for _ in client.watch(1):  # type: ignore[attr-defined] # the mistake is the point
            pass
    with pytest.raises(vizwatch.ConfigError, match=r"`await client\.wait\(…\)`"):
        await client.watch(1)  # type: ignore[misc] # the mistake is the point


@pytest.mark.fault("U8", "U7")
def test_a_client_is_not_entered_without_async() -> None:
    with pytest.raises(
        vizwatch.ConfigError, match=r"write `async with Client\(…\) as client` in a coroutine"
    ):
        with vizwatch.Client(ENDPOINT, PROJECT, auth="t"):
            pass


@pytest.mark.fault("C6")
def test_a_client_belongs_to_the_loop_that_opened_it() -> None:
    client = vizwatch.Client(ENDPOINT, PROJECT, auth="t")
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(client.__aenter__())
        with pytest.raises(vizwatch.ConfigError, match="another event loop"):
            second.run(client.get_job(197))
        first.run(client.aclose())


async def test_calls_under_way_end_when_the_client_is_closed(cloud: Emulator) -> None:
    cloud.fault("latency", seconds=20)
    client = vizwatch.Client(cloud.endpoint, cloud.project_id, auth=cloud.token)
    await client.__aenter__()
    call = asyncio.create_task(client.get_job(1))
    await elapse(1)
    started = now().time()
    await client.aclose()
    with pytest.raises(vizwatch.ClientClosedError):
        await call
    assert now().time() - started < 5


@pytest.mark.fault("C10", "C11")
async def test_a_client_is_closed_in_a_cancelled_scope_too(cloud: Emulator) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    with anyio.CancelScope() as scope:
        async with vizwatch.Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            async for _ in client.watch(job_id):
                scope.cancel()
    assert scope.cancelled_caught
    assert client._project._session is not None
    assert client._project._session._transport._session.closed


@pytest.mark.fault("C1")
@pytest.mark.parametrize("what", ["get", "list", "watch", "create"])
async def test_a_call_may_be_cancelled_at_any_step(cloud: Emulator, here: vizwatch.Client, what: str) -> None:
    """After any number of steps of the event loop no slot and no call is left, and the client works on."""
    (job_id,) = cloud.add_jobs(1, status=8)
    session = here._project._opened()

    async def work() -> None:
        match what:
            case "get":
                await here.get_job(job_id)
            case "list":
                await here.list_jobs().collect()
            case "watch":
                await anext(here.watch(job_id))
            case _:
                await here.create_job("tb", "/obs/name/")

    ended = 0
    for steps in range(200):
        task = asyncio.create_task(work())
        for _ in range(steps):
            await asyncio.sleep(0)  # a step, and no time
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert session._transport._places._free == here.settings.pool_size
        assert not session._calls
        ended += not task.cancelled()
        if ended > 3:
            break
    assert ended > 3
    assert (await here.get_job(job_id)).job_id == job_id


@pytest.mark.fault("C6", "C11")
async def test_a_client_whose_closing_is_cancelled_is_closed_all_the_same(cloud: Emulator) -> None:
    for steps in range(12):
        client = vizwatch.Client(cloud.endpoint, cloud.project_id, auth=cloud.token)
        await client.__aenter__()
        await client.list_jobs().collect()
        closing = asyncio.create_task(client.aclose())
        for _ in range(steps):
            await asyncio.sleep(0)  # a step, and no time
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        await client.aclose()
        assert client._project._session is not None
        assert client._project._session._transport._session.closed


@pytest.mark.fault("N8")
async def test_cancelling_a_call_frees_its_connection(cloud: Emulator) -> None:
    settings = vizwatch.Settings(pool_size=1)
    (job_id,) = cloud.add_jobs(1)
    cloud.fault("latency", seconds=20, count=1)
    async with vizwatch.Client(
        cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings
    ) as client:
        call = asyncio.create_task(client.get_job(job_id))
        await elapse(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        started = now().time()
        await client.get_job(job_id)
        assert now().time() - started < 1
