"""The client: one method for each thing that can be asked of one project."""

from __future__ import annotations

import datetime as dt
import os
import random
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import anyio

from vizwatch._flows.paging import JobPager
from vizwatch._flows.watching import Watch
from vizwatch._rules import codec, wire
from vizwatch._rules.cadence import Cadence, Doubt
from vizwatch._rules.transitions import Tracker
from vizwatch._values import checks
from vizwatch._values.errors import (
    ClientClosedError,
    ConfigError,
    JobEndedError,
    JobGoneError,
    ProtocolError,
)
from vizwatch._values.exchange import Failure, Request
from vizwatch._values.models import Job, JobPage, Transition
from vizwatch._values.secrets import Secret
from vizwatch._values.settings import Settings
from vizwatch._values.statuses import TERMINAL, JobStatus
from vizwatch._world.auth import Auth, TokenAuth
from vizwatch._world.session import Session

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")
Seconds = float | dt.timedelta
Statuses = JobStatus | int | Collection[JobStatus | int]

_REMEMBERED: Final = 1024


class Client:
    """The visualization jobs of one project.

    ::

        async with Client("https://modelarts.eu-de.otc.t-systems.com", project_id, auth=token) as client:
            async for job in client.list_jobs(status=JobStatus.RUNNING):
                print(job.job_name, job.service_url)

    Every call raises :class:`ConfigError` for a wrong argument before any request, :class:`ApiError` for a
    refusal of the service, :class:`TransportError` where no complete answer came, :class:`ProtocolError` for
    an answer that is not this API's, and :class:`ClientClosedError` once the client is closed.

    Args:
        endpoint: `https://host[:port]`; `http` for loopback only, unless allowed.
        project_id: The project's id, not its name.
        auth: Credentials: an :class:`Auth`, or a token as a string.
        workspace_id: The workspace that lists show and creates go to; the service's default is `0`.
        settings: How to poll, retry and guard.
        session: An `aiohttp.ClientSession` of your own. It is never closed here; its middlewares are not run.
        allow_insecure: Whether `http` is allowed to any host, as `Settings.allow_insecure`.
    """

    def __init__(
        self,
        endpoint: str,
        project_id: str,
        *,
        auth: Auth | str,
        workspace_id: str | None = None,
        settings: Settings | None = None,
        session: aiohttp.ClientSession | None = None,
        allow_insecure: bool = False,
    ) -> None:
        if isinstance(auth, str):
            auth = Secret(auth)  # before anything can fail, and show this frame
        self.settings = Settings() if settings is None else settings
        if not isinstance(self.settings, Settings):
            raise checks.refused("settings", settings, "a Settings")
        insecure = self.settings.allow_insecure or checks.switch("allow_insecure", allow_insecure)
        self.endpoint = wire.endpoint(endpoint, allow_insecure=insecure)
        self.project_id = checks.identifier("project_id", project_id)
        self.workspace_id = None if workspace_id is None else checks.identifier("workspace_id", workspace_id)
        self._auth = TokenAuth(auth) if isinstance(auth, str) else auth
        if isinstance(self._auth, type) or not isinstance(self._auth, Auth):
            raise ConfigError(f"auth must be a token or an Auth such as TokenAuth, not {type(auth).__name__}")
        self._http = session
        self._session: Session | None = None
        self._closed = False
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._random = random.Random()
        self._created = _Recent()
        self._restarted = _Recent()

    @classmethod
    def from_env(
        cls,
        *,
        endpoint: str | None = None,
        project_id: str | None = None,
        workspace_id: str | None = None,
        settings: Settings | None = None,
    ) -> Self:
        """A client with the credentials that the environment gives.

        What is not given here comes from `VIZWATCH_ENDPOINT` and `VIZWATCH_PROJECT_ID`, and the token always
        from `VIZWATCH_TOKEN`.

        Raises:
            ConfigError: One of them is missing or wrong; says which.
        """
        return cls(
            _environment("VIZWATCH_ENDPOINT") if endpoint is None else endpoint,
            _environment("VIZWATCH_PROJECT_ID") if project_id is None else project_id,
            auth=_environment("VIZWATCH_TOKEN"),
            workspace_id=workspace_id,
            settings=settings,
        )

    def list_jobs(
        self,
        *,
        status: JobStatus | int | None = None,
        search_content: str | None = None,
        sort_by: str = "job_id",
        order: str = "asc",
        workspace_id: str | None = None,
        per_page: int | None = None,
        page: int = 1,
        limit: int | None = None,
    ) -> JobPager:
        """The jobs of one workspace, read page by page while they are iterated.

        Args:
            status: Only jobs in this status.
            search_content: Only jobs whose name has this text; up to 64 characters (100 by one document).
            sort_by: `job_id`, `job_name`, `job_desc`, `create_time` or `status`. In any order but that of
                `job_id`, each id is kept until the end.
            order: `asc` or `desc`.
            workspace_id: Instead of the client's.
            per_page: How many jobs to ask for at once, 1 to 1000; by default 1000, or `limit` if smaller.
            page: The page to begin with, from 1.
            limit: How many jobs to give at most.
        """
        workspace_id = self.workspace_id if workspace_id is None else workspace_id
        if limit is not None:
            limit = checks.whole("limit", limit, low=0, high=2**63 - 1)
        if per_page is None:
            per_page = min(max(limit or 0, 1) if limit is not None else wire.MAX_PER_PAGE, wire.MAX_PER_PAGE)
        query: dict[str, Any] = {
            "status": None if status is None else checks.status("status", status),
            "search_content": None
            if search_content is None
            else checks.text("search_content", search_content, high=100),
            "sort_by": checks.choice("sort_by", sort_by, wire.SORT_KEYS),
            "order": checks.choice("order", order, wire.ORDERS),
            "workspace_id": None if workspace_id is None else checks.identifier("workspace_id", workspace_id),
            "per_page": checks.whole("per_page", per_page, low=1, high=wire.MAX_PER_PAGE),
        }

        async def fetch(number: int) -> JobPage:
            request = wire.list_jobs(self.project_id, **query, page=number)
            return await self._call(request, lambda body: codec.decode_page(body, number))

        ascending = order == "asc" if sort_by == "job_id" else None
        first = checks.whole("page", page, low=1, high=2**31)
        return JobPager(fetch, per_page, first, limit, ascending)

    async def get_job(self, job_id: int | str) -> Job:
        """The job's details. Raises :class:`NotFoundError` where there is no such job."""
        return await self._read(checks.job_id(job_id))

    def watch(
        self,
        job_id: int | str,
        *,
        interval: Seconds | None = None,
        timeout: Seconds | None = None,
        terminal: Statuses | None = None,
        follow_restarts: bool = False,
    ) -> Watch:
        """The job's transitions: first the status found, then each change, until its end.

        Args:
            job_id: The job.
            interval: Seconds between two reads, on average, instead of `Settings.poll_interval`; each is
                randomly longer or shorter by `Settings.poll_jitter`.
            timeout: Seconds from the first step of the iteration after which it raises
                :class:`WatchTimeoutError`; ``None`` for no deadline.
            terminal: The statuses that end the watch, instead of those with `is_terminal`.
            follow_restarts: Whether to go on after a terminal status, for the job's next run; then only
                deletion, a deadline or closing ends the watch.
        """
        number = checks.job_id(job_id)
        settings = self.settings
        if interval is not None:
            interval = checks.seconds("interval", interval, low=settings.poll_interval_min, high=86_400)
        ends = TERMINAL if terminal is None else checks.statuses("terminal", terminal)
        cadence = Cadence(
            settings.poll_interval if interval is None else interval,
            settings.poll_jitter,
            settings.watch_backoff_base,
            settings.watch_backoff_max,
        )
        self._opened()
        watch = Watch(
            # One attempt a look: looking again is what a watch does anyway, at its own pace.
            lambda: self._read(number, attempts=1),
            Tracker(self.project_id, number, ends, checks.switch("follow_restarts", follow_restarts)),
            cadence,
            Doubt(self._created.get(number), self._restarted.get(number)),
            timeout=None if timeout is None else checks.seconds("timeout", timeout, low=0.001),
            request_time=settings.attempt_timeout,
            chance=self._random.random,
        )
        self._watches.add(watch)
        return watch

    async def wait(
        self,
        job_id: int | str,
        *,
        until: Statuses | None = None,
        timeout: Seconds | None,  # noqa: ASYNC109 - as asyncio.wait_for, and it carries the last job
        interval: Seconds | None = None,
    ) -> Job:
        """The job, once its status is in `until`.

        Args:
            job_id: The job.
            until: One status or several; by default any terminal one, failures included.
            timeout: Seconds; ``None`` for ever.
            interval: As in :meth:`watch`.

        Raises:
            JobEndedError: The job ended in another status.
            JobGoneError: The job was deleted.
            WatchTimeoutError: The deadline passed. Like the two above it carries the job as last read.
            NotFoundError: There is no such job.
            ClientClosedError: The client was closed meanwhile.
        """
        wanted = TERMINAL if until is None else checks.statuses("until", until)
        ends = wanted | TERMINAL
        async with self.watch(job_id, timeout=timeout, interval=interval, terminal=ends) as watch:
            async for transition in watch:
                if transition.current in wanted:
                    return transition.job
                _raise_if_ended(transition)
        raise ClientClosedError("the client was closed while it waited for a job")

    async def create_job(
        self,
        job_name: str,
        train_url: str,
        *,
        job_desc: str | None = None,
        job_type: str | None = None,
        flavor: str | None = None,
        auto_stop_hours: int | None = None,
    ) -> Job:
        """Creates a job and gives what the service answered: id, name, status, address.

        Args:
            job_name: 1 to 20 of the characters 0-9 A-Z a-z _ -.
            train_url: The OBS path of the logs, such as `/obs/name/`.
            job_desc: Up to 256 characters.
            job_type: `tensorboard`, the service's default, or `mindinsight`.
            flavor: The code of the resources' flavor.
            auto_stop_hours: When the service stops the job by itself, 0 to 24 hours after its start.

        Raises:
            OutcomeUnknownError: No answer came: the job may exist. Look for its name before creating another.
        """
        request = wire.create_job(
            self.project_id,
            job_name,
            train_url,
            job_desc=job_desc,
            job_type=job_type,
            flavor=flavor,
            auto_stop_hours=auto_stop_hours,
            workspace_id=self.workspace_id,
        )
        job = await self._call(request, codec.decode_job)
        self._created.note(job.job_id)
        return job

    async def update_job(self, job_id: int | str, job_desc: str) -> None:
        """Gives the job another description, of up to 256 characters. The last writer wins."""
        await self._call(wire.update_job(self.project_id, checks.job_id(job_id), job_desc), codec.decode_done)

    async def stop_job(self, job_id: int | str) -> None:
        """Asks the service to stop the job; it stops some time later.

        Raises:
            ConflictError: The job's status does not allow it: it has ended already, for example.
            OutcomeUnknownError: No answer came: the job may be stopping.
        """
        await self._call(wire.stop_job(self.project_id, checks.job_id(job_id)), codec.decode_done)

    async def restart_job(self, job_id: int | str) -> None:
        """Asks the service to run the job again, under the same id. Raises as :meth:`stop_job`."""
        number = checks.job_id(job_id)
        await self._call(wire.restart_job(self.project_id, number), codec.decode_done)
        self._restarted.note(number)

    async def delete_job(self, job_id: int | str) -> None:
        """Asks the service to delete the job; it is gone some time later. Raises as :meth:`stop_job`."""
        await self._call(wire.delete_job(self.project_id, checks.job_id(job_id)), codec.decode_done)

    async def _read(self, job_id: int, attempts: int | None = None) -> Job:
        def decode(body: bytes) -> Job | Failure:
            job = codec.decode_job(body)
            if isinstance(job, Job) and job.job_id != job_id:
                raise ProtocolError(f"get job: asked for job {job_id}, and job {job.job_id} was answered")
            return job

        return await self._call(wire.get_job(self.project_id, job_id), decode, attempts)

    async def _call(
        self, request: Request, decode: Callable[[bytes], T | Failure], attempts: int | None = None
    ) -> T:
        return await self._opened().call(request, lambda answer: decode(answer.body), attempts=attempts)

    def _opened(self) -> Session:
        if self._closed:
            raise ClientClosedError("this client is closed: make a new one")
        if self._session is None:
            raise ConfigError("this client is not open yet: use it inside `async with Client(…) as client`")
        return self._session

    async def __aenter__(self) -> Self:
        if self._closed:
            raise ClientClosedError("this client is closed: make a new one")
        if self._session is not None:
            raise ConfigError("this client is open already: enter it once, and share it between tasks")
        self._session = Session(self.endpoint, self._auth, self.settings, self._http)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends live watches, whose iteration stops, and calls under way, which raise; idempotent."""
        self._closed = True
        for watch in list(self._watches):
            await watch.aclose()
        if self._session is not None:
            await self._session.aclose()

    def __repr__(self) -> str:
        return f"Client({self.endpoint!r}, {self.project_id!r})"


class _Recent:
    """When this client last wrote to which job, for the latest jobs, by the event loop's clock."""

    def __init__(self) -> None:
        self._times: OrderedDict[int, float] = OrderedDict()

    def note(self, job_id: int) -> None:
        self._times[job_id] = anyio.current_time()
        self._times.move_to_end(job_id)
        if len(self._times) > _REMEMBERED:
            self._times.popitem(last=False)

    def get(self, job_id: int) -> float | None:
        return self._times.get(job_id)


def _raise_if_ended(transition: Transition) -> None:
    job = transition.job
    if transition.current is None:
        raise JobGoneError(f"job {job.job_id} was deleted; last seen {job.status.name}", job=job)
    if transition.is_terminal:
        raise JobEndedError(f"job {job.job_id} ended as {job.status.name}", job=job)


def _environment(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value.strip():
        raise ConfigError(f"{variable} is not set, or blank: set it, or give its value as an argument")
    return value
