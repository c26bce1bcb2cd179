"""Credentials: tokens got by password, signatures, and what a refusal of them costs."""

from __future__ import annotations

import asyncio
import datetime as dt
import pickle
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from canaries import shown
from servers import RawServer, http
from virtual import elapse

import vizwatch
from vizwatch import AkSkAuth, Attempt, Client, PasswordAuth, Settings, printable
from vizwatch._world.line import Due
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime

DAY = 86_400.0


def password_auth(cloud: Emulator, **options: Any) -> PasswordAuth:
    given = {"username": "emulator", "password": cloud.password, "domain_name": "emulator"}
    return PasswordAuth(cloud.endpoint, **{**given, "project_id": cloud.project_id, **options})


@asynccontextmanager
async def client_of(cloud: Emulator, auth: vizwatch.Auth, **options: Any) -> AsyncIterator[Client]:
    async with Client(cloud.endpoint, cloud.project_id, auth=auth, **options) as client:
        yield client


def token_calls(cloud: Emulator) -> int:
    return sum(request.path == "/v3/auth/tokens" for request in cloud.requests)


def jobs_statuses(cloud: Emulator) -> list[int | None]:
    return [request.status for request in cloud.requests if request.path != "/v3/auth/tokens"]


# --- tokens by password ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "/", "/v3", "/v3/"])
async def test_one_token_serves_all_requests(cloud: Emulator, suffix: str) -> None:
    auth = PasswordAuth(
        cloud.endpoint + suffix,
        username="emulator",
        password=cloud.password,
        domain_name="emulator",
        project_name="vizwatch",
    )
    async with client_of(cloud, auth) as client:
        await asyncio.gather(*(client.list_jobs().collect() for _ in range(20)))
    assert token_calls(cloud) == 1
    assert jobs_statuses(cloud) == [200] * 20


@pytest.mark.fault("A5")
async def test_a_token_is_renewed_at_four_fifths_of_its_life(cloud: Emulator) -> None:
    auth = password_auth(cloud)
    (job_id,) = cloud.add_jobs(1, status=8)
    async with client_of(cloud, auth) as client:
        await client.get_job(job_id)
        await elapse(0.74 * DAY)
        await client.get_job(job_id)
        assert token_calls(cloud) == 1
        await elapse(0.12 * DAY)
        await client.get_job(job_id)
        await elapse(1)
        assert token_calls(cloud) == 2
        await elapse(0.15 * DAY)
        await client.get_job(job_id)
    assert jobs_statuses(cloud) == [200] * 4
    assert token_calls(cloud) == 2


@pytest.mark.repeats
@pytest.mark.fault("A5")
async def test_a_month_of_rotations_is_seen_by_nobody(cloud: Emulator) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    async with client_of(cloud, password_auth(cloud)) as client:
        with pytest.raises(vizwatch.WatchTimeoutError):
            async for _ in client.watch(job_id, interval=4 * 3600, timeout=30 * DAY):
                pass
    assert set(jobs_statuses(cloud)) == {200}
    assert 30 <= token_calls(cloud) <= 30 / 0.75 + 2


@pytest.mark.fault("A1")
async def test_a_refused_token_is_renewed_once_and_the_request_sent_again(cloud: Emulator) -> None:
    """A create too: refused for its credentials it was not carried out."""
    async with client_of(cloud, password_auth(cloud)) as client:
        await client.create_job("one", "/obs/name/")
        cloud.fault("token_expiry")
        job = await client.create_job("two", "/obs/name/")
        assert [one.job_name for one in await client.list_jobs().collect()] == ["one", "two"]
    assert job.job_id
    assert jobs_statuses(cloud) == [200, 401, 200, 200]
    assert token_calls(cloud) == 2


@pytest.mark.fault("A3")
@pytest.mark.fault("A1", "A5")
async def test_tokens_that_are_revoked_again_and_again_end_no_watch_if_each_was_taken_once(
    cloud: Emulator,
) -> None:
    (job_id,) = cloud.add_jobs(1, plan=[[0, 8], [290, 12]])
    async with client_of(cloud, password_auth(cloud)) as client:
        watching = asyncio.create_task(client.wait(job_id, timeout=600, interval=10))
        for _ in range(12):
            await elapse(20)
            cloud.fault("token_expiry")
        assert (await watching).status is vizwatch.JobStatus.KILLED
    assert 12 <= token_calls(cloud) <= 14


@pytest.mark.fault("A1")
@pytest.mark.repeats
@pytest.mark.fault("A3", "N18")
async def test_watches_that_waited_for_a_new_token_do_not_all_go_on_at_once(cloud: Emulator) -> None:
    """Those whose requests were refused, and those who came meanwhile; nor do many that begin together."""
    sent = Counter[int]()

    def count(_: Attempt) -> None:
        sent[int(asyncio.get_running_loop().time() - began)] += 1

    began = asyncio.get_running_loop().time()
    settings = Settings(shared_reads=False, on_request=count)
    cloud.fault("latency", seconds=3, match={"operation": "token"})
    async with (
        client_of(cloud, password_auth(cloud), settings=settings) as client,
        anyio.create_task_group() as tasks,
    ):

        async def follow(job_id: int) -> None:
            async for _ in client.watch(job_id):
                pass

        for job_id in cloud.add_jobs(600, status=1):
            tasks.start_soon(follow, job_id)
        await elapse(60)
        usual = 600 / settings.poll_interval
        cloud.fault("token_expiry")
        await elapse(30)
        tasks.cancel_scope.cancel()
    assert max(sent[second] for second in range(20, 90)) <= 2 * usual


async def test_a_token_that_is_revoked_before_its_first_use_ends_no_other_watch(cloud: Emulator) -> None:
    ids = cloud.add_jobs(20, plan=[[0, 8], [400, 12]])
    async with client_of(cloud, password_auth(cloud)) as client:
        watches = [asyncio.create_task(client.wait(job_id, timeout=900, interval=10)) for job_id in ids]
        await elapse(100)
        # What a look of a watch gets in place of a revoked token is revoked before it is used.
        cloud.fault("token_expiry", count=2)
        outcomes = await asyncio.gather(*watches, return_exceptions=True)
    ended = [one for one in outcomes if isinstance(one, vizwatch.Job)]
    assert len(ended) >= len(ids) - 1
    assert token_calls(cloud) <= 5


async def test_many_refused_together_cost_one_call(cloud: Emulator) -> None:
    ids = cloud.add_jobs(300, status=8)
    async with client_of(cloud, password_auth(cloud)) as client:
        await client.get_job(ids[0])
        cloud.fault("token_expiry")
        await asyncio.gather(*(client.get_job(job_id) for job_id in ids))
    assert token_calls(cloud) == 2


@pytest.mark.fault("A3")
async def test_ten_thousand_refusals_cost_one_call_though_the_callers_come_and_go(cloud: Emulator) -> None:
    auth = password_auth(cloud)
    refused = await auth.headers(vizwatch.Outgoing("GET", cloud.endpoint))
    cloud.fault("token_expiry", match={"operation": "details"})
    cloud.fault("latency", seconds=1, match={"operation": "token"})
    renewals = [asyncio.create_task(auth.renew(refused)) for _ in range(10_000)]
    await elapse(0.5)
    for renewal in renewals[1::2]:
        renewal.cancel()
    outcomes = await asyncio.gather(*renewals, return_exceptions=True)
    assert outcomes[::2] == [True] * 5_000
    assert {type(outcome) for outcome in outcomes[1::2]} == {asyncio.CancelledError}
    assert token_calls(cloud) == 2
    assert await auth.headers(vizwatch.Outgoing("GET", cloud.endpoint)) != refused
    assert await auth.renew(refused), "whoever comes late"
    assert token_calls(cloud) == 2


@pytest.mark.fault("A2")
@pytest.mark.parametrize("apart", [0.0, 15.0], ids=["in step", "spread over an interval"])
async def test_a_token_that_is_refused_for_ever_ends_every_watch_once_and_costs_one_renewal_a_minute(
    cloud: Emulator, apart: float
) -> None:
    """A watch ends when two tokens were refused to itself: one alone may have been revoked meanwhile."""
    ids = cloud.add_jobs(200, status=8)
    ends = dict.fromkeys(ids, 0)

    async def watched(client: Client, job_id: int, after: float) -> None:
        await elapse(after)
        with pytest.raises(vizwatch.AuthenticationError):
            async for _ in client.watch(job_id):
                pass
        ends[job_id] += 1

    async with client_of(cloud, password_auth(cloud)) as client:
        await client.get_job(ids[0])
        starts = [n * apart / len(ids) for n in range(len(ids))]
        watches = [asyncio.create_task(watched(client, *one)) for one in zip(ids, starts, strict=True)]
        await elapse(16)
        for operation in ("details", "list"):
            cloud.fault("status", status=401, code="ModelArts.0203", match={"operation": operation})
        async with asyncio.timeout(120):
            await asyncio.gather(*watches)
    assert set(ends.values()) == {1}
    assert token_calls(cloud) <= 3
    assert jobs_statuses(cloud).count(401) <= len(ids) * 3


@pytest.mark.fault("A2")
async def test_a_token_that_is_refused_for_ever_is_renewed_once_a_minute_at_most(cloud: Emulator) -> None:
    async with client_of(cloud, password_auth(cloud)) as client:
        cloud.fault("status", status=401, code="ModelArts.0202", match={"operation": "details"})
        for _ in range(600):
            with pytest.raises(vizwatch.AuthenticationError, match=r"ModelArts\.0202"):
                await client.get_job(1)
            await elapse(1)
        assert 10 <= token_calls(cloud) <= 1 + 10
        cloud.clear_faults()
        (job_id,) = cloud.add_jobs(1, status=8)
        await client.get_job(job_id)


@pytest.mark.fault("A3", "C9")
async def test_whoever_leads_may_be_cancelled_and_another_leads(cloud: Emulator) -> None:
    cloud.fault("latency", seconds=5, match={"operation": "token"}, count=1)
    async with client_of(cloud, password_auth(cloud)) as client:
        calls = [asyncio.create_task(client.list_jobs().collect()) for _ in range(5)]
        await elapse(1)
        calls[0].cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [[]] * 4
    assert token_calls(cloud) == 2


@pytest.mark.fault("A6")
@pytest.mark.parametrize("failing", ["down", "hanging"])
async def test_nobody_waits_for_the_identity_service_while_the_old_token_lives(
    cloud: Emulator, failing: str
) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    loop = asyncio.get_running_loop()
    async with client_of(cloud, password_auth(cloud)) as client:
        await client.get_job(job_id)
        if failing == "down":
            cloud.fault("status", status=503, match={"operation": "token"})
        else:
            cloud.fault("latency", seconds=7200, match={"operation": "token"})
        await elapse(0.9 * DAY)
        for second in range(300):
            started = loop.time()
            await client.get_job(job_id)
            assert loop.time() - started < 0.1, f"after {second} s"
            await elapse(1)
        assert token_calls(cloud) <= 1 + 6 * 4, "a renewal a minute, with its attempts"
        cloud.clear_faults()
        await elapse(120)
        before = token_calls(cloud)
        await client.get_job(job_id)
        await elapse(1)
        assert token_calls(cloud) == before + 1
        await elapse(0.5 * DAY)
        await client.get_job(job_id)
    assert set(jobs_statuses(cloud)) == {200}


@pytest.mark.fault("A6")
async def test_a_token_at_its_end_is_waited_for_even_if_a_renewal_hangs(cloud: Emulator) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    async with client_of(cloud, password_auth(cloud)) as client:
        await client.get_job(job_id)
        await elapse(DAY - 30)
        cloud.fault("latency", seconds=7200, match={"operation": "token"}, count=1)
        await client.get_job(job_id)
        await elapse(31)
        await client.get_job(job_id)
    assert set(jobs_statuses(cloud)) == {200}


@pytest.mark.fault("A6", "C5")
@pytest.mark.parametrize("how", ["alone", "in a cancelled scope"])
async def test_closing_a_client_ends_a_renewal_in_advance(cloud: Emulator, how: str) -> None:
    """No task is left behind; and the credentials serve the next client."""
    (job_id,) = cloud.add_jobs(1, status=8)
    auth = password_auth(cloud)
    with anyio.CancelScope() as scope:
        async with client_of(cloud, auth) as client:
            await client.get_job(job_id)
            await elapse(0.9 * DAY)
            cloud.fault("latency", seconds=7200, match={"operation": "token"})
            await client.get_job(job_id)
            await elapse(1)
            renewal = auth._tokens._renewal
            assert renewal is not None and not renewal.done()
            closing = asyncio.get_running_loop().time()
            if how == "in a cancelled scope":
                scope.cancel()
    assert renewal is not None and renewal.cancelled()
    assert asyncio.get_running_loop().time() - closing < 0.1
    cloud.clear_faults()
    async with client_of(cloud, auth) as client:
        await client.get_job(job_id)
        await elapse(61)
        await client.get_job(job_id)
        await elapse(1)
    assert token_calls(cloud) == 3
    assert set(jobs_statuses(cloud)) == {200}


async def test_a_failing_identity_service_is_asked_by_one_for_all(cloud: Emulator) -> None:
    cloud.fault("status", status=503, match={"operation": "token"})
    async with client_of(cloud, password_auth(cloud)) as client:
        calls = [client._read_job(1, Due()) for _ in range(200)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {vizwatch.ServerError}
    assert token_calls(cloud) == 4
    assert jobs_statuses(cloud) == []


@pytest.mark.fault("A7")
async def test_a_wrong_password_is_sent_once_and_never_again(cloud: Emulator) -> None:
    async with client_of(cloud, password_auth(cloud, password="wrong-canary")) as client:
        calls = [client.list_jobs().collect() for _ in range(20)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await elapse(10 * DAY)
        with pytest.raises(vizwatch.AuthenticationError, match="get token: HTTP 401") as caught:
            await client.get_job(1)
    assert {type(outcome) for outcome in outcomes} == {vizwatch.AuthenticationError}
    assert token_calls(cloud) == 1
    assert "canary" not in str(caught.value)


@pytest.mark.fault("H13")
async def test_a_token_may_be_64_kib_long() -> None:
    times = {"issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": "2026-01-02T00:00:00.000000Z"}
    long = "t" * 65_536
    answer = http({"token": times}, status="201 Created", headers=(f"X-Subject-Token: {long}",))
    async with RawServer(answer, http({"job_id": 197, "status": 8})) as server:
        auth = PasswordAuth(
            server.endpoint, username="u", password="canary-password", domain_name="d", project_id="p1"
        )
        async with Client(server.endpoint, "p1", auth=auth) as client:
            assert (await client.get_job(197)).job_id == 197
    assert f"x-auth-token: {long}".encode() in server.requests[1].lower()
    assert b'"password":"canary-password"' in server.requests[0]


@pytest.mark.parametrize(
    "reply",
    [
        http({"token": {}}, status="201 Created"),
        http({"error": {"message": "canary-password is wrong", "code": 401}}, status="401 Unauthorized"),
        http(raw=b"<html>canary-password", headers=("Content-Type: text/html",)),
        http({}, status="201 Created", headers=("X-Subject-Token: a b",)),
    ],
    ids=["no token", "echo", "page", "space"],
)
async def test_a_broken_token_call_is_an_error_that_shows_no_secret(reply: bytes) -> None:
    async with RawServer(reply) as server:
        auth = PasswordAuth(
            server.endpoint, username="u", password="canary-password", domain_name="d", project_id="p1"
        )
        async with Client(server.endpoint, "p1", auth=auth) as client:
            with pytest.raises(vizwatch.VizwatchError) as caught:
                await client.get_job(197)
    assert "canary" not in f"{caught.value!r} {caught.value} {vars(caught.value)}"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"iam_endpoint": "http://iam.example.com"}, "iam_endpoint must be https"),
        ({"iam_endpoint": "https://iam.example.com/v2"}, "iam_endpoint must be .*without path"),
        ({"iam_endpoint": None}, "iam_endpoint must be"),
        ({"username": ""}, "username must be"),
        ({"password": " "}, "password must not be empty"),
        ({"domain_name": 7}, "domain_name must be"),
        ({"project_id": None}, "one of project_name and project_id must be given"),
        ({"project_name": "x"}, "one of project_name and project_id must be given"),
        ({"project_id": "a/b"}, "project_id must be"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], text: str) -> None:
    given: dict[str, Any] = {
        "iam_endpoint": "https://iam.example.com",
        "username": "u",
        "password": "p",
        "domain_name": "d",
        "project_id": "p",
    }
    with pytest.raises(vizwatch.ConfigError, match=text):
        PasswordAuth(**{**given, **arguments})


# --- credentials of one's own ---------------------------------------------------------------------------

CANARY = "canary-5f2e"


class Own:
    """Gives what it is told to, or raises it."""

    def __init__(self, given: Any) -> None:
        self._given = given

    async def headers(self, request: vizwatch.Outgoing, /) -> Any:
        if isinstance(self._given, BaseException):
            raise self._given
        return self._given


class Renewing(Own):
    """The same of what renews them."""

    def __init__(self, given: Any) -> None:
        super().__init__({"X-Auth-Token": f"{CANARY}-token"})
        self._renewal = Own(given)

    async def renew(self, refused: Any, /) -> Any:
        return await self._renewal.headers(refused)


class Scoped(Own):
    """The same of what knows its project."""

    async def scope(self) -> Any:
        return await self.headers(vizwatch.Outgoing("GET", ""))


async def test_each_attempts_headers_are_sent_and_none_unchecked(cloud: Emulator) -> None:
    given = {"X-Auth-Token": "wrong"}
    async with vizwatch.Client(cloud.endpoint, cloud.project_id, auth=Own(given)) as client:
        with pytest.raises(vizwatch.AuthenticationError):
            await client.list_jobs().collect()
        given["X-Auth-Token"] = cloud.token
        for _ in range(2):
            assert await client.list_jobs().collect() == []
        given["X-Auth-Token"] = f"{cloud.token}\n"
        with pytest.raises(vizwatch.ConfigError, match="a value that none may have"):
            await client.list_jobs().collect()


RAISED = [
    KeyError(CANARY),
    RuntimeError(CANARY),
    StopAsyncIteration(CANARY),
    ValueError(CANARY),
    ExceptionGroup(CANARY, [OSError(CANARY)]),
    type("Odd\x1b[2J" + "x" * 100, (Exception,), {})(CANARY),
]
NOT_HEADERS = [None, "", CANARY, 7, [("X-Auth-Token", CANARY)], b"canary"]
WRONG_HEADERS: list[dict[Any, Any]] = [
    {"X-Auth-Token": ""},
    {"X-Auth-Token": " "},
    {"X-Auth-Token": None},
    {"X-Auth-Token": CANARY.encode()},
    {"X-Auth-Token": f" {CANARY}"},
    {"X-Auth-Token": f"{CANARY}\n"},
    {"X-Auth-Token": f"{CANARY}\r\nX-Other: y"},
    {"X-Auth-Token": f"{CANARY}ü"},
    {"": CANARY},
    {"X Auth": CANARY},
    {"X-Auth:": CANARY},
    {"X-Auth\n": CANARY},
    {"X-Äuth": CANARY},
    {None: CANARY},
]


async def refused_credentials(auth: Any, text: str) -> str:
    """What a client says that is made with such credentials, and shows nobody, and sends nobody."""
    async with RawServer(http({"error_code": "ModelArts.0202"}, status="401 No")) as server:
        with pytest.raises(vizwatch.ConfigError, match=text) as caught:
            async with Client(
                server.endpoint, None if isinstance(auth, Scoped) else "p1", auth=auth
            ) as client:
                await client.get_job(197)
    error = caught.value
    assert not error.__cause__ and not error.__context__
    assert "canary" not in shown(error) and str(error).isprintable() and len(str(error)) < 250
    assert len(server.requests) == isinstance(auth, Renewing)
    return str(error)


@pytest.mark.fault("A15", "X1")
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__[:20].encode().hex())
@pytest.mark.parametrize(("kind", "method"), [(Own, "headers"), (Renewing, "renew"), (Scoped, "scope")])
async def test_credentials_that_raise_are_told_by_the_type_alone(
    kind: type[Own], method: str, error: Exception
) -> None:
    said = await refused_credentials(kind(error), f"auth\\.{method} failed with ")
    assert printable(type(error).__name__, 60) in said


@pytest.mark.fault("A15", "X1")
@pytest.mark.parametrize("given", NOT_HEADERS, ids=repr)
async def test_credentials_that_give_no_headers_are_told_by_the_type_alone(given: Any) -> None:
    await refused_credentials(Own(given), f"must give a mapping of headers, not {type(given).__name__}")
    await refused_credentials(Scoped(given), f"auth.scope must give a Scope, not {type(given).__name__}")


@pytest.mark.fault("A15", "X1", "X5")
@pytest.mark.parametrize("given", WRONG_HEADERS, ids=repr)
async def test_credentials_that_no_request_may_have_are_not_sent(given: dict[Any, Any]) -> None:
    is_named = "X-Auth-Token" in given
    await refused_credentials(
        Own(given), "a value that none may have" if is_named else "a header whose name is none"
    )


@pytest.mark.fault("A15")
async def test_credentials_without_async_are_told_what_to_write() -> None:
    class Sync:
        def headers(self, request: vizwatch.Outgoing, /) -> dict[str, str]:
            return {"X-Auth-Token": CANARY}

    await refused_credentials(Sync(), "auth.headers must be a coroutine function: write `async def headers`")


@pytest.mark.fault("A15")
@pytest.mark.parametrize("kind", [Own, Renewing, Scoped])
async def test_credentials_that_hang_end_at_the_calls_deadline(kind: type[Own]) -> None:
    class Hanging(kind):  # type: ignore[misc,valid-type] # each of the three
        async def headers(self, request: vizwatch.Outgoing, /) -> Any:
            if kind is Renewing:
                return await super().headers(request)
            return await elapse(3600)

        async def renew(self, refused: Any, /) -> Any:
            await elapse(3600)

    auth = Hanging(None)
    if kind is not Renewing:
        del Hanging.renew
    loop = asyncio.get_running_loop()
    async with RawServer(http({"error_code": "ModelArts.0202"}, status="401 No")) as server:
        started = loop.time()
        late, said = (
            (vizwatch.RequestTimeoutError, "did not tell project and endpoint within 60 s")
            if kind is Scoped
            else (vizwatch.ConnectError, "credentials: it took too long")
        )
        with pytest.raises(late, match=said):
            async with Client(server.endpoint, None if kind is Scoped else "p1", auth=auth) as client:
                await client.get_job(197)
        assert loop.time() - started == pytest.approx(60, abs=0.1)
    assert len(server.requests) == (kind is Renewing)


# --- signatures -----------------------------------------------------------------------------------------


@pytest.fixture
async def keyed() -> AsyncIterator[Emulator]:
    """A cloud with a key of ours."""
    async with Emulator(access_key="access", secret_key="secret") as cloud:
        yield cloud


async def test_a_key_signs_every_operation(keyed: Emulator) -> None:
    async with client_of(keyed, AkSkAuth("access", "secret")) as client:
        job = await client.create_job("tb", "/obs/name/", job_desc="ü ~*+%2F")
        await client.update_job(job.job_id, "other: ß")
        found = await client.list_jobs(search_content="t", sort_by="job_name", order="desc").collect()
        assert [one.job_desc for one in found] == ["other: ß"]
        await client.wait(job.job_id, until=8, timeout=60)
        await client.stop_job(job.job_id)
        await client.wait(job.job_id, timeout=60)
        await client.restart_job(job.job_id)
        await client.delete_job(job.job_id)
    assert set(jobs_statuses(keyed)) == {200}
    assert token_calls(keyed) == 0


async def test_a_wrong_key_is_refused_and_shown_to_nobody(keyed: Emulator) -> None:
    async with client_of(keyed, AkSkAuth("access", "canary-secret")) as client:
        with pytest.raises(vizwatch.AuthenticationError, match=r"APIGW\.0301") as caught:
            await client.get_job(1)
    assert "canary" not in str(caught.value)
    assert "Signature=" not in str(caught.value)


@pytest.mark.fault("A12")
async def test_each_attempt_is_signed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Clock:
            return cls.fromtimestamp(1_767_225_600 + asyncio.get_running_loop().time(), tz)

    monkeypatch.setattr("vizwatch._world.auth.dt", SimpleNamespace(datetime=Clock, UTC=dt.UTC))
    busy = http({}, status="503 Busy", headers=("Retry-After: 2",))
    async with RawServer(busy, busy, http({"job_id": 1, "status": 8})) as server:
        async with Client(server.endpoint, "p1", auth=AkSkAuth("key", "secret", "temporary")) as client:
            await client.get_job(1)
    dates = [re.findall(rb"X-Sdk-Date: (\w+)", request)[0] for request in server.requests]
    signatures = [re.findall(rb"Signature=(\w+)", request)[0] for request in server.requests]
    assert len(set(dates)) == len(set(signatures)) == 3
    assert all(b"X-Security-Token: temporary" in request for request in server.requests)
    assert all(b"X-Project-Id: p1" in request for request in server.requests)


@pytest.mark.fault("A10")
@pytest.mark.parametrize(("minutes", "where"), [(20, "ahead of"), (-20, "behind")])
async def test_a_clock_that_is_off_is_named(minutes: int, where: str) -> None:
    there = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=minutes)
    date = f"Date: {there:%a, %d %b %Y %H:%M:%S} GMT"
    body = {"error_code": "APIGW.0301", "error_msg": "signature expired"}
    async with RawServer(http(body, status="401 Unauthorized", headers=(date,))) as server:
        async with Client(server.endpoint, "p1", auth=AkSkAuth("key", "secret")) as client:
            with pytest.raises(
                vizwatch.ClockSkewError, match=f"clock is 1[12]\\d\\d s {where} the service's"
            ):
                await client.get_job(1)
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["access_key", "secret_key", "security_token"])
@pytest.mark.parametrize("value", ["", " ", "canary\n", "canary key", "ü", None, 7])
def test_a_broken_key_is_named_and_not_shown(name: str, value: Any) -> None:
    if (name, value) == ("security_token", None):
        return
    given = {"access_key": "a", "secret_key": "s", name: value}
    with pytest.raises(vizwatch.ConfigError, match=f"{name} must be") as caught:
        AkSkAuth(**given)
    assert "canary" not in str(caught.value)


def test_no_credentials_show_or_pickle_their_secrets() -> None:
    for auth in (
        vizwatch.TokenAuth("canary-token"),
        AkSkAuth("canary-key", "canary-secret", "canary-security"),
        PasswordAuth(
            "https://iam.example.com", username="u", password="canary-pw", domain_name="d", project_id="p"
        ),
    ):
        assert "canary" not in f"{auth!r} {auth} {vars(auth)}"
        with pytest.raises(TypeError):
            pickle.dumps(auth)
