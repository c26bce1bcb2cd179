"""What is due when: beside a dictionary of times."""

from __future__ import annotations

import math

import attrs
from hypothesis import given
from hypothesis import strategies as st

from vizwatch._rules.agenda import NONE, Agenda


@attrs.define(eq=False)
class Thing:
    name: int
    at: float = math.inf
    entry: int = NONE


names = st.integers(0, 2)
times = st.integers(0, 20).map(float)
steps = st.lists(
    st.tuples(st.just("put"), names, times | st.just(math.inf))
    | st.tuples(st.just("take off"), names, st.just(0.0))
    | st.tuples(st.just("due"), st.just(0), times)
    | st.tuples(st.just("until"), st.just(0), times)
    | st.tuples(st.just("clear"), st.just(0), st.just(0.0)),
    max_size=60,
)


@given(steps)
def test_things_are_due_at_their_earliest_times(script: list[tuple[str, int, float]]) -> None:
    things = [Thing(name) for name in range(10)]
    agenda: Agenda[Thing] = Agenda()
    times: dict[int, float] = {}
    for what, name, time in script:
        match what:
            case "put":
                agenda.put(things[name], time)
                if time < times.get(name, math.inf):
                    times[name] = time
            case "take off":
                agenda.take_off(things[name])
                times.pop(name, None)
            case "clear":
                agenda.clear()
                times.clear()
            case "until":
                soon = sorted(thing.name for thing in agenda.until(time))
                assert soon == sorted(one for one, at in times.items() if at <= time)
            case _:
                due = [(at, thing.name) for thing, at in agenda.due(time)]
                assert [at for at, _ in due] == sorted(at for at, _ in due)
                assert sorted(due) == sorted((at, one) for one, at in times.items() if at <= time)
                times = {one: at for one, at in times.items() if at > time}
        assert {thing.name: thing.at for thing in things if thing.at < math.inf} == times
        assert agenda.first_at <= min(times.values(), default=math.inf)


def test_what_is_put_on_again_and_again_leaves_no_heap_behind() -> None:
    """A watch joins and leaves at each of its steps."""
    agenda: Agenda[Thing] = Agenda()
    things = [Thing(name) for name in range(10)]
    for time in range(10_000):
        thing = things[time % 10]
        agenda.put(thing, 1e9 - time)
        agenda.take_off(thing)
        agenda.put(thing, 1e9 + time)
        assert len(agenda._entries) <= 100
    assert {thing.name for thing in agenda.until(math.inf)} == set(range(10))
