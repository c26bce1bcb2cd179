"""Spans and metrics by OpenTelemetry, of real requests to the emulated cloud."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from aioresponses import aioresponses
from conftest import ENDPOINT, JOBS, PROJECT
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from servers import RawServer, http
from taking import taken
from virtual import elapse

import vizwatch
from vizwatch import Client, ConfigError, Settings
from vizwatch.emulator import Emulator
from vizwatch.otel import instrumented

pytestmark = pytest.mark.looptime

ROOT = Path(__file__).parent.parent
CANARY = "canary-5f2e"
DETAILS = "/v1/{project_id}/visualization-jobs/{job_id}"


class Backend:
    """Keeps in memory what a telemetry backend would get."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider(sampler, shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = TracerProvider(shutdown_on_exit=False).get_tracer("of the user's")

    def settings(self, given: Settings | None = None) -> Settings:
        return instrumented(given, tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def spans(self) -> list[ReadableSpan]:
        """In the order in which they ended."""
        return [*self._exporter.get_finished_spans()]

    def points(self, name: str) -> list[Any]:
        """What a metric has come to, for each set of its attributes."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def shutdown(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.shutdown()


def client_of(cloud: Emulator, backend: Backend, **settings: Any) -> Client:
    chosen = backend.settings(Settings(**settings))
    return Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=chosen)


def outcomes(spans: list[ReadableSpan]) -> list[tuple[object, ...]]:
    """Status code, error type and span status of each."""
    return [
        (
            *(dict(span.attributes or {}).get(name) for name in ("http.response.status_code", "error.type")),
            span.status.status_code.name,
        )
        for span in spans
    ]


# --- spans ----------------------------------------------------------------------------------------------


async def test_a_request_is_a_client_span_with_the_attributes_of_the_conventions(
    cloud: Emulator, backend: Backend
) -> None:
    (job_id,) = cloud.add_jobs(1)
    async with client_of(cloud, backend) as client:
        await client.get_job(job_id)
    (span,) = backend.spans
    host, port = cloud.endpoint.removeprefix("http://").split(":")
    assert span.name == f"GET {DETAILS}"
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": host,
        "server.port": int(port),
        "url.template": DETAILS,
        "vizwatch.operation": "get job",
    }
    assert span.status.status_code is trace.StatusCode.UNSET
    assert span.instrumentation_scope is not None
    assert (span.instrumentation_scope.name, span.instrumentation_scope.version) == (
        "vizwatch",
        vizwatch.__version__,
    )


async def test_the_port_is_that_of_the_scheme_where_the_endpoint_names_none(
    answers: aioresponses, backend: Backend
) -> None:
    answers.get(f"{JOBS}/7", payload={"job_id": 7, "status": 8})
    async with Client(ENDPOINT, PROJECT, auth="t", settings=backend.settings()) as client:
        await client.get_job(7)
    (span,) = backend.spans
    assert dict(span.attributes or {})["server.port"] == 443


async def test_a_span_begins_and_ends_with_its_request(cloud: Emulator, backend: Backend) -> None:
    told: list[vizwatch.Attempt] = []
    cloud.fault("latency", seconds=3.0)
    async with client_of(cloud, backend, on_request=told.append) as client:
        await client.list_jobs().collect()
    (span,) = backend.spans
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time / 1e9 == pytest.approx(told[0].started_at.timestamp(), abs=1e-6, rel=0)
    assert span.end_time - span.start_time == int(told[0].seconds * 1e9)


async def test_each_attempt_is_a_span_of_its_own_and_says_which_resend_it_is(
    cloud: Emulator, backend: Backend
) -> None:
    cloud.fault("status", status=503, count=1)
    cloud.fault("drop", count=1, after=1)
    async with client_of(cloud, backend) as client:
        await client.list_jobs().collect()
    resends = [dict(span.attributes or {}).get("http.request.resend_count") for span in backend.spans]
    assert resends == [None, 1, 2]
    assert outcomes(backend.spans) == [
        (503, "503", "ERROR"),
        (None, "TransportError", "ERROR"),
        (200, None, "UNSET"),
    ]


async def test_a_span_tells_why_its_request_failed(cloud: Emulator, backend: Backend) -> None:
    async with client_of(cloud, backend) as client:
        with pytest.raises(vizwatch.NotFoundError) as caught:
            await client.get_job(4711)
    assert outcomes(backend.spans) == [(404, "404", "ERROR")]
    assert backend.spans[0].status.description == str(caught.value)


async def test_a_refusal_by_http_200_is_an_error_of_its_class(backend: Backend) -> None:
    refusal = {"is_success": False, "error_code": "ModelArts.0105", "error_msg": "no"}
    async with RawServer(http(refusal)) as server:
        async with Client(server.endpoint, "p", auth="t", settings=backend.settings()) as client:
            with pytest.raises(vizwatch.ConflictError):
                await client.stop_job(1)
    assert outcomes(backend.spans) == [(200, "ConflictError", "ERROR")]


async def test_what_was_given_up_says_so_and_is_no_error(cloud: Emulator, backend: Backend) -> None:
    cloud.fault("latency", seconds=60.0)
    async with client_of(cloud, backend) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.get_job(1)
    assert outcomes(backend.spans) == [(None, "CancelledError", "UNSET")]


async def test_spans_are_children_of_the_span_in_which_the_call_was_made(
    cloud: Emulator, backend: Backend
) -> None:
    """Also of calls that are under way together, and of their retries."""
    cloud.fault("status", status=503, count=2)

    async def traced(client: Client, name: str) -> trace.SpanContext:
        with backend.tracer.start_as_current_span(name) as span:
            await client.list_jobs(search_content=name).collect()
        return span.get_span_context()

    async with client_of(cloud, backend) as client:
        first, second = await asyncio.gather(traced(client, "first"), traced(client, "second"))
        await client.list_jobs().collect()
    parents = [span.parent and span.parent.span_id for span in backend.spans]
    assert sorted(map(str, parents)) == sorted(map(str, [first.span_id, second.span_id] * 2 + [None]))
    assert parents[-1] is None
    assert {span.context.trace_id for span in backend.spans if span.context and span.parent} == {
        first.trace_id,
        second.trace_id,
    }


@pytest.mark.parametrize("shared", [True, False])
async def test_polls_that_are_shared_have_no_parent_and_a_watchs_own_have_its_span(
    cloud: Emulator, backend: Backend, shared: bool
) -> None:
    job_ids = cloud.add_jobs(2, status=8)
    spans: dict[int, int] = {}

    async def watched(client: Client, job_id: int) -> None:
        with backend.tracer.start_as_current_span(f"watch {job_id}") as span:
            spans[job_id] = span.get_span_context().span_id
            async for _ in client.watch(job_id):
                pass

    async with client_of(cloud, backend, shared_reads=shared) as client:
        watches = [asyncio.create_task(watched(client, job_id)) for job_id in job_ids]
        await elapse(100)
        for watch in watches:
            watch.cancel()
        await asyncio.wait(watches)
    parents = [span.parent and span.parent.span_id for span in backend.spans]
    assert len(parents) > 6
    assert set(parents) == ({None} if shared else set(spans.values()))


async def test_a_sampler_can_leave_out_the_polls_and_keep_the_calls(cloud: Emulator) -> None:
    backend = Backend(ParentBased(ALWAYS_OFF))
    (job_id,) = cloud.add_jobs(1, status=8)
    async with client_of(cloud, backend) as client:
        async with taken(client.watch(job_id), lambda _: None):
            await elapse(60)
        with backend.tracer.start_as_current_span("the caller's"):
            await client.stop_job(job_id)
    assert [span.name for span in backend.spans] == [f"POST {DETAILS}/stop"]
    backend.shutdown()


# --- metrics --------------------------------------------------------------------------------------------


async def test_durations_are_a_histogram_in_seconds_by_request_and_outcome(
    cloud: Emulator, backend: Backend
) -> None:
    job_ids = cloud.add_jobs(3)
    cloud.fault("status", status=503, count=1)
    async with client_of(cloud, backend) as client:
        for job_id in job_ids:
            await client.get_job(job_id)
    points: list[HistogramDataPoint] = backend.points("http.client.request.duration")
    by_status = {dict(point.attributes or {}).get("http.response.status_code"): point for point in points}
    assert {status: point.count for status, point in by_status.items()} == {503: 1, 200: 3}
    assert dict(by_status[503].attributes or {}) == dict(backend.spans[0].attributes or {})
    assert by_status[200].explicit_bounds[0] == 0.005
    assert by_status[200].explicit_bounds[-1] == 10.0


async def test_attributes_of_metrics_are_few_however_many_jobs_and_projects_there_are(
    cloud: Emulator, backend: Backend
) -> None:
    targets = [vizwatch.Target(cloud.endpoint, f"p{number}", auth=cloud.token) for number in range(20)]
    for target in targets:
        cloud.add_jobs(2, project_id=target.name)
    settings = backend.settings()
    async with vizwatch.Fleet(targets, settings=settings) as fleet:
        job_ids = [item.job.job_id async for item in fleet.list_jobs() if item.target.project_id == "p0"]
    async with Client(cloud.endpoint, "p0", auth=cloud.token, settings=settings) as client:
        for job_id in job_ids:
            await client.get_job(job_id)
    assert len(backend.spans) == 22
    assert len(backend.points("http.client.request.duration")) == 2


async def test_an_example_of_a_duration_is_its_requests_own_span(cloud: Emulator, backend: Backend) -> None:
    async with client_of(cloud, backend) as client:
        with backend.tracer.start_as_current_span("the caller's"):
            await client.list_jobs().collect()
    (point,) = backend.points("http.client.request.duration")
    (span,) = backend.spans
    assert span.context is not None
    assert [one.span_id for one in point.exemplars] == [span.context.span_id]


async def test_retries_are_counted_by_operation_and_reason(cloud: Emulator, backend: Backend) -> None:
    cloud.fault("status", status=503, count=2)
    cloud.fault("drop", count=1, after=2)
    async with client_of(cloud, backend) as client:
        await client.list_jobs().collect()
    points: list[NumberDataPoint] = backend.points("vizwatch.retries")
    assert {dict(point.attributes or {})["error.type"]: point.value for point in points} == {
        "503": 2,
        "TransportError": 1,
    }
    assert {dict(point.attributes or {})["vizwatch.operation"] for point in points} == {"list jobs"}


async def test_what_becomes_too_old_is_counted(cloud: Emulator, backend: Backend) -> None:
    (job_id,) = cloud.add_jobs(1, status=8)
    async with client_of(cloud, backend) as client:
        async with taken(client.watch(job_id, max_age=5), lambda _: None):
            await elapse(20)
            assert backend.points("vizwatch.stale") == []
            cloud.fault("status", status=503)
            await elapse(20)
    (point,) = backend.points("vizwatch.stale")
    assert (point.value, dict(point.attributes)) == (1, {})


# --- secrets --------------------------------------------------------------------------------------------


@pytest.mark.fault("X1")
async def test_no_credential_and_no_id_is_in_anything_that_is_told(backend: Backend) -> None:
    """Whatever a server repeats; and of what it says, nothing is in a metric."""

    async def echo(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = server.requests[-1].decode()
        writer.write(http({"error_msg": said, "error_code": "Said.0001"}, status="400 Bad Request"))

    async with RawServer(echo) as server:
        settings = backend.settings()
        async with Client(server.endpoint, "project-4f1c", auth=CANARY, settings=settings) as client:
            with pytest.raises(vizwatch.BadRequestError):
                await client.get_job(987_654_321)
            with pytest.raises(vizwatch.BadRequestError):
                await client.list_jobs(search_content="searched-9e1b").collect()
    assert CANARY.encode() in server.requests[0]
    assert "Said.0001" in str(backend.spans[0].status.description)
    everything = "".join(span.to_json() for span in backend.spans)
    assert CANARY not in everything
    metrics = str([*backend.points("http.client.request.duration"), *backend.points("vizwatch.retries")])
    attributes = metrics + str([(span.name, dict(span.attributes or {})) for span in backend.spans])
    assert not any(
        one in attributes for one in (CANARY, "project-4f1c", "987654321", "Said", "searched-9e1b")
    )


# --- settings -------------------------------------------------------------------------------------------


async def test_the_given_hooks_are_called_as_before(cloud: Emulator, backend: Backend) -> None:
    told: list[object] = []
    cloud.fault("status", status=503, count=1)
    (job_id,) = cloud.add_jobs(1, status=8)
    hooks = {"on_request": told.append, "on_retry": told.append, "on_stale": told.append}
    async with client_of(cloud, backend, **hooks) as client:
        await client.get_job(job_id)
        async with taken(client.watch(job_id, max_age=5), lambda _: None):
            await elapse(1)
            cloud.fault("status", status=503)
            await elapse(20)
    kinds = {type(one) for one in told}
    assert kinds == {vizwatch.Attempt, vizwatch.Retry, vizwatch.Stale}
    assert len([one for one in told if isinstance(one, vizwatch.Attempt)]) == len(backend.spans)


async def test_a_given_hook_is_called_though_the_telemetry_fails(
    cloud: Emulator, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[vizwatch.Attempt] = []
    monkeypatch.setattr(backend.tracers, "get_tracer", lambda *_: None)
    async with client_of(cloud, backend, on_request=told.append) as client:
        await client.list_jobs().collect()
    assert [one.http_status for one in told] == [200]


def test_all_else_of_the_settings_stays_as_it_is(backend: Backend) -> None:
    given = Settings(attempts=7, poll_interval=42)
    hooks = {"on_request", "on_retry", "on_stale"}
    without = attrs.filters.exclude(*hooks)
    assert attrs.asdict(backend.settings(given), filter=without) == attrs.asdict(given, filter=without)
    assert (given.on_request, given.on_retry, given.on_stale) == (None, None, None)


def test_settings_are_not_instrumented_twice(backend: Backend) -> None:
    with pytest.raises(ConfigError, match="instrumented already"):
        backend.settings(backend.settings())
    with pytest.raises(ConfigError, match="settings must be a Settings, not dict"):
        backend.settings({})  # type: ignore[arg-type] # the mistake is the point


async def test_without_a_provider_nothing_is_made_and_nothing_fails(cloud: Emulator) -> None:
    async with Client(cloud.endpoint, cloud.project_id, auth=cloud.token, settings=instrumented()) as client:
        assert await client.list_jobs().collect() == []


# --- the extra ------------------------------------------------------------------------------------------


def test_nothing_imports_opentelemetry_before_it_is_asked_for() -> None:
    script = (
        "import sys, vizwatch; vizwatch.Client; vizwatch.Fleet; vizwatch.PasswordAuth; vizwatch.Attempt\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "vizwatch.otel\n"
        "assert 'opentelemetry.trace' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=ROOT)


def test_without_the_extra_it_says_what_to_install() -> None:
    """Not when its name is looked at, as by whoever lists all names."""
    script = (
        "import sys; sys.modules['opentelemetry'] = None; import vizwatch\n"
        "try: vizwatch.otel.instrumented()\n"
        "except vizwatch.ConfigError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "vizwatch.otel needs OpenTelemetry: pip install 'vizwatch[otel]'\n"
