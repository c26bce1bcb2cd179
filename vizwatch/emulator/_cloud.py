"""The state of the emulated service: projects, their jobs, and what each job's status goes through.

No I/O and no clock: every method is told the time, in seconds of the cloud's clock.
"""

from __future__ import annotations

import heapq
import itertools
import random
import uuid
from collections import deque
from collections.abc import Collection, Iterator, Reversible
from typing import Any, Final

import attrs

from vizwatch import JobStatus
from vizwatch.emulator import _refusals
from vizwatch.emulator._checks import Life

_MAX_HISTORY: Final = 100
_MAX_GONE: Final = 10_000
_BY_ID: Final = frozenset({"job_id", "create_time"})
_HAS_RUN: Final = frozenset({JobStatus.RUNNING, JobStatus.SCALING})
_HOUR: Final = 3600.0


@attrs.frozen
class State:
    """What of a job changes, as it was from one moment on."""

    since: float
    status: JobStatus
    ran: float
    """Seconds of RUNNING before `since`, in this run of the job."""
    job_desc: str

    def ran_until(self, at: float) -> float:
        """Seconds of RUNNING up to a moment of this state."""
        return self.ran + (max(0.0, at - self.since) if self.status is JobStatus.RUNNING else 0.0)


@attrs.frozen(kw_only=True)
class NewJob:
    """What a job is made from."""

    job_name: str | None = None
    """``None``: a name made from the job's id."""
    job_desc: str = ""
    train_url: str = "/obs/name/"
    job_type: str = "tensorboard"
    workspace_id: str = "0"
    auto_stop_hours: int | None = None
    service_url: str | None = None
    """``None``: an address made from the job's type, project and id."""


@attrs.define(eq=False)
class Job:
    """A job: what it was made from, its states so far, and the steps ahead of it."""

    project_id: str
    job_id: int
    spec: NewJob
    resource_id: str
    created: float
    history: list[State]
    steps: Life = ()
    gone: float | None = None

    @property
    def name(self) -> str:
        """The job's name."""
        return self.spec.job_name or f"job-{self.job_id}"

    @property
    def service_url(self) -> str:
        """Where the job's web page would be."""
        path = f"modelarts/{self.spec.job_type}/{self.project_id}/{self.job_id}/"
        return self.spec.service_url or f"https://emulated.example.com/{path}"

    @property
    def state(self) -> State:
        """The state the job is in, or was in when it was deleted."""
        return self.history[-1]

    def state_at(self, at: float) -> State | None:
        """The state at a moment; ``None`` before the job's creation and after its deletion."""
        if at < self.created or (self.gone is not None and at >= self.gone):
            return None
        return next((state for state in reversed(self.history) if state.since <= at), self.history[0])

    def enter(self, at: float, status: JobStatus, *, new_run: bool = False) -> None:
        """Change the status."""
        if status == self.state.status and not new_run:
            return
        ran = 0.0 if new_run else self.state.ran_until(at)
        self._remember(State(at, status, ran, self.state.job_desc))

    def describe(self, at: float, job_desc: str) -> None:
        """Change the description."""
        self._remember(State(at, self.state.status, self.state.ran_until(at), job_desc))

    def _remember(self, state: State) -> None:
        self.history.append(state)
        if len(self.history) > _MAX_HISTORY:
            del self.history[0]


@attrs.define(eq=False)
class Project:
    """One project's jobs, by workspace, and an agenda of what is to happen to them."""

    jobs: dict[int, Job] = attrs.field(factory=dict)
    workspaces: dict[str, dict[int, Job]] = attrs.field(factory=dict)
    agenda: list[tuple[float, int, Job]] = attrs.field(factory=list)
    deleted: deque[Job] = attrs.field(factory=lambda: deque(maxlen=_MAX_GONE))

    def add(self, job: Job) -> None:
        """Take in a job, whose id is above every other's: so each dict stays in the order of ids."""
        self.jobs[job.job_id] = job
        self.workspaces.setdefault(job.spec.workspace_id, {})[job.job_id] = job

    def remove(self, job: Job, at: float) -> None:
        """Delete a job; stale reads may still see it."""
        job.gone = at
        job.steps = ()
        del self.jobs[job.job_id]
        del self.workspaces[job.spec.workspace_id][job.job_id]
        self.deleted.append(job)

    def seen(self, workspace_id: str, at: float) -> list[Job]:
        """The workspace's jobs as they were at a past moment, in the order of ids."""
        jobs = itertools.chain(
            self.workspaces.get(workspace_id, {}).values(),
            (job for job in self.deleted if job.spec.workspace_id == workspace_id),
        )
        return sorted((job for job in jobs if job.state_at(at)), key=lambda job: job.job_id)


@attrs.frozen(kw_only=True)
class Listing:
    """What a list request asks for."""

    status: int | None = None
    search_content: str = ""
    workspace_id: str = "0"
    sort_by: str = "job_id"
    descending: bool = False
    page: int = 1
    per_page: int = 10


Row = tuple[Job, State]


@attrs.define(eq=False)
class Cloud:
    """Every project of the emulated service."""

    life: Life
    """What a job goes through from its creation, and again from each restart."""
    kill_seconds: float
    """How long stopping and deleting take."""
    rng: random.Random
    numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    projects: dict[str, Project] = attrs.field(factory=dict)
    _order: Iterator[int] = attrs.field(factory=itertools.count)

    def project(self, project_id: str, now: float) -> Project:
        """The project as it is now; one that nobody has put a job into is empty, and not kept."""
        project = self.projects.get(project_id) or Project()
        agenda = project.agenda
        while agenda and agenda[0][0] <= now:
            at, _, job = heapq.heappop(agenda)
            # Entries of steps that were replaced since mean nothing.
            if job.steps and job.steps[0][0] == at:
                self._walk(project, job, now)
        return project

    def _walk(self, project: Project, job: Job, now: float) -> None:
        while job.steps and job.steps[0][0] <= now:
            (at, status), *rest = job.steps
            job.steps = tuple(rest)
            if status is None:
                project.remove(job, at)
            else:
                job.enter(at, status)
        if job.steps:
            heapq.heappush(project.agenda, (job.steps[0][0], next(self._order), job))

    def _follow(self, project: Project, job: Job, steps: Life, now: float) -> None:
        job.steps = steps
        self._walk(project, job, now)

    def create(
        self, project_id: str, spec: NewJob, now: float, life: Life | None = None, job_id: int | None = None
    ) -> Job:
        """A new job, which goes through `life` (default: the cloud's), counted from now."""
        job_id = next(self.numbers) if job_id is None else job_id
        life = self.life if life is None else life
        # A job is never without a status: the first one of its life holds even before its time.
        first = JobStatus.INIT if life[0][0] > 0 or life[0][1] is None else life[0][1]
        resource_id = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        job = Job(project_id, job_id, spec, resource_id, now, [State(now, first, 0.0, spec.job_desc)])
        self.projects.setdefault(project_id, Project()).add(job)
        project = self.project(project_id, now)
        self._follow(project, job, self._plan(life, spec.auto_stop_hours, now), now)
        return job

    def _plan(self, life: Life, auto_stop_hours: int | None, now: float) -> Life:
        steps = tuple((now + after, status) for after, status in life)
        runs = next((at for at, status in steps if status is JobStatus.RUNNING), None)
        # No document says what 0 hours mean; they are taken as no automatic stop.
        if not auto_stop_hours or runs is None:
            return steps
        stop = runs + auto_stop_hours * _HOUR
        return (
            *(step for step in steps if step[0] < stop),
            (stop, JobStatus.KILLING),
            (stop + self.kill_seconds, JobStatus.KILLED),
        )

    def job(self, project_id: str, job_id: int, now: float) -> Job:
        """The job as it is now, or the refusal that there is none."""
        job = self.project(project_id, now).jobs.get(job_id)
        if job is None:
            raise _refusals.no_such_job(job_id)
        return job

    def details(self, project_id: str, job_id: int, now: float, at: float) -> Row:
        """The job and its state at a moment not after now."""
        project = self.project(project_id, now)
        job = project.jobs.get(job_id)
        if job is None and at < now:
            job = next((gone for gone in project.deleted if gone.job_id == job_id), None)
        state = None if job is None else job.state_at(at)
        if job is None or state is None:
            raise _refusals.no_such_job(job_id)
        return job, state

    def list(self, project_id: str, asked: Listing, now: float, at: float) -> tuple[int, list[Row]]:
        """How many jobs match, and those of the page asked for, in their states at a moment not after now."""
        project = self.project(project_id, now)
        if at < now:
            jobs: Collection[Job] = project.seen(asked.workspace_id, at)
            rows = [(job, state) for job in jobs if (state := job.state_at(at))]
        else:
            jobs = project.workspaces.get(asked.workspace_id, {}).values()
            if asked.status is None and not asked.search_content and asked.sort_by in _BY_ID:
                return len(jobs), [(job, job.state) for job in _page(jobs, asked)]
            rows = [(job, job.state) for job in jobs]
        rows = [row for row in rows if _matches(row, asked)]
        if asked.sort_by not in _BY_ID:
            rows.sort(key=lambda row: _sort_key(row, asked.sort_by))
        return len(rows), _page(rows, asked)

    def set_status(self, project_id: str, job_id: int, status: JobStatus | None, now: float) -> None:
        """Put a job into a status that it keeps until told otherwise; ``None`` deletes it."""
        job = self.job(project_id, job_id, now)
        self._follow(self.projects[project_id], job, ((now, status),), now)

    def update(self, project_id: str, job_id: int, job_desc: str, now: float) -> None:
        """Change a job's description."""
        self.job(project_id, job_id, now).describe(now, job_desc)

    def stop(self, project_id: str, job_id: int, now: float) -> None:
        """Stop a job: KILLING, then KILLED; CANCELED if it never ran."""
        job = self.job(project_id, job_id, now)
        state = job.state
        if state.status.is_terminal or state.status is JobStatus.KILLING:
            raise _refusals.wrong_state("stop", state.status)
        has_run = state.ran > 0 or state.status in _HAS_RUN
        end = JobStatus.KILLED if has_run else JobStatus.CANCELED
        steps = ((now, JobStatus.KILLING), (now + self.kill_seconds, end))
        self._follow(self.projects[project_id], job, steps, now)

    def restart(self, project_id: str, job_id: int, now: float) -> None:
        """Let an ended job go through the cloud's life again; its id stays, its duration begins anew."""
        job = self.job(project_id, job_id, now)
        if not job.state.status.is_terminal:
            raise _refusals.wrong_state("restart", job.state.status)
        job.enter(now, JobStatus.INIT, new_run=True)
        steps = self._plan(self.life, job.spec.auto_stop_hours, now)
        self._follow(self.projects[project_id], job, steps, now)

    def delete(self, project_id: str, job_id: int, now: float) -> None:
        """Delete a job: KILLING for a moment, then gone."""
        job = self.job(project_id, job_id, now)
        if job.state.status is JobStatus.KILLING:
            raise _refusals.wrong_state("delete", job.state.status)
        steps = ((now, JobStatus.KILLING), (now + self.kill_seconds, None))
        self._follow(self.projects[project_id], job, steps, now)

    def drift(self, project_id: str, workspace_id: str, insert: int, delete: int, now: float) -> None:
        """Delete and insert jobs, as other users of the project would; which ones is left to chance."""
        project = self.project(project_id, now)
        present = list(project.workspaces.get(workspace_id, {}).values())
        for job in self.rng.sample(present, min(delete, len(present))):
            project.remove(job, now)
        for _ in range(insert):
            spec = NewJob(job_name=f"drift-{self.rng.getrandbits(32):08x}", workspace_id=workspace_id)
            self.create(project_id, spec, now, ((0.0, JobStatus.RUNNING),))


def _matches(row: Row, asked: Listing) -> bool:
    job, state = row
    return (asked.status is None or state.status == asked.status) and asked.search_content in job.name


def _sort_key(row: Row, sort_by: str) -> tuple[str | int, int]:
    job, state = row
    keys: dict[str, str | int] = {
        "job_name": job.name,
        "job_desc": state.job_desc,
        "status": int(state.status),
    }
    return keys[sort_by], job.job_id


def _page(rows: Any, asked: Listing) -> list[Any]:
    ordered: Reversible[Any] = rows
    start = (asked.page - 1) * asked.per_page
    chosen = reversed(ordered) if asked.descending else iter(rows)
    return list(itertools.islice(chosen, start, start + asked.per_page))
