"""The behaviours that are compared: what a server does, what is asked of each client, what is right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

import attrs

from benchmarks._raw import Asked, Reply, cut, http, one_by_one
from vizwatch import Client

PROJECT: Final = "04f679b17380d32a2f32c00335c4b5ba"
TOKEN: Final = "the-token-of-a-comparison"
_REASON: Final = "this is the reason"
_SHOWN: Final = 70
_JOBS: Final = 25


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


# Servers


def new_job(job_id: int = 7, status: int = 8) -> dict[str, Any]:
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
    jobs = [new_job(number) for number in range(1, _JOBS + 1)][start : start + size]
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
    shown = TOKEN in f"{outcome.error} {outcome.error!r}"
    return Seen(
        f"the token is {'' if shown else 'not '}in the error", not shown and outcome.error is not None
    )


def _not_followed(outcome: Outcome) -> Seen:
    stolen = any(TOKEN in asked.head for asked in outcome.trapped)
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


def details(client: Any, job_id: Any = 7) -> Any:
    return client.get_visualization_job(job_id).job_id


async def our_details(client: Client) -> int:
    return (await client.get_job(7)).job_id


def _ids(client: Any, **params: Any) -> list[int]:
    return [job.job_id for job in client.visualization_jobs(**params)]


async def _our_ids(client: Client, **params: Any) -> list[int]:
    return [job.job_id async for job in client.list_jobs(**params)]


def _of_details(what: str, judge: Judge, *replies: bytes) -> Trial:
    return Trial(what=what, reply=_always(*replies), theirs=details, ours=our_details, judge=judge)


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
            f"details: once HTTP {status[:3]} with `Retry-After: 1`", _in_time, busy, http(new_job())
        )
    page = http(raw=b"<html>log in</html>", kind="text/html")
    yield _of_details("details: a login page with HTTP 200", _raised, page)
    yield _of_details("details: of another job than asked for", _is_own, http(new_job(8)))
    yield _of_details(
        "details: an answer cut off, then a whole one", _got_it, cut(http(new_job()), 20), http(new_job())
    )
    yield _of_details("details: a connection closed, then an answer", _got_it, b"", http(new_job()))


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
    echo = http(_failed("ModelArts.0108", f"{_REASON}: {TOKEN}"), "403 Forbidden")
    yield _of_lists("list: a refusal whose text repeats the token", _kept_secret, _always(echo))
    yield _of_id("../../other/visualization-jobs/7")
    yield _of_id("7?x=1")


def _of_id(job_id: str) -> Trial:
    return Trial(
        what=f"details of a job whose id is `{job_id}`",
        reply=_always(http(new_job())),
        theirs=lambda client: details(client, job_id),
        ours=lambda client: client.get_job(job_id),
        judge=_stayed(job_id),
    )


def _waiting() -> Iterator[Trial]:
    def theirs(client: Any) -> int:
        from openstack import resource  # noqa: PLC0415 - as in compare

        job = client.get_visualization_job(7)
        return int(resource.wait_for_status(client, job, "10", [], interval=0.05, wait=5).job_id)

    async def ours(client: Client) -> int:
        return (await client.wait(7, until=10, timeout=5)).job_id

    states = _always(*(http(new_job(status=status)) for status in (7, 8, 10)))
    yield Trial(
        what="waits until a job's status is 10", reply=states, theirs=theirs, ours=ours, judge=_got_it
    )


def trials(trap: str) -> Iterator[Trial]:
    """All of them; `trap` is another host, to which a server sends its clients."""
    yield from (*_listing(), *_failures(), *_writes(), *_security(trap), *_waiting())
