"""Each checker finds what breaks its promise in a trace made by hand, and nothing in a good one."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from traces import CHECKERS, EPOCH, Probe, Sample, Sent, State, Trace, Trouble, Watched, Write, broken

from vizwatch import Job, JobStatus, Transition

JOB = 197


def read(began: float, status: int | None, *, ended: float | None = None, watch: int | None = 0) -> Sent:
    """A read for a watch, whose answer says a status, or that there is no such job."""
    return Sent(
        operation="details",
        job_id=JOB,
        watch=watch,
        began=began,
        ended=began if ended is None else ended,
        http_status=404 if status is None else 200,
        said={} if status is None else {JOB: status},
    )


def date(at: float) -> dt.datetime:
    return EPOCH + dt.timedelta(seconds=at)


def change(previous: int | None, current: int | None, at: float, **changes: Any) -> Transition:
    """A transition that a watch in step with the reads yields; `changes` spoil it."""
    status = previous if current is None else current
    assert status is not None
    given = Transition(
        id=f"{at:g}",
        project_id="p",
        job_id=JOB,
        previous=None if previous is None else JobStatus(previous),
        current=None if current is None else JobStatus(current),
        job=Job(JOB, JobStatus(status)),
        run=1,
        not_before=None if previous is None else date(at - 15),
        not_after=date(at),
        is_terminal=current is None or JobStatus(current).is_terminal,
    )
    return attrs.evolve(given, **changes)


def good() -> Trace:
    """Two watches of one job that goes through 1, 8 and 10, looked at every 15 s; one restart, one create."""
    watch = Watched(number=0, job_id=JOB, interval=15.0)
    watch.ask(0.0)
    for at, previous, current in ((0.0, None, 1), (30.0, 1, 8), (60.0, 8, 10)):
        watch.answered(at)
        watch.took(at, change(previous, current, at))
        watch.ask(at)
    watch.answered(60.0)
    watch.probes = [Probe(20.0, stale=False, shown=1), Probe(59.0, stale=False, shown=8)]
    create = Sent(operation="create", call=1, began=0.0, ended=0.1, http_status=200, said={JOB: 1})
    restart = Sent(operation="restart", call=2, job_id=198, began=200.0, ended=200.1, http_status=200)
    return Trace(
        truth={JOB: [State(0.0, 1), State(20.0, 8), State(50.0, 10)]},
        sent=[
            create,
            *(read(at, code) for at, code in ((0, 1), (15, 1), (30, 8), (45, 8), (60, 10))),
            restart,
        ],
        watches=[watch],
        writes=[Write(1, "create", "mine", 0.0), Write(2, "restart", "198", 200.0)],
        performed=[("create", "mine"), ("restart", "198")],
        samples=[Sample(at=10.0, tasks=0, sockets=2, calls=1), Sample(at=301.0, tasks=0, sockets=0, calls=0)],
        closed=[(300.0, math.inf)],
        until=300.0,
        texts=["a text"],
        secrets={"canary"},
    )


def test_a_good_trace_breaks_nothing() -> None:
    assert broken(good()) == []


Spoil = Callable[[Trace], object]


def _replace(place: int, **changes: Any) -> Spoil:
    def spoil(trace: Trace) -> None:
        deliveries = trace.watches[0].deliveries
        one = deliveries[place]
        deliveries[place] = attrs.evolve(one, transition=attrs.evolve(one.transition, **changes))

    return spoil


def _more(transition: Transition, at: float) -> Spoil:
    return lambda trace: trace.watches[0].took(at, transition)


def _swap_reads(trace: Trace) -> None:
    trace.sent[1].said, trace.sent[3].said = trace.sent[3].said, trace.sent[1].said


def _late_end(trace: Trace) -> None:
    """The job ended at 50, the service was well, the consumer waited on, and heard nothing."""
    watch = trace.watches[0]
    del watch.deliveries[-1]
    watch.asking[-1] = (watch.asking[-1][0], None)


def _late_change(trace: Trace) -> None:
    """RUNNING since 20, and the consumer that waits since 0 learns it at 60."""
    watch = trace.watches[0]
    trace.truth[JOB] = [State(0.0, 1), State(20.0, 8)]
    watch.deliveries[1:] = [attrs.evolve(watch.deliveries[1], at=60.0)]


def _without_refreshing(trace: Trace) -> None:
    trace.watches[0].probes.append(Probe(299.0, stale=False, shown=8))


def _failed(kind: str) -> Spoil:
    return lambda trace: setattr(trace.watches[0], "failed", (61.0, kind))


def _only_listed(trace: Trace) -> None:
    """Three listings show no job, and the watch says that its job is gone."""
    _replace(2, current=None)(trace)
    trace.sent[5:] = [
        Sent(operation="list", began=at, ended=at, http_status=200, shows_all=True)
        for at in (58.0, 59.0, 60.0)
    ]


def _resent(status: int | None, operation: str, **more: Any) -> Spoil:
    def spoil(trace: Trace) -> None:
        call = 1 if operation == "create" else 2
        at = next(place for place, sent in enumerate(trace.sent) if sent.call == call)
        first = Sent(operation=operation, call=call, began=0.0, ended=0.0, http_status=status, **more)
        trace.sent.insert(at, first)

    return spoil


def _stepped_back(trace: Trace) -> None:
    """One read at 45 says WAITING, as a replica does that lags, and is believed."""
    trace.sent[4].said = {JOB: 7}
    watch = trace.watches[0]
    watch.deliveries[2:] = []
    watch.took(45.0, change(8, 7, 45.0))


BAD: list[tuple[str, str, Spoil]] = [
    ("ordered", "reads in another order", _swap_reads),
    ("ordered", "before its read ended", lambda trace: setattr(trace.sent[3], "ended", 31.0)),
    ("ordered", "dates that go back", _replace(1, not_after=date(-1))),
    ("chained", "a link is missing", _replace(1, previous=JobStatus(7))),
    ("chained", "another job's", _replace(1, job_id=198)),
    ("chained", "a run that did not begin", _replace(1, run=2)),
    ("chained", "an end that is none", _replace(1, is_terminal=True)),
    ("chained", "something after the end", _more(change(10, 1, 90.0, run=2), 90.0)),
    ("no echo", "the same status twice", _replace(1, current=JobStatus(1))),
    ("unique ids", "an id twice", _replace(1, id="0")),
    ("no invention", "a status that nobody said", _replace(1, current=JobStatus(15))),
    ("no invention", "a status said of another job", lambda trace: setattr(trace.sent[3], "said", {198: 8})),
    ("no invention", "another status than its job's", _replace(1, job=Job(JOB, JobStatus(7)))),
    ("no invention", "a deletion that no read shows", _replace(2, current=None)),
    ("no invention", "a deletion that only listings show", _only_listed),
    ("no step back", "a step back that one read shows", _stepped_back),
    ("final state", "an end that is not delivered", _late_end),
    ("final state", "an error that nothing explains", _failed("ServerError")),
    ("final state", "a job that was found is called missing", _failed("NotFoundError")),
    ("final state", "a refused token that was not renewed", _failed("AuthenticationError")),
    ("freshness", "a change that comes late", _late_change),
    ("freshness", "old data that are not called stale", _without_refreshing),
    ("bracketed", "a change before its time", _replace(1, not_before=date(21))),
    ("bracketed", "a change after its time", _replace(1, not_after=date(19), not_before=date(10))),
    ("write once", "a create sent again after a 500", _resent(500, "create")),
    ("write once", "a create sent again after no answer", _resent(None, "create")),
    ("write once", "a create sent again after any 503", _resent(503, "create", retry_after=True)),
    ("write once", "a restart sent again after a bare 503", _resent(503, "restart")),
    ("write once", "carried out twice", lambda trace: trace.performed.append(("create", "mine"))),
    ("no secret", "a secret", lambda trace: trace.texts.append("token: canary")),
    ("bounded", "reads that overlap", lambda trace: trace.sent.insert(2, read(14.0, 1, ended=16.0))),
    ("bounded", "a read in a hurry", lambda trace: trace.sent.insert(2, read(0.5, 1))),
    ("bounded", "too many sockets", lambda trace: trace.samples.append(Sample(20.0, 0, 102, 1))),
    ("bounded", "tasks of its own", lambda trace: trace.samples.append(Sample(20.0, 3, 2, 1))),
    ("bounded", "a socket after closing", lambda trace: trace.samples.append(Sample(302.0, 0, 1, 0))),
    (
        "bounded",
        "a request that outlives its client",
        lambda trace: trace.sent.append(read(299, 10, ended=400)),
    ),
    ("bounded", "a request after closing", lambda trace: trace.sent.append(read(301.0, 10, watch=3))),
]


@pytest.mark.fault(
    "ordered", "no echo", "no invention", "final state", "freshness", "write once", "no secret", "bounded"
)
@pytest.mark.parametrize(("promise", "spoil"), [pytest.param(a, c, id=f"{a}: {b}") for a, b, c in BAD])
def test_a_bad_trace_breaks_its_promise(promise: str, spoil: Spoil) -> None:
    trace = good()
    spoil(trace)
    assert list(CHECKERS[promise](trace))


def test_every_checker_can_fail_and_says_what_it_promises() -> None:
    assert {promise for promise, _, _ in BAD} == set(CHECKERS)
    assert all(check.__doc__ for check in CHECKERS.values())


@pytest.mark.parametrize(
    "spoil",
    [
        _resent(429, "create"),
        _resent(401, "create"),
        _resent(None, "create", was_sent=False),
        _resent(503, "create", retry_after=True, error_code="ModelArts.4302"),
        _resent(503, "restart", retry_after=True),
    ],
)
def test_a_write_that_provably_was_not_carried_out_may_be_sent_again(spoil: Spoil) -> None:
    trace = good()
    spoil(trace)
    assert broken(trace) == []


def test_trouble_excuses_what_is_late_and_nothing_else() -> None:
    trace = good()
    _late_end(trace)
    trace.troubles.append(Trouble(40.0, 299.0))
    assert broken(trace) == []
    trace.until = 600.0
    trace.closed = []
    assert [text.partition(":")[0] for text in broken(trace)] == ["final state"]


def test_a_step_back_that_two_reads_show_may_be_yielded() -> None:
    trace = good()
    _stepped_back(trace)
    trace.sent.insert(5, read(46.0, 7))
    trace.watches[0].deliveries[-1] = attrs.evolve(trace.watches[0].deliveries[-1], at=46.0)
    assert not list(CHECKERS["no step back"](trace))


# --- of watches that share their reads -------------------------------------------------------------------


def sweep(began: float, *job_ids: int, ended: float | None = None) -> Sent:
    """A reading of the listing for all watches, which shows these jobs running."""
    return Sent(
        operation="list",
        began=began,
        ended=began if ended is None else ended,
        http_status=200,
        said=dict.fromkeys(job_ids, 8),
    )


def shared(*sent: Sent, came: Sequence[float] = (0.0, 0.0)) -> Trace:
    """What was sent for watches that came at these moments: the first of one job, the others of another."""
    watches = [
        Watched(number=number, job_id=JOB + (number > 0), interval=15.0) for number in range(len(came))
    ]
    for watch, since in zip(watches, came, strict=True):
        watch.ask(since)
    truth = {JOB: [State(0.0, 8)], JOB + 1: [State(0.0, 8)]}
    return Trace(truth=truth, sent=[*sent], watches=watches)


BOTH = JOB, JOB + 1


@pytest.mark.fault("bounded")
@pytest.mark.parametrize(
    "trace",
    [
        shared(sweep(0, *BOTH), sweep(15, *BOTH), sweep(30, *BOTH)),
        shared(read(0, 8, watch=None), sweep(0.5, *BOTH), came=(0, 0.5)),
        shared(sweep(0, *BOTH), sweep(0.5, *BOTH), came=(0, 0, 0.5)),
        shared(sweep(0, *BOTH, ended=4), read(3, 8, watch=None)),
        shared(sweep(0, *BOTH), sweep(5, JOB + 1), read(5.1, 8, watch=None)),
        shared(sweep(0), sweep(0.3, *BOTH)),
    ],
    ids=[
        "sweeps",
        "the details of one, and a sweep when another comes",
        "a sweep when another comes",
        "details meanwhile",
        "the details of one that is absent",
        "a sweep that failed",
    ],
)
def test_what_a_poller_may_read_for_all(trace: Trace) -> None:
    assert not list(CHECKERS["bounded"](trace))


@pytest.mark.fault("bounded")
@pytest.mark.parametrize(
    ("trace", "what"),
    [
        (shared(sweep(0, *BOTH, ended=4), sweep(3, *BOTH)), "a sweep of 3 overlaps"),
        (shared(read(0, 8, watch=None, ended=4), read(3, 8, watch=None)), f"job {JOB}: a read of 3 overlaps"),
        (shared(sweep(5, *BOTH), sweep(5.5, *BOTH)), "a sweep of 5.5 follows"),
        (shared(sweep(5, *BOTH), read(5.5, 8, watch=None)), f"job {JOB}: a read of 5.5 follows"),
        (
            shared(sweep(5, *BOTH), read(5.5, 8, watch=None), came=(0, 0, 5.2)),
            f"job {JOB}: a read of 5.5 follows",
        ),
        (shared(read(5, 8, watch=None), read(5.5, 8, watch=None)), f"job {JOB}: a read of 5.5 follows"),
        (shared(sweep(0, *BOTH), came=(0, 7)), "a sweep of 0 is for 1 jobs"),
    ],
    ids=[
        "two sweeps at once",
        "details twice at once",
        "a sweep in a hurry",
        "details after a sweep",
        "details after a sweep, and another job's watch came",
        "details in a hurry",
        "a sweep for one job",
    ],
)
def test_what_a_poller_may_not_read_for_all(trace: Trace, what: str) -> None:
    assert [found[: len(what)] for found in CHECKERS["bounded"](trace)] == [what]
