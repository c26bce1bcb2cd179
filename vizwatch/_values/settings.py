"""Every number that can be set, in one frozen value, checked when it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from vizwatch._values import checks
from vizwatch._values.errors import ConfigError
from vizwatch._values.exchange import Attempt, Retry, Stale

T = TypeVar("T")


def _checked(check: Callable[..., Any], default: T, **limits: Any) -> T:
    def convert(value: object, field: attrs.Attribute[Any]) -> Any:
        if value is None and default is None:
            return None
        return check(f"Settings.{field.name}", value, **limits)

    converter: Any = attrs.Converter(convert, takes_field=True)
    checked: T = attrs.field(default=default, converter=converter)
    return checked


@attrs.frozen(kw_only=True)
class Settings:
    """How a client polls, retries and guards itself. Durations are seconds.

    Raises :class:`ConfigError` when made with a value out of its range.
    """

    poll_interval: float = _checked(checks.seconds, 15.0, low=0.001, high=86_400)
    """The longest pause of a watch between two good reads of a job, before jitter.

    It is shorter where a change is likely: after one, while a job starts or stops, when its automatic stop is
    due, and after a write of the same client.
    """
    poll_jitter: float = _checked(checks.seconds, 0.2, low=0, high=0.9)
    """The part of each pause by which it is randomly longer or shorter: watches spread."""
    poll_interval_min: float = _checked(checks.seconds, 1.0, low=0.001, high=86_400)
    """The shortest `interval` that a watch accepts, and the shortest pause between two good reads that are
    believed: the gateway's limit is tight. A fifteenth of the interval is kept to as well.
    """
    watch_backoff_base: float = _checked(checks.seconds, 0.8, low=0.001, high=3_600)
    """The upper bound of a watch's first wait after a failed read; doubles with each further one."""
    watch_backoff_max: float = _checked(checks.seconds, 30.0, low=0.001, high=3_600)
    """The upper bound that a watch's waits after failed reads grow to."""

    attempts: int = _checked(checks.whole, 4, low=1, high=100)
    """How many times a request is tried at most, the first time included."""
    backoff_base: float = _checked(checks.seconds, 0.5, low=0.001, high=3_600)
    """The upper bound of the random wait before the second attempt; doubles with each further one."""
    backoff_max: float = _checked(checks.seconds, 20.0, low=0.001, high=3_600)
    """The upper bound that waits between attempts grow to."""
    retry_after_max: float = _checked(checks.seconds, 60.0, low=0, high=86_400)
    """The longest `Retry-After` that is waited for; a longer one is raised, with its value."""

    retry_quota: int = _checked(checks.whole, 500, low=0, high=10**9)
    """What a client may spend on retries: each costs 5, or 10 after no answer, and each success gives back
    what its own retry cost, or 1. Used up, calls fail with their first error."""
    on_retry: Callable[[Retry], object] | None = _checked(checks.function, None)  # noqa: RUF009 - as the others
    """Called before the wait of each retry, and must return at once. What it raises is logged."""
    on_request: Callable[[Attempt], object] | None = _checked(checks.function, None)  # noqa: RUF009 - as the others
    """Called after each request that was tried, whatever became of it: of calls, their retries, and watches.

    It runs with the context variables of whoever made the call; of reads that watches share, with nobody's.
    It must return at once. What it raises is logged. Of token calls, the credentials' settings are told.
    """

    on_stale: Callable[[Stale], object] | None = _checked(checks.function, None)  # noqa: RUF009 - as the others
    """Called when what a watch knows becomes older than its `max_age`, and not again before it was fresh for
    five times that. It must return at once. What it raises is logged."""

    connect_timeout: float = _checked(checks.seconds, 10.0, low=0.001, high=3_600)
    """For name, connection and TLS of one attempt."""
    attempt_timeout: float = _checked(checks.seconds, 30.0, low=0.001, high=3_600)
    """For one attempt, from asking for a connection to the last byte."""
    call_timeout: float = _checked(checks.seconds, 60.0, low=0.001, high=86_400)
    """For a whole reading call, retries and waits included."""
    write_timeout: float = _checked(checks.seconds, 90.0, low=0.001, high=86_400)
    """For a whole writing call, retries and waits included."""

    max_body: int = _checked(checks.whole, 8 * 2**20, low=1_024, high=2**31)
    """The largest answer that is read, in bytes after decompression."""
    pool_size: int = _checked(checks.whole, 100, low=1, high=10_000)
    """How many connections are open at once."""
    requests_per_second: float | None = _checked(checks.rate, None)
    """The account's budget of requests; ``None`` for no limit. One gateway's limit: 200 in 5 minutes.

    Whatever it is, after a 429 all requests of a client rest, go on at half their rate, and slowly speed up.
    """

    shared_reads: bool = _checked(checks.switch, True)
    """Whether watches of one project may share one poller, which reads the listing where that is cheaper."""
    allow_insecure: bool = _checked(checks.switch, False)
    """Whether ``http`` is allowed beyond the loopback interface: it carries the token in the clear."""
    trust_env: bool = _checked(checks.switch, False)
    """Whether ``HTTP_PROXY`` and its like, and ``.netrc``, are used."""

    def __attrs_post_init__(self) -> None:
        ordered = (
            ("connect_timeout", "attempt_timeout"),
            ("attempt_timeout", "call_timeout"),
            ("attempt_timeout", "write_timeout"),
            ("poll_interval_min", "poll_interval"),
        )
        for smaller, larger in ordered:
            low, high = getattr(self, smaller), getattr(self, larger)
            if low > high:
                raise ConfigError(
                    f"Settings.{smaller} ({low:g}) must not be greater than Settings.{larger} ({high:g})"
                )


def given_or_default(settings: object) -> Settings:
    """The settings, or the default ones for ``None``. Raises :class:`ConfigError` for anything else."""
    if settings is None:
        return Settings()
    if not isinstance(settings, Settings):
        raise checks.refused("settings", settings, "a Settings")
    return settings
