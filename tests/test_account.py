"""One request budget for several clients: kept together, and slowed together by a 429."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import looptime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual import elapse

import vizwatch
from vizwatch import Account, Client, Settings
from vizwatch._world.line import Due
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def clients_of(
    cloud: Emulator, *accounts: Account | None, **settings: Any
) -> AsyncIterator[list[Client]]:
    """A client for each of the accounts, each of a project of its own: p0, p1 and so on."""
    async with contextlib.AsyncExitStack() as opened:
        yield [
            await opened.enter_async_context(
                Client(
                    cloud.endpoint,
                    f"p{number}",
                    auth=cloud.token,
                    account=account,
                    settings=Settings(**settings),
                )
            )
            for number, account in enumerate(accounts)
        ]


@pytest.mark.parametrize("given", [0, -1, True, "5", float("nan"), 1e9])
def test_a_budget_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(vizwatch.ConfigError, match="requests_per_second must be None or a number"):
        Account(given)


def test_what_is_no_account_is_refused_and_not_shown() -> None:
    with pytest.raises(vizwatch.ConfigError, match="account must be an Account, not str") as caught:
        Client("https://h.example", "p", auth="t", account="canary-token")  # type: ignore[arg-type] # the mistake is the point
    assert "canary" not in str(caught.value)


def test_an_account_shows_its_budget() -> None:
    assert repr(Account(0.5)) == "Account(requests_per_second=0.5)"
    assert repr(Account()) == "Account(requests_per_second=None)"


@pytest.mark.fault("H5")
async def test_a_429_on_one_client_rests_all_of_its_account_and_no_others(cloud: Emulator) -> None:
    shared, began = Account(), now()
    cloud.fault("status", status=429, retry_after=30, match={"project_id": "p0"}, count=1)
    async with clients_of(cloud, shared, shared, None) as (refused, sister, stranger):
        first = asyncio.create_task(refused.list_jobs().collect())
        await elapse(1)
        await stranger.list_jobs().collect()
        assert now() - began == pytest.approx(1, abs=0.1)
        await sister.list_jobs().collect()
        assert now() - began >= 30
        await first


@pytest.mark.fault("H5")
async def test_the_rate_of_all_clients_is_halved_by_the_429_of_one(cloud: Emulator) -> None:
    """Three clients, of ten requests a second together, are one that asks too fast."""
    shared = Account(10)
    async with clients_of(cloud, shared, shared, shared) as clients:

        async def ask(client: Client) -> None:
            while True:
                await client.list_jobs().collect()

        tasks = [asyncio.create_task(ask(client)) for client in clients]
        await elapse(20)
        cloud.fault("status", status=429, count=1)
        await elapse(6)
        before = len(cloud.requests)
        await elapse(10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(cloud.requests) - before == pytest.approx(5.5 * 10, abs=6), "growing by 1 % a second"


COMES = st.tuples(
    st.floats(0, 5),  # after so many seconds
    st.booleans(),  # patient
    st.floats(0, 20),  # due, or for a user the time that it has
    st.none() | st.floats(0, 5),  # given up after so many seconds
)


@given(st.floats(0.2, 20), st.lists(COMES, max_size=60))
def test_a_shared_budget_is_never_exceeded_and_none_is_held_up_for_ever(
    budget: float, comes: list[tuple[float, bool, float, float | None]]
) -> None:
    """By a second's worth at most, or one request, whoever comes when, waits how, and gives up."""
    account, sent = Account(budget), list[float]()

    async def ask(comes_at: float, is_patient: bool, due: float, gives_up: float | None) -> None:
        await elapse(comes_at)
        with contextlib.suppress(TimeoutError, vizwatch.ConnectError):
            async with asyncio.timeout(gives_up):
                await account.admit(
                    math.inf if is_patient else now() + due, is_patient=is_patient, due=Due(now() + due)
                )
                sent.append(now())

    async def all_ask() -> None:
        account.enter_loop()
        async with asyncio.timeout(5 + 60 / budget), asyncio.TaskGroup() as group:
            for one in comes:
                group.create_task(ask(*one))

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(all_ask())
    for first, last in itertools.combinations(range(len(sent)), 2):
        assert last - first + 1 <= budget * (sent[last] - sent[first]) + max(budget, 1) + 1e-3
    served = sum(is_patient and gives_up is None for _, is_patient, _, gives_up in comes)
    assert len(sent) >= served


@pytest.mark.fault("R6")
@pytest.mark.parametrize("is_shared", [True, False])
async def test_a_gateways_limit_is_met_by_many_clients_only_with_a_shared_account(is_shared: bool) -> None:
    shared = Account(5) if is_shared else None
    async with (
        Emulator(rate_limit=56, rate_window=10) as cloud,
        clients_of(cloud, *[shared] * 20, requests_per_second=5, attempts=1) as clients,
    ):
        outcomes = await asyncio.gather(
            *(client.list_jobs().collect() for client in clients * 10), return_exceptions=True
        )
        statuses = Counter(request.status for request in cloud.requests)
    assert (statuses[429] == 0) == is_shared
    assert all(outcome == [] for outcome in outcomes) == is_shared


async def test_a_users_call_goes_before_the_watches_of_all_clients_of_the_account(cloud: Emulator) -> None:
    shared = Account(1)
    job_ids = cloud.add_jobs(50, status=8, project_id="p0")
    async with clients_of(cloud, shared, shared) as (watching, other):

        async def follow(job_id: int) -> None:
            async for _ in watching.watch(job_id):
                pass

        tasks = [asyncio.create_task(follow(job_id)) for job_id in job_ids]
        await elapse(30)
        began = now()
        await other.list_jobs().collect()
        assert now() - began <= 3
        await watching.aclose()
        await asyncio.gather(*tasks)


@pytest.mark.fault("C6")
async def test_an_account_is_of_one_event_loop_at_a_time(cloud: Emulator) -> None:
    shared = Account(5)

    async def ask() -> None:
        async with Client("http://127.0.0.1:1", "p", auth="t", account=shared):
            pass

    async with clients_of(cloud, shared):
        with pytest.raises(vizwatch.ConfigError, match="this account is in use in another event loop"):
            await asyncio.to_thread(asyncio.run, ask())


@pytest.mark.looptime(False)
def test_an_account_outlives_an_event_loop_with_its_pace() -> None:
    shared = Account(0.1)

    async def ask() -> float:
        async with Client("http://127.0.0.1:1", "p", auth="t", account=shared, settings=Settings(attempts=1)):
            wait = shared._pace.wait(now())
            await shared.admit(now() + 0.01)
        return wait

    assert asyncio.run(ask()) == 0
    with pytest.raises(vizwatch.ConnectError, match="no request was due in time"):
        asyncio.run(ask())
