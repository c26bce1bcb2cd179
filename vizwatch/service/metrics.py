"""How the service stands at one moment: as JSON for whoever asks for its health, and as metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from vizwatch import ApiError, Outcome
from vizwatch.service.progress import Progress, Trouble


@attrs.frozen(kw_only=True)
class Snapshot:
    """What is known at one moment. Nothing in it names a job, and nothing is a server's own text."""

    outcomes: Mapping[str, Outcome]
    """How the watch of each target is getting on."""
    sizes: Mapping[str, int]
    """How many transitions wait for each sink."""
    merged: Mapping[str, int]
    """How many became one with another, by sink."""
    progress: Progress
    is_watching: bool
    """Whether the watch lives."""

    @property
    def report(self) -> dict[str, Any]:
        """How each target and each sink is getting on, as JSON."""
        return {
            "watching": self.is_watching,
            "targets": {
                name: {"age": one.age, "jobs": one.jobs, "complete": one.complete, "error": _error(one)}
                for name, one in self.outcomes.items()
            },
            "sinks": {
                name: {"backlog": self.sizes.get(name, 0), **_trouble(trouble)}
                for name, trouble in self.progress.sinks.items()
            },
            "backlog": {what: _trouble(trouble) for what, trouble in self.progress.backlog.items()},
            "checkpoint": _trouble(self.progress.checkpoint),
        }

    @property
    def not_ready(self) -> dict[str, Any]:
        """The targets that were not read completely yet, and why backlog or checkpoint cannot be written."""
        return {
            "targets": sorted(name for name, one in self.outcomes.items() if one.age is None),
            "backlog": self.progress.backlog_error,
            "checkpoint": self.progress.checkpoint.text,
        }


def _error(outcome: Outcome) -> str | None:
    """What the reads of a target fail with, without its text, which may name jobs."""
    if outcome.error is None:
        return None
    status = f", HTTP {outcome.error.http_status}" if isinstance(outcome.error, ApiError) else ""
    return type(outcome.error).__name__ + status


def _trouble(trouble: Trouble) -> dict[str, Any]:
    failing = None if trouble.text is None else asyncio.get_running_loop().time() - trouble.since
    return {"error": trouble.text, "failing_for": failing}


def exposition(snapshot: Snapshot) -> tuple[bytes, str]:
    """The metrics as Prometheus reads them, and their content type.

    Raises:
        ModuleNotFoundError: The extra `metrics` is not installed.
    """
    import prometheus_client  # noqa: PLC0415 - an extra

    registry = prometheus_client.CollectorRegistry()  # its own: a program's other metrics are not ours
    registry.register(_Collector(snapshot))
    return prometheus_client.generate_latest(registry), prometheus_client.CONTENT_TYPE_LATEST


@attrs.frozen(eq=False)
class _Collector:
    """What prometheus_client asks for metrics."""

    snapshot: Snapshot

    def collect(self) -> Iterator[Any]:
        """All of them."""
        from prometheus_client import core  # noqa: PLC0415 - as above

        kinds = (core.GaugeMetricFamily, _gauges), (core.CounterMetricFamily, _counters)
        for kind, families in kinds:
            for name, text, labels, values in families(self.snapshot):
                family = kind(f"vizwatch_{name}", text, labels=labels.split())
                for key, value in values.items():
                    family.add_metric([key] if isinstance(key, str) else key, value)
                yield family


_Family = tuple[str, str, str, Mapping[Any, float]]
"""A metric's name, what it says, its labels, and its values by those."""


def _gauges(now: Snapshot) -> Iterator[_Family]:
    outcomes = now.outcomes.items()
    ages = {name: one.age for name, one in outcomes if one.age is not None}
    yield "target_age_seconds", "Since what is known of a target was read.", "target", ages
    yield "target_jobs", "Jobs of a target.", "target", {name: one.jobs for name, one in outcomes}
    complete = {name: int(one.complete) for name, one in outcomes}
    yield "target_complete", "1 if all of a target is known, and fresh.", "target", complete
    yield "backlog", "Transitions that wait for a sink.", "sink", now.sizes
    writable = {(): int(now.progress.backlog_error is None)}
    yield "backlog_writable", "1 if the backlog can be written, read and cleared.", "", writable
    writable = {(): int(now.progress.checkpoint.text is None)}
    yield "checkpoint_writable", "1 if the checkpoint can be written.", "", writable


def _counters(now: Snapshot) -> Iterator[_Family]:
    progress = now.progress
    yield "transitions", "Transitions seen.", "target status", progress.transitions
    yield "requests", "Requests of watches.", "operation outcome", progress.requests
    yield "retries", "Requests that failed, and are made again.", "operation", progress.retries
    yield "deliveries", "Attempts to deliver.", "sink outcome", progress.deliveries
    yield "merged", "Transitions that became one with another, over the bound.", "sink", now.merged
