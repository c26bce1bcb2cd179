"""Many projects at once: none ends or delays the others, and each says how far its reading came."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

import attrs
import looptime
import pytest
from canaries import shown
from hypothesis import given
from hypothesis import strategies as st
from servers import RawServer, http
from virtual import elapse

import vizwatch
from vizwatch import (
    Account,
    AkSkAuth,
    Fleet,
    ListOptions,
    Outcome,
    PasswordAuth,
    Settings,
    Target,
    TargetJob,
    TokenAuth,
)
from vizwatch._flows.gathering import Gathering, Reading
from vizwatch._values.models import Job, JobPage
from vizwatch._values.statuses import JobStatus
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


def targets_of(cloud: Emulator, count: int, *, jobs: int = 1) -> list[Target]:
    """Targets p0, p1 and so on, each with so many jobs."""
    names = [f"p{number}" for number in range(count)]
    for name in names:
        cloud.add_jobs(jobs, status=8, project_id=name)
    return [Target(cloud.endpoint, name, auth=cloud.token) for name in names]


@contextlib.asynccontextmanager
async def fleet_of(targets: list[Target], **settings: Any) -> AsyncIterator[Fleet]:
    quick = {"backoff_base": 0.01, "backoff_max": 0.01, **settings}
    async with Fleet(targets, settings=Settings(**quick)) as fleet:
        yield fleet


def ids(items: list[TargetJob]) -> dict[str, list[int]]:
    found = defaultdict(list)
    for item in items:
        found[item.target.name].append(item.job.job_id)
    return found


def states(outcomes: Mapping[str, Outcome]) -> dict[str, tuple[bool, int]]:
    return {name: (outcome.complete, outcome.jobs) for name, outcome in outcomes.items()}


# --- what is given --------------------------------------------------------------------------------------


async def test_each_job_comes_once_with_its_target_and_in_the_order_of_its_listing(cloud: Emulator) -> None:
    targets = targets_of(cloud, 3, jobs=25)
    async with fleet_of(targets) as fleet:
        assert states(fleet.outcomes) == {target.name: (False, 0) for target in targets}
        items = [item async for item in fleet.list_jobs(per_page=10, order="desc")]
        assert {item.target for item in items} == set(targets)
        for found in ids(items).values():
            assert len(found) == 25
            assert found == sorted(found, reverse=True)
        assert states(fleet.outcomes) == {target.name: (True, 25) for target in targets}
        assert fleet.outcomes["p0"] == Outcome(targets[0], complete=True, error=None, jobs=25)
        assert [item async for item in fleet.list_jobs(status=9)] == []
        assert states(fleet.outcomes) == {target.name: (True, 0) for target in targets}, "of the latest one"


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_complete_listing_of_many_is_complete_and_in_order(cloud: Emulator, order: str) -> None:
    async with fleet_of(targets_of(cloud, 3, jobs=35)) as fleet:
        found = ids([item async for item in fleet.list_jobs(per_page=10, order=order, complete=True)])
        assert all(len(one) == 35 and one == sorted(one, reverse=order == "desc") for one in found.values())
        assert states(fleet.outcomes) == dict.fromkeys(("p0", "p1", "p2"), (True, 35))


async def test_a_fleet_of_none_gives_nothing() -> None:
    async with fleet_of([]) as fleet:
        assert [item async for item in fleet.list_jobs()] == []
        assert fleet.outcomes == {}


def test_a_listing_takes_what_that_of_a_client_takes() -> None:
    of_client = set(inspect.signature(vizwatch.Client.list_jobs).parameters) - {"self"}
    assert set(ListOptions.__annotations__) == of_client


async def test_a_wrong_argument_is_raised_at_once_and_no_targets_error(cloud: Emulator) -> None:
    async with fleet_of(targets_of(cloud, 2)) as fleet:
        with pytest.raises(vizwatch.ConfigError, match="per_page must be"):
            fleet.list_jobs(per_page=0)
    assert cloud.requests == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"limit": 5}, (False, 5)),
        ({"limit": 7}, (False, 7)),
        ({"limit": 8}, (True, 7)),
        ({"page": 2, "per_page": 5}, (False, 2)),
        ({"page": 1, "per_page": 5}, (True, 7)),
    ],
)
async def test_a_listing_that_leaves_jobs_out_is_not_complete(
    cloud: Emulator, options: ListOptions, expected: tuple[bool, int]
) -> None:
    async with fleet_of(targets_of(cloud, 2, jobs=7)) as fleet:
        assert len([item async for item in fleet.list_jobs(**options)]) == 2 * expected[1]
        assert states(fleet.outcomes) == {"p0": expected, "p1": expected}


async def test_a_row_that_is_skipped_makes_its_target_incomplete_and_no_other() -> None:
    good, bad = {"job_id": 1, "status": 8}, {"job_id": 2, "status": None}

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rows = [good, bad] if b"/bad/" in server.requests[-1] else [good]
        writer.write(http({"jobs": rows, "job_total_count": len(rows)}, headers=("Connection: close",)))
        await writer.drain()

    async with RawServer(reply) as server:
        targets = [Target(server.endpoint, name, auth="t") for name in ("bad", "good")]
        async with fleet_of(targets) as fleet:
            assert len([item async for item in fleet.list_jobs(on_bad_row="skip")]) == 2
            assert states(fleet.outcomes) == {"bad": (False, 1), "good": (True, 1)}
            assert len([item async for item in fleet.list_jobs()]) == 1
            assert isinstance(fleet.outcomes["bad"].error, vizwatch.DecodeError)


async def test_several_tasks_may_take_jobs_from_one_listing(cloud: Emulator) -> None:
    async with fleet_of(targets_of(cloud, 7, jobs=23), pool_size=3) as fleet:
        listing, taken = fleet.list_jobs(per_page=5), list[TargetJob]()

        async def work() -> None:
            async for item in listing:
                taken.append(item)
                await asyncio.sleep(0)

        await asyncio.gather(*(work() for _ in range(5)))
        assert all(len(set(found)) == len(found) == 23 for found in ids(taken).values())
        assert states(fleet.outcomes) == {f"p{number}": (True, 23) for number in range(7)}


# --- bad projects ---------------------------------------------------------------------------------------


@pytest.mark.repeats
async def test_a_project_that_answers_in_30_seconds_does_not_delay_the_99_others(cloud: Emulator) -> None:
    targets = targets_of(cloud, 100, jobs=3)
    cloud.fault("latency", seconds=30.0, match={"project_id": "p0"})
    began, came = now(), defaultdict[str, list[float]](list)
    async with fleet_of(targets, attempt_timeout=50) as fleet:
        async for item in fleet.list_jobs(per_page=2):
            came[item.target.name].append(now() - began)
        assert states(fleet.outcomes) == {target.name: (True, 3) for target in targets}
    assert min(came.pop("p0")) >= 30
    assert len(came) == 99
    assert max(map(max, came.values())) < 1


@pytest.mark.fault("N8")
async def test_a_project_that_hangs_is_given_up_and_delays_nobody_behind_it(cloud: Emulator) -> None:
    """Two may be read at once, of ten; one of the first two never answers."""
    targets = targets_of(cloud, 10)
    cloud.fault("latency", seconds=1e6, match={"project_id": "p0"})
    began = now()
    async with fleet_of(targets, pool_size=2) as fleet:
        listing = fleet.list_jobs()
        for _ in range(9):
            await anext(listing)
        assert now() - began < 1
        with pytest.raises(StopAsyncIteration):
            await anext(listing)
        assert now() - began <= 61
        assert isinstance(fleet.outcomes["p0"].error, vizwatch.RequestTimeoutError)
        assert sum(outcome.complete for outcome in fleet.outcomes.values()) == 9


FAULTS: dict[str, tuple[type[Exception], tuple[str, dict[str, Any]]]] = {
    "401": (vizwatch.AuthenticationError, ("status", {"status": 401, "code": "ModelArts.0203"})),
    "403": (vizwatch.PermissionDeniedError, ("status", {"status": 403, "code": "ModelArts.0205"})),
    "503": (vizwatch.ServerError, ("status", {"status": 503})),
    "page": (vizwatch.ProtocolError, ("body", {"text": "<html>", "content_type": "text/html"})),
    "garbage": (vizwatch.DecodeError, ("body", {"text": "[" * 10_000})),
    "dropped": (vizwatch.TransportError, ("drop", {})),
    "cut": (vizwatch.TransportError, ("truncate", {"bytes": 7})),
}


@pytest.mark.fault("H14", "J4", "N6")
async def test_a_bad_projects_error_is_its_outcome_and_never_ends_the_others(cloud: Emulator) -> None:
    targets = targets_of(cloud, 5) + [Target(cloud.endpoint, name, auth=cloud.token) for name in FAULTS]
    for name, (_, (kind, params)) in FAULTS.items():
        cloud.fault(kind, match={"project_id": name}, **params)
    wrong = PasswordAuth(
        cloud.endpoint,
        username=cloud.user,
        password="canary",
        domain_name=cloud.domain,
        project_name="eu-de_x",
    )
    targets.insert(0, Target(cloud.endpoint, None, auth=wrong, name="cannot be opened"))
    targets.insert(2, Target("http://127.0.0.1:1", "nobody", auth="t"))
    async with fleet_of(targets, pool_size=3) as fleet:
        items = [item async for item in fleet.list_jobs()]
        outcomes = dict(fleet.outcomes)
        for name in FAULTS:
            cloud.clear_faults()
            cloud.add_jobs(1, project_id=name)
        assert len([item async for item in fleet.list_jobs()]) == 5 + len(FAULTS), "they are asked again"
    assert sorted(ids(items)) == [f"p{number}" for number in range(5)]
    assert all(outcomes.pop(f"p{number}").complete for number in range(5))
    failed = {name: error for name, (error, _) in FAULTS.items()}
    failed |= {"cannot be opened": vizwatch.AuthenticationError, "nobody": vizwatch.ConnectError}
    assert {name for name, outcome in outcomes.items() if isinstance(outcome.error, failed[name])} == set(
        failed
    )
    assert not any(outcome.complete or outcome.jobs for outcome in outcomes.values())


async def test_a_project_that_fails_later_keeps_what_it_gave(cloud: Emulator) -> None:
    async with fleet_of(targets_of(cloud, 2, jobs=30)) as fleet:
        cloud.fault("status", status=403, match={"project_id": "p0"}, after=2)
        assert len([item async for item in fleet.list_jobs(per_page=10)]) == 20 + 30
        assert states(fleet.outcomes) == {"p0": (False, 20), "p1": (True, 30)}
        error = fleet.outcomes["p0"].error
        assert isinstance(error, vizwatch.PermissionDeniedError)
        assert (error.page, error.per_page) == (3, 10)


class Broken:
    """Credentials with a mistake in them."""

    async def headers(self, request: vizwatch.Outgoing, /) -> Mapping[str, str]:
        raise KeyError("canary")


async def test_credentials_that_fail_are_their_targets_error_alone(cloud: Emulator) -> None:
    targets = [*targets_of(cloud, 1), Target(cloud.endpoint, "broken", auth=Broken())]
    async with fleet_of(targets) as fleet:
        assert len([item async for item in fleet.list_jobs()]) == 1
        assert "auth.headers failed with KeyError" in str(fleet.outcomes["broken"].error)


# --- how much at once -----------------------------------------------------------------------------------


@attrs.define(eq=False)
class Slow:
    """Credentials that tell their project after a second, and how many were asked at once."""

    token: str
    asked: list[int] = attrs.field(factory=lambda: [0, 0])

    async def scope(self) -> vizwatch.Scope:
        self.asked[0] += 1
        self.asked[1] = max(self.asked)
        await elapse(1)
        self.asked[0] -= 1
        return vizwatch.Scope("p0", None)

    async def headers(self, request: vizwatch.Outgoing, /) -> Mapping[str, str]:
        return {"X-Auth-Token": self.token}


async def test_a_thousand_targets_are_opened_when_they_are_read_and_as_many_at_once_as_the_pool_has(
    cloud: Emulator,
) -> None:
    auth = Slow(cloud.token)
    cloud.add_jobs(1, status=8, project_id="p0")
    targets = [Target(cloud.endpoint, None, auth=auth, name=f"t{number}") for number in range(1000)]
    async with fleet_of(targets, pool_size=50) as fleet:
        await elapse(100)
        assert auth.asked == [0, 0]
        began = now()
        assert len(await collected(fleet)) == 1000
        assert now() - began == pytest.approx(1000 / 50, abs=1.5)
        assert auth.asked == [0, 50]


async def test_targets_that_are_all_wanted_at_once_are_opened_once_and_so_many_at_a_time(
    cloud: Emulator,
) -> None:
    auth = Slow(cloud.token)
    targets = [Target(cloud.endpoint, None, auth=auth, name=f"t{number}") for number in range(100)]
    async with fleet_of(targets, pool_size=25) as fleet:
        began = now()
        twice = [member for member in fleet._members.values() for _ in range(2)]
        clients = await asyncio.gather(*(member.opened() for member in twice))
        assert now() - began == pytest.approx(100 / 25, abs=0.1)
        assert auth.asked == [0, 25]
        assert {client.project_id for client in clients} == {"p0"}


async def collected(fleet: Fleet) -> list[TargetJob]:
    return [item async for item in fleet.list_jobs()]


@pytest.mark.repeats
async def test_a_thousand_projects_are_read_over_a_pool_of_connections(cloud: Emulator) -> None:
    targets = targets_of(cloud, 1000, jobs=2)
    async with fleet_of(targets, pool_size=40) as fleet:
        cloud.fault("latency", seconds=1.0)
        began = now()
        found = ids(await collected(fleet))
        assert now() - began == pytest.approx(1000 / 40, abs=1)
        assert len(fleet._pool.session.connector._conns) == 1  # type: ignore[union-attr] # it is open
        (idle,) = fleet._pool.session.connector._conns.values()  # type: ignore[union-attr] # it is open
        assert len(idle) <= 40
        assert all(outcome.complete for outcome in fleet.outcomes.values())
    assert len(cloud.requests) == 1000
    assert {len(one) for one in found.values()} == {2}


@pytest.mark.parametrize("complete", [False, True])
async def test_a_target_is_read_a_page_ahead_of_the_consumer_and_not_on_when_that_has_gone(
    cloud: Emulator, complete: bool
) -> None:
    """Three of five targets are begun; none is read on while the consumer does something else."""
    async with fleet_of(targets_of(cloud, 5, jobs=50), pool_size=3) as fleet:
        listing = fleet.list_jobs(per_page=10, complete=complete, order="desc")
        await anext(listing)
        await elapse(10)
        if not complete:
            asked = Counter(request.path.split("/")[2] for request in cloud.requests)
            assert sorted(asked.values()) == [1, 1, 2]
        before = len(cloud.requests)
        await elapse(100)
        assert len(cloud.requests) == before
        assert len(fleet._tasks) == 0
        del listing
        await elapse(100)
        assert len(cloud.requests) == before
        assert sorted(states(fleet.outcomes).values()) == [(False, 0)] * 4 + [(False, 1)]


@pytest.mark.fault("C1")
async def test_a_complete_listing_that_is_broken_off_before_its_first_job_is_not_read_to_its_end(
    cloud: Emulator,
) -> None:
    """In ascending order it gives no job until all pages are read."""
    async with fleet_of(targets_of(cloud, 2, jobs=50)) as fleet:
        cloud.fault("latency", seconds=1.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.5):
                await anext(fleet.list_jobs(per_page=1, complete=True))
        await elapse(100)
        assert len(cloud.requests) <= 2 * 3
        assert not fleet._tasks


async def test_a_step_that_is_cancelled_loses_no_job(cloud: Emulator) -> None:
    async with fleet_of(targets_of(cloud, 5, jobs=4), pool_size=2) as fleet:
        cloud.fault("latency", seconds=1.0)
        listing, items = fleet.list_jobs(per_page=2), list[TargetJob]()
        with contextlib.suppress(StopAsyncIteration):
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.3):
                        items.append(await anext(listing))
        assert {len(found) for found in ids(items).values()} == {4}
        assert all(outcome.complete for outcome in fleet.outcomes.values())


@pytest.mark.fault("N8")
async def test_a_slow_project_takes_20_connections_of_the_pool_at_most() -> None:
    """However often it is asked at once; the others have the rest."""
    under_way, most = Counter[bytes](), Counter[bytes]()

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = server.requests[-1].split(b"/")[2]
        under_way[name] += 1
        most[name] = max(most[name], under_way[name])
        await elapse(25 if name == b"slow" else 0.5)
        under_way[name] -= 1
        writer.write(http({"jobs": []}, headers=("Connection: close",)))
        await writer.drain()

    async with RawServer(reply) as server:
        targets = [Target(server.endpoint, name, auth="t") for name in ("slow", "quick")]
        async with fleet_of(targets, pool_size=25) as fleet:
            listings = [asyncio.create_task(collected(fleet)) for _ in range(40)]
            await elapse(10)
            assert most[b"slow"] == 20
            assert under_way == {b"slow": 20, b"quick": 0}
            assert len(server.requests) == 20 + 40
            await asyncio.gather(*listings)


@pytest.mark.fault("N2")
async def test_a_connection_of_the_pool_is_waited_for_longer_than_one_is_made(cloud: Emulator) -> None:
    """For as long as an attempt may take: that none is free is no fault of the network's."""
    cloud.fault("latency", seconds=25.0, match={"project_id": "p0"})
    async with fleet_of(targets_of(cloud, 2), pool_size=1, attempts=1) as fleet:
        slow = asyncio.create_task(collected(fleet))
        await elapse(1)
        other = await fleet._members["p1"].opened()
        assert len(await other.list_jobs().collect()) == 1
        assert len(await slow) == 2


# --- accounts -------------------------------------------------------------------------------------------


def password(username: str, domain: str = "d", project: str = "p", endpoint: str = "eu-de") -> PasswordAuth:
    return PasswordAuth(
        f"https://iam.{endpoint}.example",
        username=username,
        password="pass",
        domain_name=domain,
        project_id=project,
    )


OBJECT = Broken()
TOKEN = TokenAuth("token")
CREDENTIALS: list[list[Any]] = [
    ["token", "token", TOKEN, TokenAuth("token")],
    ["another"],
    [AkSkAuth("token", "s"), AkSkAuth("token", "s", "temporary")],
    [AkSkAuth("key", "s")],
    [password("ada"), password("ada", project="q")],
    [password("bob")],
    [password("ada", domain="e")],
    [password("ada", endpoint="eu-nl")],
    [OBJECT, OBJECT],
    [Broken()],
]


def test_targets_of_the_same_credentials_at_the_same_endpoint_share_one_account() -> None:
    own, numbers = Account(), itertools.count()

    def target(endpoint: str, auth: Any, account: Account | None = None) -> Target:
        name = f"t{next(numbers)}"
        return Target(f"https://{endpoint}", name, auth=auth, account=account)

    groups = [
        [target(endpoint, auth) for auth in same] for endpoint in ("a", "b", "a:8443") for same in CREDENTIALS
    ]
    groups.append([target("a", "token", own), target("b", OBJECT, own)])
    groups[0].append(target("A/", "token"))
    fleet = Fleet(itertools.chain(*groups), settings=Settings(requests_per_second=3))
    accounts = [
        {fleet._members[target.name].client._project._account for target in group} for group in groups
    ]
    assert {len(of_group) for of_group in accounts} == {1}
    assert len(set.union(*accounts)) == len(groups)
    assert accounts[-1] == {own}
    assert {repr(account) for account in set.union(*accounts[:-1])} == {"Account(requests_per_second=3.0)"}


@pytest.mark.fault("R6")
async def test_a_fleet_keeps_the_budget_of_each_account(cloud: Emulator) -> None:
    targets = targets_of(cloud, 20)
    cloud.add_jobs(1, status=8, project_id="other")
    keys = AkSkAuth(cloud.access_key, cloud.secret_key)
    async with fleet_of([*targets, Target(cloud.endpoint, "other", auth=keys)], requests_per_second=1) as it:
        began, came = now(), dict[str, float]()
        async for item in it.list_jobs():
            came[item.target.name] = now() - began
    assert came.pop("other") < 0.5
    assert sorted(came.values()) == pytest.approx(range(20), abs=0.1)


# --- opening and closing --------------------------------------------------------------------------------


@pytest.mark.fault("C6", "C11")
async def test_closing_ends_the_reading_and_leaves_nothing(cloud: Emulator) -> None:
    async with fleet_of(targets_of(cloud, 30), pool_size=10) as fleet:
        cloud.fault("latency", seconds=20.0)
        waiting = asyncio.create_task(collected(fleet))
        await elapse(5)
        assert len(fleet._tasks) == 10
        began = now()
        await fleet.aclose()
        assert now() == began
        assert not fleet._tasks
        assert fleet._pool.session.closed
        with pytest.raises(vizwatch.ClientClosedError):
            await waiting
        assert not any(outcome.complete for outcome in fleet.outcomes.values())
        with pytest.raises(vizwatch.ClientClosedError, match="this fleet is closed"):
            fleet.list_jobs()
        with pytest.raises(vizwatch.ClientClosedError, match="this fleet is closed"):
            await fleet.__aenter__()


@pytest.mark.fault("C11")
async def test_a_fleet_whose_closing_is_cancelled_is_closed_all_the_same(cloud: Emulator) -> None:
    targets = targets_of(cloud, 3)
    for steps in range(12):
        fleet = Fleet(targets)
        await fleet.__aenter__()
        await anext(fleet.list_jobs())
        closing = asyncio.create_task(fleet.aclose())
        for _ in range(steps):
            await asyncio.sleep(0)  # a step, and no time
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        await fleet.aclose()
        assert fleet._pool.session.closed


async def test_a_fleet_is_used_open_once_and_in_its_own_loop(cloud: Emulator) -> None:
    fleet = Fleet(targets_of(cloud, 1))
    with pytest.raises(vizwatch.ConfigError, match="not open yet"):
        fleet.list_jobs()
    async with fleet:
        with pytest.raises(vizwatch.ConfigError, match="open already"):
            await fleet.__aenter__()
        listing = fleet.list_jobs()
        with pytest.raises(vizwatch.ConfigError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, anext(listing))
        with pytest.raises(vizwatch.ConfigError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, fleet.aclose())
        assert len([item async for item in listing]) == 1


@pytest.mark.fault("C3")
async def test_closing_a_listing_ends_it_for_all_and_the_reads_under_way(cloud: Emulator) -> None:
    async with fleet_of(targets_of(cloud, 9, jobs=3), pool_size=3) as fleet:
        cloud.fault("latency", seconds=20, after=3)
        async with contextlib.aclosing(fleet.list_jobs(per_page=2)) as listing:
            assert await anext(listing)
            waiting = [asyncio.create_task(taken_from(listing)) for _ in range(2)]
            await elapse(1)
            assert fleet._tasks
            began = now()
        assert sum(map(len, await asyncio.gather(*waiting))) == 5
        assert now() == began
        assert not fleet._tasks
        assert [item async for item in listing] == []
        await listing.aclose()
        assert not any(outcome.complete for outcome in fleet.outcomes.values())
        before = len(cloud.requests)
        await elapse(100)
        assert len(cloud.requests) == before


async def taken_from(listing: AsyncIterator[TargetJob]) -> list[TargetJob]:
    return [item async for item in listing]


async def test_what_is_asynchronous_says_how_it_is_used(cloud: Emulator) -> None:
    with pytest.raises(vizwatch.ConfigError, match="`async with Fleet"):
        with Fleet([]):
            pass
    async with fleet_of(targets_of(cloud, 2)) as fleet:
        listing: Any = fleet.list_jobs()
        with pytest.raises(vizwatch.ConfigError, match="`async for item in"):
            list(listing)
        with pytest.raises(vizwatch.ConfigError, match="iterated, not awaited: `async for"):
            await listing
        assert repr(listing) == "<listing of 2 projects to go>"


async def test_a_fleet_that_was_never_opened_may_be_closed() -> None:
    await Fleet([Target("https://h.example", "p", auth="t")]).aclose()


# --- targets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([Target("https://h.example", "p", auth="t")] * 2, "two targets are called 'p': give each a name"),
        ([Target("http://h.example", "p", auth="t", name="one")], "target 'one': endpoint must be https"),
        ([Target("https://h.example", "p", auth=b"canary")], "target 'p': auth must be"),  # type: ignore[arg-type] # a mistake
        ([Target(None, "p", auth="canary")], "target 'p': endpoint and project_id must be given"),
        ([Target("https://h.example", "p", auth="t", workspace_id="/")], "target 'p': workspace_id must be"),
        ([Target("https://h.example", "p", auth="t", account=7)], "target 'p': account must be"),  # type: ignore[arg-type] # a mistake
        ([("https://h.example", "p")], "targets must be Targets, and one is of type tuple"),
        (None, r"targets must be several, such as Fleet\(\[Target.*, not one NoneType"),
        (Target("https://h.example", "p", auth="canary"), r"such as Fleet\(\[Target.*, not one Target"),
    ],
)
def test_what_is_wrong_with_a_target_is_said_with_its_name_before_any_request(
    targets: Any, said: str
) -> None:
    with pytest.raises(vizwatch.ConfigError, match=said) as caught:
        Fleet(targets)
    assert "canary" not in shown(caught.value)


def test_a_target_has_a_name_or_a_project() -> None:
    with pytest.raises(vizwatch.ConfigError, match="name must be given where project_id is not"):
        Target("https://h.example", None, auth="canary")
    with pytest.raises(vizwatch.ConfigError, match="name must be a string of 1 to 256"):
        Target("https://h.example", "p", auth="canary", name="")


@pytest.mark.fault("X1")
@pytest.mark.parametrize("token", ["canary-token", "canary token", "canary\n"])
def test_no_credential_shows_in_a_target_or_its_errors(token: str) -> None:
    try:
        target = Target("https://canary:canary@h.example", "p", auth=token)
        Fleet([target])
    except vizwatch.ConfigError as error:
        assert "canary" not in shown(error)
    else:
        pytest.fail("the endpoint has a user")
    good = Target("https://h.example", "p", auth="canary-token")
    item = TargetJob(good, Job(1, JobStatus.RUNNING))
    assert "canary" not in f"{good!r} {good} {item} {Outcome(good)} {Fleet([good])}"


def test_targets_are_values() -> None:
    one, other = (Target("https://h.example", "p", auth=Broken()) for _ in range(2))
    assert one == other
    assert len({one, other}) == 1
    assert one != attrs.evolve(other, name="another")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        one.name = "x"  # type: ignore[misc] # that it cannot be set is the point


# --- gathering, whatever comes --------------------------------------------------------------------------


@attrs.define(eq=False)
class Source:
    """A listing that is made up, and watches how it is read."""

    pages: list[tuple[float, int]]
    """When each comes, and how many jobs it has."""
    fails: bool
    """Whether an error comes after them."""
    is_backwards: bool
    is_late: bool
    read: int = 0
    is_under_way: bool = False
    has_made_room: bool = False
    given: list[int] = attrs.field(factory=list)
    reading: Reading[tuple[Source, int]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        backwards = list[JobPage]() if self.is_backwards else None
        self.reading = Reading(
            self.next_page, lambda job: (self, job.job_id), limit=None, is_whole=True, backwards=backwards
        )

    @property
    def is_active(self) -> bool:
        is_begun = (self.read > 0 or self.is_under_way) and not self.has_made_room
        return is_begun and not self.reading.complete and self.reading.error is None

    @property
    def ids(self) -> list[int]:
        whole = list(range(self.before(len(self.pages))))
        return whole[::-1] if self.is_backwards else whole

    def before(self, page: int) -> int:
        return sum(count for _, count in self.pages[:page])

    async def next_page(self) -> JobPage | None:
        assert not self.is_under_way
        assert self.is_backwards or len(self.given) >= self.before(max(self.read - 1, 0)), (
            "a page ahead at most"
        )
        self.is_under_way, self.has_made_room = True, False
        try:
            if self.read < len(self.pages):
                await elapse(self.pages[self.read][0])
        except asyncio.CancelledError:
            self.has_made_room = True
            raise
        finally:
            self.is_under_way = False
        self.read += 1
        if self.read <= len(self.pages):
            row = range(self.before(self.read - 1), self.before(self.read))
            return JobPage(tuple(Job(number, JobStatus.RUNNING) for number in row), self.read)
        if self.fails:
            raise vizwatch.ProtocolError("it fails")
        return None


SOURCES = st.lists(
    st.builds(
        Source,
        st.lists(st.tuples(st.floats(0, 10), st.integers(0, 3)), max_size=5),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    max_size=8,
)


async def gathered(sources: list[Source], at_once: int, stops_after: int, workers: int) -> None:
    tasks = set[asyncio.Task[Any]]()
    left = stops_after

    def start(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        assert sum(source.is_active for source in sources) <= at_once
        task = asyncio.create_task(work)
        tasks.add(task)
        return task

    waiting, late = (
        deque(source.reading for source in sources if source.is_late is one) for one in (False, True)
    )
    gathering = Gathering(waiting, late, at_once, start, lambda: None)

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            source, number = await anext(gathering)
            source.given.append(number)

    await asyncio.gather(*(work() for _ in range(workers)), return_exceptions=True)
    begun = [source.read + source.is_under_way for source in sources]
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [source.read for source in sources] == begun, "what is broken off begins nothing more"


@given(SOURCES, st.integers(1, 4), st.integers(0, 40) | st.just(1000), st.integers(1, 3))
def test_all_is_gathered_in_order_a_page_ahead_and_no_further_than_the_consumer_goes(
    sources: list[Source], at_once: int, stops_after: int, workers: int
) -> None:
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(gathered(sources, at_once, stops_after, workers))
    for source in sources:
        assert source.given == source.ids[: len(source.given)]
        assert source.reading.jobs == len(source.given)
        assert not source.reading.complete or (source.given == source.ids and not source.fails)
    # A listing that comes backwards gives nothing before it has come to its end.
    all_jobs = sum(len(source.ids) for source in sources if not (source.fails and source.is_backwards))
    assert sum(len(source.given) for source in sources) == min(stops_after, all_jobs)
    if stops_after > all_jobs:
        assert all(source.reading.complete is not source.fails for source in sources)
        assert all((source.reading.error is not None) is source.fails for source in sources)
