"""The fleet: many projects read at once, of which none keeps the others from being read."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import weakref
from collections import deque
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Iterable,
    Mapping,
)
from types import TracebackType
from typing import Any, Final, Self, TypedDict, TypeVar, Unpack

import attrs

from vizwatch._flows.arriving import COMES_BACK_AFTER, COMES_BACK_SOON, Arrivals, Finder, JobsWatch
from vizwatch._flows.gathering import Gathering, Reading
from vizwatch._rules import retrying, wire
from vizwatch._rules.cadence import backoff
from vizwatch._rules.choice import chosen
from vizwatch._rules.rhythm import interval_of, max_age_of
from vizwatch._values import checks, regions
from vizwatch._values.errors import CallError, ClientClosedError, ConfigError, VizwatchError
from vizwatch._values.models import Job, JobPage, Transition
from vizwatch._values.secrets import hidden, hidden_address
from vizwatch._values.settings import Settings, given_or_default
from vizwatch._world.account import Account
from vizwatch._world.auth import Auth, TokenAuth
from vizwatch._world.bulkhead import Bulkhead
from vizwatch._world.chance import CHANCE
from vizwatch._world.checkpoint import Checkpoint
from vizwatch._world.gate import Retries
from vizwatch._world.journal import Journal, Journals
from vizwatch._world.line import to_its_end
from vizwatch._world.transport import Pool, Share
from vizwatch.client import Client, Seconds, Statuses

T = TypeVar("T")

_BEGINS_WITHIN: Final = 0.02
"""Over how many seconds for each target the beginning is spread, an interval at most."""
_PLACES: Final = 20
"""How many connections one project may use, so that a slow one does not take them all."""


@attrs.frozen(init=False, repr=False)
class Target:
    """One project of a fleet.

    Args:
        endpoint: As of :class:`Client`.
        project_id: As of :class:`Client`.
        auth: Credentials: an :class:`Auth`, or a token as a string. They are not shown, and not compared.
        workspace_id: As of :class:`Client`.
        name: What to call it in outcomes; by default its `project_id`. Each target of a fleet has another.
        account: Whose request budget it spends; by default it shares one with all targets of the same
            credentials at the same endpoint.

    Raises:
        ConfigError: The token or the name is wrong, or there is no name. What else is wrong is raised by
            :class:`Fleet`.
    """

    endpoint: str | None
    project_id: str | None
    auth: Auth = attrs.field(eq=False)
    workspace_id: str | None
    name: str
    account: Account | None

    def __init__(
        self,
        endpoint: str | None,
        project_id: str | None,
        *,
        auth: Auth | str,
        workspace_id: str | None = None,
        name: str | None = None,
        account: Account | None = None,
    ) -> None:
        auth, endpoint = hidden(auth), hidden_address(endpoint)
        if name is None and project_id is None:
            raise ConfigError("name must be given where project_id is not: outcomes are found by it")
        self.__attrs_init__(
            endpoint,
            project_id,
            TokenAuth(auth) if isinstance(auth, str) else auth,
            workspace_id,
            regions.project_id("project_id", project_id)
            if name is None
            else checks.text("name", name, low=1, high=256),
            account,
        )

    def __repr__(self) -> str:
        # A traceback may show it half made.
        fields = ("endpoint", "project_id", "workspace_id", "name")
        return f"Target({', '.join(f'{name}={getattr(self, name, None)!r}' for name in fields)})"


@attrs.frozen
class TargetJob:
    """A job, and where it is."""

    target: Target
    job: Job


@attrs.frozen
class Outcome:
    """How far the reading of one target came."""

    target: Target
    complete: bool = False
    """Whether all of its jobs that were asked for were given: the listing ran to its end, without an error, a
    row skipped, or a `limit` that was reached, and began with the first page. Of a watch, whether all of its
    jobs are known, each row is a job, and they are as fresh as they can be at its interval."""
    error: VizwatchError | None = None
    """What ended it before; of a watch, also what its reads fail with just now."""
    jobs: int = 0
    """How many jobs of it were given; of a watch, how many there are."""
    age: float | None = attrs.field(default=None, eq=False)
    """Of a watch, seconds since the oldest of what is known was read; ``None`` before all was read once."""


class ListOptions(TypedDict, total=False):
    """What :meth:`Client.list_jobs` takes."""

    status: Statuses | None
    search_content: str | None
    sort_by: str
    order: str
    workspace_id: str | None
    per_page: int | None
    page: int
    limit: int | None
    complete: bool
    on_bad_row: str


class WatchOptions(TypedDict, total=False):
    """What :meth:`Client.watch_jobs` takes, but for `job_ids`, which are of one project, and a checkpoint."""

    status: Statuses | None
    search_content: str | None
    workspace_id: str | None
    interval: Seconds | None
    max_age: Seconds | None


class _EachOptions(WatchOptions, total=False):
    """Also of each target."""

    checkpoint: Journal | None


def several_of(targets: object) -> Iterable[object]:
    """The targets, if they are several; raises :class:`ConfigError`."""
    if not isinstance(targets, Iterable):
        kind = type(targets).__name__
        raise ConfigError(f"targets must be several, such as Fleet([Target(…), Target(…)]), not one {kind}")
    return targets


def payer_of(auth: Auth) -> Hashable:
    """Whose limit the requests count against, as far as these credentials tell: equal for one user's."""
    identity: Hashable = getattr(auth, "identity", None)
    # What has none is told apart by itself, which its target keeps alive.
    return id(auth) if identity is None else (type(auth), identity)


@attrs.define(eq=False)
class _Member:
    """A target and its client, which is opened when it is first needed."""

    target: Target
    client: Client
    share: Share
    _openings: Bulkhead
    """How many of the fleet ask for their project or endpoint at once."""
    _opening: asyncio.Lock = attrs.field(factory=asyncio.Lock, init=False)
    _is_open: bool = attrs.field(default=False, init=False)

    async def opened(self) -> Client:
        """The client, ready for calls. Raises what opening it raises; the next one tries again."""
        if not self._is_open:
            async with self._opening:
                await self._open()
        return self.client

    async def _open(self) -> None:
        asks = None in {self.target.endpoint, self.target.project_id}
        while not self._is_open:
            async with await self._openings.place(self.share.standing) if asks else contextlib.nullcontext():
                await self.client.__aenter__()
                self._is_open = True


@attrs.define(eq=False)
class _Outlook:
    """How the watch of one target is getting on."""

    target: Target
    survey: Finder | None = None
    error: VizwatchError | None = None
    """What it could not be begun for."""

    def outcome(self, now: float) -> Outcome:
        survey, error = self.survey, self.error
        if survey is None:
            return Outcome(self.target, error=error)
        if isinstance(survey.error, VizwatchError):
            error = survey.error
        is_fresh = error is None and not (survey.skipped or survey.has_ended or survey.is_stale(now))
        return Outcome(self.target, complete=is_fresh, error=error, jobs=survey.size, age=survey.age(now))


@attrs.define(eq=False)
class _View:
    """How a watch of all targets is getting on; once that is closed, how it was then."""

    outlooks: dict[str, _Outlook]
    _loop: asyncio.AbstractEventLoop
    failure: BaseException | None = attrs.field(default=None, init=False)
    """What ends it, since it is no target's."""
    _last: dict[str, Outcome] | None = attrs.field(default=None, init=False)

    def outcomes(self) -> dict[str, Outcome]:
        """By each target's name."""
        if self._last is not None:
            return {**self._last}
        now = self._loop.time()
        return {name: outlook.outcome(now) for name, outlook in self.outlooks.items()}

    def close(self) -> None:
        """Keeps them as they are, and nothing of what was watched."""
        self._last = self.outcomes()
        self.outlooks = {}

    def begun(self, arrivals: Arrivals, task: asyncio.Task[None]) -> None:
        """The watch of a target was begun, or failed with what no target's outcome can say."""
        if not task.cancelled() and task.exception() is not None:
            self.failure = task.exception()
            self.close()
            arrivals.closed = True
            arrivals.came.set()


class _Watch(JobsWatch):
    """The watch of all targets."""

    def __init__(self, view: _View, arrivals: Arrivals, begin: Callable[[], Awaitable[None]]) -> None:
        super().__init__(arrivals, begin)
        self._view = view
        weakref.finalize(self, view.close).atexit = False

    async def __anext__(self) -> Transition:
        try:
            return await super().__anext__()
        except StopAsyncIteration:
            failure, self._view.failure = self._view.failure, None
            if failure is None:
                raise
        raise failure

    async def aclose(self) -> None:
        self._view.close()
        await super().aclose()


class Fleet:
    """Many projects, of one account or of several, over one pool of connections.

    ::

        targets = [vizwatch.Target(endpoint, project_id, auth=auth) for project_id in project_ids]
        async with vizwatch.Fleet(targets) as fleet:
            async for item in fleet.list_jobs(status=JobStatus.RUNNING):
                print(item.target.name, item.job.job_name)
        failed = [outcome for outcome in fleet.outcomes.values() if not outcome.complete]

    A project that fails, or hangs, neither ends nor delays the others: its error is in :attr:`outcomes`. A
    project uses 20 connections of the pool at most. One that has taken 5 seconds for an answer is slow until
    it takes less: slow ones go last, and have three quarters of the pool at most. Any other one's request is
    broken off after these 5 seconds, where one that is not slow waits for its connection, and sent again. So
    the others wait 5 seconds for each `Settings.pool_size` projects that hang, once, and then no more.

    Each is opened when it is first read. Of those whose credentials have to be asked for endpoint or project
    that is done for `Settings.pool_size` at once at most, and by the same rule.

    Args:
        targets: The projects.
        settings: Of all of them. `requests_per_second` is the budget of each account.

    Raises:
        ConfigError: What a target says is wrong, or two have the same name.
    """

    def __init__(self, targets: Iterable[Target], *, settings: Settings | None = None) -> None:
        self.settings = given_or_default(settings)
        size = self.settings.pool_size
        self._pool = Pool(self.settings)
        self._each = attrs.evolve(self.settings, pool_size=min(size, _PLACES))
        accounts: dict[Hashable, Account] = {}
        openings = Bulkhead(size)
        self._retries: dict[str, Retries] = {}
        """Those at each endpoint, whoever pays for them; but not those of accounts of the caller's."""
        self._members: dict[str, _Member] = {}
        for target in several_of(targets):
            if not isinstance(target, Target):
                raise ConfigError(f"targets must be Targets, and one is of type {type(target).__name__}")
            if target.name in self._members:
                raise ConfigError(f"two targets are called {target.name!r}: give each a name of its own")
            share = Share(self._pool)
            client = self._client(target, accounts, share)
            self._members[target.name] = _Member(target, client, share, openings)
        self._latest: Callable[[], dict[str, Outcome]] = functools.partial(self._listed, {})
        self._watches: weakref.WeakSet[JobsWatch] = weakref.WeakSet()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._journals = Journals()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def _client(self, target: Target, accounts: dict[Hashable, Account], share: Share) -> Client:
        insecure, account = self.settings.allow_insecure, target.account
        try:
            endpoint = target.endpoint and wire.endpoint(target.endpoint, allow_insecure=insecure)
            if account is None:
                payer = endpoint, payer_of(target.auth)
                account = accounts.setdefault(payer, Account(self.settings.requests_per_second))
                if endpoint is not None:
                    account.retries = self._retries.setdefault(endpoint, account.retries)
            return Client(
                endpoint,
                target.project_id,
                auth=target.auth,
                workspace_id=target.workspace_id,
                settings=self._each,
                session=share,
                account=account,
            )
        except ConfigError as error:
            raise ConfigError(f"target {target.name!r}: {error}") from None

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """How far the latest listing came, or the latest watch, by each target's name, as it stands now.

        Of a watch that is closed, as it stood then.
        """
        return self._latest()

    def _listed(self, readings: Mapping[str, Reading[TargetJob]]) -> dict[str, Outcome]:
        outcomes = {name: Outcome(member.target) for name, member in self._members.items()}
        for name, reading in readings.items():
            outcomes[name] = Outcome(outcomes[name].target, reading.complete, reading.error, reading.jobs)
        return outcomes

    def list_jobs(self, **options: Unpack[ListOptions]) -> Gathering[TargetJob]:
        """The jobs of all targets, as they come.

        `Settings.pool_size` targets are read at once at most, and each a page ahead of the consumer at most.
        One whose page takes 5 seconds makes room for those that wait to be begun, and is begun again after
        them. Broken off and forgotten, it reads no more than the pages that are under way; its `aclose` ends
        these, too. Several tasks may take jobs from one iterator.

        Args:
            options: As of :meth:`Client.list_jobs`, for each target by itself: an order holds among the jobs
                of one target, and a limit for each of them.

        Raises:
            ConfigError: An argument is wrong, or the fleet is not open.
            ClientClosedError: The fleet was closed.
        """
        self._check_open()
        readings = {name: _reading(member, options) for name, member in self._members.items()}
        self._latest = functools.partial(self._listed, readings)
        waiting, late = deque[Reading[TargetJob]](), deque[Reading[TargetJob]]()
        for name, reading in readings.items():
            (late if self._members[name].share.standing.is_slow else waiting).append(reading)
        return Gathering(waiting, late, self.settings.pool_size, self._start, self._check_open)

    def watch_jobs(
        self,
        *,
        status: Statuses | None = None,
        search_content: str | None = None,
        workspace_id: str | None = None,
        interval: Seconds | None = None,
        max_age: Seconds | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> JobsWatch:
        """The transitions of all jobs of all targets, as they are seen; `project_id` says of which.

        Each target is read at its own time within the interval, at the beginning and after an outage, too.
        One that fails is tried again, and does not end the others; it says so in :attr:`outcomes`. So does
        one for which no later read will come to anything, which is tried again after half a minute, and then
        every five minutes, since somebody may mend it. The iteration ends once that holds for all.

        Args:
            status: As of :meth:`Client.watch_jobs`, as is all else, for each target.
            search_content: As there.
            workspace_id: Instead of each target's.
            interval: As there.
            max_age: As there.
            checkpoint: As there: one for all targets.

        Raises:
            ConfigError: An argument is wrong, or the fleet is not open. While iterated: the checkpoint cannot
                be used, which ends the watch of all.
            ClientClosedError: The fleet was closed.
        """
        self._check_open()
        options = _EachOptions(
            status=status,
            search_content=search_content,
            workspace_id=None if workspace_id is None else checks.identifier("workspace_id", workspace_id),
            interval=interval,
            max_age=max_age,
            checkpoint=None if checkpoint is None else self._journals.of(checkpoint),
        )
        chosen(None, status, search_content)
        every = interval_of(self.settings, interval, max_age_of(self.settings, max_age))
        arrivals = Arrivals(raises=False)
        arrivals.expected = len(self._members)
        outlooks = {name: _Outlook(member.target) for name, member in self._members.items()}
        view = _View(outlooks, asyncio.get_running_loop())
        self._latest = view.outcomes
        watch = _Watch(view, arrivals, functools.partial(self._begin, view, arrivals, every, options))
        self._watches.add(watch)
        return watch

    async def _begin(self, view: _View, arrivals: Arrivals, interval: float, options: _EachOptions) -> None:
        """Begins the watches of all targets, spread over the interval."""
        spread = min(interval, _BEGINS_WITHIN * len(self._members))
        for number, (name, outlook) in enumerate(view.outlooks.items()):
            share = number / len(self._members)
            begun = self._begun(
                self._members[name], outlook, arrivals, share * spread, share * interval, options
            )
            self._start(begun).add_done_callback(functools.partial(view.begun, arrivals))

    async def _begun(
        self,
        member: _Member,
        outlook: _Outlook,
        arrivals: Arrivals,
        after: float,
        phase: float,
        options: _EachOptions,
    ) -> None:
        """Begins the watch of a target, as soon as it can be opened."""
        base, longest = self.settings.watch_backoff_base, self.settings.watch_backoff_max
        failures, was_refused = 0, False
        await asyncio.sleep(after)
        while not arrivals.closed:
            try:
                watch = (await member.opened()).watch_jobs(**options)
            except VizwatchError as error:
                outlook.error = error
                if not isinstance(error, CallError) or retrying.is_permanent(error):
                    arrivals.not_begun()
                    await asyncio.sleep(COMES_BACK_AFTER if was_refused else COMES_BACK_SOON)
                    arrivals.expected += 1
                    was_refused = True
                    continue
                failures += 1
                await asyncio.sleep(backoff(failures, CHANCE.random(), base, longest, error.retry_after))
            else:
                if not arrivals.closed:
                    outlook.error, outlook.survey = None, watch.survey
                    await watch.move(arrivals, phase)
                return

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("this fleet is closed: make a new one")
        if self._loop is None:
            raise ConfigError("this fleet is not open yet: use it inside `async with Fleet(…) as fleet`")
        self._check_loop()

    def _check_loop(self) -> None:
        if self._loop not in {None, asyncio.get_running_loop()}:
            raise ConfigError("the fleet was opened in another event loop: open one in each loop")

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Does the work in a task, which ends with the fleet."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def __aenter__(self) -> Self:
        if self._closed:
            raise ClientClosedError("this fleet is closed: make a new one")
        if self._loop is not None:
            raise ConfigError("this fleet is open already: enter it once, and share it between tasks")
        self._loop = asyncio.get_running_loop()
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
            "a fleet is asynchronous: write `async with Fleet(…) as fleet` in a coroutine, which "
            "`asyncio.run(…)` runs"
        )

    def __exit__(self, *_: object) -> None: ...

    async def aclose(self) -> None:
        """Ends what is under way, and closes the connections; idempotent."""
        self._check_loop()
        self._closed = True
        await to_its_end(self._close())

    async def _close(self) -> None:
        try:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*(watch.aclose() for watch in list(self._watches)))
            await asyncio.gather(*(member.client.aclose() for member in self._members.values()))
            await self._journals.aclose()
        finally:
            await self._pool.aclose()

    def __repr__(self) -> str:
        # A traceback may show it half made.
        return f"Fleet({len(getattr(self, '_members', ()))} targets)"


def _reading(member: _Member, options: ListOptions) -> Reading[TargetJob]:
    pager = member.client.list_jobs(**options)
    backwards: list[JobPage] | None = None
    if pager.complete and options.get("order", "asc") == "asc":
        # The client would read all pages in one step, which went on where the iteration was broken off.
        descending: ListOptions = {**options, "order": "desc"}
        pager, backwards = member.client.list_jobs(**descending), []
    pages = pager.pages()

    async def next_page() -> JobPage | None:
        await member.opened()
        return await anext(pages, None)

    return Reading(
        next_page,
        functools.partial(TargetJob, member.target),
        limit=options.get("limit"),
        is_whole=options.get("page", 1) == 1,
        backwards=backwards,
    )
