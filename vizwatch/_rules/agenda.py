"""What is due when, the earliest first."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

import attrs

NONE: Final = -1
"""The entry of what is on no agenda."""
_SMALL: Final = 64


class Dated(Protocol):
    """What has a time."""

    at: float
    """The one that it is on the agenda for; infinite where it is not."""
    entry: int
    """The number of its entry."""


T = TypeVar("T", bound=Dated)


@attrs.define(eq=False)
class Agenda(Generic[T]):
    """Things by their times.

    One that is put on for an earlier time, or taken off, leaves its old entry behind, so that costs nothing:
    the entries go when their times come, or once they are most of all.
    """

    _entries: list[tuple[float, int, T]] = attrs.field(factory=list, init=False)
    _numbers: Iterator[int] = attrs.field(factory=itertools.count, init=False)
    _size: int = attrs.field(default=0, init=False)
    """How many things are on it."""

    @property
    def first_at(self) -> float:
        """When to look at it again: no thing is due before."""
        return self._entries[0][0] if self._entries else math.inf

    def put(self, thing: T, at: float) -> None:
        """Puts a thing on for a time, unless it is on for an earlier one."""
        if not at < thing.at:
            return
        self._size += thing.at == math.inf
        thing.at, thing.entry = at, next(self._numbers)
        heapq.heappush(self._entries, (at, thing.entry, thing))

    def take_off(self, thing: T) -> None:
        """Takes a thing off, if it is on."""
        self._size -= thing.at < math.inf
        thing.at, thing.entry = math.inf, NONE
        if len(self._entries) > 2 * self._size + _SMALL:
            self._entries = [entry for entry in self._entries if entry[1] == entry[2].entry]
            heapq.heapify(self._entries)

    def due(self, now: float) -> Iterator[tuple[T, float]]:
        """Takes off, one after the other, what is due now, and says since when each is."""
        while self._entries and self._entries[0][0] <= now:
            at, number, thing = heapq.heappop(self._entries)
            if thing.entry == number:
                self._size -= 1
                thing.at, thing.entry = math.inf, NONE
                yield thing, at

    def until(self, time: float) -> Iterator[T]:
        """What is due until a time, in no order; nothing is taken off."""
        places = [0]
        while places:
            place = places.pop()
            if place < len(self._entries) and self._entries[place][0] <= time:
                _, number, thing = self._entries[place]
                if thing.entry == number:
                    yield thing
                places += 2 * place + 1, 2 * place + 2  # by the order of a heap, none below is earlier

    def clear(self) -> None:
        """Takes everything off."""
        for _, _, thing in self._entries:
            thing.at, thing.entry = math.inf, NONE
        self._entries.clear()
        self._size = 0
