"""A rate that falls on 429 and recovers, a quota of retries, and the hook that is told of each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import RawServer, http
from taking import taken
from virtual import elapse

import vizwatch
from vizwatch import Account, Client, ConnectError, Fleet, Retry, Settings, Target
from vizwatch._rules import codec, wire
from vizwatch._rules.pacing import Haste, Pace
from vizwatch._rules.retrying import Fate, Quota
from vizwatch._rules.wire import allowed_rate
from vizwatch._world.line import Due, Line, in_time
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


# --- the rule -------------------------------------------------------------------------------------------


def served(pace: Pace, start: float, seconds: float) -> list[float]:
    """When requests leave that are always there to be sent."""
    at, sent = start, []
    while at < start + seconds:
        wait = pace.wait(at)
        at += wait
        if wait == 0.0:
            pace.sent(at)
            sent.append(at)
            at += 1e-3  # no machine is faster
    return [one for one in sent if one < start + seconds]


def test_without_a_budget_nothing_is_bounded() -> None:
    pace = Pace()
    assert pace.is_open
    assert len(served(pace, 0.0, 1.0)) >= 999


@given(st.floats(0.01, 200), st.floats(1, 60))
def test_a_budget_is_kept_with_a_burst_of_a_second_at_most(budget: float, seconds: float) -> None:
    sent = served(Pace(budget), 0.0, seconds)
    for first, later in itertools.pairwise(range(0, len(sent), 7)):
        count, span = later - first, sent[later] - sent[first]
        assert count <= budget * span + budget + 1.001
    assert len(sent) >= min(budget * seconds, 900 * seconds) * 0.99 - 1


@pytest.mark.fault("H5")
def test_a_429_halves_the_rate_once_for_all_that_was_under_way_and_it_recovers() -> None:
    pace = Pace()
    for tenth in range(100):
        pace.sent(tenth / 10)
    for _ in range(20):
        pace.throttled(10.0, sent_at=9.9, retry_after=None)
    assert pace.rest(10.0) == 5.0, "it rests though the service does not say how long"
    assert pace.rate(15.0) == pytest.approx(5.0, rel=0.02)
    assert pace.rate(15.0 + 50.0) == pytest.approx(10.0, rel=0.02)
    pace.throttled(15.0 + 50.0, sent_at=64.0, retry_after=2.0)
    assert pace.rest(65.0) == 2.0
    assert pace.rate(67.0) == pytest.approx(0.5, rel=0.1), "half of what was really sent"
    assert pace.rate(67.0 + 151.0) is None
    assert pace.is_open


def test_a_recovered_rate_is_never_above_the_budget() -> None:
    pace = Pace(3.0)
    served(pace, 0.0, 10.0)
    pace.throttled(10.0, 10.0, None)
    assert pace.rate(16.0) == pytest.approx(1.5, rel=0.2)
    assert pace.rate(1e6) == 3.0


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.none() | st.floats(0, 1e9), st.none() | st.floats(1e-9, 1e9)),
        max_size=30,
    )
)
def test_whatever_a_service_says_requests_go_on_within_ten_minutes(
    refusals: list[tuple[float, float | None, float | None]],
) -> None:
    pace, at = Pace(), 0.0
    for pause, retry_after, allowed in refusals:
        at += pause
        if pace.wait(at) == 0.0:
            pace.sent(at)
        pace.throttled(at, at, retry_after, allowed)
        assert 0.0 <= pace.wait(at) <= 600.001
        rate = pace.rate(at)
        assert rate is not None
        assert rate >= 0.1


@pytest.mark.parametrize(
    ("limit", "window", "rate"),
    [
        ("200", "300", 200 / 300),
        ("0", "300", None),
        ("200", "0", None),
        ("-1", "3", None),
        ("9" * 5000, "3", None),
        ("two", "3", None),
        ("200", None, None),
    ],
)
def test_an_allowed_rate_is_read_or_ignored(limit: str, window: str | None, rate: float | None) -> None:
    headers = {"X-ratelimit": limit} | ({} if window is None else {"X-ratelimit-window": window})
    assert allowed_rate(headers) == (rate if rate is None else pytest.approx(rate))


# --- over HTTP ------------------------------------------------------------------------------------------


async def look(cloud: Emulator, client: Client, job_ids: list[int], *ends: float) -> list[int]:
    """Watches the jobs for a while; how many requests there were at each of these times."""

    async def watched(job_id: int) -> None:
        async for _ in client.watch(job_id):
            pass

    tasks = [asyncio.create_task(watched(job_id)) for job_id in job_ids]
    counts, began = list[int](), now()
    for end in ends:
        await elapse(began + end - now())
        counts.append(len(cloud.requests))
    await client.aclose()
    await asyncio.gather(*tasks)
    return counts


@pytest.mark.fault("R6", "H5")
@pytest.mark.parametrize("window", [1.0, 10.0])
async def test_many_watches_settle_below_the_accounts_limit_within_seconds(window: float) -> None:
    """Two hundred watches want 13 requests a second, where 5 are allowed."""
    async with Emulator(rate_limit=round(5 * window), rate_window=window) as cloud:
        job_ids = cloud.add_jobs(200, status=8)
        settings = Settings(shared_reads=False)
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
            settled, end = await look(cloud, client, job_ids, 10.0, 310.0)
        later = cloud.requests[settled:end]
    assert len(later) <= 300 * 5 * 1.05
    assert len(later) >= 300 * 5 * 0.4, "what is allowed is used"
    assert sum(request.status == 429 for request in later) <= 0.05 * len(later)


@pytest.mark.fault("H5")
@pytest.mark.parametrize("code", ["ModelArts.2799", "ModelArts.4206", "ModelArts.6101", "APIGW.0308"])
async def test_a_429_without_retry_after_rests_every_call_of_the_client(
    cloud: Emulator, here: Client, code: str
) -> None:
    job_ids = cloud.add_jobs(20, status=8)
    cloud.fault("status", status=429, code=code, count=1)
    began = now()
    await asyncio.gather(here.get_job(job_ids[0]), *(elapsed_read(here, one) for one in job_ids[1:]))
    assert now() - began >= 5.0
    assert sum(request.status == 429 for request in cloud.requests) == 1


async def elapsed_read(client: Client, job_id: int) -> None:
    await elapse(0.1)
    await client.get_job(job_id)


async def test_a_rest_that_is_longer_than_a_call_fails_it_at_once_with_the_time(
    cloud: Emulator, here: Client
) -> None:
    cloud.fault("status", status=429, code="APIGW.0308", retry_after=300, count=1)
    with pytest.raises(vizwatch.RateLimitError):
        await here.list_jobs().collect()
    await elapse(100)
    began = now()
    with pytest.raises(
        vizwatch.ConnectError, match="after a 429 this account rests for another 200 s"
    ) as caught:
        await here.list_jobs().collect()
    assert caught.value.retry_after == pytest.approx(200, abs=1)
    assert now() - began < 1
    assert len(cloud.requests) == 1
    await elapse(200)
    assert await here.list_jobs().collect() == []


async def test_calls_wait_in_line_and_a_cancelled_one_lets_the_next_go(cloud: Emulator) -> None:
    settings = Settings(requests_per_second=1)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        (job_id,) = cloud.add_jobs(1, status=8)
        began, order = now(), list[tuple[int, float]]()

        async def read(number: int) -> None:
            await client.get_job(job_id)
            order.append((number, round(now() - began)))

        tasks = [asyncio.create_task(read(number)) for number in range(6)]
        await elapse(0.5)
        tasks[1].cancel()
        tasks[3].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [(0, 0), (2, 1), (4, 2), (5, 3)]


@pytest.mark.fault("H5", "H3")
async def test_a_rest_holds_back_what_waits_for_a_connection_too(cloud: Emulator) -> None:
    job_ids = cloud.add_jobs(60, status=8)
    cloud.fault("latency", seconds=0.05)
    cloud.fault("status", status=429, retry_after=30, count=5)
    settings = Settings(pool_size=5)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        reads = [asyncio.create_task(client.get_job(job_id)) for job_id in job_ids]
        await elapse(29)
        assert len(cloud.requests) <= 10
        await asyncio.gather(*reads, return_exceptions=True)


@pytest.mark.fault("R6")
async def test_watches_leave_the_way_to_a_users_own_calls(cloud: Emulator) -> None:
    """A hundred watches want seven requests a second, of the one that the budget allows."""
    job_ids = cloud.add_jobs(100, status=8)
    settings = Settings(requests_per_second=1)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        watches = [client.watch(job_id) for job_id in job_ids]

        async def follow(watch: vizwatch.Watch) -> None:
            async for _ in watch:
                pass

        tasks = [asyncio.create_task(follow(watch)) for watch in watches]
        for _ in range(10):
            await elapse(60)
            began = now()
            await client.get_job(job_ids[0])
            assert now() - began <= 3
        # Each has its turn; its age counts from when it was asked for.
        assert max(watch.age or math.inf for watch in watches) <= 2 * 110 + 18
        await client.aclose()
        await asyncio.gather(*tasks)


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=300))
def test_of_the_looks_of_thousands_no_more_are_early_than_half_of_the_others_and_ten_a_second(
    looks: list[tuple[float, bool]],
) -> None:
    """But for twenty; and a few always may be."""
    haste, now, usual, early = Haste(), 0.0, 0, 0
    for pause, wants_it in looks:
        now += pause
        if wants_it and haste.may(now):
            early += 1
        else:
            usual += 1
            haste.waits()
            assert not wants_it or early >= 20, "a few may"
        assert early <= 20 + 10 * now + usual / 2
    assert all(haste.may(now + 2 + number / 10) for number in range(100)), "ten a second, whatever was before"


TIMES = st.floats(0, 9) | st.just(math.inf)
DUE = st.just((False, math.inf)) | st.tuples(st.just(True), TIMES)


@given(st.lists(st.tuples(DUE, st.booleans(), st.lists(TIMES, max_size=3)), max_size=30))
def test_users_go_first_then_who_is_due_first_then_who_came_first(
    callers: list[tuple[tuple[bool, float], bool, list[float]]],
) -> None:
    """Whoever is cancelled while waiting is passed over, and who is due earlier by now goes forward."""
    line, order = Line(), list[int]()
    dues = [Due(at) for (_, at), _, _ in callers]

    async def come(number: int, is_patient: bool) -> None:
        async with line.turn(is_patient=is_patient, due=dues[number]):
            order.append(number)
            await asyncio.sleep(0)

    async def all_come() -> None:
        async with line.turn(is_patient=True):
            tasks = [
                asyncio.create_task(come(number, rank[0])) for number, (rank, _, _) in enumerate(callers)
            ]
            await asyncio.sleep(0)  # they stand in line
            for task, due, (_, gives_up, times) in zip(tasks, dues, callers, strict=True):
                for time in times:
                    due.hasten(time)
                if gives_up:
                    task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert line.is_free

    asyncio.run(all_come())
    stayed = [number for number, (_, gives_up, _) in enumerate(callers) if not gives_up]
    assert order == sorted(stayed, key=lambda number: (callers[number][0][0], dues[number].at))
    for due, (_, _, times) in zip(dues, callers, strict=True):
        assert due.at <= min(times, default=math.inf)


async def test_places_that_are_given_up_are_not_kept() -> None:
    """A line that moves slowly does not grow with all who came and went."""
    line = Line()
    async with line.turn(is_patient=True):
        for _ in range(1000):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await line.come()
    assert len(line._waiting) <= 65


async def test_a_turn_that_is_given_up_as_it_comes_goes_on_to_the_next() -> None:
    line = Line()

    async def come() -> None:
        async with line.turn(is_patient=True):
            pass

    async with line.turn(is_patient=True):
        first, second = (asyncio.create_task(come()) for _ in range(2))
        await asyncio.sleep(0)  # they stand in line
    first.cancel()
    async with asyncio.timeout(1):
        await second


@given(st.integers(1, 5), st.integers(0, 20))
def test_as_many_have_their_turn_at_once_as_may(at_once: int, callers: int) -> None:
    line, inside, most = Line(at_once), 0, 0

    async def come() -> None:
        nonlocal inside, most
        await line.come()
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1
        line.go()

    async def all_come() -> None:
        await asyncio.gather(*(come() for _ in range(callers)))

    asyncio.run(all_come())
    assert most == min(at_once, callers)
    assert line.is_free


@pytest.mark.looptime
async def test_a_place_that_rests_is_given_to_nobody_for_so_long_but_one_is_always_left() -> None:
    line, began = Line(3), asyncio.get_running_loop().time()
    for _ in range(3):
        await line.come()
        line.rest(30)

    async def came() -> float:
        await line.come()
        return asyncio.get_running_loop().time() - began

    assert await came() == 0, "the third one did not rest"
    assert not line.is_free
    assert [await came(), await came()] == [30, 30]
    assert not line.is_free
    line.rest(30)
    line.rest(30)
    line.rest(30)
    assert line.is_free


async def test_what_is_at_hand_is_given_without_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_hand() -> str:
        return "here"

    monkeypatch.setattr(asyncio, "timeout_at", None)
    assert await in_time(at_hand(), now()) == "here"


async def test_what_has_to_be_waited_for_is_given_or_raised_as_it_comes() -> None:
    async def come(error: type[Exception] | None) -> str:
        for _ in range(3):
            await elapse(1)
        failing = asyncio.get_running_loop().create_future()
        failing.set_exception(KeyError("it"))
        with pytest.raises(KeyError):
            await asyncio.shield(failing)
        if error is not None:
            raise error
        return "there"

    assert await in_time(come(None), now() + 4) == "there"
    with pytest.raises(OSError):
        await in_time(come(OSError), now() + 4)


@pytest.mark.parametrize("is_late", [True, False])
async def test_what_comes_too_late_is_ended_and_cleans_up_as_when_it_is_cancelled(is_late: bool) -> None:
    ended_at = list[float]()

    async def come() -> None:
        await elapse(1)
        try:
            await elapse(60)
        finally:
            await elapse(1)
            ended_at.append(now() - started)

    started = now()
    task = asyncio.create_task(in_time(come(), started + (5 if is_late else 50)))
    await elapse(5)
    if not is_late:
        task.cancel()
    with pytest.raises(TimeoutError if is_late else asyncio.CancelledError):
        await task
    assert ended_at == [pytest.approx(6)]


async def test_what_is_cancelled_at_the_very_moment_it_comes_is_cancelled() -> None:
    coming = asyncio.get_running_loop().create_future()

    async def come() -> None:
        await coming

    task = asyncio.create_task(in_time(come(), now() + 5))
    await asyncio.sleep(0)  # it waits
    coming.set_result(None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_reads_that_are_patient_go_by_when_they_are_due(cloud: Emulator) -> None:
    settings = Settings(requests_per_second=1)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        order = list[str]()

        sent: dict[str, float] = {}

        async def read(name: str, due: float | None) -> None:
            if due is None:
                await client.list_jobs(limit=1).collect()
            else:
                request = wire.list_jobs(client.project_id, wire.query(), page=1, per_page=1)
                _, sent[name] = await client._project.read(request, codec.decode_rows, due=Due(due))
            order.append(name)

        await client.list_jobs().collect()
        cloud.fault("latency", seconds=0.6)
        start = now()
        reads = [
            read("first", now() + 50),
            read("whenever", math.inf),
            read("late", now() + 30),
            read("soon", now() + 3),
            read("soon, too", now() + 3),
            read("user", None),
        ]
        await asyncio.gather(*reads)
    assert order == ["first", "user", "soon", "soon, too", "late", "whenever"], "the first has its turn"
    assert {name: round(at - start) for name, at in sent.items()} == {
        "first": 1,
        "soon": 3,
        "soon, too": 4,
        "late": 5,
        "whenever": 6,
    }, "what is read is of when it was sent, and not of when that was asked for"


async def test_a_token_call_that_is_throttled_says_nothing_of_the_service(cloud: Emulator) -> None:
    cloud.fault("status", status=429, retry_after=300, match={"operation": "token"}, count=1)
    auth = vizwatch.PasswordAuth(
        cloud.endpoint, username=cloud.user, password=cloud.password, domain_name=cloud.domain, project_id="p"
    )
    async with Client(cloud.endpoint, "p", auth=auth) as client:
        with pytest.raises(vizwatch.RateLimitError):
            await client.list_jobs().collect()
        assert await client.list_jobs().collect() == []


# --- the quota of retries -------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([*Fate, None]), max_size=200), st.integers(0, 100))
def test_retries_without_success_are_bounded_by_the_quota(outcomes: list[Fate | None], capacity: int) -> None:
    quota = Quota(capacity)
    taken = successes = 0
    for outcome in outcomes:
        if outcome is None:
            successes += 1
            quota.succeeded([])
        else:
            taken += quota.take(outcome)
    assert taken <= (capacity + successes) / 5


def test_a_success_after_a_retry_gives_back_what_that_cost() -> None:
    for fate, cost in ((Fate.UNKNOWN, 10), (Fate.FAILED, 5)):
        quota = Quota(cost)
        assert quota.take(fate)
        assert not quota.take(fate)
        quota.succeeded([fate])
        assert quota.take(fate)


@pytest.mark.fault("R5")
async def test_calls_fail_with_their_first_error_once_the_quota_is_used_up(cloud: Emulator) -> None:
    cloud.fault("status", status=503)
    settings = Settings(retry_quota=30)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        errors = []
        for _ in range(10):
            with pytest.raises(vizwatch.ServerError) as caught:
                await client.get_job(1)
            errors.append(caught.value)
        assert [error.attempts for error in errors] == [4, 4] + [1] * 8
        assert errors[-1].not_retried is not None
        assert "(not tried again: the client's retry quota is used up, Settings.retry_quota)" in str(
            errors[-1]
        )
        assert errors[0].not_retried is None
        cloud.clear_faults()
        cloud.add_jobs(1)
        for _ in range(5):
            await client.list_jobs().collect()
        cloud.fault("status", status=503, count=1)
        await client.list_jobs().collect()


# --- the hook -------------------------------------------------------------------------------------------


async def test_each_retry_is_told_with_attempt_wait_reason_and_whether_it_was_sent(cloud: Emulator) -> None:
    told: list[tuple[Retry, float]] = []
    settings = Settings(on_retry=lambda retry: told.append((retry, now())))
    cloud.fault("status", status=503, retry_after=7, count=1)
    cloud.fault("drop", count=1, after=1)
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
        await client.list_jobs().collect()
        ended = now()
    (first, at), (second, later) = told
    assert (first.operation, first.attempt, first.was_sent) == ("list jobs", 1, True)
    assert isinstance(first.error, vizwatch.ServerError)
    assert first.wait >= 7
    assert later - at >= first.wait
    assert (second.attempt, second.was_sent) == (2, True)
    assert isinstance(second.error, vizwatch.TransportError)
    assert ended - later >= second.wait


async def test_a_retry_of_what_was_not_sent_says_so(cloud: Emulator) -> None:
    told: list[Retry] = []
    async with RawServer(http({})) as server:
        endpoint = server.endpoint
    settings = Settings(on_retry=told.append, attempts=2)
    async with Client(endpoint, "p", auth="t", settings=settings) as client:
        with pytest.raises(vizwatch.ConnectError):
            await client.create_job("a", "/b/")
    assert [(one.operation, one.was_sent) for one in told] == [("create job", False)]


@pytest.mark.fault("C8")
async def test_a_hook_that_fails_is_logged_and_ends_nothing(
    cloud: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Retry) -> None:
        raise KeyError("of the user's")

    cloud.fault("status", status=503, count=2)
    settings = Settings(on_retry=fails)
    with caplog.at_level(logging.ERROR, "vizwatch"):
        async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=settings) as client:
            assert await client.list_jobs().collect() == []
    assert [record.message for record in caplog.records] == ["Settings.on_retry failed"] * 2


@pytest.mark.parametrize("given", [7, "print", dict])
def test_a_hook_that_cannot_be_called_is_refused(given: Any) -> None:
    with pytest.raises(vizwatch.ConfigError, match=r"Settings\.on_retry must be None or a function"):
        Settings(on_retry=given)


def test_a_pace_that_was_never_asked_is_open() -> None:
    assert math.isinf(Pace()._before)


@pytest.mark.fault("H5")
@pytest.mark.parametrize("ttl", [1, 6, 20, 60])
async def test_after_many_429s_requests_come_back_within_two_minutes_and_not_all_at_once(
    cloud: Emulator, ttl: float
) -> None:
    targets = [Target(cloud.endpoint, f"p{number}", auth=cloud.token) for number in range(100)]
    for target in targets:
        cloud.add_jobs(1, status=11, project_id=target.name)
    counts: list[int] = []
    async with Fleet(targets) as fleet, taken(fleet.watch_jobs(), lambda _: None):
        await elapse(60)
        steady = 100 / Settings().poll_interval
        cloud.fault("status", status=429, retry_after=5, ttl=ttl)
        for _ in range(300):
            before = len(cloud.requests)
            await elapse(1)
            counts.append(len(cloud.requests) - before)
    assert max(counts) <= 2 * steady + 1
    assert sum(counts[round(ttl) + 120 :]) >= 0.9 * steady * (300 - round(ttl) - 120)


@pytest.mark.fault("H6")
@pytest.mark.parametrize("others", [0, 3])
async def test_a_call_fails_at_once_that_a_rest_outlasts_though_watches_wait_before_it(others: int) -> None:
    account = Account()
    account.enter_loop()
    begun = asyncio.get_running_loop().time()
    account.throttled(begun, 120.0, None)
    waiting = [asyncio.create_task(account.admit(math.inf, is_patient=True)) for _ in range(others)]
    await elapse(0.1)
    with pytest.raises(ConnectError) as caught:
        await account.admit(begun + 10)
    assert asyncio.get_running_loop().time() == pytest.approx(begun + 0.1)
    assert caught.value.retry_after == pytest.approx(119.9)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
