"""HTTP and bodies as they should not be, through a client: what is retried, what is read, what is obeyed."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import tracemalloc
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from servers import RawServer, bomb, client_of, http

import vizwatch
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime

JOBS = "/v1/p1/visualization-jobs"
JOB = {"job_id": 197, "status": 8, "is_success": True}
CANARY = "canary-token"


def now() -> float:
    return asyncio.get_running_loop().time()


# --- statuses and headers: H4, H8, H9, H14, H15, A9, A14 ------------------------------------------------


@pytest.mark.fault("H4")
@pytest.mark.parametrize(
    ("first", "second", "waited"),
    [("2", "9", (2, 9)), ("9", "2", (2, 9)), ("abc", "9", (0, 9)), ("-1", "1e9", (0, 0)), ("", "2", (0, 2))],
)
async def test_two_headers_that_say_when_to_come_again_are_one_or_none(
    first: str, second: str, waited: tuple[int, int]
) -> None:
    busy = http({}, status="503 Busy", headers=(f"Retry-After: {first}", f"Retry-After: {second}"))
    async with RawServer(busy, http(JOB)) as server, client_of(server) as client:
        started = now()
        await client.get_job(197)
        least, most = waited
        assert least <= now() - started <= most + 0.5
    assert server.seen.total() == 2


@pytest.mark.fault("H8")
@pytest.mark.parametrize("target", ["loop", "loop without host", "https"])
async def test_a_redirect_to_the_same_host_is_not_followed_either(target: str) -> None:
    places = {"loop": "http://{host}{path}", "loop without host": "{path}", "https": "https://{host}{path}"}

    async def away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = places[target].format(host=server.endpoint.removeprefix("http://"), path=f"{JOBS}/197")
        writer.write(http(status="301 Moved", headers=(f"Location: {place}",), raw=b""))

    async with RawServer(away) as server, client_of(server) as client:
        with pytest.raises(vizwatch.ProtocolError, match="not followed") as caught:
            await client.get_job(197)
    assert caught.value.http_status == 301
    assert server.seen == {("GET", f"{JOBS}/197"): 2}, "an answer of somebody else is doubted once"
    assert server.connections == 2, "and none of its places was tried"


@pytest.mark.fault("H9")
@pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "204 No Content", "205 Reset Content"])
async def test_an_empty_body_is_success_for_a_write_and_no_job_for_a_read(status: str) -> None:
    length = "" if status.startswith("204") else "Content-Length: 0\r\n"
    async with RawServer(f"HTTP/1.1 {status}\r\n{length}\r\n".encode()) as server:
        async with client_of(server) as client:
            await client.stop_job(197)
            await client.restart_job(197)
            await client.delete_job(197)
            await client.update_job(197, "text")
            assert server.seen.total() == 4
            for read in (client.get_job(197), client.list_jobs().collect()):
                with pytest.raises(vizwatch.DecodeError):
                    await read


@pytest.mark.fault("H14")
async def test_a_login_page_is_named_by_its_type_and_start_after_two_looks() -> None:
    page = b"<html>\x1b[2J\x00Log in, please" + b"y" * 1000
    reply = http(raw=page, headers=("Content-Type: text/html; charset=utf-8",))
    async with RawServer(reply) as server, client_of(server) as client:
        with pytest.raises(vizwatch.ProtocolError, match=r"text/html") as caught:
            await client.get_job(197)
    text = str(caught.value)
    assert "Log in, please" in text
    assert text.isprintable()
    assert 100 < text.count("y" * 10) * 10 <= 200
    assert caught.value.http_status == 200
    assert server.seen == {("GET", f"{JOBS}/197"): 2}


@pytest.mark.fault("H15")
@pytest.mark.parametrize("headers", [("Content-Type: text/plain",), ("Content-Type:",), ()])
async def test_json_is_json_whatever_its_type_says(headers: tuple[str, ...]) -> None:
    replies = http(JOB, headers=headers), http({"jobs": [JOB]}, headers=headers)
    async with RawServer(*replies) as server, client_of(server) as client:
        assert (await client.get_job(197)).status == 8
        assert [job.job_id for job in await client.list_jobs(limit=1).collect()] == [197]


@pytest.mark.fault("A9")
@pytest.mark.parametrize(("status", "code"), [(403, "ModelArts.0108"), (500, "ModelArts.0109")])
async def test_a_lack_of_permission_is_not_tried_again(
    cloud: Emulator, here: vizwatch.Client, status: int, code: str
) -> None:
    cloud.fault("status", status=status, code=code)
    calls = (here.get_job(1), here.list_jobs().collect(), here.create_job("tb", "/a/"), here.stop_job(1))
    for count, call in enumerate(calls, 1):
        with pytest.raises(vizwatch.PermissionDeniedError) as caught:
            await call
        assert (caught.value.http_status, caught.value.error_code) == (status, code)
        assert len(cloud.requests) == count


@pytest.mark.fault("A14")
async def test_a_token_without_a_project_is_no_deletion(cloud: Emulator, here: vizwatch.Client) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    cloud.fault("status", status=400, code="ModelArts.0204", after=1)
    seen: list[Any] = []
    with pytest.raises(vizwatch.WrongEndpointError):
        async for transition in here.watch(job_id):
            seen.append(transition.current)  # noqa: PERF401 - what came before the error is the point
    assert seen == [8]
    assert len(cloud.requests) == 2


# --- bodies: J1, J2, J3 ---------------------------------------------------------------------------------

BODY = json.dumps(JOB).encode()
CUT = {
    "Content-Length": http(JOB)[:-3],
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b" % (len(BODY), BODY[:-3]),
    "chunked, before the last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n" % (len(BODY), BODY),
    "gzip": http(raw=gzip.compress(BODY)[:-20], headers=("Content-Encoding: gzip",)),
    "gzip, cut again": http(raw=gzip.compress(BODY), headers=("Content-Encoding: gzip",))[:-20],
}


@pytest.mark.fault("J1")
@pytest.mark.parametrize("body", CUT)
async def test_a_read_whose_body_is_cut_is_tried_again(body: str) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CUT[body] if len(server.requests) == 1 else http(JOB))

    async with RawServer(cut) as server, client_of(server) as client:
        job = await client.get_job(197)
    assert (job.job_id, job.status) == (197, 8)
    assert server.seen.total() == 2


BOMBS = {
    "gzip": lambda: bomb(31, 64),
    "deflate": lambda: bomb(15, 64),
    "gzip, gzip": lambda: gzip.compress(bomb(31, 64)),
    "deflate, gzip": lambda: gzip.compress(bomb(15, 64)),
    "br": lambda: b"\x0b\x02\x80" * 1000,
    "zstd": lambda: b"\x28\xb5\x2f\xfd" * 1000,
    "x-unheard-of": lambda: BODY + b"{",
}


@pytest.mark.fault("J2", "bounded")
@pytest.mark.parametrize("encoding", BOMBS)
async def test_a_bomb_of_any_encoding_is_stopped_and_never_a_job(encoding: str) -> None:
    """Only gzip and deflate are asked for; what comes in another encoding is not this API's."""
    reply = http(raw=BOMBS[encoding](), headers=(f"Content-Encoding: {encoding}",))
    async with RawServer(reply) as server, client_of(server, attempts=1) as client:
        tracemalloc.start()
        try:
            with pytest.raises(vizwatch.ProtocolError):
                await client.get_job(197)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 16 * 2**20


@pytest.mark.fault("J3", "bounded")
async def test_a_body_without_end_is_not_drained() -> None:
    """Its connection is closed, so that the server's writes fail, and the next call has another one."""
    sent, broken = 0, asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        if len(server.requests) > 1:
            writer.write(http(JOB))
            return
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while sent < 2**30:
                writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                sent += 0x10000
                await writer.drain()
        finally:
            broken.set()

    async with RawServer(endless) as server, client_of(server, max_body=100_000, attempts=1) as client:
        with pytest.raises(vizwatch.ProtocolError):
            await client.get_job(197)
        await broken.wait()
        assert sent < 64 * 2**20, "what the kernel's buffers take, and no more"
        assert (await client.get_job(197)).job_id == 197
    assert server.connections == 2


# --- what is sent, and what is obeyed: X1, X5, X6, X7 ---------------------------------------------------

EVIL = "x\r\nX-Evil: 1\r\n\r\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.fault("X5")
async def test_no_text_of_the_callers_is_a_header_or_another_request() -> None:
    async with RawServer(http(JOB), http(JOB), http({"jobs": []})) as server, client_of(server) as client:
        await client.create_job("board", f"/obs/{EVIL}", job_desc=EVIL, flavor=EVIL)
        await client.update_job(197, EVIL)
        await client.list_jobs(search_content=EVIL).collect()
    assert server.seen == {("POST", JOBS): 1, ("PUT", f"{JOBS}/197"): 1, ("GET", JOBS): 1}
    for request in server.requests:
        head, _, body = request.partition(b"\r\n\r\n")
        assert b"evil:" not in head.lower()
        assert b"\r" not in body
        assert b"\n" not in body
    created, updated = (json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests[:2])
    assert (created["job_desc"], created["train_url"]) == (EVIL, f"/obs/{EVIL}")
    assert updated == {"job_desc": EVIL}


@pytest.mark.fault("X5")
async def test_a_workspace_with_line_breaks_is_refused_before_any_request() -> None:
    async with RawServer(http(JOB)) as server, client_of(server) as client:
        with pytest.raises(vizwatch.ConfigError, match="workspace_id must be"):
            client.list_jobs(workspace_id="0\r\nX-Evil: 1")
        with pytest.raises(vizwatch.ConfigError, match="workspace_id must be"):
            vizwatch.Client(server.endpoint, "p1", auth="t", workspace_id="0\r\nX-Evil: 1")
    assert server.connections == 0


@pytest.mark.fault("X6", "X7")
async def test_no_address_that_the_service_gives_is_fetched() -> None:
    """Not a job's own address, nor what other APIs name the next page by: pages have numbers."""
    async with RawServer(http(JOB)) as trap:
        url = f"{trap.endpoint}/v1/p1/visualization-jobs?page=9"
        job = {**JOB, "service_url": url, "train_url": url, "next": url, "links": {"self": url}}
        headers = (
            f"Link: <{url}>; rel=next",
            f"Location: {url}",
            f"Content-Location: {url}",
            f"Refresh: 0; url={url}",
        )
        more = {
            "next": url,
            "next_marker": "9",
            "links": [{"rel": "next", "href": url}],
            "page_info": {"next": url},
        }
        replies = [
            http(job, headers=headers),
            http({**job, "status": 10}, headers=headers),
            http({"job_total_count": 2, "jobs": [job], **more}, headers=headers),
            http({"job_total_count": 2, "jobs": [{**job, "job_id": 198}], **more}, headers=headers),
            http({"jobs": [], **more}, headers=headers),
            http({**job, "is_success": True}, status="201 Created", headers=headers),
        ]
        async with RawServer(*replies) as server, client_of(server) as client:
            assert (await client.get_job(197)).service_url == url
            assert [t.job.service_url async for t in client.watch(197)] == [url]
            assert [one.job_id for one in await client.list_jobs(per_page=1, limit=2).collect()] == [197, 198]
            assert await client.list_jobs(per_page=1, page=3).collect() == []
            assert (await client.create_job("tb", url)).service_url == url
    assert (trap.connections, len(server.requests)) == (0, 6)
    pages = [r.split(b" ")[1].split(b"&page=")[1].split(b"&")[0] for r in server.requests[2:5]]
    assert pages == [b"1", b"2", b"3"]


@pytest.mark.fault("X1", "no secret")
async def test_tracing_a_session_and_logging_everything_shows_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever traces a session of their own is given the headers; printing them is safe all the same."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    traced: list[tuple[SimpleNamespace, Any]] = []

    async def note(_: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
        traced.append((context, params))

    trace = aiohttp.TraceConfig()
    for name in dir(trace):
        if name.startswith("on_"):
            getattr(trace, name).append(note)
    closed, refused = b"", http({"error_msg": f"no: {CANARY}"}, status="403 Forbidden")
    moved = http(status="302 Found", headers=("Location: https://example.com/",), raw=b"")
    async with RawServer(http(JOB), closed, moved, moved, http(raw=b"<html>"), refused) as server:
        async with aiohttp.ClientSession(trace_configs=[trace]) as session:
            async with client_of(server, session=session, auth=CANARY, attempts=2) as client:
                await client.get_job(197)
                for _ in range(4):
                    with pytest.raises(vizwatch.VizwatchError):
                        await client.get_job(197)
    assert CANARY in b"".join(server.requests).decode(), "it was there to be shown"
    assert len(traced) > 20
    seen = "".join(f"{context!r}{params!r}" for context, params in traced)
    assert CANARY not in seen
    assert CANARY not in caplog.text + repr([vars(record) for record in caplog.records])
