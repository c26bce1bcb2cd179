"""Traces: what was true, what was asked and what was given, and a checker for each promise of a watch.

A checker is a pure function over a :class:`Trace`, and gives a sentence for each thing that breaks its
promise. All moments are seconds of the event loop's clock; only a transition's own times are dates.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final

import attrs

from vizwatch import JobStatus, Settings, Transition
from vizwatch._values.statuses import TERMINAL

EPOCH: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""What the wall clock shows when the loop's clock shows zero."""

STEPS_OF_A_START: Final = {code: place for place, code in enumerate((1, 2, 4, 7, 8, 9))}
ABSENCES: Final = 3
SETTLES: Final = 60.0
CONFIRMATION: Final = 5.0
DOUBT: Final = 1.0
INSTANT: Final = 0.01

Code = int | None
"""A status as its number; ``None``: there is no such job."""


@attrs.frozen
class State:
    """What was true of a job from one moment on."""

    since: float
    status: Code


@attrs.define(kw_only=True)
class Sent:
    """A request as it left the client, and what came back."""

    operation: str
    began: float
    job_id: int | None = None
    watch: int | None = None
    """The watch that it was read for; ``None``: a call of the user's, or a poller that watches share."""
    call: int | None = None
    ended: float | None = None
    """``None``: it is under way."""
    http_status: int | None = None
    """``None``: no complete answer came."""
    error_code: str | None = None
    retry_after: bool = False
    was_sent: bool = True
    """Whether anything of it may have left."""
    token: str | None = attrs.field(default=None, repr=False)
    said: dict[int, int] = attrs.field(factory=dict)
    """The jobs in a successful answer, and their statuses."""
    shows_all: bool = False
    """Whether it is a listing with as many jobs as it says that there are."""

    def misses(self, job_id: int) -> bool:
        """Whether the answer is that there is no such job."""
        return (
            self.http_status == 404
            if self.operation == "details"
            else self.shows_all and job_id not in self.said
        )


@attrs.frozen
class Delivery:
    """A transition, and when its consumer got it."""

    at: float
    transition: Transition


@attrs.frozen
class Probe:
    """What a watch showed of itself at some moment."""

    at: float
    stale: bool
    shown: Code


@attrs.define(kw_only=True, repr=False)
class Watched:
    """One watch's story."""

    number: int
    job_id: int
    interval: float
    follow_restarts: bool = False
    asking: list[tuple[float, float | None]] = attrs.field(factory=list)
    """From when to when its consumer waited for something."""
    deliveries: list[Delivery] = attrs.field(factory=list)
    probes: list[Probe] = attrs.field(factory=list)
    failed: tuple[float, str] | None = None
    """When it raised, and what."""

    def ask(self, now: float) -> None:
        """The consumer waits; directly after it got something it has not stopped waiting."""
        if self.asking and self.asking[-1][1] == now:
            now = self.asking.pop()[0]
        self.asking.append((now, None))

    def answered(self, now: float) -> None:
        self.asking[-1] = (self.asking[-1][0], now)

    @property
    def is_waiting(self) -> bool:
        return bool(self.asking) and self.asking[-1][1] is None

    def was_waiting(self, at: float) -> bool:
        """Whether its consumer waited at a moment."""
        return any(since <= at and (until is None or at <= until) for since, until in self.asking)

    def took(self, now: float, transition: Transition) -> None:
        self.deliveries.append(Delivery(now, transition))

    def known(self, at: float) -> Code:
        """What the consumer knew at a moment; -1 for nothing."""
        past = [one for one in self.deliveries if one.at <= at + INSTANT]
        return past[-1].transition.current if past else -1


@attrs.frozen
class Trouble:
    """From when to when the service was told to misbehave, and how old its answers were."""

    since: float
    until: float
    lag: float = 0.0
    felt: float = 0.0
    """For how long after it the client spares the service."""


@attrs.frozen
class Write:
    """A call of the user's that creates or restarts a job, which `key` names."""

    call: int
    operation: str
    key: str
    since: float


@attrs.frozen
class Sample:
    """What the client held at a moment, and for what."""

    at: float
    tasks: int
    sockets: int
    calls: int


@attrs.define(kw_only=True, repr=False)
class Trace:
    """All that happened, and what was really the case."""

    settings: Settings = attrs.field(factory=lambda: Settings(shared_reads=False))
    truth: dict[int, list[State]] = attrs.field(factory=dict)
    sent: list[Sent] = attrs.field(factory=list)
    watches: list[Watched] = attrs.field(factory=list)
    troubles: list[Trouble] = attrs.field(factory=list)
    writes: list[Write] = attrs.field(factory=list)
    performed: list[tuple[str, str]] = attrs.field(factory=list)
    """The creates and restarts that the service carried out: operation and key."""
    samples: list[Sample] = attrs.field(factory=list)
    closed: list[tuple[float, float]] = attrs.field(factory=list)
    """From when to when no client was open."""
    until: float = 0.0
    texts: list[str] = attrs.field(factory=list)
    """Every text that left the library."""
    secrets: set[str] = attrs.field(factory=set)

    def reads(self, watch: Watched) -> Iterator[Sent]:
        """The complete answers to reads for a watch, those of pollers that watches share included."""
        for sent in self.sent:
            if sent.operation in {"details", "list"} and sent.call is None and sent.ended is not None:
                about = watch.job_id in sent.said or sent.job_id == watch.job_id or sent.shows_all
                if about and sent.watch in {watch.number, None}:
                    yield sent

    def spans(self, job_id: int) -> Iterator[tuple[float, float, Code]]:
        """A job's statuses: from when, until when, which."""
        states = [*self.truth.get(job_id, ()), State(math.inf, -1)]
        for state, later in pairwise(states):
            yield state.since, later.since, state.status

    def lag(self, since: float, until: float) -> float:
        """How old the service's answers were, at most, in a span of time."""
        return max(
            (one.lag for one in self.troubles if one.since <= until and one.until >= since), default=0.0
        )

    def is_well(self, at: float) -> bool:
        """Whether trouble is long over, so that reads are sent when they are begun."""
        after = self.retry_budget
        return not any(one.since <= at <= one.until + one.felt + after for one in self.troubles)

    def longest(self, watch: Watched) -> float:
        """The longest pause between two reads of a healthy watch."""
        return watch.interval * (1 + self.settings.poll_jitter)

    @property
    def retry_budget(self) -> float:
        """How long a watch may still rest after the last trouble: a call that hangs, and the pause after."""
        settings = self.settings
        return settings.call_timeout + settings.watch_backoff_max + settings.retry_after_max


def _latency(reads: Iterable[Sent], since: float) -> float:
    """How long a read took, at most, from a moment on."""
    ended = ((read.began, read.ended or read.began) for read in reads)
    return max((until - began for began, until in ended if until >= since), default=0.0)


def _moment(date: dt.datetime) -> float:
    return (date - EPOCH).total_seconds()


def _name(watch: Watched) -> str:
    return f"watch {watch.number} of job {watch.job_id}"


# --- what comes out, and in which order -----------------------------------------------------------------


def ordered(trace: Trace) -> Iterator[str]:
    """What a watch yields follows the order of its reads, in monotonic time."""
    for watch in trace.watches:
        reads = sorted(trace.reads(watch), key=lambda read: (read.ended or 0.0, read.began))
        place = 0
        for delivery in watch.deliveries:
            current = delivery.transition.current
            while place < len(reads) and not _says(reads[place], watch.job_id, current):
                place += 1
            if place == len(reads) or (reads[place].ended or 0.0) > delivery.at + INSTANT:
                yield f"{_name(watch)}: {current!r} at {delivery.at:g} follows from no read in its place"
                break
            place += 1
        for one, other in pairwise(watch.deliveries):
            if other.at < one.at or other.transition.not_after <= one.transition.not_after:
                yield f"{_name(watch)}: {other.transition.id} is not later than {one.transition.id}"


def _says(read: Sent, job_id: int, status: Code) -> bool:
    return read.misses(job_id) if status is None else read.said.get(job_id) == status


def chained(trace: Trace) -> Iterator[str]:
    """Each `previous` is the `current` before it, runs are counted, and nothing follows an end."""
    for watch in trace.watches:
        previous, run, over, end = None, 1, False, None
        for transition in (one.transition for one in watch.deliveries):
            if over:
                yield f"{_name(watch)}: {transition.id} comes after the end"
            if transition.previous != previous:
                yield f"{_name(watch)}: {transition.id} does not begin with {previous!r}"
            if transition.job_id != watch.job_id or transition.job.job_id != watch.job_id:
                yield f"{_name(watch)}: {transition.id} is another job's"
            current = transition.current
            if current not in {None, JobStatus.UNKNOWN}:
                # Another run begins where an end is left, or unseen; a deletion that fails is none.
                left_an_end = end is not None and current not in {end, JobStatus.DELETE_FAILED}
                run += left_an_end or transition.gap
                end = current if current in TERMINAL else None
            if transition.run != run:
                yield f"{_name(watch)}: {transition.id} is of run {transition.run}, not {run}"
            previous = transition.current
            ended = previous is None or (previous in TERMINAL and not watch.follow_restarts)
            over = ended or (transition.is_terminal and not watch.follow_restarts)
            if transition.is_terminal != (previous is None or previous in TERMINAL):
                yield f"{_name(watch)}: {transition.id} says is_terminal={transition.is_terminal}"


def no_echo(trace: Trace) -> Iterator[str]:
    """Two neighbouring transitions differ in (run, status)."""
    for watch in trace.watches:
        for one, other in pairwise(delivery.transition for delivery in watch.deliveries):
            if (one.run, one.current) == (other.run, other.current):
                yield f"{_name(watch)}: {one.current!r} of run {one.run} twice"


def unique_ids(trace: Trace) -> Iterator[str]:
    """No two transitions of a watch have the same id."""
    for watch in trace.watches:
        for name, count in Counter(one.transition.id for one in watch.deliveries).items():
            if count > 1:
                yield f"{_name(watch)}: id {name} {count} times"


def no_invention(trace: Trace) -> Iterator[str]:
    """Every yielded status was in a 2xx body of that very job."""
    for watch in trace.watches:
        reads = list(trace.reads(watch))
        for at, transition in ((one.at, one.transition) for one in watch.deliveries):
            heard = [read for read in reads if (read.ended or 0.0) <= at + INSTANT]
            if transition.current is None:
                misses = [read for read in heard if read.misses(watch.job_id)]
                if len(misses) < ABSENCES:
                    yield f"{_name(watch)}: deleted, and fewer than {ABSENCES} reads did not find it"
                if not any(read.operation == "details" for read in misses):
                    yield f"{_name(watch)}: deleted, and its details were not asked for"
            elif not any(_says(read, watch.job_id, transition.current) for read in heard):
                yield f"{_name(watch)}: no answer said {transition.current!r} before {at:g}"
            if transition.current not in {None, transition.job.status}:
                yield f"{_name(watch)}: {transition.id} carries a job in {transition.job.status!r}"


def no_step_back(trace: Trace) -> Iterator[str]:
    """A step back that a single read shows, as a replica that lags does, is not yielded (W8).

    Two reads in a row show it. Where watches share their reads, one for another watch may come between them,
    too early to confirm anything or to refute it.
    """
    for watch in trace.watches:
        good = [read for read in trace.reads(watch) if watch.job_id in read.said]
        for before, one in zip([None, *watch.deliveries], watch.deliveries, strict=False):
            previous, current = one.transition.previous, one.transition.current
            if before is None or previous is None or current is None or not is_back(previous, current):
                continue
            heard = [read for read in good if before.at <= _ended(read) <= one.at + INSTANT]
            heard.sort(key=_ended)
            says = [is_back(previous, read.said[watch.job_id]) for read in heard]
            confirmed = says[-2:] if all(read.watch is not None for read in heard) else sorted(says)[-2:]
            if confirmed != [True, True] or not says[-1]:
                yield f"{_name(watch)}: {previous!r} to {current!r} at {one.at:g}, and one read alone said so"


def is_back(previous: int, current: int) -> bool:
    """Whether no job goes from one status to the other but by a restart."""
    if previous in TERMINAL:
        return current not in TERMINAL
    steps = STEPS_OF_A_START
    return previous in steps and current in steps and steps[current] < steps[previous]


# --- in time --------------------------------------------------------------------------------------------


def final_state(trace: Trace) -> Iterator[str]:
    """A terminal status that stays for one healthy interval plus the retry budget is delivered.

    And nothing but the end of the job, a refusal that will not change or the user ends a watch before.
    """
    for watch, status, since, at in _due(trace):
        if (status is None or status in TERMINAL) and watch.known(at) != status:
            yield f"{_name(watch)}: {status!r} since {since:g}, and at {at:g} still {watch.known(at)!r}"
    for watch in trace.watches:
        if watch.failed is not None and not _may_fail(trace, watch):
            yield f"{_name(watch)}: raised {watch.failed[1]} at {watch.failed[0]:g}"


def _may_fail(trace: Trace, watch: Watched) -> bool:
    at, kind = watch.failed or (0.0, "")
    reads = [read for read in trace.reads(watch) if (read.ended or 0.0) <= at + INSTANT]
    if kind == "NotFoundError":
        heard = [read.misses(watch.job_id) for read in reads if read.said or read.misses(watch.job_id)]
        return not watch.deliveries and heard[-ABSENCES:] == [True] * ABSENCES
    if kind == "AuthenticationError":
        sweeps = [one for one in trace.sent if one.operation == "list" and one.call is None]
        asked = [one for one in {id(one): one for one in [*reads, *sweeps]}.values() if _ended(one) <= at]
        since = max((_ended(one) for one in asked if one.said), default=-math.inf)
        refused = {one.token for one in asked if one.http_status == 401 and _ended(one) >= since}
        return len(refused) > 1
    return False


def freshness(trace: Trace) -> Iterator[str]:
    """While healthy, lag ≤ interval·(1 + jitter) + request time; else the watch says that it is stale."""
    for watch, status, since, at in _due(trace):
        if not (status is None or status in TERMINAL) and watch.known(at) != status:
            yield f"{_name(watch)}: {status!r} since {since:g}, and at {at:g} still {watch.known(at)!r}"
    for watch in trace.watches:
        bound = trace.longest(watch) + trace.settings.attempt_timeout + CONFIRMATION + INSTANT
        spans = list(trace.spans(watch.job_id))
        for probe in watch.probes:
            oldest = probe.at - bound - trace.lag(probe.at - bound, probe.at)
            if not probe.stale and not any(
                since <= probe.at and until >= oldest and status == probe.shown
                for since, until, status in spans
            ):
                yield f"{_name(watch)}: at {probe.at:g} it is not stale, and shows {probe.shown!r} of before"


def _due(trace: Trace) -> Iterator[tuple[Watched, Code, float, float]]:
    """Each status that stayed long enough for a watch, whose consumer waited, to have delivered it."""
    for watch in trace.watches:
        pause, reads = trace.longest(watch), list(trace.reads(watch))
        for since, until, status in trace.spans(watch.job_id):
            for asked, answered in watch.asking:
                start, end = max(since, asked), min(until, trace.until if answered is None else answered)
                if start + pause > end:
                    continue
                start = _healthy_from(trace, _believed_from(trace, watch, status, start), ABSENCES * pause)
                latency = _latency(reads, start)
                once = pause + latency
                # A step back is read twice, one that leaves an end may be doubted for a minute, and many
                # absences from the listing are confirmed by another sweep.
                doubts = SETTLES + once if watch.follow_restarts and status is not None else 0.0
                looks = ABSENCES if status is None else 1
                allowed = looks * once + CONFIRMATION + latency + doubts
                if start + allowed + INSTANT < end:
                    yield watch, status, since, start + allowed + INSTANT


def _healthy_from(trace: Trace, since: float, window: float) -> float:
    """The first moment from which on the service was well for as long as a watch may take."""
    for trouble in sorted(trace.troubles, key=lambda one: one.since):
        over = trouble.until + trouble.felt + trace.retry_budget
        if trouble.since <= since + window and over > since:
            since = over
    return since


def _believed_from(trace: Trace, watch: Watched, status: Code, since: float) -> float:
    """An end soon after an own restart, and an absence soon after an own create, are doubted for a while."""
    doubtful = "create" if status is None else "restart" if status in TERMINAL else None
    for sent in trace.sent:
        about = sent.job_id == watch.job_id or watch.job_id in sent.said
        if sent.operation == doubtful and about and sent.began <= since + SETTLES:
            since = max(since, (sent.began if sent.ended is None else sent.ended) + SETTLES)
    return since


def bracketed(trace: Trace) -> Iterator[str]:
    """A change lies between `not_before` and `not_after`, whatever the requests' latency (N12)."""
    for watch in trace.watches:
        states = [(State(since, status), until) for since, until, status in trace.spans(watch.job_id)]
        for transition in (one.transition for one in watch.deliveries):
            if transition.not_before is None:
                continue
            first, last = _moment(transition.not_before), _moment(transition.not_after)
            lag = trace.lag(first, last)
            # A replica that lags may show once more what was the case before; otherwise it has begun.
            if not any(
                state.status == transition.current
                and state.since <= last + INSTANT
                and (until if lag else state.since) >= first - lag - INSTANT
                for state, until in states
            ):
                yield f"{_name(watch)}: {transition.id} did not happen from {first - lag:g} to {last:g}"


# --- what leaves, and what is held ----------------------------------------------------------------------


def write_once(trace: Trace) -> Iterator[str]:
    """A create or restart leaves at most once unless it provably was not carried out."""
    for write in trace.writes:
        sent = [one for one in trace.sent if one.call == write.call and one.operation == write.operation]
        for one in sent[:-1]:
            if not _was_refused(one):
                yield f"{write.operation} of {write.key}: sent again after HTTP {one.http_status}"
    asked = Counter((write.operation, write.key) for write in trace.writes)
    for what, count in Counter(trace.performed).items():
        if count > asked[what]:
            yield f"{what[0]} of {what[1]}: asked for {asked[what]} times, carried out {count} times"


def _was_refused(sent: Sent) -> bool:
    if not sent.was_sent or sent.http_status in {401, 429}:
        return True
    by_gateway = sent.error_code in {"ModelArts.4302", "ModelArts.4700"}
    return sent.http_status == 503 and sent.retry_after and (sent.operation == "restart" or by_gateway)


def no_secret(trace: Trace) -> Iterator[str]:
    """No token, key or signature is in any str, repr, log, traceback or pickle."""
    for text in trace.texts:
        for secret in trace.secrets:
            if secret in text:
                yield "a secret in " + text.replace(secret, "***")[:300]


def bounded(trace: Trace) -> Iterator[str]:
    """Tasks, sockets and requests have bounds: a watch has one request under way, and is in no hurry."""
    yield from _one_at_a_time(trace)
    for sample in trace.samples:
        if sample.sockets > trace.settings.pool_size + 1:
            yield f"at {sample.at:g}: {sample.sockets} sockets"
        if sample.tasks > sample.calls + 1:
            yield f"at {sample.at:g}: {sample.tasks} tasks of the library's own, for {sample.calls} calls"
        if sample.sockets + sample.tasks and any(since <= sample.at < until for since, until in trace.closed):
            yield f"at {sample.at:g}, after closing: {sample.sockets} sockets, {sample.tasks} tasks"
    for sent in trace.sent:
        ended = math.inf if sent.ended is None else sent.ended
        if any(sent.began < until and ended > since + INSTANT for since, until in trace.closed):
            yield f"after closing: {sent.operation} of {sent.began:g}"


def _one_at_a_time(trace: Trace) -> Iterator[str]:
    """A reader has one request under way, and is in no hurry.

    Of a watch that reads for itself, that is said of its own reads. Of a poller that watches share, it is
    said of the reads of each job's details, and of the sweeps. Neither the details of a job are read at once
    after an answer that showed the job, nor the listing after a sweep, unless a watch came since that was
    asked for: one of the job, or any. What a sweep did not show is read at once. And a sweep is begun for two
    jobs at least that are waited for; to go on after one that failed, one is enough.
    """
    details: dict[tuple[int | None, int | None], list[Sent]] = defaultdict(list)
    sweeps: list[Sent] = []
    for sent in trace.sent:
        if sent.operation == "list" and sent.call is None:
            sweeps.append(sent)
        elif sent.operation == "details" and sent.call is None:
            details[sent.watch, sent.job_id].append(sent)
    for (number, job_id), reads in details.items():
        what = f"job {job_id}: a read"
        yield from _overlapping(reads, what)
        if number is not None:
            yield from _hurried(trace, reads, job_id, [], what)
            continue
        watches = [watch for watch in trace.watches if watch.job_id == job_id]
        both = [one for one in trace.sent if one.call is None and one.operation in {"list", "details"}]
        about = [one for one in both if one.job_id in {None, job_id}]
        yield from _hurried(trace, about, job_id, watches, what)
    yield from _overlapping(sweeps, "a sweep")
    yield from _hurried(trace, sweeps, None, trace.watches, "a sweep")
    for before, sweep in zip([None, *sweeps], sweeps, strict=False):
        waited = {watch.job_id for watch in trace.watches if watch.was_waiting(sweep.began)}
        if len(waited) < 2 and (before is None or before.said) and trace.is_well(sweep.began):
            yield f"a sweep of {sweep.began:g} is for {len(waited)} jobs"


def _overlapping(reads: Iterable[Sent], what: str) -> Iterator[str]:
    for one, other in pairwise(reads):
        if other.began < _ended(one):
            yield f"{what} of {other.began:g} overlaps the one of {one.began:g}"


def _hurried(
    trace: Trace, reads: Iterable[Sent], job_id: int | None, watches: Iterable[Watched], what: str
) -> Iterator[str]:
    """The reads that follow an answer at once, though no watch has come meanwhile.

    They are those of a job's details, to which a sweep is an answer if it showed the job; or, without a job,
    the sweeps. While the service is not well, a read waits for its turn, so that an answer of the other kind
    may come before it is sent.
    """
    came = [since for watch in watches for since, _ in watch.asking]
    kind = "list" if job_id is None else "details"
    latest: Sent | None = None
    under_way: list[Sent] = []
    for sent in reads:
        for one in [one for one in under_way if _ended(one) <= sent.began]:
            under_way.remove(one)
            latest = one if job_id is None or job_id in one.said else None
        if latest is not None and sent.operation == kind and sent.began < _ended(latest) + DOUBT - INSTANT:
            has_come = any(latest.began <= since <= sent.began for since in came)
            if not has_come and (latest.operation == kind or trace.is_well(sent.began)):
                yield f"{what} of {sent.began:g} follows the answer of {_ended(latest):g} at once"
        if sent.said:
            under_way.append(sent)


def _ended(sent: Sent) -> float:
    return math.inf if sent.ended is None else sent.ended


CHECKERS: Final[Mapping[str, Callable[[Trace], Iterable[str]]]] = {
    "ordered": ordered,
    "chained": chained,
    "no echo": no_echo,
    "unique ids": unique_ids,
    "no invention": no_invention,
    "no step back": no_step_back,
    "final state": final_state,
    "freshness": freshness,
    "bracketed": bracketed,
    "write once": write_once,
    "no secret": no_secret,
    "bounded": bounded,
}


def broken(trace: Trace) -> list[str]:
    """Every promise that does not hold in a trace, with what breaks it."""
    return [f"{promise}: {what}" for promise, check in CHECKERS.items() for what in check(trace)]
