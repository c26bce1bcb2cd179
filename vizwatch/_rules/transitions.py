"""What changed: from reads of a job to its transitions."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection
from typing import Final

import attrs

from vizwatch._values.models import Job, Transition
from vizwatch._values.statuses import JobStatus

_WAY: Final = {
    status: place
    for place, status in enumerate(
        (
            JobStatus.INIT,
            JobStatus.IMAGE_CREATING,
            JobStatus.SUBMIT_TRYING,
            JobStatus.WAITING,
            JobStatus.RUNNING,
            JobStatus.KILLING,
        )
    )
}
"""The statuses that a job goes through one after the other; others come at any time."""
_READS_TO_CONFIRM: Final = 2
_ROUNDING: Final = 1.0
"""By how much a duration may be longer than it was, in milliseconds: it is told in whole ones."""
_CHANGE: Final = re.compile(
    r"([0-9]{1,18})/([0-9]{1,18})/(?:none|-?[0-9]{1,20})-(none|-?[0-9]{1,20})(?:/-?[0-9]{1,20})?"
)
_REPLICAS_LAG: Final = 60.0
"""How long a replica may lag, in seconds."""
_RETURNS_AFTER: Final = 10.0
"""How soon after a change a job that is as before it is rather a replica that lags, in seconds."""


@attrs.define
class _StepBack:
    """A step back that was read, and is not believed yet."""

    since: dt.datetime
    reads: int = 1


@attrs.define(weakref_slot=False)
class Tracker:
    """Follows one job through the reads of it.

    What it yields chains (each `previous` is the `current` before it), has no echo (no two neighbours alike
    in run and status), and ends with the first terminal status, unless restarts are followed, or with
    deletion.

    A step back, from running to waiting or from an end to a run, or to whatever the job was just before its
    last change, is mostly a replica that lags: it is held until the next read says the same. To leave an end,
    the job must also not have run for longer than it can have since then, or say so for a minute. A status
    that stays, while the duration begins anew, is a step back too: the job was restarted between two reads,
    and that is a transition with a gap.
    """

    project_id: str
    job_id: int
    terminal: Collection[JobStatus]
    follow_restarts: bool = False
    job: Job | None = attrs.field(default=None, init=False)
    """The job as last read and believed."""
    ended: bool = attrs.field(default=False, init=False)
    _run: int = attrs.field(default=1, init=False)
    _count: int = attrs.field(default=0, init=False)
    _last_read: dt.datetime | None = attrs.field(default=None, init=False)
    """When the last read that was believed was begun."""
    _end: JobStatus | None = attrs.field(default=None, init=False)
    """How the run has ended, if it has, by the service's statuses and not the caller's."""
    ended_before: bool = attrs.field(default=False, init=False)
    """Whether the job had ended, and that was told, before it was followed; until it runs anew."""
    _step_back: _StepBack | None = attrs.field(default=None, init=False)
    _left: tuple[JobStatus, dt.datetime] | None = attrs.field(default=None, init=False)
    """What the last change was from, and when the read that showed it was begun."""

    @property
    def holds(self) -> bool:
        """Whether the last read was a step back that is not believed yet."""
        return self._step_back is not None

    def resume(
        self, job: Job, at: dt.datetime, counts: tuple[int, int] = (1, 0), *, was_told: bool = False
    ) -> None:
        """Goes on with a job as it was last read.

        Args:
            job: The job: no transition comes of it, whatever its status.
            at: When that read was begun (UTC).
            counts: In which run it was, and how many transitions it had had.
            was_told: Whether the last of them was told: if that was its end, another read of it is the end.
        """
        self.job, self._last_read = job, at
        self._run, self._count = counts
        self._end = job.status if job.status.is_terminal else None
        self.ended_before = was_told and job.status in self.terminal and not self.follow_restarts

    def recount(self, counts: tuple[int, int]) -> None:
        """The job was followed before, to its deletion: what comes now is of another run."""
        run, count = counts
        self._run, self._count = run + 1, count

    @property
    def counts(self) -> tuple[int, int]:
        """In which run the job is, and how many transitions it has had."""
        return self._run, self._count

    def saw(self, job: Job, asked: dt.datetime, at: dt.datetime) -> Transition | None:
        """The job was read: its transition, if its status changed.

        Args:
            job: The job.
            asked: When the read was begun (UTC): what it says was true then or later.
            at: When its answer had come.
        """
        if self._is_held(job, asked):
            return None
        previous, not_before = self.job, self._last_read
        unseen_run = self._ran_anew(job, asked)
        self.job, self._last_read = job, asked
        if previous is not None and previous.status == job.status and not unseen_run:
            self.ended = self.ended_before
            return None
        self.ended_before = False
        self._left = None if previous is None else (previous.status, asked)
        is_terminal = job.status in self.terminal
        anew = self._begins_anew(job.status)
        if anew or unseen_run:
            self._run += 1
        self.ended = is_terminal and not self.follow_restarts
        return self._transition(
            None if previous is None else previous.status,
            job.status,
            job,
            not_before,
            at,
            asked,
            is_terminal=is_terminal,
            # From one end to another, too, there was a run that no read saw.
            gap=unseen_run or (anew and job.status.is_terminal),
        )

    def _begins_anew(self, status: JobStatus) -> bool:
        """Whether a status is of another run than the end before it."""
        if status is JobStatus.UNKNOWN:
            return False
        end, self._end = self._end, status if status.is_terminal else None
        # That an ended job cannot be deleted is no run of it.
        return end is not None and status not in {end, JobStatus.DELETE_FAILED}

    def _ran_anew(self, job: Job, asked: dt.datetime) -> bool:
        """Whether the job runs anew, though no end was seen: its duration began after the last read.

        An end with a shorter duration proves nothing: what ended jobs say of it is documented nowhere.
        """
        before, last_read = self.job, self._last_read
        if before is None or last_read is None:
            return False
        if before.status != job.status and (before.status.is_terminal or job.status.is_terminal):
            return False
        if before.duration is None or job.duration is None or job.duration >= before.duration:
            return False
        return job.duration <= (asked - last_read).total_seconds() * 1000 + _ROUNDING

    def is_step_back(self, job: Job, asked: dt.datetime) -> bool:
        """Whether a read is one that another has to confirm, before or after it."""
        is_back = self.job is not None and _goes_back(self.job.status, job.status)
        return is_back or self._returns(job, asked) or self._ran_anew(job, asked)

    def _returns(self, job: Job, asked: dt.datetime) -> bool:
        """Whether a read says what the job was just before its last change, be that an end."""
        if self._left is None or (self.job is not None and job.status is self.job.status):
            return False
        status, changed = self._left
        return job.status == status and (asked - changed).total_seconds() < _RETURNS_AFTER

    def _is_held(self, job: Job, asked: dt.datetime) -> bool:
        if self.job is None or self._last_read is None:
            return False
        if not self.is_step_back(job, asked):
            self._step_back = None
            return False
        if self._step_back is None:
            self._step_back = _StepBack(asked)
            return True
        self._step_back.reads += 1
        confirmed = self._step_back.reads >= _READS_TO_CONFIRM
        if confirmed and self.job.status.is_terminal and not job.status.is_terminal:
            since_end = (asked - self._last_read).total_seconds()
            is_new = job.duration is None or job.duration / 1000 <= since_end + _REPLICAS_LAG
            confirmed = is_new or (asked - self._step_back.since).total_seconds() >= _REPLICAS_LAG
        if confirmed:
            self._step_back = None
        return not confirmed

    def gone(self, at: dt.datetime) -> Transition | None:
        """The job is deleted: its last transition, or ``None`` for a job that was never seen."""
        self.ended = True
        if self.job is None:
            return None
        return self._transition(self.job.status, None, self.job, self._last_read, at, at, is_terminal=True)

    def _transition(
        self,
        previous: JobStatus | None,
        current: JobStatus | None,
        job: Job,
        not_before: dt.datetime | None,
        at: dt.datetime,
        asked: dt.datetime,
        *,
        is_terminal: bool,
        gap: bool = False,
    ) -> Transition:
        self._count += 1
        return Transition(
            id=_id(self.project_id, job, self.counts, previous, current),
            project_id=self.project_id,
            job_id=self.job_id,
            previous=previous,
            current=current,
            job=job,
            run=self._run,
            not_before=not_before,
            not_after=at,
            read_at=asked,
            gap=gap,
            is_terminal=is_terminal,
        )


def found(project_id: str, job: Job, asked: dt.datetime, at: dt.datetime) -> Transition:
    """The first transition of a job that is followed beyond its ends; times as of :meth:`Tracker.saw`."""
    return Transition(
        id=_id(project_id, job, (1, 1), None, job.status),
        project_id=project_id,
        job_id=job.job_id,
        previous=None,
        current=job.status,
        job=job,
        run=1,
        not_before=None,
        not_after=at,
        read_at=asked,
        is_terminal=job.status.is_terminal,
    )


def counts_of(transition: Transition) -> tuple[int, int]:
    """In which run its job was with it, and which of the job's transitions it is.

    Raises:
        ValueError: Its id is not one of those that are made here.
    """
    job = f"{transition.project_id}/{transition.job_id}/"
    match = _CHANGE.fullmatch(transition.id.removeprefix(job)) if transition.id.startswith(job) else None
    # One that stands for several has the id of the last of them, and the status before the first.
    if match is None or match[3] != _code(transition.current):
        raise ValueError("its transition has not the id of such a change")
    return int(match[1]), int(match[2])


def _id(
    project_id: str,
    job: Job,
    counts: tuple[int, int],
    previous: JobStatus | None,
    current: JobStatus | None,
) -> str:
    """Ends are told apart by how long the run was: who has forgotten what came last may count one twice."""
    run, count = counts
    change = f"{project_id}/{job.job_id}/{run}/{count}/{_code(previous)}-{_code(current)}"
    is_end = current is not None and current.is_terminal and job.duration is not None
    return f"{change}/{job.duration}" if is_end else change


def _goes_back(old: JobStatus, new: JobStatus) -> bool:
    if old.is_terminal:
        return not new.is_terminal
    return old in _WAY and new in _WAY and _WAY[new] < _WAY[old]


def _code(status: JobStatus | None) -> str:
    return "none" if status is None else str(int(status))
