"""The client: one method for each thing that can be asked of one project."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import math
import weakref
from collections.abc import Awaitable, Callable, Collection
from types import TracebackType
from typing import TYPE_CHECKING, Self, overload

import anyio

from vizwatch._flows.following import Follower, Terms
from vizwatch._flows.polling import Poller
from vizwatch._flows.sweeping import ReadRows
from vizwatch._flows.watching import Watch, wait_until
from vizwatch._flows.writing import arrival
from vizwatch._rules import codec, reconciling, wire
from vizwatch._rules.cadence import Cadence, OwnWrites
from vizwatch._rules.listing import Ask, Dialect
from vizwatch._rules.mailbox import Mailbox
from vizwatch._rules.outage import Outage
from vizwatch._rules.pacing import Haste
from vizwatch._rules.rhythm import interval_of, max_age_of, shortest_of
from vizwatch._rules.settling import Settled, settled
from vizwatch._rules.transitions import Tracker
from vizwatch._values import checks
from vizwatch._values.errors import (
    CallError,
    ConfigError,
    JobGoneError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
)
from vizwatch._values.exchange import Failure, Operation, Request
from vizwatch._values.models import Job, JobPage
from vizwatch._values.rows import Rows
from vizwatch._values.secrets import hidden, hidden_address
from vizwatch._values.settings import Settings, given_or_default
from vizwatch._values.statuses import TERMINAL, JobStatus
from vizwatch._world.account import Account
from vizwatch._world.auth import Auth
from vizwatch._world.chance import CHANCE
from vizwatch._world.gate import Gate
from vizwatch._world.line import Due, to_its_end
from vizwatch._world.project import Project
from vizwatch._world.report import Report
from vizwatch._world.transport import Share

if TYPE_CHECKING:
    import aiohttp

    from vizwatch._flows.arriving import JobsWatch
    from vizwatch._flows.delivering import Delivery
    from vizwatch._flows.paging import JobPager
    from vizwatch._world.checkpoint import Checkpoint
    from vizwatch._world.journal import Journal, Journals

Seconds = float | dt.timedelta
Statuses = JobStatus | int | Collection[JobStatus | int]


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
        endpoint: `https://host[:port]`; `http` for loopback only, unless allowed. ``None`` where the
            credentials know it: those of :class:`CloudsAuth` do, and of :class:`PasswordAuth` where the
            region is known.
        project_id: The project's id, not its name. ``None`` where the credentials know it: those of
            :class:`CloudsAuth` and :class:`PasswordAuth` do.
        auth: Credentials: an :class:`Auth`, or a token as a string.
        workspace_id: The workspace that lists show and creates go to; the service's default is `0`.
        settings: How to poll, retry and guard.
        session: An `aiohttp.ClientSession` of your own. It is never closed here; its middlewares are not run.
        allow_insecure: Whether `http` is allowed to any host, as `Settings.allow_insecure`.
        account: Whose request budget the calls spend, instead of one of its own of
            `Settings.requests_per_second`; that setting does not count then.
    """

    def __init__(
        self,
        endpoint: str | None,
        project_id: str | None,
        *,
        auth: Auth | str,
        workspace_id: str | None = None,
        settings: Settings | None = None,
        session: aiohttp.ClientSession | Share | None = None,
        allow_insecure: bool = False,
        account: Account | None = None,
    ) -> None:
        auth, endpoint = hidden(auth), hidden_address(endpoint)
        self.settings = given_or_default(settings)
        self._project = Project(
            endpoint,
            project_id,
            auth,
            self.settings,
            session,
            allow_insecure=allow_insecure,
            account=account,
        )
        self.workspace_id = None if workspace_id is None else checks.identifier("workspace_id", workspace_id)
        self._watches: weakref.WeakSet[Watch | JobsWatch] = weakref.WeakSet()
        self._terms: weakref.WeakValueDictionary[tuple[float, float | None], Terms]
        self._terms = weakref.WeakValueDictionary()
        self._dialect = Dialect()
        self._own_writes = OwnWrites()
        outage = Outage(self.settings.watch_backoff_base, self.settings.watch_backoff_max)
        retries = None if account is None else account.retries
        self._gate = Gate(outage, self.settings.pool_size, self._project.renewing, retries)
        self._report = Report() if account is None else account.report
        self._haste = Haste() if account is None else account.haste
        self._pollers: dict[str, Poller] = {}
        self._journals: Journals | None = None

    @classmethod
    def from_env(
        cls,
        profile: str | None = None,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        project_id: str | None = None,
        workspace_id: str | None = None,
        settings: Settings | None = None,
        session: aiohttp.ClientSession | None = None,
        allow_insecure: bool = False,
        account: Account | None = None,
    ) -> Self:
        """A client with what the environment and its files say: the first found of each wins.

        In this order: the arguments and the profile; `VIZWATCH_ENDPOINT` or `VIZWATCH_REGION`,
        `VIZWATCH_PROJECT_ID` and `VIZWATCH_TOKEN`; `HUAWEICLOUD_SDK_AK`, `_SK`, `_SECURITY_TOKEN` and
        `_PROJECT_ID`; `~/.huaweicloud/credentials`; `OS_*`, where `OS_CLOUD` names a cloud of clouds.yaml.

        Args:
            profile: A section of the credentials file, instead of `basic`, or else a cloud of clouds.yaml,
                which also says endpoint and project, unless they are arguments.
            endpoint: As above.
            region: Whose endpoint to use, such as `eu-de`.
            project_id: As above.
            workspace_id: As above.
            settings: As above.
            session: As above.
            allow_insecure: As above.
            account: As above.

        Raises:
            ConfigError: Something is missing, wrong or contradictory: all that is, with source and remedy.
        """
        from vizwatch._world import sources  # noqa: PLC0415 - a client of arguments starts without files and clouds

        endpoint = hidden_address(endpoint)
        found = sources.account(
            {"endpoint": endpoint, "region": region, "project_id": project_id, "workspace_id": workspace_id},
            profile=profile,
            settings=settings,
            allow_insecure=allow_insecure,
        )
        return cls(
            found.endpoint,
            found.project_id,
            auth=found.auth,
            workspace_id=found.workspace_id,
            settings=found.settings,
            session=session,
            allow_insecure=allow_insecure,
            account=account,
        )

    @property
    def endpoint(self) -> str:
        """The service's address."""
        return self._project.endpoint

    @property
    def project_id(self) -> str:
        """The project's id."""
        return self._project.project_id

    def list_jobs(
        self,
        *,
        status: Statuses | None = None,
        search_content: str | None = None,
        sort_by: str = "job_id",
        order: str = "asc",
        workspace_id: str | None = None,
        per_page: int | None = None,
        page: int = 1,
        limit: int | None = None,
        complete: bool = False,
        on_bad_row: str = "raise",
    ) -> JobPager:
        """The jobs of one workspace, read page by page while they are iterated.

        Pages drift while they are read. No job is given twice; but when jobs listed before it are deleted
        meanwhile, a job may move to a page already read and be skipped.

        A *complete* listing skips no job that exists from its first read to its last: it looks for the last
        page, and reads from there to the first one, by `job_id`. Jobs created or deleted meanwhile may be in
        it or not. Two things are assumed, and no document says them: a new job's id is higher than all before
        it, and a page shows the jobs as they are when it is read. :class:`ProtocolError` says that pages are
        not in order. It costs a few requests more than there are pages. With `order="desc"` jobs come as they
        are read, in constant memory; with `"asc"` none comes before all are read, and all are held.

        Args:
            status: Only jobs in this status, or in one of these: one listing for each, merged in the order
                asked for, while they are read.
            search_content: Only jobs whose name has this text, of up to 100 characters. A service that takes
                64 alone is asked for the first 64, and the rest is looked for here.
            sort_by: `job_id`, `job_name`, `job_desc`, `create_time` or `status`. In any order but that of
                `job_id`, each id is kept until the end.
            order: `asc` or `desc`.
            workspace_id: Instead of the client's.
            per_page: How many jobs to ask for at once, 1 to 1000; by default 1000, or `limit` if smaller, and
                100 where the service refuses more.
            page: The page to begin with, from 1; of one status only.
            limit: How many jobs to give at most.
            complete: Whether to skip no job; see above. Only `workspace_id`, `per_page` and `order` may be
                given beside it. A job may come into what `status` or `search_content` select while that is
                read, and move others to pages already read: choose among the jobs that are given. In any
                other order than that of `job_id` a new job does the same. `page`, `limit` and
                `on_bad_row="skip"` leave jobs out.
            on_bad_row: `raise` for a :class:`DecodeError` at a row that is no job, or `skip` to leave it out:
                `JobPage.skipped` of :meth:`JobPager.pages` says how many were.

        Raises:
            ConfigError: An argument is wrong, or may not be given beside `complete`.
        """
        # Who only watches starts without listings.
        from vizwatch._flows.paging import JobPager  # noqa: PLC0415
        from vizwatch._rules.complete import check_complete  # noqa: PLC0415

        skips = checks.choice("on_bad_row", on_bad_row, ("raise", "skip")) == "skip"
        if limit is not None:
            limit = checks.whole("limit", limit, low=0, high=2**63 - 1)
        if per_page is not None:
            per_page = checks.whole("per_page", per_page, low=1, high=wire.MAX_PER_PAGE)
        queries = [
            wire.query(
                status=one,
                search_content=search_content,
                sort_by=sort_by,
                order=order,
                workspace_id=self.workspace_id if workspace_id is None else workspace_id,
            )
            for one in ([None] if status is None else sorted(checks.statuses("status", status)))
        ]
        ask = Ask(checks.whole("page", page, low=1, high=2**31), per_page, limit, search_content or "")
        if ask.page > 1 and len(queries) > 1:
            raise ConfigError(
                "page must be 1 where several statuses are asked for: each has pages of its own"
            )
        if checks.switch("complete", complete):
            check_complete(
                {
                    "status": status,
                    "search_content": ask.search_content,
                    "sort_by": sort_by,
                    "page": page,
                    "limit": limit,
                    "on_bad_row": on_bad_row,
                }
            )

        async def fetch(query: wire.Query, number: int, size: int) -> JobPage:
            request = wire.list_jobs(self.project_id, query, page=number, per_page=size)
            return await self._project.call(
                request, lambda body: codec.decode_page(body, number, skips_bad_rows=skips)
            )

        return JobPager(fetch, queries, ask, self._dialect, complete=complete)

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
        backlog: int | None = None,
        max_age: Seconds | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Watch:
        """The job's transitions: first the status found, then each change, until its end.

        Args:
            job_id: The job.
            interval: The longest pause between two reads, in seconds, instead of `Settings.poll_interval`;
                each is randomly longer or shorter by `Settings.poll_jitter`. Pauses are shorter, down to a
                fifteenth or `Settings.poll_interval_min`, where a change is likely: after one, while the job
                starts or stops, when its automatic stop is due, and after a write of this client's.
            timeout: Seconds from the first step of the iteration after which it raises
                :class:`WatchTimeoutError`; ``None`` for no deadline.
            terminal: The statuses that end the watch, instead of those with `is_terminal`.
            follow_restarts: Whether to go on after a terminal status, for the job's next run; then only
                deletion, a deadline or closing ends the watch.
            backlog: How many transitions to keep for a consumer that is slow, while the watch goes on reading
                in the background: all in order up to this number, and beyond it the newest as one that says
                in `skipped` how many it left out. Such a watch has to be entered, by `async with`; like any
                other, it is for one task at a time. ``None`` to read only when the next one is asked for.
            max_age: How old what is known of the job may become, in seconds. It is read often enough for
                that, and no more often, unless `interval` says so. Where requests have to wait, the read that
                is due first goes first, and those of watches without `max_age` come last. When it becomes
                older nevertheless, `Watch.stale` says so, and once `Settings.on_stale` and a line of the log.
            checkpoint: Keeps what was delivered, such as :class:`SqliteCheckpoint`. A transition counts as
                delivered once the next one is asked for. Another process goes on there: what was not
                delivered comes again, with the same `id`, and what changed while nobody watched comes as one
                transition. If the last one delivered was the job's end, and that still holds, there is none.
                Of a backlog, what was not taken is not kept: it comes as one transition, too. Jobs that are
                watched one by one, also by `watch_jobs(job_ids=…)`, have their places beside that of
                `watch_jobs` of their whole workspace.

        Raises:
            ConfigError: An argument is wrong, or the client is not open. While iterated: another task takes a
                step already, or the watch has a backlog and was not entered; or the checkpoint cannot be used
                (:class:`CheckpointError`), or keeps the place of another watch of this job.
            ClientClosedError: The client is closed. Closed later, it ends the iteration, without an error.
            WatchTimeoutError: While iterated, as all below: the deadline passed. It carries the job as last
                read.
            NotFoundError: There is no such job, and none was seen before: else its deletion is a transition.
            VizwatchError: No later read will come to anything: :class:`PermissionDeniedError`,
                :class:`WrongEndpointError`, or :class:`AuthenticationError` twice in a row, for example.
        """
        number = checks.job_id(job_id)
        ends = TERMINAL if terminal is None else checks.statuses("terminal", terminal)
        tracker = Tracker(self.project_id, number, ends, checks.switch("follow_restarts", follow_restarts))
        bound = None if backlog is None else checks.whole("backlog", backlog, low=1, high=1_000_000)
        follower = Follower(tracker, self._terms_of(interval, max_age))
        mailbox = None if bound is None else Mailbox(bound)
        return self._watch(follower, timeout, mailbox, self._delivery(checkpoint, None))

    def watch_jobs(
        self,
        *,
        job_ids: Collection[int | str] | None = None,
        status: Statuses | None = None,
        search_content: str | None = None,
        workspace_id: str | None = None,
        interval: Seconds | None = None,
        max_age: Seconds | None = None,
        checkpoint: Checkpoint | Journal | None = None,
    ) -> JobsWatch:
        """The transitions of all jobs of a workspace, or of many jobs: first each status found, then changes.

        Jobs that appear later are included, and a deleted job comes with `current` ``None``. Unlike
        :meth:`watch` it goes on beyond terminal statuses, and never ends by itself.

        A whole workspace costs a request an interval for each 1,000 jobs, and details of the jobs that have
        just changed. Of a few `job_ids` the details are read, where that is cheaper.

        Args:
            job_ids: Only these jobs. One that does not exist is waited for.
            status: Only transitions from or to this status, or one of these.
            search_content: Only jobs whose name has this text, whatever its case.
            workspace_id: Instead of the client's.
            interval: Seconds between two readings, instead of `Settings.poll_interval`; each is randomly
                longer or shorter by `Settings.poll_jitter`.
            max_age: How old what is known of the jobs may become, in seconds, as in :meth:`watch`.
            checkpoint: Keeps what was delivered of each job, as in :meth:`watch`. Jobs that were told, and
                have not changed, do not come again; those deleted meanwhile come as deleted. What `status` or
                `search_content` leave out counts as delivered, and is not told later.

        Raises:
            ConfigError: An argument is wrong. While iterated: the checkpoint cannot be used, as in
                :meth:`watch`.
            VizwatchError: While iterated: no later read of the listing will come to anything; or of the last
                of the `job_ids`: of several, one whose details are refused for good is watched no longer,
                which a line of the log says.
        """
        # As in list_jobs.
        from vizwatch._flows.arriving import JobsWatch  # noqa: PLC0415
        from vizwatch._flows.surveying import Survey  # noqa: PLC0415
        from vizwatch._rules.choice import chosen  # noqa: PLC0415

        choice = chosen(job_ids, status, search_content)
        terms = self._terms_of(interval, max_age)
        where = self.workspace_id if workspace_id is None else checks.identifier("workspace_id", workspace_id)
        self._project.check_open()

        def follower(job_id: int) -> Follower:
            tracker = Tracker(self.project_id, job_id, TERMINAL, follow_restarts=True)
            return Follower(tracker, terms, is_awaited=choice.job_ids is not None)

        delivery = self._delivery(
            checkpoint, None if choice.job_ids is not None else where or wire.DEFAULT_WORKSPACE
        )
        survey = Survey(self._poller_of(where), choice, follower, self.project_id, terms, delivery=delivery)
        watch = JobsWatch(survey.arrivals, survey.begin, survey)
        self._watches.add(watch)
        return watch

    def _watch(
        self,
        follower: Follower,
        timeout: Seconds | None,
        backlog: Mailbox | None = None,
        delivery: Delivery | None = None,
    ) -> Watch:
        self._project.check_open()
        within = None if timeout is None else checks.seconds("timeout", timeout, low=0.001)
        # One attempt a look: looking again is what a poller does anyway, at its own pace.
        is_shared = self.settings.shared_reads
        poller = self._poller_of(self.workspace_id) if is_shared else self._new_poller(None)
        watch = Watch(follower, poller, within, backlog, delivery)
        self._watches.add(watch)
        return watch

    def _delivery(self, checkpoint: object, workspace_id: str | None) -> Delivery | None:
        """Keeps a consumer's place: in all of a workspace, or for ``None`` in jobs that it names."""
        if checkpoint is None:
            return None
        # Who keeps nothing starts without it.
        from vizwatch._flows.delivering import Delivery  # noqa: PLC0415
        from vizwatch._world.checkpoint import Stream  # noqa: PLC0415
        from vizwatch._world.journal import Journals  # noqa: PLC0415

        self._journals = self._journals or Journals()
        stream = Stream(self.endpoint, self.project_id, workspace_id)
        return Delivery(self._journals.of(checkpoint), stream)

    def _terms_of(self, interval: Seconds | None, max_age: Seconds | None) -> Terms:
        """The same for all watches that are asked for alike; raises :class:`ConfigError`."""
        at_most = max_age_of(self.settings, max_age)
        seconds = interval_of(self.settings, interval, at_most)
        terms = self._terms.get((seconds, at_most))
        if terms is None:
            terms = self._terms[seconds, at_most] = Terms(
                self._cadence(seconds),
                self._own_writes,
                self._report,
                CHANCE.random,
                request_time=self.settings.attempt_timeout,
                haste=self._haste,
                max_age=math.inf if at_most is None else at_most,
                on_stale=self.settings.on_stale,
            )
        return terms

    def _cadence(self, interval: float) -> Cadence:
        settings = self.settings
        return Cadence(
            interval,
            shortest_of(interval, settings.poll_interval_min),
            settings.poll_jitter,
            settings.watch_backoff_base,
            settings.watch_backoff_max,
        )

    def _poller_of(self, workspace_id: str | None) -> Poller:
        """The poller of all watches of a workspace."""
        name = workspace_id or wire.DEFAULT_WORKSPACE
        poller = self._pollers.get(name)
        if poller is None:
            read_rows = functools.partial(self._read_rows, wire.query(workspace_id=workspace_id))
            poller = self._pollers[name] = self._new_poller(read_rows)
        return poller

    def _new_poller(self, read_rows: ReadRows | None) -> Poller:
        return Poller(
            self._gate,
            self._report,
            CHANCE.random,
            self._cadence(self.settings.poll_interval),
            self._read_job,
            read_rows,
            self._dialect,
            self._project.check_loop,
        )

    async def _read_rows(self, query: wire.Query, page: int, per_page: int, due: Due) -> tuple[Rows, float]:
        request = wire.list_jobs(self.project_id, query, page=page, per_page=per_page)
        return await self._project.read(request, codec.decode_rows, due=due)

    async def _read_job(self, job_id: int, due: Due) -> tuple[Job, float]:
        request = wire.get_job(self.project_id, job_id)
        return await self._project.read(request, functools.partial(_details_of, job_id), due=due)

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
        watch = self.watch(job_id, timeout=timeout, interval=interval, terminal=wanted | TERMINAL)
        return await wait_until(watch, wanted)

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
            OutcomeUnknownError: No answer came: the job may exist. Give its `sent_at` to :meth:`find_created`
                before creating another.
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
        job = await self._project.call(request, codec.decode_job)
        self._own_writes.note(Operation.CREATE, job.job_id, anyio.current_time())
        poller = self._pollers.get(self.workspace_id or wire.DEFAULT_WORKSPACE)
        if poller is not None:
            poller.hurry(job.job_id, is_new=True)
        return job

    async def find_created(self, job_name: str, train_url: str, *, since: dt.datetime) -> list[Job]:
        """The jobs that a create may have made whose outcome is unknown, newest first.

        ::

            except OutcomeUnknownError as error:
                jobs = await client.find_created(job_name, train_url, since=error.sent_at)

        None means that it did not happen, or that the listing does not show it yet; several, that others
        create jobs of the same name and logs.

        Args:
            job_name: As given to :meth:`create_job`.
            train_url: As given to :meth:`create_job`.
            since: When the create was sent; jobs made up to 15 minutes earlier by the service's clock are
                taken in, since clocks differ.
        """
        if not isinstance(since, dt.datetime) or since.tzinfo is None:
            raise checks.refused("since", since, "a datetime with a time zone, such as the error's sent_at")
        wire.create_job(self.project_id, job_name, train_url)  # refuses what a create would
        found: list[Job] = []
        listing = self.list_jobs(search_content=job_name, sort_by="create_time", order="desc")
        async for page in listing.pages():
            found += reconciling.candidates(page.jobs, job_name, train_url, since)
            if reconciling.are_the_rest_earlier(page.jobs, since):
                break
        return found

    async def update_job(self, job_id: int | str, job_desc: str) -> None:
        """Gives the job another description, of up to 256 characters. The last writer wins."""
        await self._project.call(
            wire.update_job(self.project_id, checks.job_id(job_id), job_desc), codec.decode_done
        )

    @overload
    async def stop_job(self, job_id: int | str, *, wait: None = None) -> None: ...
    @overload
    async def stop_job(self, job_id: int | str, *, wait: Seconds) -> Job: ...
    async def stop_job(self, job_id: int | str, *, wait: Seconds | None = None) -> Job | None:
        """Asks the service to stop the job, which stops some time later.

        Args:
            job_id: The job.
            wait: How many seconds to wait, from the service's answer on, until it has ended, and then give
                the job, whatever it ended as; ``None`` to return at once.

        Raises:
            ConflictError: The job's status does not allow it: it has ended already, for example.
            OutcomeUnknownError: No answer came, and the job's details do not tell whether it is stopping.
            WatchTimeoutError: It did not arrive within `wait`.
        """
        number, within = checks.job_id(job_id), _within(wait)
        request = wire.stop_job(self.project_id, number)

        def ended() -> Awaitable[Job]:
            return self.wait(number, timeout=within)

        return await self._write(request, number, within, ended)

    @overload
    async def restart_job(self, job_id: int | str, *, wait: None = None) -> None: ...
    @overload
    async def restart_job(self, job_id: int | str, *, wait: Seconds) -> Job: ...
    async def restart_job(self, job_id: int | str, *, wait: Seconds | None = None) -> Job | None:
        """Asks the service to run the job again, under the same id.

        With `wait`, gives the job once it is running; :class:`JobEndedError` says that it ended instead. The
        rest is as in :meth:`stop_job`.
        """
        number, within = checks.job_id(job_id), _within(wait)

        def running() -> Awaitable[Job]:
            return self.wait(number, until=JobStatus.RUNNING, timeout=within)

        return await self._write(wire.restart_job(self.project_id, number), number, within, running)

    @overload
    async def delete_job(self, job_id: int | str, *, wait: None = None) -> None: ...
    @overload
    async def delete_job(self, job_id: int | str, *, wait: Seconds) -> Job: ...
    async def delete_job(self, job_id: int | str, *, wait: Seconds | None = None) -> Job | None:
        """Asks the service to delete the job, which is gone some time later.

        With `wait`, gives the job as it was last seen, once it is gone; :class:`JobEndedError` says that its
        deletion failed. The rest is as in :meth:`stop_job`.
        """
        number, within = checks.job_id(job_id), _within(wait)
        tracker = Tracker(self.project_id, number, {JobStatus.DELETE_FAILED})
        follower = Follower(tracker, self._terms_of(None, None))
        if within is not None:
            asked = anyio.current_time()
            # Deleted at once, it could not be given any more.
            with contextlib.suppress(CallError):
                follower.resume(await self._read(number), asked, tracker.counts)

        async def gone() -> Job:
            try:
                return await wait_until(self._watch(follower, within), {None})
            except NotFoundError:
                raise JobGoneError(f"job {number} is deleted, and was never seen") from None

        return await self._write(wire.delete_job(self.project_id, number), number, within, gone)

    async def _write(
        self, request: Request, job_id: int, within: float | None, arrived: Callable[[], Awaitable[Job]]
    ) -> Job | None:
        """Carries a write out, and waits for what it asks for if `within` says how long."""

        async def settle() -> Settled:
            try:
                return settled(request.operation, (await self._read(job_id)).status)
            except NotFoundError:
                return settled(request.operation, None)

        async def write() -> None:
            try:
                await self._project.call(request, codec.decode_done, settle=settle)
            except (OutcomeUnknownError, asyncio.CancelledError):
                self._wrote(request.operation, job_id)  # or may have
                raise
            self._wrote(request.operation, job_id)

        if within is not None:
            return await arrival(write, arrived)
        await write()
        return None

    def _wrote(self, operation: Operation, job_id: int) -> None:
        """Notes a write, and has the job looked at soon by all who watch it."""
        self._own_writes.note(operation, job_id, anyio.current_time())
        alone = () if self.settings.shared_reads else self._watches
        pollers = [watch.poller for watch in alone if isinstance(watch, Watch)]
        for poller in [*self._pollers.values(), *pollers]:
            poller.hurry(job_id)

    async def _read(self, job_id: int) -> Job:
        request = wire.get_job(self.project_id, job_id)
        return await self._project.call(request, functools.partial(_details_of, job_id))

    async def __aenter__(self) -> Self:
        await self._project.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __enter__(self) -> None:
        raise ConfigError(
            "a client is asynchronous: write `async with Client(…) as client` in a coroutine, which "
            "`asyncio.run(…)` runs"
        )

    def __exit__(self, *_: object) -> None: ...

    async def aclose(self) -> None:
        """Ends live watches, whose iteration stops, and calls under way, which raise; idempotent."""
        self._project.check_loop()
        await to_its_end(self._close())

    async def _close(self) -> None:
        try:
            await asyncio.gather(*(watch.aclose() for watch in list(self._watches)))
            await self._gate.aclose()
            if self._journals is not None:
                await self._journals.aclose()
        finally:
            await self._project.aclose()

    def __repr__(self) -> str:
        # A traceback may show it half made.
        return f"Client({getattr(self, '_project', None)!r})"


def _details_of(job_id: int, body: bytes) -> Job | Failure:
    """The details of this job, and of no other."""
    job = codec.decode_job(body)
    if isinstance(job, Job) and job.job_id != job_id:
        raise ProtocolError(f"get job: asked for job {job_id}, and job {job.job_id} was answered")
    return job


def _within(wait: Seconds | None) -> float | None:
    return None if wait is None else checks.seconds("wait", wait, low=0.001)
