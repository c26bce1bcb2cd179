"""What an argument may be.

Each check returns the value, or raises :class:`ConfigError` naming parameter, value and what is allowed.
"""

from __future__ import annotations

import datetime as dt
import inspect
import re
from collections.abc import Callable, Collection
from typing import Final

from vizwatch._values.errors import ConfigError
from vizwatch._values.statuses import JobStatus
from vizwatch._values.structs import LONG_MAX

_TEXTS: Final = (str, bytes, bytearray, memoryview)
"""Collections of something that nobody means when he gives one."""
_SHOWN: Final = 80
_SHOWN_BITS: Final = 128


def shown(value: object) -> str:
    """``repr(value)``, if it is short enough for one line of an error."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    # What is longer may be a token that was given in another's place.
    return text if len(text) <= _SHOWN else f"one of {len(text)} characters"


def refused(name: str, value: object, allowed: str) -> ConfigError:
    """The error for a parameter whose value is not allowed."""
    return ConfigError(f"{name} must be {allowed}, not {shown(value)}")


def seconds(name: str, value: object, *, low: float = 0.0, high: float = 1e9) -> float:
    """A duration in seconds, given as a number or a ``timedelta``, within ``[low, high]``."""
    if isinstance(value, dt.timedelta):
        value = value.total_seconds()
    allowed = f"a number of seconds from {low:g} to {high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise refused(name, value, allowed)
    return float(value)


def rate(name: str, value: object) -> float:
    """A number of events a second."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.001 <= value <= 1e6:
        raise refused(name, value, "None or a number from 0.001 to 1000000")
    return float(value)


def whole(name: str, value: object, *, low: int, high: int) -> int:
    """A whole number within ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise refused(name, value, f"a whole number from {low} to {high}")
    return int(value)


def switch(name: str, value: object) -> bool:
    """True or False, and nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise refused(name, value, "True or False")
    return value


def function(name: str, value: object) -> Callable[..., object]:
    """Something that can be called."""
    if not callable(value) or isinstance(value, type) or inspect.iscoroutinefunction(value):
        raise refused(name, value, "None or a function, and no coroutine function")
    return value


def text(name: str, value: object, *, low: int = 0, high: int) -> str:
    """A string of ``low`` to ``high`` characters."""
    if not isinstance(value, str) or not low <= len(value) <= high:
        raise refused(name, value, f"a string of {low} to {high} characters")
    if not value.isascii() and any("\ud800" <= one <= "\udfff" for one in value):
        raise refused(name, value, "a string without lone surrogates")
    return value


def choice(name: str, value: object, allowed: Collection[str]) -> str:
    """One of a few strings."""
    if not isinstance(value, str) or value not in allowed:
        raise refused(name, value, "one of " + ", ".join(allowed))
    return value


def identifier(name: str, value: object) -> str:
    """A project's or workspace's id: nothing that could leave its place in a URL."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Za-z_-]{1,64}", value):
        raise refused(name, value, "1 to 64 of the characters 0-9 A-Z a-z _ -")
    return value


def job_id(value: object) -> int:
    """A job's id: a whole number, or its ASCII digits as a string."""
    number = value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= LONG_MAX:
        raise refused("job_id", value, f"a whole number from 0 to {LONG_MAX}")
    return int(number)


def status(name: str, value: object) -> JobStatus:
    """A status, given as :class:`JobStatus` or as its number."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LONG_MAX:
        raise refused(name, value, "a JobStatus or its number")
    return JobStatus(int(value))


def job_ids(name: str, value: object) -> frozenset[int]:
    """A set of job ids."""
    if isinstance(value, _TEXTS) or not isinstance(value, Collection) or not value:
        raise refused(name, value, "a non-empty collection of job ids")
    return frozenset(map(job_id, value))


def statuses(name: str, value: object) -> frozenset[JobStatus]:
    """A set of statuses, given as one or as several."""
    if isinstance(value, int):
        return frozenset({status(name, value)})
    if isinstance(value, _TEXTS) or not isinstance(value, Collection) or not value:
        raise refused(name, value, "a JobStatus, its number, or a non-empty collection of them")
    return frozenset(status(name, one) for one in value)
