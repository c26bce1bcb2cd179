"""Listings that drift, fail or have bad rows, of several statuses, and of services that allow less."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from typing import Any

import pytest
from aioresponses import aioresponses
from conftest import JOBS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from looptime import new_event_loop
from servers import RawServer, http

import vizwatch
from vizwatch import JobStatus
from vizwatch._rules import wire
from vizwatch._rules.listing import Ask, Limits, Listing, Seen
from vizwatch._rules.merging import Merge
from vizwatch._values.models import Job, JobPage
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


def asked(cloud: Emulator, name: str) -> list[str | None]:
    return [request.query.get(name) for request in cloud.requests]


def client_of(cloud: Emulator, **settings: Any) -> vizwatch.Client:
    return vizwatch.Client(
        cloud.endpoint, cloud.project_id, auth=cloud.token, settings=vizwatch.Settings(**settings)
    )


# --- S13: limits on which the documents disagree ---------------------------------------------------------


@pytest.mark.fault("S13")
@pytest.mark.parametrize("refusal_status", [200, 400])
async def test_pages_of_1000_that_are_refused_are_asked_for_as_pages_of_100_once(refusal_status: int) -> None:
    async with Emulator(per_page_limit=100, refusal_status=refusal_status) as cloud:
        job_ids = cloud.add_jobs(250, status=8)
        async with client_of(cloud) as client:
            assert [job.job_id async for job in client.list_jobs()] == job_ids
            assert asked(cloud, "per_page") == ["1000", "100", "100", "100"]
            assert len(await client.list_jobs(limit=150).collect()) == 150
            assert len(await client.list_jobs(limit=7).collect()) == 7
    assert asked(cloud, "per_page")[4:] == ["100", "100", "7"]


async def test_a_later_page_begins_at_the_same_job_where_pages_are_smaller() -> None:
    for limit in (1000, 100):
        async with Emulator(per_page_limit=limit) as cloud:
            job_ids = cloud.add_jobs(1100, status=8)
            async with client_of(cloud) as client:
                for _ in range(2):
                    assert [job.job_id async for job in client.list_jobs(page=2)] == job_ids[1000:]
                page = await anext(client.list_jobs(page=2, limit=3).pages())
                assert [job.job_id for job in page.jobs] == job_ids[1000:1003]


async def test_a_per_page_of_the_callers_is_not_changed() -> None:
    async with Emulator(per_page_limit=100) as cloud, client_of(cloud) as client:
        with pytest.raises(vizwatch.BadRequestError, match="per_page"):
            await client.list_jobs(per_page=101).collect()
        assert asked(cloud, "per_page") == ["101"]


@pytest.mark.parametrize(("search_limit", "requests"), [(100, 1), (64, 2)])
async def test_a_search_of_up_to_100_characters_finds_the_same_where_64_are_allowed(
    search_limit: int, requests: int
) -> None:
    text = "n" * 64 + "-the-end"
    async with Emulator(search_limit=search_limit) as cloud:
        cloud.add_jobs(3, status=8, job_name="n" * 70)
        (wanted,) = cloud.add_jobs(1, status=8, job_name=f"a-{text}-b")
        cloud.add_jobs(3, status=8)
        async with client_of(cloud) as client:
            for _ in range(2):
                found = await client.list_jobs(search_content=text).collect()
                assert [job.job_id for job in found] == [wanted]
    assert asked(cloud, "search_content")[:-1] == [text, text[:64]][:requests]
    assert asked(cloud, "per_page") == ["1000"] * (requests + 1), "it was the search that was refused"


async def test_both_limits_are_found_in_one_listing() -> None:
    async with Emulator(search_limit=64, per_page_limit=100) as cloud, client_of(cloud) as client:
        assert await client.list_jobs(search_content="n" * 65).collect() == []
        assert len(cloud.requests) == 3
        cloud.add_jobs(3, status=8)
        assert len(await client.list_jobs().collect()) == 3
    assert asked(cloud, "per_page")[3:] == ["100"]


@pytest.mark.fault("S11", "P3")
@pytest.mark.parametrize(
    ("code", "message", "requests"),
    [
        ("ModelArts.0104", "parameter error", 2),
        ("ModelArts.0102", "no such workspace: per_page", 1),
        ("ModelArts.0118", "quota", 1),
    ],
)
async def test_a_refusal_that_stays_is_raised_after_one_more_try_at_most(
    answers: aioresponses, client: vizwatch.Client, code: str, message: str, requests: int
) -> None:
    seen: list[Any] = []
    body = {"error_code": code, "error_message": message}
    for per_page in (1000, 100):
        url = f"{JOBS}?order=asc&page=1&per_page={per_page}&sortBy=job_id"
        answers.get(url, status=400, payload=body, callback=lambda url, **_: seen.append(url))
    with pytest.raises(vizwatch.BadRequestError, match=message):
        await client.list_jobs().collect()
    assert len(seen) == requests
    assert client._dialect.limits == Limits(), "nothing was learnt"


async def test_a_later_page_that_is_refused_is_not_asked_for_otherwise() -> None:
    async with Emulator() as cloud, client_of(cloud) as client:
        cloud.add_jobs(1001, status=8)
        pages = client.list_jobs().pages()
        await anext(pages)
        cloud.fault("status", status=400, code="ModelArts.0104", count=1)
        with pytest.raises(vizwatch.BadRequestError):
            await anext(pages)
        assert asked(cloud, "per_page") == ["1000", "1000"]


@given(
    st.integers(1, 3000) | st.none(),
    st.integers(1, 5),
    st.integers(0, 2500) | st.none(),
    st.text("n", max_size=100),
    st.sampled_from(["", "per_page", "search_content", "per_page, search_content"]),
)
def test_what_is_tried_gets_narrower_and_ends(
    per_page: int | None, page: int, limit: int | None, text: str, message: str
) -> None:
    ask, limits, tried = Ask(page, per_page, limit, text), Limits(), 0
    while (narrower := ask.narrower(limits, message)) is not None:
        assert narrower != limits
        assert (narrower.per_page, narrower.search_content) <= (limits.per_page, limits.search_content)
        limits, tried = narrower, tried + 1
    assert tried <= 2
    assert len(text[: limits.search_content]) <= 64 or len(text) <= 64
    if per_page is None:
        assert ask.at_once(limits) <= 100
        wide, narrow = Limits(), Limits(100)
        begin = (ask.first_page(wide) - 1) * wide.per_page
        assert (ask.first_page(narrow) - 1) * narrow.per_page == begin


# --- what goes wrong between and on the pages -------------------------------------------------------------


@pytest.mark.fault("P1")
@pytest.mark.parametrize("sort_by", ["job_id", "create_time"])
async def test_jobs_inserted_before_the_cursor_repeat_none(sort_by: str) -> None:
    async with Emulator(seed=1) as cloud:
        before = cloud.add_jobs(100, status=8)
        cloud.fault("drift", insert=4, delete=0)
        async with client_of(cloud) as client:
            listing = client.list_jobs(order="desc", sort_by=sort_by, per_page=10)
            found = [one.job_id async for one in listing]
    assert len(cloud.requests) > 15, "the service did repeat them: 100 jobs are 10 pages"
    assert len(set(found)) == len(found)
    assert set(before) <= set(found)


@pytest.mark.fault("P9")
async def test_an_error_says_which_page_to_go_on_with_in_pages_of_which_size() -> None:
    async with Emulator(per_page_limit=100) as cloud, client_of(cloud) as client:
        job_ids = cloud.add_jobs(350, status=8)
        pages = client.list_jobs().pages()
        found = [one.job_id for one in (*(await anext(pages)).jobs, *(await anext(pages)).jobs)]
        cloud.fault("status", status=403, code="ModelArts.0108", count=2)
        for _ in range(2):
            with pytest.raises(vizwatch.PermissionDeniedError) as caught:
                await anext(pages)
            assert (caught.value.page, caught.value.per_page) == (3, 100)
        again = client.list_jobs(page=3, per_page=100)
        rest = [one.job_id for page in [page async for page in pages] for one in page.jobs]
        assert found + rest == job_ids
        assert [one.job_id async for one in again] == rest
    assert asked(cloud, "page") == ["1", "1", "2", "3", "3", "3", "4", "3", "4", "5"]


@pytest.mark.fault("P9")
@pytest.mark.parametrize(
    ("kind", "params"), [("body", {"text": "[]"}), ("drop", {}), ("truncate", {"bytes": 9})]
)
@pytest.mark.parametrize("query", [{}, {"status": [8, 12]}])
async def test_whatever_fails_of_a_page_says_which_and_the_iterator_loses_nothing(
    kind: str, params: dict[str, Any], query: dict[str, Any]
) -> None:
    async with Emulator() as cloud, client_of(cloud, attempts=1) as client:
        job_ids = [cloud.add_jobs(1, status=status)[0] for status in [8, 12] * 15]
        for fails_at in range(3):
            cloud.fault(kind, after=fails_at, count=1, **params)
            before = len(cloud.requests)
            pages = client.list_jobs(per_page=10, **query).pages()
            found: list[int] = []
            failed: list[tuple[int | None, int | None]] = []
            while True:
                try:
                    found += [one.job_id for one in (await anext(pages)).jobs]
                except (vizwatch.TransportError, vizwatch.ProtocolError) as error:
                    failed.append((error.page, error.per_page))
                except StopAsyncIteration:
                    break
            assert found == job_ids
            number = int(asked(cloud, "page")[before + fails_at] or 0)
            assert failed == [(number, 10)]


ROW = '{"job_id": %d, "status": 8}'


def with_a_bad_row(count: int, total: int) -> str:
    """A page of so many rows, the first of which has no status."""
    rows = ['{"job_id": 1}', *(ROW % number for number in range(2, count + 1))]
    return f'{{"job_total_count": {total}, "jobs": [{", ".join(rows)}]}}'


@pytest.mark.fault("J14")
async def test_a_bad_row_is_raised_with_its_place_or_left_out_and_counted(
    cloud: Emulator, here: vizwatch.Client
) -> None:
    job_ids = cloud.add_jobs(25, status=8)
    cloud.fault("body", text=with_a_bad_row(10, 25), count=2)
    with pytest.raises(vizwatch.DecodeError, match="the field is missing") as caught:
        await here.list_jobs(per_page=10).collect()
    assert (caught.value.path, caught.value.page) == ("$.jobs[0].status", 1)
    cloud.clear_faults()
    cloud.fault("body", text=with_a_bad_row(10, 25), count=1)
    pages = [page async for page in here.list_jobs(per_page=10, on_bad_row="skip").pages()]
    assert [(len(page.jobs), page.skipped) for page in pages] == [(9, 1), (10, 0), (5, 0)]
    assert [one.job_id for page in pages for one in page.jobs] == job_ids[1:]


@pytest.mark.fault("J14")
async def test_of_several_statuses_every_row_left_out_is_counted_once(
    cloud: Emulator, here: vizwatch.Client
) -> None:
    for row, count in [('{"job_id": 3, "status": 12}', 1), ("false", 0)]:
        cloud.clear_faults()
        cloud.fault("body", text='{"jobs": [{}, 7]}', count=1)
        cloud.fault("body", text=f'{{"jobs": [{row}, null]}}', after=1, count=1)
        pages = [page async for page in here.list_jobs(status=[8, 12], on_bad_row="skip").pages()]
        assert sum(page.skipped for page in pages) == 4 - count
        assert sum(len(page.jobs) for page in pages) == count


@pytest.mark.parametrize("value", ["ignore", True, None])
async def test_what_to_do_with_a_bad_row_is_one_of_two(
    cloud: Emulator, here: vizwatch.Client, value: Any
) -> None:
    with pytest.raises(vizwatch.ConfigError, match="on_bad_row must be one of raise, skip, not"):
        here.list_jobs(on_bad_row=value)
    assert not cloud.requests


@pytest.mark.fault("J14")
@given(
    rows=st.lists(st.booleans(), max_size=40),
    per_page=st.integers(1, 12),
    cap=st.integers(1, 12),
    has_total=st.booleans(),
    ignores_page=st.booleans(),
)
def test_rows_that_are_left_out_do_not_end_a_listing_early(
    rows: list[bool], per_page: int, cap: int, has_total: bool, ignores_page: bool
) -> None:
    """Nor do they prolong it for ever, where a service gives the first page again and again."""
    size, total = min(per_page, cap), len(rows) if has_total else None
    listing, found, asked = Listing(Seen(ascending=True), per_page), [], 0
    while not listing.ended:
        asked += 1
        start = 0 if ignores_page else (listing.page - 1) * size
        good = [start + place for place, is_good in enumerate(rows[start : start + size]) if is_good]
        skipped = len(rows[start : start + size]) - len(good)
        page = JobPage(tuple(map(job, good)), listing.page, total, skipped=skipped)
        try:
            found += [one.job_id for one in listing.take(page).jobs]
        except vizwatch.ProtocolError:
            assert ignores_page and not good and asked > 100
            break
    assert found == [
        number for number, is_good in enumerate(rows[: size if ignores_page else None]) if is_good
    ]
    assert asked <= (101 if ignores_page else -(-len(rows) // size) + 2)


@pytest.mark.fault("J14")
@pytest.mark.parametrize("cap", [10, 100])
def test_a_full_page_with_a_bad_row_is_not_taken_for_a_short_one(cap: int) -> None:
    """Where a service caps the page, and its total counts the page alone."""
    listing = Listing(Seen(ascending=True), 1000)
    for start in (0, cap):
        assert not listing.ended
        jobs = tuple(map(job, range(start + 1, start + cap)))
        assert listing.take(JobPage(jobs, listing.page, cap, skipped=1)).jobs == jobs


# --- P8: a million jobs -----------------------------------------------------------------------------------

MILLION = 1_000_000


async def million(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every request of one connection with a page of a million jobs."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            page, size = map(int, re.findall(rb"page=(\d+)", head))
            numbers = range((page - 1) * size + 1, min(page * size, MILLION) + 1)
            rows = b",".join([b'{"job_id":%d,"status":8,"job_name":"n%d"}' % (one, one) for one in numbers])
            writer.write(http(raw=b'{"job_total_count":%d,"jobs":[%b]}' % (MILLION, rows)))
            await writer.drain()
    writer.close()


@pytest.mark.fault("P8")
@pytest.mark.parametrize("complete", [False, True])
async def test_a_million_jobs_are_listed_in_the_memory_of_two_pages(complete: bool) -> None:
    """Measured in the blocks that the interpreter has allocated: a job read has three, an id kept has one."""
    server = await asyncio.start_server(million, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    blocks: list[int] = []
    count = 0
    async with server, vizwatch.Client(f"http://{host}:{port}", "p", auth="t") as client:
        async for page in client.list_jobs(order="desc" if complete else "asc", complete=complete).pages():
            count += len(page.jobs)
            blocks.append(sys.getallocatedblocks())
    assert count == MILLION
    # The latest 10,000 ids are remembered, which are ten pages.
    assert max(blocks[20:]) - blocks[20] < 2 * 1000 * 3


# --- several statuses ------------------------------------------------------------------------------------


def job(job_id: int, status: int = 8, **fields: Any) -> Job:
    return Job(job_id=job_id, status=JobStatus(status), **fields)


async def test_several_statuses_are_one_listing_in_the_asked_order(
    cloud: Emulator, here: vizwatch.Client
) -> None:
    statuses = [8, 12, 8, 10, 7, 12, 8]
    job_ids = [cloud.add_jobs(1, status=status)[0] for status in statuses]
    wanted = [job_id for job_id, status in zip(job_ids, statuses, strict=True) if status != 7]
    found = [one.job_id async for one in here.list_jobs(status=[12, JobStatus.RUNNING, 10])]
    assert found == wanted
    assert asked(cloud, "status") == ["8", "10", "12"]
    found = [one.job_id async for one in here.list_jobs(status={12, 8, 10}, order="desc")]
    assert found == wanted[::-1]
    by_status = [one.status async for one in here.list_jobs(status=(12, 8), sort_by="status")]
    assert by_status == [8, 8, 8, 12, 12]


async def test_one_status_in_a_list_is_as_one_alone(cloud: Emulator, here: vizwatch.Client) -> None:
    cloud.add_jobs(2, status=8)
    assert len(await here.list_jobs(status=[8], page=1).collect()) == 2
    assert len(cloud.requests) == 1


async def test_merged_listings_are_read_only_as_far_as_they_are_needed(
    cloud: Emulator, here: vizwatch.Client
) -> None:
    for _ in range(30):
        cloud.add_jobs(1, status=8)
        cloud.add_jobs(1, status=12)
    pages = here.list_jobs(status=[8, 12], per_page=10).pages()
    first = await anext(pages)
    assert len(cloud.requests) == 2
    assert (first.page, len(first.jobs), first.job_total_count) == (1, 19, 60)
    assert first.job_count_limit is not None
    second = await anext(pages)
    assert len(cloud.requests) == 3
    assert [one.job_id for one in (*first.jobs, *second.jobs)] == sorted(
        one.job_id for one in (*first.jobs, *second.jobs)
    )
    assert len(await here.list_jobs(status=[8, 12], per_page=10, limit=5).collect()) == 5
    assert len(cloud.requests) == 3 + 2


@pytest.mark.fault("P3")
async def test_a_job_that_changes_its_status_meanwhile_comes_once(
    cloud: Emulator, here: vizwatch.Client
) -> None:
    job_ids = [cloud.add_jobs(1, status=status)[0] for status in [8, 12] * 20]
    pages = here.list_jobs(status=[8, 12], per_page=10).pages()
    found = [one.job_id for one in (*(await anext(pages)).jobs, *(await anext(pages)).jobs)]
    assert len(cloud.requests) == 3, "more of the running ones are read already"
    moved = next(job_id for job_id in job_ids[::2] if job_id > max(found))
    cloud.set_status(moved, 12)
    async for page in pages:
        found += [one.job_id for one in page.jobs]
    assert found == job_ids


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"status": []}, "status must be"),
        ({"status": "8"}, "status must be"),
        ({"status": [8, True]}, "status must be"),
        ({"status": [8, 12], "page": 2}, "page must be 1 where several statuses"),
    ],
)
async def test_wrong_statuses_are_refused_before_any_request(
    cloud: Emulator, here: vizwatch.Client, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(vizwatch.ConfigError, match=said):
        here.list_jobs(**arguments)
    assert not cloud.requests


async def test_a_merged_listing_that_fails_raises_and_leaves_nothing(here: vizwatch.Client) -> None:
    async with RawServer(http({}, status="500 Oh")) as server:
        once = vizwatch.Settings(attempts=1)
        async with vizwatch.Client(server.endpoint, "p", auth="t", settings=once) as client:
            with pytest.raises(vizwatch.ServerError):
                await client.list_jobs(status=[8, 12]).collect()


KEYS = st.none() | st.integers(0, 5)


@given(
    st.lists(st.lists(KEYS, max_size=8), min_size=1, max_size=4),
    st.lists(st.integers(1, 3), min_size=1),
    st.booleans(),
)
def test_what_is_merged_is_all_of_it_in_order_and_as_early_as_it_can_be(
    listings: list[list[int | None]], sizes: list[int], descending: bool
) -> None:
    def key(one: Job) -> tuple[bool, int]:
        return one.create_time is not None, one.create_time or 0

    rows = [
        sorted(
            (job(100 * number + place, create_time=value) for place, value in enumerate(values)),
            key=key,
            reverse=descending,
        )
        for number, values in enumerate(listings)
    ]
    everything = [one for row in rows for one in row]
    merge = Merge("create_time", descending, len(rows))
    given_: list[Job] = []
    pages = 0
    while (number := merge.needed()) is not None:
        size = sizes[pages % len(sizes)]
        pages += 1
        page, rows[number] = rows[number][:size], rows[number][size:]
        if page:
            merge.add(number, page)
        else:
            merge.end(number)
        given_ += merge.settled()
    assert merge.settled() == []
    assert sorted(one.job_id for one in given_) == sorted(one.job_id for one in everything)
    assert [key(one) for one in given_] == sorted(map(key, given_), reverse=descending)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=25)
@given(
    statuses=st.lists(st.sampled_from([7, 8, 10, 12]), max_size=30),
    wanted=st.sets(st.sampled_from([7, 8, 10, 12]), min_size=1),
    sort_by=st.sampled_from(wire.SORT_KEYS),
    order=st.sampled_from(wire.ORDERS),
    per_page=st.integers(1, 7),
    limit=st.none() | st.integers(0, 10),
)
def test_a_merged_listing_is_the_listing_of_all_without_the_others(
    statuses: list[int], wanted: set[int], sort_by: str, order: str, per_page: int, limit: int | None
) -> None:
    async def compare() -> None:
        async with Emulator() as cloud, client_of(cloud) as client:
            for status in statuses:
                cloud.add_jobs(1, status=status)
            query: dict[str, Any] = {"sort_by": sort_by, "order": order, "per_page": per_page}
            everything = await client.list_jobs(**query).collect()
            merged = await client.list_jobs(status=wanted, limit=limit, **query).collect()
            expected = [one for one in everything if one.status in wanted][:limit]
            assert [getattr(one, sort_by) for one in merged] == [getattr(one, sort_by) for one in expected]
            assert len({one.job_id for one in merged}) == len(merged)

    loop = new_event_loop()
    try:
        loop.run_until_complete(compare())
    finally:
        loop.close()
