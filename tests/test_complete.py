"""Listings that skip no job that exists throughout, however jobs come and go while they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import vizwatch
from vizwatch import Job, JobPage, JobPager, JobStatus
from vizwatch._rules import wire
from vizwatch._rules.listing import Ask, Dialect
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


# --- the proof, by a server that does what it likes between two reads --------------------------------------

SIZES = ["by the cap", "by what is asked", "always the cap"]
TOTALS = ["right", "missing", "too large", "none", "of the page", "so far", "negative", "random"]


@attrs.define
class Server:
    """Jobs by id, ascending, in pages; what it may do wrong is what a service may do wrong."""

    sizes: str
    cap: int
    totals: str
    empty: int | None
    """A page that is empty although jobs follow on the next one."""
    alive: list[int] = attrs.field(factory=list)
    reads: int = 0

    def page(self, number: int, per_page: int) -> JobPage:
        self.reads += 1
        size = self.cap if self.sizes == "always the cap" else min(per_page, self.cap)
        shown = number - 1 if self.empty is not None and number > self.empty else number
        start = (shown - 1) * (per_page if self.sizes == "by what is asked" else size)
        ids = [] if number == self.empty else self.alive[start : start + size]
        total = {
            "right": len(self.alive),
            "missing": None,
            "too large": len(self.alive) + 10**6,
            "none": 0,
            "of the page": len(ids),
            "so far": start + len(ids),
            "negative": -7,
            "random": hash((number, self.reads)) % 50,
        }[self.totals]
        return JobPage(tuple(Job(one, JobStatus.RUNNING) for one in ids), number, total)


class _Turn:
    """Where a coroutine stands still, and anything may happen before it goes on."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def pager(server: Server, *, per_page: int, order: str) -> JobPager:
    """A complete listing of the server, which stands still before each read."""

    async def fetch(query: wire.Query, number: int, size: int) -> JobPage:
        await _Turn()
        assert (query.sort_by, query.order) == ("job_id", "asc")
        return server.page(number, size)

    query = wire.query(status=None, search_content=None, sort_by="job_id", order=order, workspace_id=None)
    return JobPager(fetch, [query], Ask(per_page=per_page), Dialect(), complete=True)


class Listed(RuleBasedStateMachine):
    """Jobs are created, deleted and listed in any order of steps."""

    @initialize(
        sizes=st.sampled_from(SIZES),
        cap=st.integers(1, 5),
        total=st.sampled_from([*((one, False) for one in TOTALS), *((one, True) for one in TOTALS[:3])]),
        empty=st.integers(2, 6),  # not the first page, which tells the size
        count=st.integers(0, 30),
        per_page=st.integers(1, 7),
        order=st.sampled_from(["asc", "desc"]),
    )
    def begin(
        self, sizes: str, cap: int, total: tuple[str, bool], empty: int, count: int, per_page: int, order: str
    ) -> None:
        # An empty page among the others is told from the end by a total that is not too small, or by none.
        self.server = Server(sizes, cap, total[0], empty if total[1] else None)
        self.last_id = 0
        self.throughout: set[int] = set()
        self.most = 0
        self.create(count, 1)
        self.order = order
        self.given: list[int] = []
        self.fails = False
        self.reading = self.listed(pager(self.server, per_page=per_page, order=order))
        self.ended = False
        self.go_on()

    async def listed(self, pager: JobPager) -> None:
        pages = pager.pages()
        while True:
            try:
                page = await anext(pages)
            except StopAsyncIteration:
                return
            except vizwatch.ConnectError:
                continue
            self.given += [job.job_id for job in page.jobs]

    def go_on(self) -> None:
        try:
            self.reading.send(None)
        except StopIteration:
            self.ended = True

    @rule(count=st.integers(1, 9), gap=st.integers(1, 3))
    def create(self, count: int, gap: int) -> None:
        new = [self.last_id + gap * (place + 1) for place in range(count)]
        self.last_id = max([self.last_id, *new])
        self.server.alive += new
        self.most = max(self.most, len(self.server.alive))
        if not self.server.reads:
            self.throughout.update(new)

    @rule(data=st.data(), count=st.integers(1, 12))
    def delete(self, data: st.DataObject, count: int) -> None:
        start = data.draw(st.integers(0, len(self.server.alive)))
        self.throughout -= set(self.server.alive[start : start + count])
        del self.server.alive[start : start + count]

    @precondition(lambda self: not self.ended)
    @rule()
    def read(self) -> None:
        self.go_on()

    @precondition(lambda self: not self.ended)
    @rule()
    def fail(self) -> None:
        try:
            self.reading.throw(vizwatch.ConnectError("not sent"))
        except StopIteration:
            self.ended = True

    def teardown(self) -> None:
        """Whatever happened until now: the listing ends, and keeps its promise."""
        if not hasattr(self, "reading"):
            return
        bound = self.server.reads + 2 * self.most + 100
        while not self.ended:
            self.go_on()
            assert self.server.reads < bound, "the listing does not end"
        assert self.throughout <= set(self.given), "a job that existed throughout was skipped"
        assert self.given == sorted(set(self.given), reverse=self.order == "desc")
        assert set(self.given) <= set(range(self.last_id + 1))


TestListed = pytest.mark.fault("P2", "P4")(Listed.TestCase)
TestListed.settings = settings(max_examples=300, stateful_step_count=30)


# --- what it costs ------------------------------------------------------------------------------------------


def finished(reading: Coroutine[Any, Any, list[Job]]) -> list[Job]:
    while True:
        try:
            reading.send(None)
        except StopIteration as end:
            jobs: list[Job] = end.value
            return jobs


@pytest.mark.parametrize(
    ("count", "reads"), [(0, 1), (1, 3), (25, 3), (1000, 3), (1001, 4), (2000, 4), (2500, 5), (10_000, 12)]
)
def test_a_complete_listing_costs_two_requests_more_than_it_has_pages(count: int, reads: int) -> None:
    server = Server("by the cap", 1000, "right", None, list(range(count)))
    assert len(finished(pager(server, per_page=1000, order="asc").collect())) == count
    assert server.reads == reads


@pytest.mark.fault("P4")
@pytest.mark.parametrize("totals", TOTALS)
def test_a_total_that_is_wrong_costs_a_few_requests_more(totals: str) -> None:
    server = Server("by the cap", 10, totals, None, list(range(1000)))
    assert len(finished(pager(server, per_page=10, order="asc").collect())) == 1000
    assert server.reads <= 100 + 50


def test_pages_that_are_gone_are_not_all_asked_for() -> None:
    server = Server("by the cap", 1, "missing", None, list(range(1000)))
    reading = pager(server, per_page=1, order="asc").collect()
    while server.reads < 11:
        reading.send(None)
    del server.alive[5:]
    assert [job.job_id for job in finished(reading)] == [0, 1, 2, 3, 4]
    assert server.reads <= 50


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (
            "ignores the page",
            "page 5 begins with job 1, and page 1 with job 1: pages do not follow each other",
        ),
        ("ignores the order", "not in the order of job_id"),
        ("has no end", "is not the last one, and none was found"),
    ],
)
def test_a_service_whose_pages_prove_nothing_is_told_so(breaks: str, said: str) -> None:
    async def fetch(query: wire.Query, number: int, size: int) -> JobPage:
        ids = {
            "ignores the page": [1, 2],
            "ignores the order": [2 * number, 2 * number - 1] if number < 5 else [],
            "has no end": [2 * number, 2 * number + 1],
        }[breaks]
        return JobPage(tuple(Job(one, JobStatus.RUNNING) for one in ids), number, 8)

    query = wire.query(status=None, search_content=None, sort_by="job_id", order="asc", workspace_id=None)
    listing = JobPager(fetch, [query], Ask(per_page=2), Dialect(), complete=True)
    with pytest.raises(vizwatch.ProtocolError, match=f"list jobs: .*{said}") as caught:
        finished(listing.collect())
    assert caught.value.per_page == 2


def test_a_service_that_sorts_ids_as_text_is_found_out_although_each_page_is_in_order() -> None:
    pages = {1: [100, 101], 2: [102, 103], 3: [98, 99]}

    async def fetch(query: wire.Query, number: int, size: int) -> JobPage:
        return JobPage(tuple(Job(one, JobStatus.RUNNING) for one in pages.get(number, [])), number, 6)

    query = wire.query(status=None, search_content=None, sort_by="job_id", order="asc", workspace_id=None)
    listing = JobPager(fetch, [query], Ask(per_page=2), Dialect(), complete=True)
    said = "job 98 is on page 3, behind job 103: not in the order of job_id"
    with pytest.raises(vizwatch.ProtocolError, match=said):
        finished(listing.collect())


# --- over HTTP ----------------------------------------------------------------------------------------------


def ids(cloud: Emulator) -> set[int]:
    return set(cloud._world.cloud.project(cloud.project_id, cloud.now).jobs)


@pytest.mark.fault("P2")
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_no_job_is_skipped_while_jobs_come_and_go_before_each_page(order: str) -> None:
    for seed in range(5):
        for complete in (False, True):
            async with Emulator(seed=seed, quota=None) as cloud:
                before = set(cloud.add_jobs(200, status=8))
                cloud.fault("drift", insert=2, delete=4)
                async with vizwatch.Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
                    listing = client.list_jobs(per_page=10, order=order, complete=complete)
                    assert listing.complete is complete
                    found = [job.job_id async for job in listing]
                missed = before & ids(cloud) - set(found)
                assert found == sorted(set(found), reverse=order == "desc")
                assert bool(missed) is not complete, "and a listing from first to last does skip some"


async def test_pages_come_in_the_order_asked_for(cloud: Emulator, here: vizwatch.Client) -> None:
    job_ids = cloud.add_jobs(25, status=8)
    for order, numbers in {"asc": [1, 2, 3], "desc": [3, 2, 1]}.items():
        before = len(cloud.requests)
        pages = [page async for page in here.list_jobs(complete=True, order=order, per_page=10).pages()]
        assert [page.page for page in pages] == numbers
        assert {page.job_total_count for page in pages} == {25}
        found = [job.job_id for page in pages for job in page.jobs]
        assert found == (job_ids if order == "asc" else job_ids[::-1])
        asked = [request.query for request in cloud.requests[before:]]
        assert [query["page"] for query in asked] == ["1", "4", "3", "2", "1"]
        assert {(query["sortBy"], query["order"]) for query in asked} == {("job_id", "asc")}


async def test_a_workspace_is_listed_completely_in_the_pages_that_the_service_allows() -> None:
    async with Emulator(per_page_limit=100) as cloud:
        job_ids = cloud.add_jobs(250, status=8, workspace_id="w")
        cloud.add_jobs(3, status=8)
        async with vizwatch.Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            listing = client.list_jobs(workspace_id="w", complete=True)
            assert [job.job_id async for job in listing] == job_ids
            assert [job.job_id async for job in listing] == job_ids, "and again"
    assert [request.query["per_page"] for request in cloud.requests][:2] == ["1000", "100"]
    assert len(cloud.requests) == 1 + 2 * 5


@pytest.mark.fault("P9")
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_page_that_fails_is_read_again_by_the_same_iterator(
    cloud: Emulator, here: vizwatch.Client, order: str
) -> None:
    job_ids = cloud.add_jobs(25, status=8)
    for fails_at, number in enumerate([1, 4, 3, 2, 1]):
        cloud.fault("status", status=403, code="ModelArts.0108", after=fails_at, count=1)
        pages = here.list_jobs(per_page=10, complete=True, order=order).pages()
        found: list[int] = []
        with pytest.raises(vizwatch.PermissionDeniedError) as caught:
            async for page in pages:
                found += [job.job_id for job in page.jobs]
        assert (caught.value.page, caught.value.per_page) == (number, 10)
        async for page in pages:
            found += [job.job_id for job in page.jobs]
        assert sorted(found) == job_ids
        assert len(found) == 25


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"status": 8}, r"status must be None with complete=True, not 8: a job's status may change"),
        ({"status": 0}, r"status must be None .* choose among the jobs that are given"),
        ({"status": [8, 12]}, r"status must be None .* choose among the jobs that are given"),
        ({"search_content": "tb"}, r"search_content must be '' with complete=True, not 'tb'"),
        ({"sort_by": "create_time"}, r"sort_by must be 'job_id' with complete=True"),
        ({"page": 2}, r"page must be 1 with complete=True, not 2"),
        ({"limit": 0}, r"limit must be None with complete=True, not 0"),
        ({"limit": 10}, r"limit must be None .* break the iteration off"),
        ({"on_bad_row": "skip"}, r"on_bad_row must be 'raise' with complete=True"),
        ({"complete": 1}, r"complete must be True or False, not 1"),
    ],
)
async def test_what_would_break_the_promise_is_refused_before_any_request(
    cloud: Emulator, here: vizwatch.Client, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(vizwatch.ConfigError, match=said):
        here.list_jobs(**{"complete": True, **arguments})
    assert not cloud.requests


@pytest.mark.fault("P8")
async def test_a_complete_listing_broken_off_leaves_nothing_open(
    cloud: Emulator, here: vizwatch.Client
) -> None:
    job_ids = cloud.add_jobs(25, status=8)
    listing = here.list_jobs(search_content="", per_page=10, order="desc", complete=True)
    async for job in listing:
        assert job.job_id == job_ids[-1]
        break
    assert len(cloud.requests) == 3, "one for the size, one for the end, and the last page"
    assert not [task for task in asyncio.all_tasks() if "aclose" in repr(task)]
    assert len(await listing.collect()) == 25
