"""The backlog: in order, each once, bounded, never without what became of a job, and whole after a crash."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import stat
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vizwatch.service.backlog import Backlog, Entry
from vizwatch.service.payload import merged

BOUNDS: Final = {"slow": 3, "wide": 100}
JOBS: Final = 3
sinks = st.sampled_from(sorted(BOUNDS))


def transition(job_id: int, number: int, previous: int | None, current: int) -> dict[str, Any]:
    return {
        "id": f"p/{job_id}/{number}",
        "project_id": "p",
        "job_id": job_id,
        "previous": previous,
        "previous_name": str(previous),
        "current": current,
        "not_before": str(number - 1),
        "not_after": str(number),
        "gap": number % 5 == 0,
        "skipped": 0,
    }


class Machine(RuleBasedStateMachine):
    """Beside the file, a model: a list for each sink."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in BOUNDS}
        self.in_hand: dict[str, list[Entry]] = {name: [] for name in BOUNDS}
        self.count = 0
        self.statuses: dict[int, int] = {}
        self.put: Counter[tuple[str, int]] = Counter()
        self.delivered: Counter[tuple[str, int]] = Counter()
        self.ends: dict[tuple[str, int], int] = {}
        self.backlog = self.opened()

    def opened(self) -> Backlog:
        return Backlog(Path(self.folder.name, "backlog.sqlite"), BOUNDS)

    @rule(news=st.lists(st.tuples(st.integers(1, JOBS), st.integers(1, 22), st.sets(sinks)), max_size=4))
    def see(self, news: list[tuple[int, int, set[str]]]) -> None:
        """Jobs change; what changed last comes a second time, as after a crash."""
        seen = []
        for job_id, status, takers in news:
            self.count += 1
            one = transition(job_id, self.count, self.statuses.get(job_id), status)
            self.statuses[job_id] = status
            seen.append((sorted(takers), one))
            for name in takers:
                self.put[name, job_id] += 1
                self.ends[name, job_id] = status
                self.model(name, one)
        self.backlog.put(seen)
        self.backlog.put(seen[-1:])

    def model(self, name: str, seen: dict[str, Any]) -> None:
        rows = self.waiting[name]
        mine = [one for one in rows[len(self.in_hand[name]) :] if one["job_id"] == seen["job_id"]]
        if len(rows) < BOUNDS[name] or not mine:
            rows.append(seen)
            return
        place, one = rows.index(mine[0]), mine[0]
        for other in (*mine[1:], seen):
            one = merged(one, other)
        rows[place] = one
        for other in mine[1:]:
            rows.remove(other)

    @rule(name=sinks)
    def take(self, name: str) -> None:
        entries = self.backlog.take(name)
        first = len(self.in_hand[name])
        assert [json.loads(entry.payload) for entry in entries] == self.waiting[name][first:][: BOUNDS[name]]
        assert all(entry.id == json.loads(entry.payload)["id"] for entry in entries)
        self.in_hand[name] += entries

    @rule(name=sinks, count=st.integers(1, 5))
    def deliver(self, name: str, count: int) -> None:
        delivered = self.in_hand[name][:count]
        del self.in_hand[name][:count]
        self.backlog.remove(name, delivered)
        for _ in delivered:
            gone = self.waiting[name].pop(0)
            self.delivered[name, gone["job_id"]] += 1 + gone["skipped"]

    @rule()
    def crash(self) -> None:
        self.backlog.close()
        self.in_hand = {name: [] for name in BOUNDS}
        self.backlog = self.opened()

    @invariant()
    def holds_what_it_must(self) -> None:
        assert self.backlog.sizes == {name: len(rows) for name, rows in self.waiting.items()}
        for name, rows in self.waiting.items():
            assert len(rows) <= BOUNDS[name] + JOBS + len(self.in_hand[name])
            for job_id in range(1, JOBS + 1):
                mine = [row for row in rows if row["job_id"] == job_id]
                waiting = sum(1 + row["skipped"] for row in mine)
                assert self.delivered[name, job_id] + waiting == self.put[name, job_id], "none is lost"
                if mine:
                    assert mine[-1]["current"] == self.ends[name, job_id]

    def teardown(self) -> None:
        self.backlog.close()
        self.folder.cleanup()


TestBacklog = Machine.TestCase
TestBacklog.settings = settings(max_examples=40, stateful_step_count=30)


def test_what_became_one_goes_from_the_first_status_to_the_last_and_counts_what_it_left_out() -> None:
    one, two, three = (transition(7, number, number - 1, number) for number in (4, 5, 6))
    made = merged(merged(one, two), three)
    assert made == {
        **three,
        "previous": 3,
        "previous_name": "3",
        "not_before": "3",
        "gap": True,
        "skipped": 2,
    }


def test_what_was_seen_is_for_the_owner_alone(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "backlog.sqlite", {"sink": 1})
    backlog.put([(["sink"], transition(7, 1, None, 8))])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {f"backlog.sqlite{ending}": 0o600 for ending in ("", "-wal", "-shm")}
    backlog.close()


def test_what_waits_is_no_news_unless_its_job_has_changed_since(tmp_path: Path) -> None:
    """A watch that goes on without its place may count as another one did."""
    backlog = Backlog(tmp_path / "backlog.sqlite", {"sink": 9})
    running, failed = transition(7, 1, None, 8), transition(7, 2, 8, 11)
    for seen in (running, running, failed, transition(8, 1, None, 8), failed, running, failed):
        backlog.put([(["sink"], seen)])
    ids = [entry.id for entry in backlog.take("sink")]
    assert ids == ["p/7/1", "p/7/2", "p/8/1", "p/7/1", "p/7/2"]
    backlog.close()


def test_two_jobs_of_one_id_in_two_projects_are_two(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "backlog.sqlite", {"sink": 1})
    for project_id in ("p", "q"):
        seen = {**transition(7, 1, None, 8), "project_id": project_id, "id": f"{project_id}/7/1"}
        backlog.put([(["sink"], seen)])
    assert backlog.sizes == {"sink": 2}
    backlog.close()


def test_nothing_has_changed_after_an_error(tmp_path: Path) -> None:
    file = tmp_path / "backlog.sqlite"
    backlog = Backlog(file, {"one": 10, "two": 10})
    backlog.put([(["one"], transition(7, 1, None, 8))])
    other = sqlite3.connect(file, isolation_level=None)
    other.execute(
        "CREATE TRIGGER full BEFORE INSERT ON waiting WHEN new.sink = 'two' BEGIN"
        " SELECT RAISE(ABORT, 'disk full'); END"
    )
    with pytest.raises(sqlite3.Error, match="disk full"):
        backlog.put([(["one", "two"], transition(7, 2, 8, 12))])
    assert backlog.sizes == {"one": 1, "two": 0}
    other.execute("DROP TRIGGER full")
    other.close()
    backlog.put([(["one", "two"], transition(7, 2, 8, 12))])
    assert backlog.sizes == {"one": 2, "two": 1}
    backlog.close()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_nothing_is_kept_in_a_file_that_was_removed(is_replaced: bool, tmp_path: Path) -> None:
    """What is in it can be delivered still."""
    file = tmp_path / "backlog.sqlite"
    backlog = Backlog(file, {"sink": 10})
    backlog.put([(["sink"], transition(7, 1, None, 8))])
    (tmp_path / "away").mkdir()
    for one in tmp_path.glob("backlog.sqlite*"):
        one.rename(tmp_path / "away" / one.name)
    if is_replaced:
        Backlog(file, {"sink": 10}).close()
    with pytest.raises(sqlite3.OperationalError, match=r"removed, or another file .* and start it anew"):
        backlog.put([(["sink"], transition(7, 2, 8, 12))])
    entries = backlog.take("sink")
    backlog.remove("sink", entries)
    assert (len(entries), backlog.sizes) == (1, {"sink": 0})
    backlog.close()


@pytest.mark.parametrize("other", ["a text that is long enough to be told from a database", 9, 0])
def test_a_file_of_others_is_not_touched(other: str | int, tmp_path: Path) -> None:
    file = tmp_path / "backlog.sqlite"
    if isinstance(other, str):
        file.write_text(other)
    else:
        with contextlib.closing(sqlite3.connect(file)) as db:
            db.execute("CREATE TABLE theirs (a)")
            db.execute(f"PRAGMA user_version = {other}")
    with pytest.raises(sqlite3.DatabaseError, match=r"not a database|of version 9|of another program"):
        Backlog(file, {})
    if isinstance(other, str):
        assert file.read_text() == other
        return
    with contextlib.closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
