"""What an option or an admin's argument may be: each check returns the value, or raises ``ConfigError``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

import attrs

from vizwatch import ConfigError, JobStatus

T = TypeVar("T")

Life = tuple[tuple[float, JobStatus | None], ...]
"""What a job lives through: (seconds, status) in the order of time; the status ``None`` is its deletion."""

MAX_SECONDS: Final = 1e9
_MAX_STEPS: Final = 1_000
_MAX_REGIONS: Final = 32
_SHOWN: Final = 80


def refused(name: str, value: object, allowed: str) -> ConfigError:
    """The error for a parameter whose value is not allowed."""
    text = repr(value)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
    return ConfigError(f"{name} must be {allowed}, not {shown}")


def number(name: str, value: object, *, low: float = 0.0, high: float = MAX_SECONDS) -> float:
    """A number, which NaN is not, within ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise refused(name, value, f"a number from {low:g} to {high:g}")
    return float(value)


def whole(name: str, value: object, *, low: int, high: int) -> int:
    """A whole number within ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise refused(name, value, f"a whole number from {low} to {high}")
    return int(value)


def text(name: str, value: object, *, low: int = 0, high: int) -> str:
    """A string of ``low`` to ``high`` characters."""
    if not isinstance(value, str) or not low <= len(value) <= high:
        raise refused(name, value, f"a string of {low} to {high} characters")
    return value


def line(name: str, value: object, *, high: int) -> str:
    """Printable text, fit for a header; a number is taken as its digits."""
    given = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(given, str) or not given.isprintable() or len(given) > high:
        raise refused(name, value, f"a number or a printable string of at most {high} characters")
    return given


def choice(name: str, value: object, *, allowed: Collection[str]) -> str:
    """One of a few strings."""
    if not isinstance(value, str) or value not in allowed:
        raise refused(name, value, "one of " + ", ".join(allowed))
    return value


def secret(name: str, value: object) -> str:
    """Visible ASCII characters, fit for a header; never shown in the error."""
    if not isinstance(value, str) or not 0 < len(value) <= 2**15 or not value.isascii():
        raise ConfigError(f"{name} must be a string of 1 to {2**15} visible ASCII characters")
    if not value.isprintable() or " " in value:
        raise ConfigError(f"{name} must be free of spaces and control characters")
    return value


def switch(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise refused(name, value, "true or false")
    return value


def identifier(name: str, value: object) -> str:
    """An id that can stand in a path: 1 to 64 of ``0-9 A-Z a-z _ -``."""
    if not is_identifier(value):
        raise refused(name, value, "1 to 64 of the characters 0-9 A-Z a-z _ -")
    return str(value)


def is_identifier(value: object) -> bool:
    """Whether the value is an id that can stand in a path."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= 64
        and value.isascii()
        and value.replace("-", "").replace("_", "x").isalnum()
    )


def regions(name: str, value: object) -> tuple[str, ...]:
    """Regions' names, each once."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not 0 < len(value) <= _MAX_REGIONS:
        raise refused(name, value, f"1 to {_MAX_REGIONS} names of regions")
    if not all(is_identifier(region) for region in value) or len(set(value)) < len(value):
        raise refused(name, value, "names of 1 to 64 of the characters 0-9 A-Z a-z _ -, each once")
    return tuple(value)


def status(name: str, value: object) -> JobStatus:
    """A status, given as ``JobStatus`` or its number; numbers that no document names are allowed."""
    return JobStatus(whole(name, value, low=-(2**31), high=2**31 - 1))


def headers(name: str, value: object) -> dict[str, str]:
    """Response headers: names to values, without line breaks."""
    if not isinstance(value, Mapping) or not all(
        isinstance(text, str) and text.isprintable() for pair in value.items() for text in pair
    ):
        raise refused(name, value, "an object of header names to printable strings")
    return dict(value)


def life(name: str, value: object) -> Life:
    """Pairs of seconds, never falling, and a status; ``None`` stands last, if at all."""
    allowed = f"1 to {_MAX_STEPS} pairs [seconds, status], seconds never falling, null (deleted) only last"
    if isinstance(value, str) or not isinstance(value, Sequence) or not 0 < len(value) <= _MAX_STEPS:
        raise refused(name, value, allowed)
    steps: list[tuple[float, JobStatus | None]] = []
    for step in value:
        if isinstance(step, str) or not isinstance(step, Sequence) or len(step) != 2:
            raise refused(name, value, allowed)
        at = number(name, step[0])
        if steps and (at < steps[-1][0] or steps[-1][1] is None):
            raise refused(name, value, allowed)
        steps.append((at, None if step[1] is None else status(name, step[1])))
    return tuple(steps)


def known(what: str, given: Collection[str], allowed: Collection[str]) -> None:
    """Refuse names that mean nothing here, so that a misspelt one is noticed."""
    for name in given:
        if name not in allowed:
            raise refused(what, name, "one of " + ", ".join(sorted(allowed)))


def checked(check: Callable[..., Any], default: T, *, secret: bool = False, **limits: Any) -> T:
    """An attrs field that passes its check, or is its default ``None``."""

    def validate(owner: attrs.AttrsInstance, field: attrs.Attribute[Any], value: object) -> None:
        if value is not None or attrs.fields_dict(type(owner))[field.name].default is not None:
            check(field.name, value, **limits)

    return attrs.field(default=default, validator=validate, repr=not secret)
