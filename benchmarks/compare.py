"""What vizwatch does where otcextensions, the one ready client of this API, was found wanting: side by side.

Both are used as their documents say against the same servers of raw sockets, and what they do is told as it
was seen: the value or the error that they gave, and the requests that came in. One rule for both says
whether that is right.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import attrs

from benchmarks._frame import RESULTS, aligned, peak_resident, where, written
from benchmarks._raw import Asked, RawServer, Reply, cut, http, one_by_one
from vizwatch import Client, Settings

PROJECT: Final = "04f679b17380d32a2f32c00335c4b5ba"
_ROOT: Final = Path(__file__).parent.parent
_TOKEN: Final = "the-token-of-a-comparison"
_REASON: Final = "this is the reason"
_BOMB: Final = 128
_SHOWN: Final = 70
_JOBS: Final = 25
_SETTINGS: Final = Settings(backoff_base=0.01, backoff_max=0.05, poll_interval=0.05, poll_interval_min=0.01)


@attrs.frozen
class Outcome:
    """What one client did."""

    endpoint: str
    value: Any
    error: BaseException | None
    requests: Sequence[Asked]
    trapped: Sequence[Asked]
    """What came to another host."""
    seconds: float

    @property
    def said(self) -> str:
        """The error, its text included, or that there was none."""
        if self.error is None:
            return "no error"
        text = " ".join(str(self.error).split())
        for address in (f"{self.endpoint}/v1/{PROJECT}", self.endpoint):
            text = text.replace(address, "…")
        return f"{type(self.error).__name__}: {text}"

    @property
    def told(self) -> str:
        """As `said`, cut short."""
        return self.said if len(self.said) <= _SHOWN else f"{self.said[:_SHOWN].rstrip()}…"

    @property
    def counted(self) -> str:
        """How many requests came."""
        return _counted(len(self.requests))

    def sent(self, method: str) -> int:
        """How many requests of that method came."""
        return sum(asked.method == method for asked in self.requests)


@attrs.frozen
class Seen:
    """An outcome in words, and whether it is right."""

    text: str
    right: bool

    def __str__(self) -> str:
        return f"{'✓' if self.right else '✗'} {self.text}"


Judge = Callable[[Outcome], Seen]


@attrs.frozen(kw_only=True)
class Trial:
    """One behaviour: what a server does, what each client is asked for, and how the outcome is judged."""

    what: str
    reply: Callable[[], Reply]
    """Made anew for each client."""
    theirs: Callable[[Any], Any]
    ours: Callable[[Client], Awaitable[Any]]
    judge: Judge


@attrs.frozen(kw_only=True)
class Line:
    """One behaviour, of both."""

    what: str
    theirs: Seen
    ours: Seen


@attrs.frozen(kw_only=True)
class Comparison:
    """All of them."""

    lines: Sequence[Line]
    seconds: float
    """How long all of it took."""
    name: str = "compare"
    title: str = "what otcextensions and vizwatch do"

    @property
    def verdict(self) -> str:
        """How many of each are right."""
        ours, theirs = (sum(seen) for seen in zip(*self._right, strict=True))
        total = len(self.lines)
        return f"right: otcextensions {theirs} of {total}, vizwatch {ours} of {total}"

    @property
    def is_met(self) -> bool:
        """Whether all of ours are right."""
        return all(line.ours.right for line in self.lines)

    @property
    def _right(self) -> list[tuple[bool, bool]]:
        return [(line.ours.right, line.theirs.right) for line in self.lines]

    def table(self) -> str:
        """A line a behaviour, and beneath them where they were seen."""
        cells = [("", "otcextensions", "vizwatch")]
        cells += [(line.what, str(line.theirs), str(line.ours)) for line in self.lines]
        total = f"{self.verdict}; {self.seconds:.0f} s in all."
        return "\n".join([f"{self.name}: {self.title}", "", *aligned(cells), "", total, *where()])

    def markdown(self) -> str:
        """The same as a table of Markdown."""
        lines = ["| | otcextensions | vizwatch |", "|---|---|---|"]
        for line in self.lines:
            cells = (line.what, str(line.theirs), str(line.ours))
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
        return "\n".join([*lines, ""])

    def write(self, folder: Path = RESULTS) -> Path:
        """Writes everything to `compare.json` in that folder, and the table to `compare.md`."""
        lines = [attrs.asdict(line) for line in self.lines]
        path = written(folder, self, lines=lines, verdict=self.verdict, met=self.is_met)
        path.with_suffix(".md").write_text(self.markdown(), encoding="utf-8")
        return path


# Servers


def _job(job_id: int = 7, status: int = 8) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "job_name": f"job-{job_id}",
        "status": status,
        "create_time": 1_565_149_736_000,
        "duration": 60_000,
        "job_desc": "",
        "service_url": "https://example.com/",
        "train_url": "/obs/name/",
        "is_success": True,
    }


def _failed(code: str, text: str = _REASON) -> dict[str, Any]:
    return {"is_success": False, "error_code": code, "error_message": text}


def _pages(asked: Asked) -> bytes:
    """At most ten jobs a page, as many as the documents' default."""
    size = min(int(asked.query.get("per_page", 10)), 10)
    start = (int(asked.query.get("page", 1)) - 1) * size
    jobs = [_job(number) for number in range(1, _JOBS + 1)][start : start + size]
    return http({"is_success": True, "job_total_count": _JOBS, "jobs": jobs})


def _always(*replies: bytes) -> Callable[[], Reply]:
    return lambda: one_by_one(*replies)


# Judges: one rule for both


def _counted(requests: int) -> str:
    return f"{requests} request{'' if requests == 1 else 's'}"


def _all_jobs(outcome: Outcome) -> Seen:
    found = outcome.value or []
    text = f"{len(found)} of {_JOBS} jobs, {outcome.counted}"
    return Seen(text if outcome.error is None else outcome.told, found == list(range(1, _JOBS + 1)))


def _queried(*, wanted: str) -> Judge:
    def judge(outcome: Outcome) -> Seen:
        query = outcome.requests[0].query if outcome.requests else {}
        asked = "&".join(f"{name}={value}" for name, value in query.items() if value != "1000")
        return Seen(f"asks for {asked or 'nothing'}", wanted in {f"{k}={v}" for k, v in query.items()})

    return judge


def _raised(outcome: Outcome) -> Seen:
    """An error, any."""
    value = "" if outcome.value is None else f", gives {outcome.value!r}"
    return Seen(f"{outcome.told}{value if outcome.error is None else ''}", outcome.error is not None)


def _explained(outcome: Outcome) -> Seen:
    """An error that gives the service's reason, and does not say that the job was not found."""
    said = outcome.said
    not_found = "notfound" in said.lower() or " found for" in said
    return Seen(outcome.told, outcome.error is not None and _REASON in said and not not_found)


def _in_time(outcome: Outcome) -> Seen:
    """The job, not before the service asked."""
    right = outcome.value == 7 and outcome.seconds >= 1
    text = f"the job after {outcome.seconds:.1f} s" if outcome.error is None else outcome.told
    return Seen(f"{text}, {outcome.counted}", right)


def _got_it(outcome: Outcome) -> Seen:
    text = f"gives {outcome.value!r}" if outcome.error is None else outcome.told
    return Seen(f"{text}, {outcome.counted}", outcome.value == 7)


def _once(method: str) -> Judge:
    def judge(outcome: Outcome) -> Seen:
        sent = outcome.sent(method)
        return Seen(f"{sent} {method}; {outcome.told}", sent == 1 and outcome.error is not None)

    return judge


def _kept_secret(outcome: Outcome) -> Seen:
    shown = _TOKEN in f"{outcome.error} {outcome.error!r}"
    return Seen(
        f"the token is {'' if shown else 'not '}in the error", not shown and outcome.error is not None
    )


def _not_followed(outcome: Outcome) -> Seen:
    stolen = any(_TOKEN in asked.head for asked in outcome.trapped)
    came = f"{_counted(len(outcome.trapped))} there, {'with' if stolen else 'without'} the token"
    return Seen(came if outcome.trapped else f"not followed; {outcome.told}", not outcome.trapped)


def _stayed(job_id: str) -> Judge:
    """Whatever comes is for a job of that very id."""
    own = f"/v1/{PROJECT}/visualization-jobs/{quote(job_id, safe='')}"

    def judge(outcome: Outcome) -> Seen:
        sent = [asked.head.split(" ")[1] for asked in outcome.requests]
        text = f"asks for {sent[0]}" if sent else outcome.told
        return Seen(text.replace(PROJECT, "…"), all(target == own for target in sent))

    return judge


def _is_own(outcome: Outcome) -> Seen:
    return Seen(outcome.told if outcome.error else f"gives job {outcome.value}", outcome.error is not None)


# Trials


def _details(client: Any, job_id: Any = 7) -> Any:
    return client.get_visualization_job(job_id).job_id


async def _our_details(client: Client) -> int:
    return (await client.get_job(7)).job_id


def _ids(client: Any, **params: Any) -> list[int]:
    return [job.job_id for job in client.visualization_jobs(**params)]


async def _our_ids(client: Client, **params: Any) -> list[int]:
    return [job.job_id async for job in client.list_jobs(**params)]


def _of_details(what: str, judge: Judge, *replies: bytes) -> Trial:
    return Trial(what=what, reply=_always(*replies), theirs=_details, ours=_our_details, judge=judge)


def _of_lists(what: str, judge: Judge, reply: Callable[[], Reply] = lambda: _pages, **params: Any) -> Trial:
    return Trial(
        what=what,
        reply=reply,
        theirs=lambda client: _ids(client, **params),
        ours=lambda client: _our_ids(client, **params),
        judge=judge,
    )


_REFUSALS: Final = (
    ("400 Bad Request", "ModelArts.0104"),
    ("401 Unauthorized", "ModelArts.0203"),
    ("429 Too Many Requests", "ModelArts.2799"),
    ("503 Service Unavailable", "ModelArts.4302"),
)


def _listing() -> Iterator[Trial]:
    yield _of_lists("lists 25 jobs, 10 a page", _all_jobs)
    by_name = _queried(wanted="sortBy=job_name")
    yield _of_lists("list sorted by `job_name` (documented: `sortBy`)", by_name, sort_by="job_name")
    in_w = _queried(wanted="workspace_id=w")
    yield _of_lists("list of workspace `w`", in_w, workspace_id="w")
    yield _of_lists("list with a mistyped filter, `serach_content`", _raised, serach_content="x")
    refused = _always(http(_failed("ModelArts.0103")))
    yield _of_lists("list: HTTP 200 with `is_success: false`", _explained, refused)


def _failures() -> Iterator[Trial]:
    refused = _always(http(_failed("ModelArts.0105")))
    yield Trial(
        what="stop: HTTP 200 with `is_success: false`",
        reply=refused,
        theirs=lambda client: client.stop_visualization_job(7),
        ours=lambda client: client.stop_job(7),
        judge=_explained,
    )
    for status, code in _REFUSALS:
        yield _of_details(f"details: HTTP {status}", _explained, http(_failed(code), status))
    wrong = http(_failed("ModelArts.2786"), "404 Not Found")
    yield _of_details("details: 404, as the token is of another project", _explained, wrong)
    yield Trial(
        what="delete, a missing job being no error: the same 404",
        reply=_always(wrong),
        theirs=lambda client: client.delete_visualization_job(7, ignore_missing=True),
        ours=lambda client: client.delete_job(7),
        judge=_explained,
    )
    for status, code in _REFUSALS[2:]:
        busy = http(_failed(code), status, "Retry-After: 1")
        yield _of_details(
            f"details: once HTTP {status[:3]} with `Retry-After: 1`", _in_time, busy, http(_job())
        )
    page = http(raw=b"<html>log in</html>", kind="text/html")
    yield _of_details("details: a login page with HTTP 200", _raised, page)
    yield _of_details("details: of another job than asked for", _is_own, http(_job(8)))
    yield _of_details(
        "details: an answer cut off, then a whole one", _got_it, cut(http(_job()), 20), http(_job())
    )
    yield _of_details("details: a connection closed, then an answer", _got_it, b"", http(_job()))


def _writes() -> Iterator[Trial]:
    yield Trial(
        what="create: the connection is closed without an answer",
        reply=_always(b""),
        theirs=lambda client: client.create_visualization_job(job_name="new", train_url="/obs/name/"),
        ours=lambda client: client.create_job("new", "/obs/name/"),
        judge=_once("POST"),
    )
    yield Trial(
        what="stop: the connection is closed without an answer",
        reply=_always(b""),
        theirs=lambda client: client.stop_visualization_job(7),
        ours=lambda client: client.stop_job(7),
        judge=_once("POST"),
    )
    yield Trial(
        what="delete: the connection is closed without an answer",
        reply=_always(b""),
        theirs=lambda client: client.delete_visualization_job(7),
        ours=lambda client: client.delete_job(7),
        judge=_once("DELETE"),
    )


def _security(trap: str) -> Iterator[Trial]:
    away = http({}, "302 Found", f"Location: {trap}/v1/{PROJECT}/visualization-jobs/7")
    yield _of_details("details: a redirect to another host", _not_followed, away)
    echo = http(_failed("ModelArts.0108", f"{_REASON}: {_TOKEN}"), "403 Forbidden")
    yield _of_lists("list: a refusal whose text repeats the token", _kept_secret, _always(echo))
    yield _of_id("../../other/visualization-jobs/7")
    yield _of_id("7?x=1")


def _of_id(job_id: str) -> Trial:
    return Trial(
        what=f"details of a job whose id is `{job_id}`",
        reply=_always(http(_job())),
        theirs=lambda client: _details(client, job_id),
        ours=lambda client: client.get_job(job_id),
        judge=_stayed(job_id),
    )


def _waiting() -> Iterator[Trial]:
    def theirs(client: Any) -> int:
        from openstack import resource  # noqa: PLC0415 - as in _connected

        job = client.get_visualization_job(7)
        return int(resource.wait_for_status(client, job, "10", [], interval=0.05, wait=5).job_id)

    async def ours(client: Client) -> int:
        return (await client.wait(7, until=10, timeout=5)).job_id

    states = _always(*(http(_job(status=status)) for status in (7, 8, 10)))
    yield Trial(
        what="waits until a job's status is 10", reply=states, theirs=theirs, ours=ours, judge=_got_it
    )


# Use


def _connected(endpoint: str) -> Any:
    import openstack  # noqa: PLC0415 - half a second, and not needed to list the benchmarks
    from otcextensions import sdk  # noqa: PLC0415

    auth = {"endpoint": f"{endpoint}/v1/{PROJECT}", "token": _TOKEN}
    connection: Any = openstack.connect(
        auth_type="admin_token", auth=auth, load_yaml_config=False, load_envvars=False
    )
    sdk.load(connection)
    return connection


def _theirs(endpoint: str, use: Callable[[Any], Any]) -> Any:
    with warnings.catch_warnings():
        # What openstacksdk will drop in its next major version, and otcextensions still uses.
        warnings.simplefilter("ignore")
        with _connected(endpoint) as connection:
            return use(connection.modelartsv1)


async def _ours(endpoint: str, use: Callable[[Client], Awaitable[Any]]) -> Any:
    async with Client(endpoint, PROJECT, auth=_TOKEN, settings=_SETTINGS) as client:
        return await use(client)


async def _outcome(reply: Reply, trap: RawServer, used: Callable[[str], Awaitable[Any]]) -> Outcome:
    trap.requests.clear()
    async with RawServer(reply) as server:
        value, error, start = None, None, time.perf_counter()
        try:
            value = await used(server.endpoint)
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is what is compared
            error = raised
        seconds = time.perf_counter() - start
        return Outcome(server.endpoint, value, error, list(server.requests), list(trap.requests), seconds)


async def _line(trial: Trial, trap: RawServer) -> Line:
    theirs = await _outcome(
        trial.reply(), trap, lambda endpoint: asyncio.to_thread(_theirs, endpoint, trial.theirs)
    )
    ours = await _outcome(trial.reply(), trap, lambda endpoint: _ours(endpoint, trial.ours))
    return Line(what=trial.what, theirs=trial.judge(theirs), ours=trial.judge(ours))


# Memory, of which a process of its own tells


def _bomb(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    body = packer.compress(b'{"job_id": 7, "status": 8, "job_desc": "')
    for _ in range(mebibytes):
        body += packer.compress(b" " * 2**20)
    body += packer.compress(b'"}') + packer.flush()
    return http(None, "200 OK", "Content-Encoding: gzip", raw=body)


def bombed(who: str, endpoint: str) -> None:
    """Reads one job, and prints by how many MiB the most memory that was held grew, and the error."""
    if who == "theirs":
        _theirs("http://127.0.0.1:1", str)  # what importing takes is not counted

    before, said = peak_resident(), "no error"
    try:
        if who == "theirs":
            _theirs(endpoint, _details)
        else:
            asyncio.run(_ours(endpoint, _our_details))
    except Exception as error:  # noqa: BLE001 - as above
        said = type(error).__name__
    print(json.dumps([peak_resident() - before, said]))


async def _bombs(mebibytes: int) -> Line:
    body = _bomb(mebibytes)

    async def seen(who: str) -> Seen:
        async with RawServer(one_by_one(body)) as server:
            code = f"from benchmarks import compare; compare.bombed({who!r}, {server.endpoint!r})"
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, cwd=_ROOT, stdout=subprocess.PIPE
            )
            printed, _ = await child.communicate()
        grown, said = json.loads(printed)
        return Seen(f"{grown:,.0f} MiB of memory; {said}", grown < 32)

    what = f"details: {len(body) / 1024:.0f} KiB of gzip that are {mebibytes} MiB"
    return Line(what=what, theirs=await seen("theirs"), ours=await seen("ours"))


async def _lines(mebibytes: int) -> list[Line]:
    async with RawServer(one_by_one(http(_job()))) as trap:
        trials = [*_listing(), *_failures(), *_writes(), *_security(trap.endpoint), *_waiting()]
        return [await _line(trial, trap) for trial in trials] + [await _bombs(mebibytes)]


def run(*, mebibytes: int = _BOMB) -> Comparison:
    """The comparison.

    Args:
        mebibytes: How large an answer becomes that was sent in a few kilobytes.
    """
    start = time.perf_counter()
    lines = asyncio.run(_lines(mebibytes))
    return Comparison(lines=lines, seconds=time.perf_counter() - start)


def main() -> None:
    """The command line."""
    comparison = run()
    print(comparison.table())
    comparison.write()
    sys.exit(0 if comparison.is_met else 1)


if __name__ == "__main__":
    main()
