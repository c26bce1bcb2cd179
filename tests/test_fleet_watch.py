"""The transitions of many projects: spread over the interval, and none of them ends or delays the others."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import looptime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from taking import taken
from virtual import elapse

import vizwatch
from vizwatch import Fleet, Settings, Target, Transition
from vizwatch._flows.surveying import Survey
from vizwatch._rules.cadence import Cadence
from vizwatch._values.exchange import Scope
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


def targets_of(cloud: Emulator, projects: int, **jobs: Any) -> list[Target]:
    """Targets p0, p1 and so on, each with a job."""
    targets = [Target(cloud.endpoint, f"p{number}", auth=cloud.token) for number in range(projects)]
    for target in targets:
        cloud.add_jobs(**{"count": 1, "status": 8, "project_id": target.name, **jobs})
    return targets


class Found(defaultdict[str, list[tuple[float, Transition]]]):
    """What came of each project, and when."""

    def __init__(self) -> None:
        super().__init__(list)

    def note(self, transition: Transition) -> None:
        self[transition.project_id].append((now(), transition))


async def test_all_changes_of_all_targets_come(cloud: Emulator) -> None:
    targets = targets_of(cloud, 20, count=3, status=None, plan=[[0, 1], [60, 8], [120, 10]])
    async with Fleet(targets) as fleet:
        found = Found()
        async with taken(fleet.watch_jobs(), found.note):
            await elapse(200)
            assert {name: (one.complete, one.jobs) for name, one in fleet.outcomes.items()} == {
                target.name: (True, 3) for target in targets
            }
        assert found.keys() == {target.name for target in targets}
        for of_one in found.values():
            statuses = defaultdict(list)
            for _, transition in of_one:
                statuses[transition.job_id].append(int(transition.current or 0))
            assert list(statuses.values()) == [[1, 8, 10]] * 3


@pytest.mark.repeats
async def test_a_project_that_answers_in_30_seconds_does_not_delay_the_99_others(cloud: Emulator) -> None:
    """The lag of the others is the same with it and without."""
    targets = targets_of(cloud, 100)
    lags: dict[bool, list[float]] = {}
    async with Fleet(targets, settings=Settings(attempt_timeout=40)) as fleet:
        for is_slow in (False, True):
            if is_slow:
                cloud.fault("latency", seconds=30, match={"project_id": "p50"})
            found = Found()
            async with taken(fleet.watch_jobs(interval=10), found.note):
                await elapse(100)
                changed_at = now()
                status = 10 if is_slow else 9
                for target in targets:
                    (job_id,) = {transition.job_id for _, transition in found[target.name]}
                    cloud.set_status(job_id, status, project_id=target.name)
                await elapse(100)
            lags[is_slow] = sorted(
                at - changed_at
                for name, of_one in found.items()
                for at, transition in of_one
                if name != "p50" and transition.current == status
            )
            assert len(lags[is_slow]) == 99
    for quick, beside_a_slow_one in zip(lags[False], lags[True], strict=True):
        assert abs(beside_a_slow_one - quick) < 1
    assert lags[True][-1] <= 10.5


async def test_a_target_that_fails_says_so_and_the_others_go_on(cloud: Emulator) -> None:
    targets = targets_of(cloud, 5)
    cloud.fault("status", status=403, code="ModelArts.0108", match={"project_id": "p1"})
    cloud.fault("status", status=503, match={"project_id": "p2"}, ttl=200)
    found = Found()
    async with Fleet(targets) as fleet, taken(fleet.watch_jobs(), found.note):
        await elapse(100)
        outcomes = fleet.outcomes
        assert found.keys() == {"p0", "p3", "p4"}
        assert {name for name, one in outcomes.items() if one.complete} == {"p0", "p3", "p4"}
        assert isinstance(outcomes["p1"].error, vizwatch.PermissionDeniedError)
        assert isinstance(outcomes["p2"].error, vizwatch.ServerError)
        await elapse(300)
        assert "p2" in found
        assert {name for name, one in fleet.outcomes.items() if not one.complete} == {"p1"}


@pytest.mark.parametrize("refusal", [{"status": 401}, {"status": 403, "code": "ModelArts.0108"}])
async def test_a_target_that_is_refused_is_asked_again_every_five_minutes_and_repeats_nothing(
    cloud: Emulator, refusal: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Once sooner; whatever its jobs did, from the midst of a reading, while another one is watched."""
    targets = targets_of(cloud, 2)
    on_first_page = cloud.add_jobs(1_000, status=8, project_id="p1")[0]
    passing, gone = (cloud.add_jobs(1, status=status, project_id="p1")[0] for status in (1, 8))
    found = Found()
    async with Fleet(targets) as fleet, taken(fleet.watch_jobs(), found.note):
        await elapse(60)
        assert len(found["p1"]) == 1003
        cloud.set_status(passing, 4, project_id="p1")
        await elapse(20)
        cloud.fault("status", match={"project_id": "p1", "operation": "list"}, after=1, ttl=1000, **refusal)
        await elapse(80)
        assert "project p1 cannot be read, and is tried again in 30 s: list jobs: HTTP 40" in caplog.text
        assert isinstance(fleet.outcomes["p1"].error, vizwatch.ApiError)
        asked = len(cloud.requests)
        await elapse(100)
        assert not [one for one in cloud.requests[asked:] if "/p1/" in one.path]
        cloud.set_status(on_first_page, 9, project_id="p1")
        cloud.set_status(passing, 8, project_id="p1")
        cloud.set_status(gone, None, project_id="p1")
        await elapse(1200)
        assert fleet.outcomes["p1"].complete
        refused = [one for one in cloud.requests if "/p1/" in one.path and one.status == refusal["status"]]
        assert 4 <= len(refused) <= 10
    told = [(one.job_id, one.current and int(one.current)) for _, one in found["p1"][1003:]]
    assert told == [(passing, 4), (on_first_page, 9), (passing, 8), (gone, None)]
    assert found["p1"][1005][0] - found["p1"][1004][0] < 1, "the same reading showed both"


@pytest.mark.fault("R8")
async def test_an_outage_of_many_projects_is_a_line_a_minute(
    cloud: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    targets = targets_of(cloud, 50)
    cloud.fault("status", status=503)
    async with Fleet(targets) as fleet, taken(fleet.watch_jobs(), Found().note):
        await elapse(600)
    assert 9 <= len(caplog.records) <= 11


async def test_it_ends_once_nothing_can_come_of_any_target(cloud: Emulator) -> None:
    targets = targets_of(cloud, 3)
    cloud.fault("status", status=403, code="ModelArts.0108")
    async with Fleet(targets) as fleet:
        assert [transition async for transition in fleet.watch_jobs()] == []
        assert all(isinstance(one.error, vizwatch.PermissionDeniedError) for one in fleet.outcomes.values())


async def test_a_target_that_cannot_be_opened_is_tried_again_or_says_why() -> None:
    """The credentials do not tell the project, at first; those of the other one never will."""
    async with Emulator() as cloud:

        class Scoped(vizwatch.TokenAuth):
            asked = 0

            def __init__(self, error: Exception, times: float) -> None:
                super().__init__(cloud.token)
                self.error, self.times = error, times

            async def scope(self) -> Any:
                self.asked += 1
                if self.asked <= self.times:
                    raise self.error
                return vizwatch._values.exchange.Scope(project_id="late", endpoint=cloud.endpoint)

        late = Scoped(vizwatch.ConnectError("no answer"), 3)
        mended = Scoped(vizwatch.ConfigError("several projects"), 1)
        never = Scoped(vizwatch.ConfigError("wrong"), float("inf"))
        targets = [
            Target(None, None, auth=late, name="late"),
            Target(None, None, auth=mended, name="mended"),
            Target(None, None, auth=never, name="never"),
        ]
        cloud.add_jobs(1, status=8, project_id="late")
        found = Found()
        async with Fleet(targets) as fleet, taken(fleet.watch_jobs(), found.note):
            await elapse(60)
            assert found.keys() == {"late"}
            assert isinstance(fleet.outcomes["never"].error, vizwatch.ConfigError)
            assert {name for name, one in fleet.outcomes.items() if one.complete} == {"late", "mended"}
            await elapse(300)
            assert {name for name, one in fleet.outcomes.items() if one.complete} == {"late", "mended"}
            assert never.asked == 3


@pytest.mark.repeats
async def test_a_thousand_projects_are_read_evenly_over_the_interval(cloud: Emulator) -> None:
    targets = targets_of(cloud, 1000)
    asked: list[float] = []
    async with Fleet(targets) as fleet:
        async with taken(fleet.watch_jobs(interval=20), Found().note):
            for _ in range(140):
                await elapse(1)
                asked.append(len(cloud.requests))
                if len(asked) == 50:
                    cloud.fault("status", status=503, ttl=20)
            each_second = [after - before for before, after in itertools.pairwise(asked)]
    assert max(each_second[:48]) <= 60, "at the beginning"
    assert all(40 <= count <= 60 for count in each_second[25:48])
    assert max(each_second) <= 105, "while they try again, and come back: as many as in health, beside those"
    assert all(40 <= count <= 60 for count in each_second[-15:]), "after an outage"


@given(st.floats(0, 1e6), st.floats(0.5, 1e4), st.floats(0, 1), st.floats(0, 0.9))
def test_the_next_beat_comes_within_the_longest_pause_and_at_its_phase(
    now: float, interval: float, share: float, jitter: float
) -> None:
    cadence, phase = Cadence(interval, interval / 15, jitter, 0.5, 30.0), share * interval
    at = cadence.on_beat(now, phase)
    least = min(max(cadence.shortest, jitter * interval), interval / 2)
    assert least - 1e-6 * interval < at - now <= least + (1 + 1e-6) * interval
    beats = (at - phase) / interval
    assert abs(beats - round(beats)) < 1e-6


async def test_a_fleet_keeps_its_budget_while_it_watches(cloud: Emulator) -> None:
    targets = targets_of(cloud, 50)
    async with Fleet(targets, settings=Settings(requests_per_second=2)) as fleet:
        found = Found()
        async with taken(fleet.watch_jobs(interval=10), found.note):
            await elapse(200)
            assert len(found) == 50
        assert len(cloud.requests) <= 2 * 200 + 10


async def test_broken_off_and_forgotten_it_reads_no_more(cloud: Emulator) -> None:
    targets = targets_of(cloud, 20)
    async with Fleet(targets) as fleet:
        async for _ in fleet.watch_jobs():
            break
        await elapse(60)
        before = len(cloud.requests)
        await elapse(600)
        assert len(cloud.requests) == before <= 20


async def test_closing_the_fleet_ends_its_watches(cloud: Emulator) -> None:
    targets = targets_of(cloud, 5)
    fleet = Fleet(targets)
    async with fleet:
        watch = fleet.watch_jobs()
        task = asyncio.create_task(elapse(1))
        found = [await anext(watch)]

        async def take() -> None:
            keep = found.append
            async for transition in watch:
                keep(transition)

        task = asyncio.create_task(take())
        await elapse(60)
    await asyncio.wait_for(task, 1)
    assert len(found) == 5


async def test_each_watch_keeps_to_itself_and_outcomes_are_of_the_latest(cloud: Emulator) -> None:
    """Whatever else is made between making and iterating it."""
    targets = targets_of(cloud, 5)
    async with Fleet(targets) as fleet:
        first = fleet.watch_jobs()
        assert len([item async for item in fleet.list_jobs()]) == 5
        second, found = fleet.watch_jobs(interval=30), (Found(), Found())
        async with taken(first, found[0].note):
            await elapse(40)
            assert not any(one.jobs for one in fleet.outcomes.values()), "the latest was not begun"
            async with taken(second, found[1].note):
                await elapse(40)
                assert all(one.complete and one.jobs == 1 for one in fleet.outcomes.values())
        assert found[0].keys() == found[1].keys() == {target.name for target in targets}


def test_the_options_are_those_of_a_client_but_for_job_ids() -> None:
    of_client, of_fleet = (
        set(inspect.signature(one.watch_jobs).parameters) - {"self"} for one in (vizwatch.Client, Fleet)
    )
    assert of_client - {"job_ids"} == of_fleet
    assert of_fleet - {"checkpoint"} == set(vizwatch.WatchOptions.__annotations__)


async def test_an_unknown_option_is_a_mistake_in_the_call(cloud: Emulator) -> None:
    async with Fleet(targets_of(cloud, 1)) as fleet:
        with pytest.raises(TypeError, match=r"watch_jobs\(\) got an unexpected keyword argument 'job_ids'"):
            fleet.watch_jobs(job_ids=[1])  # type: ignore[call-arg] # the mistake is the point


async def test_what_is_no_targets_error_ends_the_watch_with_it(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_jobs = vizwatch.Client.watch_jobs

    def broken(client: vizwatch.Client, **options: Any) -> Any:
        if client.project_id == "p3":
            raise ZeroDivisionError("a mistake")
        return watch_jobs(client, **options)

    monkeypatch.setattr(vizwatch.Client, "watch_jobs", broken)
    async with Fleet(targets_of(cloud, 5)) as fleet:
        watch = fleet.watch_jobs()
        with pytest.raises(ZeroDivisionError, match="a mistake"):
            async for _ in watch:
                pass
        assert [transition async for transition in watch] == []
        before = len(cloud.requests)
        await elapse(100)
        assert len(cloud.requests) == before


@pytest.mark.parametrize("how", ["watch", "fleet", "forgotten"])
async def test_outcomes_of_what_is_closed_stay_as_they_were(cloud: Emulator, how: str) -> None:
    async with Fleet(targets_of(cloud, 3)) as fleet:
        watch = fleet.watch_jobs()
        async with taken(watch, Found().note):
            await elapse(40)
        match how:
            case "watch":
                await watch.aclose()
            case "fleet":
                await fleet.aclose()
            case _:
                del watch
                gc.collect()
        outcomes = fleet.outcomes
        assert [(one.complete, one.jobs, one.error) for one in outcomes.values()] == [(True, 1, None)] * 3
        await elapse(600)
        assert fleet.outcomes == outcomes


@pytest.mark.parametrize("watches", [False, True])
def test_outcomes_are_read_outside_of_the_event_loop_too(watches: bool) -> None:
    async def read() -> Fleet:
        async with Emulator(jobs=2) as cloud:
            targets = [Target(cloud.endpoint, cloud.project_id, auth=cloud.token, name="one")]
            async with Fleet(targets) as fleet:
                items: AsyncIterator[Any] = fleet.watch_jobs() if watches else fleet.list_jobs()
                await anext(items)
                await anext(items)
                await elapse(1)
                assert await asyncio.to_thread(lambda: fleet.outcomes) == fleet.outcomes
            return fleet

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        fleet = runner.run(read())
    assert fleet.outcomes["one"].jobs == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "x"},
        {"search_content": 1},
        {"interval": 0.1},
        {"interval": "x"},
        {"max_age": 0},
        {"workspace_id": "../x"},
    ],
)
async def test_a_wrong_argument_is_raised_at_once(cloud: Emulator, wrong: dict[str, Any]) -> None:
    async with Fleet(targets_of(cloud, 1)) as fleet:
        with pytest.raises(vizwatch.ConfigError, match=next(iter(wrong))):
            fleet.watch_jobs(**wrong)


async def test_a_watch_that_is_closed_while_a_target_is_opened_begins_nothing(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Survey] = []
    begin = Survey.begin

    async def noted(survey: Survey) -> None:
        begun.append(survey)
        await begin(survey)

    monkeypatch.setattr(Survey, "begin", noted)

    class Slow(vizwatch.TokenAuth):
        async def scope(self) -> Scope:
            await elapse(5)
            return Scope(project_id="p0", endpoint=cloud.endpoint)

    async with Fleet([Target(None, None, auth=Slow(cloud.token), name="slow")]) as fleet:
        watch = fleet.watch_jobs(max_age=30)
        step = asyncio.create_task(anext(watch, None))
        await elapse(1)
        await watch.aclose()
        assert await step is None
        await elapse(600)
    assert not begun
    assert not cloud.requests


async def test_the_shortest_interval_is_kept_to(cloud: Emulator) -> None:
    async with Fleet(targets_of(cloud, 3)) as fleet, taken(fleet.watch_jobs(interval=1), Found().note):
        await elapse(5)
        before = len(cloud.requests)
        await elapse(100)
        assert 280 <= len(cloud.requests) - before <= 300


async def test_what_was_watched_is_not_kept_for_the_outcomes(cloud: Emulator) -> None:
    async with Fleet(targets_of(cloud, 2)) as fleet:
        watch = fleet.watch_jobs()
        async for _ in watch:
            break
        kept = weakref.ref(watch._arrivals.surveys[0])
        await watch.aclose()
        del watch
        await elapse(1)
        gc.collect()
        assert kept() is None
        assert fleet.outcomes.keys() == {"p0", "p1"}


class Nobodys(vizwatch.TokenAuth):
    """Credentials that do not say whose they are: each has an account of its own."""

    identity = None


@pytest.mark.repeats
@pytest.mark.fault("N18")
@pytest.mark.parametrize(("kind", "fault"), [("status", {"status": 503}), ("drop", {})])
async def test_an_outage_costs_a_fleet_next_to_nothing_and_its_projects_come_back_spread(
    cloud: Emulator, kind: str, fault: dict[str, Any]
) -> None:
    """As of the watches of one client: after the first minute at most 2 % of the requests of health."""
    interval, count = 5, 300
    healthy = count / interval

    async def asked(seconds: float) -> float:
        """How many times as many requests a second as in health."""
        before = len(cloud.requests)
        await elapse(seconds)
        return (len(cloud.requests) - before) / seconds / healthy

    targets = [Target(one.endpoint, one.name, auth=Nobodys(cloud.token)) for one in targets_of(cloud, count)]
    async with Fleet(targets) as fleet, taken(fleet.watch_jobs(interval=interval), Found().note):
        await elapse(60)
        cloud.fault(kind, **fault)
        assert await asked(60) <= 0.15
        assert await asked(600) <= 0.02
        cloud.clear_faults()
        assert max([await asked(1) for _ in range(30)]) <= 2
        assert await asked(30) == pytest.approx(1, rel=0.05)
        ages = [outcome.age for outcome in fleet.outcomes.values()]
        assert max(age for age in ages if age is not None) <= interval


async def test_after_an_outage_the_last_projects_come_back_as_quickly_as_the_first(
    cloud: Emulator,
) -> None:
    interval, count = 15, 600
    async with Fleet(targets_of(cloud, count)) as fleet:
        async with taken(fleet.watch_jobs(interval=interval), Found().note):
            await elapse(60)
            cloud.fault("status", status=503)
            await elapse(120)
            cloud.clear_faults()
            each_second = []
            for _ in range(25):
                before = len(cloud.requests)
                await elapse(1)
                each_second.append(len(cloud.requests) - before)
            assert max(each_second) <= 2 * count / interval + 1
            assert all(one.complete for one in fleet.outcomes.values())


async def test_those_that_are_back_are_found_soon_though_more_stay_down(cloud: Emulator) -> None:
    targets = targets_of(cloud, 100)
    async with Fleet(targets) as fleet, taken(fleet.watch_jobs(interval=15), Found().note):
        await elapse(60)
        cloud.fault("status", status=503)
        await elapse(200)
        cloud.clear_faults()
        for number in range(100):
            if number % 5 < 3:
                cloud.fault("status", status=503, match={"project_id": f"p{number}"})
        await elapse(60)
        assert sum(one.complete for one in fleet.outcomes.values()) == 40


async def oldest(fleet: Fleet, name: str, seconds: int) -> float:
    """How old what is known of a target becomes, looked at each second."""
    ages = []
    for _ in range(seconds):
        await elapse(1)
        ages.append(fleet.outcomes[name].age or 0)
    return max(ages)


async def test_projects_that_fail_for_ever_delay_none_that_fails_once(cloud: Emulator) -> None:
    targets = targets_of(cloud, 100)
    for number in range(60):
        cloud.fault("status", status=503, match={"project_id": f"p{number}"})
    async with Fleet(targets) as fleet, taken(fleet.watch_jobs(interval=15), Found().note):
        await elapse(600)
        cloud.fault("status", status=503, count=1, match={"project_id": "p99"})
        age = await oldest(fleet, "p99", 40)
        sound = [fleet.outcomes[f"p{number}"] for number in range(60, 100)]
        assert all(one.complete and one.age is not None and one.age <= 15 for one in sound)
    assert 15 < age <= 15 + 4, "its next read was by the pause of one failure, and a turn or two"


async def test_one_that_fails_once_is_asked_soon_though_many_have_just_gone_down(cloud: Emulator) -> None:
    targets = targets_of(cloud, 100)
    async with Fleet(targets) as fleet, taken(fleet.watch_jobs(interval=15), Found().note):
        await elapse(60)
        for number in range(90):
            cloud.fault("status", status=503, match={"project_id": f"p{number}"})
        await elapse(60)
        cloud.fault("status", status=503, count=1, match={"project_id": "p99"})
        age = await oldest(fleet, "p99", 40)
    assert 15 < age <= 15 + 4
