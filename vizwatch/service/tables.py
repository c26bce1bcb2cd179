"""Tables of a TOML file, read key by key: what is wrong is noted with its place, and nothing is raised."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import attrs

from vizwatch import ConfigError, printable

T = TypeVar("T")

KeyPath = tuple[str | int, ...]
"""A key, and the tables that it stands in: ``("targets", 0, "name")``."""
Check = Callable[[Any], T]
"""Gives the value, or raises ``ValueError`` with what is allowed, or :class:`ConfigError` with a sentence."""

_KEY: Final = r"""[\w-]+|"[^"]*"|'[^']*'"""
_DOTTED: Final = rf"(?:{_KEY})(?:\s*\.\s*(?:{_KEY}))*"
_HEADER: Final = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_PAIR: Final = re.compile(rf"\s*({_DOTTED})\s*=")
_LONGEST_SHOWN: Final = 40
_MOST_BITS: Final = 128


@attrs.frozen
class Fault:
    """One thing that is wrong with a configuration."""

    text: str
    """What is wrong, and what is allowed; of the file's strings at most a short one."""
    line: int | None = None
    """Where it stands, or where the table stands that lacks it."""


def line_numbers(text: str) -> dict[KeyPath, int]:
    r"""Where each table and key stands, by its path; keys of tables in one line are found by the table.

    >>> line_numbers('[[a]]\n[a.b]\nc = 1')
    {('a', 0): 1, ('a', 0, 'b'): 2, ('a', 0, 'b', 'c'): 3}
    """
    found: dict[KeyPath, int] = {}
    arrays: Counter[KeyPath] = Counter()
    table: KeyPath = ()
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(line):
            table = _within(arrays, (), header[2])
            if header[1] == "[[":
                plain = table[:-1] if isinstance(table[-1], int) else table
                table = (*plain, arrays[plain])
                arrays[plain] += 1
            found.setdefault(table, number)
        elif pair := _PAIR.match(line):
            found.setdefault(_within(arrays, table, pair[1]), number)
    return found


def _within(arrays: Mapping[KeyPath, int], table: KeyPath, dotted: str) -> KeyPath:
    """The path of a key; of an array's tables, the last one is meant."""
    for part in re.findall(_KEY, dotted):
        table = (*table, part.strip("\"'"))
        if arrays.get(table):
            table = (*table, arrays[table] - 1)
    return table


@attrs.define
class Faults:
    """All that is wrong, as far as it is known."""

    lines: Mapping[KeyPath, int]
    found: list[Fault] = attrs.field(factory=list, init=False)

    def note(self, path: KeyPath, problem: str) -> None:
        """This is wrong with what stands at the path."""
        above = (path[:length] for length in range(len(path), 0, -1))
        line = next((self.lines[one] for one in above if one in self.lines), None)
        self.found.append(Fault(f"{_said(path)} {problem}" if path else problem, line))

    def sorted(self) -> tuple[Fault, ...]:
        """In the order of the file."""
        return tuple(sorted(self.found, key=lambda fault: fault.line or 0))


@attrs.define
class Table:
    """One table: each key is taken from it once, and what is left at the end is unknown.

    Args:
        values: What stands in it.
        path: Where it stands.
        faults: Where to note what is wrong.
    """

    values: Mapping[str, Any] = attrs.field(repr=False)
    path: KeyPath
    faults: Faults
    _known: list[str] = attrs.field(factory=list, init=False)

    def has(self, key: str) -> bool:
        """Whether the key stands there."""
        return key in self.values

    def take(self, key: str, check: Check[T], *, shows: bool = True) -> T | None:
        """The key's value; ``None`` where there is none, or a wrong one, which is noted.

        Args:
            key: The key.
            check: What it may be.
            shows: Whether a wrong value may be shown.
        """
        self._known.append(key)
        if key not in self.values:
            return None
        value = self.values[key]
        try:
            return check(value)
        except ConfigError as error:
            problem = str(error)
        except ValueError as error:
            problem = f"must be {error}" + (f", not {shown(value)}" if shows else "")
        self.note(problem, key)
        return None

    def need(self, key: str, check: Check[T], *, shows: bool = True) -> T | None:
        """As :meth:`take`; that there is none is noted too."""
        if key not in self.values:
            self.note("is missing", key)
        return self.take(key, check, shows=shows)

    def table(self, key: str) -> Table:
        """The table of that key; an empty one where there is none."""
        values = self.take(key, mapping)
        return Table(values or {}, (*self.path, key), self.faults)

    def tables(self, key: str) -> Iterator[Table]:
        """The tables of that key, one at least."""
        values = self.need(key, several_tables) or ()
        for number, one in enumerate(values):
            yield Table(one, (*self.path, key, number), self.faults)

    def note(self, problem: str, key: str | None = None) -> None:
        """Something is wrong with the table, or with one of its keys."""
        self.faults.note(self.path if key is None else (*self.path, key), problem)

    def refuse(self, key: str, problem: str) -> None:
        """A key that many would write, and that must not be there."""
        if key in self.values:
            self._known.append(key)
            self.note(problem, key)

    def close(self) -> None:
        """Notes each key that nobody has asked for."""
        for key in self.values:
            if key not in self._known:
                close = difflib.get_close_matches(key, self._known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(self._known)}"
                self.note(f"is unknown: {hint}", key)


def shown(value: object) -> str:
    """The value as Python writes it, if it is short; a long one may be a secret in another's place."""
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f"a number of {value.bit_length()} bits"  # Python refuses to write a huge one
    text = repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
    return printable(text) if len(text) <= _LONGEST_SHOWN else f"one of {len(text)} characters"


def _said(path: KeyPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return printable(text.lstrip("."), 120)


# What a value may be


def mapping(value: object) -> Mapping[str, Any]:
    """A table."""
    if not isinstance(value, dict):
        raise ValueError("a table")  # noqa: TRY004 - as all checks
    return value


def several_tables(value: object) -> list[Mapping[str, Any]]:
    """An array of tables that is not empty."""
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise ValueError("one or more tables, each under a header in double brackets")
    return value


def switch(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 - as all checks
    return value


def whole(low: int, high: int) -> Check[int]:
    """A whole number within ``[low, high]``."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return check


def seconds(low: float, high: float) -> Check[float]:
    """A number of seconds within ``[low, high]``."""

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"a number of seconds from {low:g} to {high:g}")
        return float(value)

    return check


def text(allowed: str, pattern: str = r".{1,1024}") -> Check[str]:
    """A string that the pattern matches; `allowed` says it in words."""

    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(allowed)
        return value

    return check


def accepted(name: str, make: Callable[..., object], **others: Any) -> Check[Any]:
    """What a call takes for its argument of that name, with which its errors begin; the others are right."""

    def check(value: object) -> object:
        try:
            make(**{**others, name: value})
        except ConfigError as error:
            problem = str(error).removeprefix(f"{name} ")
        else:
            return value
        raise ConfigError(problem)

    return check


def choice(*allowed: str) -> Check[str]:
    """One of a few strings."""
    return text("one of " + ", ".join(allowed), "|".join(map(re.escape, allowed)))


def several(check: Check[T]) -> Check[frozenset[T]]:
    """One of what the check allows, or several in an array."""

    def check_all(value: object) -> frozenset[T]:
        if value == []:
            raise ValueError("one value at least")
        return frozenset(check_one(one) for one in (value if isinstance(value, list) else [value]))

    def check_one(value: object) -> T:
        try:
            return check(value)
        except ConfigError:
            raise
        except ValueError as error:
            problem = f"must be {error}, or several in an array, not {shown(value)}"
        raise ConfigError(problem)

    return check_all
