"""What is wrong with a configuration, in the order in which it matters; and recordings of a real service.

::

    async for finding in vizwatch.doctor.examine():
        print(finding.check, finding.ok, finding.text)

``vizwatch doctor`` prints the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, Self, assert_never
from urllib.parse import urlsplit

import attrs

from vizwatch._rules import codec, wire
from vizwatch._rules.recording import Scrubber, listed_ids, recording
from vizwatch._values import regions
from vizwatch._values.configuration import AccessKey, Cloud, Configuration, Found, Password, Token
from vizwatch._values.errors import ConnectError, VizwatchError
from vizwatch._values.exchange import Answer, Outgoing, Request
from vizwatch._values.settings import Settings
from vizwatch._values.text import printable
from vizwatch._world import sources
from vizwatch._world.project import Project
from vizwatch._world.sources import Account

__all__ = ["Examination", "Finding", "examine", "record"]

_DNS_TIMEOUT: Final = 10.0
_FAR_FROM_LISTED: Final = 1_000_003
"""How far from every listed id one is that nobody has."""
_MAX_LINE: Final = 1_000
_decode_page: Final = functools.partial(codec.decode_page, page=1)


def _line(text: str) -> str:
    return printable(" ".join(text.split()), _MAX_LINE)


@attrs.frozen
class Finding:
    """What one look showed."""

    check: str
    """`configuration`, `address`, `token` or `listing`, in this order."""
    ok: bool
    text: str = attrs.field(converter=_line)
    """What was found; of what is wrong, also what to do. One printable line without secrets."""
    error: VizwatchError | None = attrs.field(default=None, repr=False)
    """What is wrong, where something is."""


def examine(
    profile: str | None = None,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    project_id: str | None = None,
    workspace_id: str | None = None,
    settings: Settings | None = None,
) -> Examination:
    """What :meth:`Client.from_env` would use, and whether it works; ends with the first thing that is wrong.

    Args:
        profile: As of :meth:`Client.from_env`, as are the others.
        endpoint: Where the service is.
        region: The region whose endpoint it is.
        project_id: The project's id.
        workspace_id: The workspace to list.
        settings: Timeouts, retries, and what is allowed.
    """
    arguments = {"endpoint": endpoint, "region": region, "project_id": project_id}
    return Examination(
        lambda: sources.account(
            {**arguments, "workspace_id": workspace_id}, profile=profile, settings=settings
        )
    )


async def record(
    profile: str | None = None,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    project_id: str | None = None,
    workspace_id: str | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """The scrubbed answers to the read-only requests that settle what the documents leave open, as JSON.

    These are a listing, a page past its end, one with `per_page` 1000, one with a long `search_content`, one
    of a single status, the details of a listed job beside it, and a job that is not there. Names,
    descriptions, addresses and ids that are strings are replaced by made-up ones; numbers, job ids and times
    stay, and of messages the words that they have everywhere. An emulator can be started from it.

    Args:
        profile: As of :meth:`Client.from_env`, as are the others.
        endpoint: Where the service is.
        region: The region whose endpoint it is.
        project_id: The project's id.
        workspace_id: The workspace to list.
        settings: Timeouts, and what is allowed.

    Raises:
        VizwatchError: There is no configuration, a request got no answer, or the listing was refused.
    """
    arguments = {"endpoint": endpoint, "region": region, "project_id": project_id}
    account = sources.account({**arguments, "workspace_id": workspace_id}, profile=profile, settings=settings)
    async with _opened(account) as project:
        scrubber = Scrubber(project.project_id)
        answers: list[Answer] = []
        exchanges: list[dict[str, Any]] = []

        async def ask(name: str, request: Request) -> None:
            # What a listing that is refused would make is no recording of the service's ways.
            check = _decode_page if name == "list" else None
            answer, secrets = await project.exchange(request, check)
            answers.append(answer)
            exchanges.append(scrubber.exchange(name, request, answer, secrets))

        for name, query in _LISTINGS.items():
            await ask(name, _listing(project, account, **query))
        ids = [job_id for answer in answers for job_id in listed_ids(answer)]
        if ids:
            await ask("details of a listed job", wire.get_job(project.project_id, ids[0]))
        nobodys = max(ids, default=0) + _FAR_FROM_LISTED
        await ask("missing job", wire.get_job(project.project_id, nobodys))
    at = regions.at(project.endpoint)
    return recording(exchanges, None if at is None else at.name, dt.datetime.now(dt.UTC))


_LISTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "list": {},
    "page past the end": {"page": 1_000_000},
    "per_page 1000": {"per_page": 1_000},
    "search_content of 100 characters": {"search_content": "x" * 100},
    "status 8": {"status": 8},
}


def _listing(
    project: Project, account: Account, *, page: int = 1, per_page: int = 10, **asked: Any
) -> Request:
    query = wire.query(workspace_id=account.workspace_id, **asked)
    return wire.list_jobs(project.project_id, query, page=page, per_page=per_page)


@contextlib.asynccontextmanager
async def _opened(account: Account) -> AsyncIterator[Project]:
    project = Project(
        account.endpoint, account.project_id, account.auth, account.settings, None, allow_insecure=False
    )
    async with contextlib.aclosing(project):
        await project.open()
        yield project


class Examination:
    """The findings, each made when it is asked for; nothing is open between two of them.

    Args:
        find: Finds the configuration.
    """

    def __init__(self, find: Callable[[], Account]) -> None:
        self._find = find
        self._told: deque[str] = deque()
        self._looks: deque[tuple[str, Callable[[], Awaitable[str]]]] = deque(
            [
                ("configuration", self._configuration),
                ("address", self._addresses),
                ("token", self._token),
                ("listing", self._listing),
            ]
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Finding:
        if self._told:
            return Finding("configuration", ok=True, text=self._told.popleft())
        if not self._looks:
            raise StopAsyncIteration
        check, look = self._looks.popleft()
        try:
            return Finding(check, ok=True, text=await look())
        except VizwatchError as error:
            self._looks.clear()
            return Finding(check, ok=False, text=str(error), error=error)

    async def _configuration(self) -> str:
        self._account = self._find()
        self._told.extend(_told(self._account.found))
        return self._told.popleft()

    async def _addresses(self) -> str:
        """Looks up the names of the hosts that are known so far."""
        found = self._account.found
        known = [found.endpoint]
        if isinstance(found.credentials, Password):
            known.append(found.credentials.iam_endpoint)
        texts = [await self._address(one) for one in known if one is not None]
        return "; ".join(texts) or "the credentials tell it"

    async def _address(self, found: Found) -> str:
        host = urlsplit(found.value).hostname or ""
        if self._account.settings.trust_env:
            return f"{host}: not looked up, since a proxy may do it"
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_DNS_TIMEOUT):
                rows = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:  # a TimeoutError is one too
            reason = printable(getattr(error, "strerror", None) or "no answer")
            raise ConnectError(
                f"{host} ({found.source}): no address: {reason}. Check the name, and whether this machine "
                "reaches the service without a proxy; Settings(trust_env=True) uses HTTPS_PROXY"
            ) from None
        return f"{host} is {', '.join(dict.fromkeys(str(row[4][0]) for row in rows))}"

    async def _token(self) -> str:
        """Has the credentials authenticate one request, for which they may ask the identity service."""
        account = self._account
        async with _opened(account) as project:
            outgoing = Outgoing("GET", project.endpoint + _listing(project, account).target)
            await account.auth.headers(outgoing)
        what = {Token: "as given", AccessKey: "not needed: each request is signed"}
        text = what.get(type(account.found.credentials), "got from the identity service")
        return f"{text}; {project.endpoint}, project {project.project_id}"

    async def _listing(self) -> str:
        """Lists one job."""
        async with _opened(self._account) as project:
            request = _listing(project, self._account, per_page=1)
            page = await project.call(request, _decode_page)
        count = "an untold number of" if page.job_total_count is None else page.job_total_count
        workspace = self._account.workspace_id
        where = "the default workspace" if workspace is None else f"workspace {workspace}"
        return f"it works: {where} has {count} jobs"


def _told(found: Configuration) -> Iterator[str]:
    yield _said("endpoint", found.endpoint) or "endpoint: the credentials tell it"
    yield _said("project_id", found.project_id) or "project_id: the credentials tell it"
    if found.workspace_id is not None:
        yield f"workspace_id: {found.workspace_id.value} ({found.workspace_id.source})"
    yield f"credentials: {_credentials(found)}"
    for source in found.unused:
        yield f"not used, since the above goes before: {source}"
    yield from found.notes


def _said(name: str, found: Found | None) -> str | None:
    return None if found is None else f"{name}: {found.value} ({found.source})"


def _credentials(found: Configuration) -> str:
    match found.credentials:
        case Token(token):
            return f"a token of {len(token.value)} characters ({token.source})"
        case AccessKey(key, secret, temporary):
            kind = "an access key" if temporary is None else "a temporary access key"
            return f"{kind} ({key.source}, {secret.source}{(temporary and f', {temporary.source}') or ''})"
        case Password() as user:
            who = f"user {user.username.value} ({user.username.source}) of {user.domain_name.value}"
            return f"password of {who}, at {user.iam_endpoint.value} ({user.iam_endpoint.source})"
        case Cloud(cloud):
            what = f"cloud {cloud.value} of clouds.yaml" if cloud.value else "what openstacksdk finds there"
            return f"{what} ({cloud.source})"
        case never:
            assert_never(never)
