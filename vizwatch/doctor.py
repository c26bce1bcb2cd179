"""What is wrong with a configuration, in the order in which it matters; and recordings of a real service.

::

    async with contextlib.aclosing(vizwatch.doctor.examine()) as findings:
        async for finding in findings:
            print(finding.check, finding.ok, finding.text)

``vizwatch doctor`` prints the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Final, assert_never
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
from vizwatch._world.auth import Auth
from vizwatch._world.project import Project

__all__ = ["Finding", "examine", "record"]

_DNS_TIMEOUT: Final = 10.0
_NOBODYS: Final = 1_000_003
"""How far from every listed id one is that nobody has."""
_MAX_LINE: Final = 1_000


@attrs.frozen
class Finding:
    """What one look showed."""

    check: str
    """`configuration`, `address`, `token` or `listing`, in this order."""
    ok: bool
    text: str
    """What was found; of what is wrong, also what to do. One printable line without secrets."""
    error: VizwatchError | None = attrs.field(default=None, repr=False)
    """What is wrong, where something is."""


async def examine(
    profile: str | None = None,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    project_id: str | None = None,
    workspace_id: str | None = None,
    settings: Settings | None = None,
) -> AsyncGenerator[Finding, None]:
    """What :meth:`Client.from_env` would use, and whether it works; ends with the first thing that is wrong.

    Args:
        profile: As of :meth:`Client.from_env`, as are the others.
        endpoint: Where the service is.
        region: The region whose endpoint it is.
        project_id: The project's id.
        workspace_id: The workspace to list.
        settings: Timeouts, retries, and what is allowed.
    """
    check = "configuration"
    try:
        arguments = {"endpoint": endpoint, "region": region, "project_id": project_id}
        patient = _Patient.found_by(profile, settings, {**arguments, "workspace_id": workspace_id})
        for text in _told(patient.found):
            yield Finding(check, ok=True, text=text)
        async with contextlib.aclosing(patient.project):
            for check, look in (
                ("address", patient.addresses),
                ("token", patient.token),
                ("listing", patient.listing),
            ):
                yield Finding(check, ok=True, text=await look())
    except VizwatchError as error:
        yield Finding(check, ok=False, text=printable(" ".join(str(error).split()), _MAX_LINE), error=error)


async def record(
    profile: str | None = None,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    project_id: str | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """The scrubbed answers to the read-only requests that settle what the documents leave open, as JSON.

    These are a listing, a page past its end, one with `per_page` 1000, one with a long `search_content`, one
    of a single status, the details of a listed job beside it, and a job that is not there. Names,
    descriptions, addresses and ids that are strings are replaced by made-up ones; numbers, job ids and times
    stay. An emulator can be started from it.

    Args:
        profile: As of :meth:`Client.from_env`, as are the others.
        endpoint: Where the service is.
        region: The region whose endpoint it is.
        project_id: The project's id.
        settings: Timeouts, and what is allowed.

    Raises:
        VizwatchError: There is no configuration, or one of the requests got no answer.
    """
    arguments = {"endpoint": endpoint, "region": region, "project_id": project_id}
    patient = _Patient.found_by(profile, settings, arguments)
    async with contextlib.aclosing(patient.project) as project:
        await project.open()
        scrubber = Scrubber(project.project_id, patient.names())
        answers: list[Answer] = []
        exchanges: list[dict[str, Any]] = []

        async def ask(name: str, request: Request) -> None:
            answer, secrets = await project.exchange(request)
            answers.append(answer)
            exchanges.append(scrubber.exchange(name, request, answer, secrets))

        for name, query in _LISTINGS.items():
            await ask(name, _listing(project, **query))
        ids = [job_id for answer in answers for job_id in listed_ids(answer)]
        if ids:
            await ask("details of a listed job", wire.get_job(project.project_id, ids[0]))
        await ask("missing job", wire.get_job(project.project_id, max(ids, default=0) + _NOBODYS))
    at = regions.at(project.endpoint)
    return recording(exchanges, None if at is None else at.name, dt.datetime.now(dt.UTC))


_LISTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "list": {},
    "page past the end": {"page": 1_000_000},
    "per_page 1000": {"per_page": 1_000},
    "search_content of 100 characters": {"search_content": "x" * 100},
    "status 8": {"status": 8},
}


def _listing(project: Project, *, page: int = 1, per_page: int = 10, **asked: Any) -> Request:
    given = {"status": None, "search_content": None, "workspace_id": None, **asked}
    query = wire.query(sort_by="job_id", order="asc", **given)
    return wire.list_jobs(project.project_id, query, page=page, per_page=per_page)


@attrs.frozen
class _Patient:
    """A configuration that was found, and what can be tried of it."""

    found: Configuration
    auth: Auth
    project: Project
    settings: Settings

    @classmethod
    def found_by(
        cls, profile: str | None, settings: Settings | None, arguments: Mapping[str, str | None]
    ) -> _Patient:
        settings = Settings() if settings is None else settings
        found = sources.find(arguments, profile=profile, allow_insecure=settings.allow_insecure)
        auth = sources.auth(found, settings)
        endpoint, project_id = (one and one.value for one in (found.endpoint, found.project_id))
        project = Project(endpoint, project_id, auth, settings, None, allow_insecure=False)
        return cls(found, auth, project, settings)

    def names(self) -> list[str]:
        """Who asks, by the names that a message of the service may have."""
        match self.found.credentials:
            case Password(_, username, _, domain_name, project_name):
                given = [username, domain_name, project_name]
                return [one.value for one in given if one is not None]
            case AccessKey(access_key):
                return [access_key.value]
            case _:
                return []

    async def addresses(self) -> str:
        """Looks up the names of the hosts that are known so far."""
        known = [self.found.endpoint]
        if isinstance(self.found.credentials, Password):
            known.append(self.found.credentials.iam_endpoint)
        texts = [await self._address(one) for one in known if one is not None]
        return "; ".join(texts) or "the credentials tell it"

    async def _address(self, found: Found) -> str:
        host = urlsplit(found.value).hostname or ""
        if self.settings.trust_env:
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

    async def token(self) -> str:
        """Has the credentials authenticate one request, for which they may ask the identity service."""
        await self.project.open()
        project = self.project
        outgoing = Outgoing("GET", project.endpoint + _listing(project).target)
        await self.auth.headers(outgoing)
        what = {Token: "as given", AccessKey: "not needed: each request is signed"}
        text = what.get(type(self.found.credentials), "got from the identity service")
        return f"{text}; {project.endpoint}, project {project.project_id}"

    async def listing(self) -> str:
        """Lists one job."""
        workspace = self.found.workspace_id
        request = _listing(self.project, per_page=1, workspace_id=workspace and workspace.value)
        page = await self.project.call(request, lambda body: codec.decode_page(body, 1))
        count = "an untold number of" if page.job_total_count is None else page.job_total_count
        where = f"workspace {workspace.value}" if workspace else "the default workspace"
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
            return f"cloud {cloud.value} of clouds.yaml ({cloud.source})"
        case never:
            assert_never(never)
