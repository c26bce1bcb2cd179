"""Tracing and metrics by OpenTelemetry, for whoever uses it already. Needs the extra `otel`.

::

    settings = vizwatch.otel.instrumented()
    async with vizwatch.Client.from_env(settings=settings) as client:
        await client.get_job(197)

Names are those of OpenTelemetry's conventions for HTTP clients, with `url.template` in place of `url.full`.
Beside them stands `vizwatch.operation` (`get job`). No id and no credential is an attribute.

- A span for each request, a child of the span in which the call was made; of a retry with
  `http.request.resend_count`. What was given up has the `error.type` `CancelledError`, and no status.
- `http.client.request.duration`, a histogram of the same requests in seconds.
- `vizwatch.retries`, a counter by `vizwatch.operation` and `error.type`.
- `vizwatch.stale`, which counts how often what a watch knows became older than its `max_age`.

Watches share their reads, which are no caller's: their spans have no parent. For none of them, give a tracer
provider with the sampler `ParentBased(ALWAYS_OFF)`; with `Settings(shared_reads=False)` each watch of one job
reads for itself, in the span in which it is iterated.

Spans are made once their request is over, so that no `traceparent` is sent. An instrumentation of aiohttp's
client shows and counts the same requests once more: let it leave the service out, by
`OTEL_PYTHON_AIOHTTP_CLIENT_EXCLUDED_URLS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

import attrs

from vizwatch import Attempt, ConfigError, Retry, Settings, Stale, __version__

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    _missing: ImportError | None = error
else:
    _missing = None

__all__ = ["instrumented"]

T = TypeVar("T")

_SCOPE: Final = "vizwatch"
_PORTS: Final = {"http": 80, "https": 443}
_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The histogram's, in seconds: those of the conventions."""


def instrumented(
    settings: Settings | None = None,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> Settings:
    """The same settings, whose hooks make spans and metrics before they call the hooks that were given.

    Args:
        settings: By default `Settings()`.
        tracer_provider: Whose spans they are; by default the global one's, also if that is set later.
        meter_provider: The same for metrics.

    Raises:
        ConfigError: OpenTelemetry is not installed, or the settings are instrumented already.
    """
    if _missing is not None:
        raise ConfigError("vizwatch.otel needs OpenTelemetry: pip install 'vizwatch[otel]'") from _missing
    given = Settings() if settings is None else settings
    if not isinstance(given, Settings):
        raise ConfigError(f"settings must be a Settings, not {type(given).__name__}")
    if any(isinstance(hook, _Hook) for hook in (given.on_request, given.on_retry, given.on_stale)):
        raise ConfigError("these settings are instrumented already: each request would be counted twice")
    tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider)
    meter = metrics.get_meter(_SCOPE, __version__, meter_provider)
    return attrs.evolve(
        given,
        on_request=_Hook(_requests(tracer, meter), given.on_request),
        on_retry=_Hook(_retries(meter), given.on_retry),
        on_stale=_Hook(_stale(meter), given.on_stale),
    )


@attrs.frozen(eq=False)
class _Hook(Generic[T]):
    """Tells the telemetry, and then whoever was told before there was any."""

    _telemetry: Callable[[T], None]
    _given: Callable[[T], object] | None

    def __call__(self, told: T) -> None:
        try:
            self._telemetry(told)
        finally:
            if self._given is not None:
                self._given(told)


def _requests(tracer: trace.Tracer, meter: metrics.Meter) -> Callable[[Attempt], None]:
    durations = meter.create_histogram(
        "http.client.request.duration",
        "s",
        "Duration of HTTP client requests.",
        explicit_bucket_boundaries_advisory=_BOUNDS,
    )

    def tell(attempt: Attempt) -> None:
        labels = _labels(attempt)
        span = _span(tracer, attempt, labels)
        # The span, not its parent, is what a measurement may show as its example.
        durations.record(attempt.seconds, labels, trace.set_span_in_context(span))

    return tell


def _span(tracer: trace.Tracer, attempt: Attempt, labels: dict[str, str | int]) -> trace.Span:
    begun = int(attempt.started_at.timestamp() * 1e9)
    resent = {"http.request.resend_count": attempt.attempt - 1} if attempt.attempt > 1 else {}
    span = tracer.start_span(
        f"{attempt.method} {attempt.route}",
        kind=trace.SpanKind.CLIENT,
        attributes={**labels, **resent},
        start_time=begun,
    )
    error = attempt.error
    if "error.type" in labels and (error is None or isinstance(error, Exception)):
        span.set_status(trace.Status(trace.StatusCode.ERROR, None if error is None else str(error)))
    span.end(begun + int(attempt.seconds * 1e9))
    return span


def _retries(meter: metrics.Meter) -> Callable[[Retry], None]:
    counter = meter.create_counter("vizwatch.retries", "{retry}", "Requests that were tried again.")

    def tell(retry: Retry) -> None:
        status = getattr(retry.error, "http_status", None)
        counter.add(1, {"vizwatch.operation": retry.operation, **_failure(retry.error, status)})

    return tell


def _stale(meter: metrics.Meter) -> Callable[[Stale], None]:
    counter = meter.create_counter(
        "vizwatch.stale", "{occurrence}", "How often what a watch knows became older than its max_age."
    )
    return lambda _: counter.add(1)


def _labels(attempt: Attempt) -> dict[str, str | int]:
    """Which request it was, and what became of it, in words that are few."""
    server = urlsplit(attempt.endpoint)
    labels: dict[str, str | int] = {
        "http.request.method": attempt.method,
        "server.address": server.hostname or "",
        "server.port": server.port or _PORTS[server.scheme],
        "url.template": attempt.route,
        "vizwatch.operation": attempt.operation,
    }
    if attempt.http_status is not None:
        labels["http.response.status_code"] = attempt.http_status
    return {**labels, **_failure(attempt.error, attempt.http_status)}


def _failure(error: BaseException | None, http_status: int | None) -> dict[str, str]:
    """The HTTP status, where that tells of a failure, or else the error's class; nothing of a success."""
    if http_status is not None and http_status >= 400:
        return {"error.type": str(http_status)}
    return {} if error is None else {"error.type": type(error).__name__}
