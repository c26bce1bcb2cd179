"""Statuses, settings, errors and the public names."""

from __future__ import annotations

import copy
import datetime as dt
import inspect
import math
import pickle
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import attrs
import cattrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vizwatch
from vizwatch import JobStatus
from vizwatch._values import checks, statuses
from vizwatch._values import errors as errors_module
from vizwatch._values.secrets import Secret
from vizwatch._values.text import printable, redacted

ROOT = Path(__file__).parent.parent


def test_all_names_are_sorted_exist_and_are_documented() -> None:
    assert vizwatch.__all__ == sorted(vizwatch.__all__)
    assert all(inspect.getdoc(getattr(vizwatch, name)) for name in vizwatch.__all__)


def test_every_name_is_imported_from_its_home_when_first_named() -> None:
    assert set(vizwatch._HOME_OF) | vizwatch._MODULES == set(vizwatch.__all__) == set(dir(vizwatch))
    script = "import sys, vizwatch; assert 'aiohttp' not in sys.modules; vizwatch.Client; vizwatch.emulator"
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        vizwatch.nothing  # noqa: B018 - that it cannot be named is the point


def test_every_public_error_is_exported() -> None:
    errors = {
        name
        for name, value in vars(errors_module).items()
        if inspect.isclass(value) and issubclass(value, BaseException) and not name.startswith("_")
    }
    assert errors - {"CallError"} <= set(vizwatch.__all__)


# --- statuses -------------------------------------------------------------------------------------------


@pytest.mark.fault("W12")
def test_terminal_and_failed_statuses_are_this_projects_default() -> None:
    assert {int(status) for status in JobStatus if status.is_terminal} == {
        3, 5, 6, 10, 11, 12, 13, 14, 16, 17, 21, 22,
    }  # fmt: skip
    assert {int(status) for status in JobStatus if status.is_terminal and not status.is_failure} == {
        10,
        12,
        13,
    }
    assert [status for status in JobStatus if status.is_running] == [JobStatus.RUNNING]


@given(st.integers(1 - 2**63, 2**63 - 1).filter(lambda code: not 0 <= code <= 22))
def test_an_unknown_code_keeps_its_number_and_is_neither_terminal_nor_a_failure(code: int) -> None:
    status = JobStatus(code)
    assert int(status) == code
    assert status.name == f"UNKNOWN({code})"
    assert not (status.is_terminal or status.is_failure or status.is_running or status.is_known)
    assert pickle.loads(pickle.dumps(status)) == status == copy.deepcopy(status)


@pytest.mark.parametrize("code", [2**63, -(2**63), 10**400])
def test_what_is_no_long_is_no_status(code: int) -> None:
    with pytest.raises(ValueError, match=r"is not a valid JobStatus|Exceeds the limit"):
        JobStatus(code)


def test_only_so_many_unknown_codes_are_kept() -> None:
    for code in range(10_000, 12_000):
        assert JobStatus(code) == code
    assert len(statuses._unknown) == statuses._MAX_UNKNOWN
    assert JobStatus(11_999).name == "UNKNOWN(11999)"


@pytest.mark.parametrize("value", ["8", 8.5, None])
def test_only_whole_numbers_are_statuses(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a valid JobStatus"):
        JobStatus(value)


# --- settings and checks --------------------------------------------------------------------------------


def test_every_setting_has_a_documented_default() -> None:
    source = inspect.getsource(vizwatch.Settings)
    for field in attrs.fields(vizwatch.Settings):
        assert f"    {field.name}: " in source
        line = source.split(f"    {field.name}: ")[1].split("\n")
        assert line[1].strip().startswith('"""'), field.name


@pytest.mark.fault("U4")
@pytest.mark.parametrize("value", ["5s", None, True, math.nan, math.inf, -1, 0, 1e10, 10**400, [1]])
def test_a_duration_is_a_positive_finite_number(value: Any) -> None:
    with pytest.raises(vizwatch.ConfigError, match=r"Settings\.poll_interval must be a number of seconds"):
        vizwatch.Settings(poll_interval=value)


@pytest.mark.fault("U10")
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"attempts": 0}, "Settings.attempts must be a whole number from 1 to 100, not 0"),
        ({"attempts": 1.0}, "Settings.attempts"),
        ({"max_body": 1}, "Settings.max_body"),
        ({"requests_per_second": 0}, "Settings.requests_per_second must be None or a number"),
        ({"requests_per_second": "1"}, "Settings.requests_per_second"),
        ({"trust_env": 1}, "Settings.trust_env must be True or False, not 1"),
        (
            {"attempt_timeout": 61},
            r"Settings.attempt_timeout \(61\) must not be greater than Settings.call_timeout",
        ),
        ({"connect_timeout": 31}, "Settings.connect_timeout"),
        ({"poll_interval": 0.5}, "Settings.poll_interval_min"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(vizwatch.ConfigError, match=text):
        vizwatch.Settings(**settings)


def test_durations_may_be_timedeltas() -> None:
    assert vizwatch.Settings(poll_interval=dt.timedelta(minutes=1)).poll_interval == 60.0  # type: ignore[arg-type] # the types of attributes say float


def test_settings_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        vizwatch.Settings().attempts = 9  # type: ignore[misc] # that it cannot be set is the point


def test_a_shown_value_is_bounded() -> None:
    assert len(checks.shown("x" * 100_000)) < 150
    assert checks.shown(10**5000) == "a number of 16610 bits"
    with pytest.raises(vizwatch.ConfigError, match="status must be a JobStatus"):
        checks.status("status", 10**5000)


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb"])
def test_text_that_no_request_can_carry_is_refused(value: str) -> None:
    with pytest.raises(vizwatch.ConfigError, match="job_desc must be a string without lone surrogates"):
        checks.text("job_desc", value, high=256)


def test_a_token_in_the_place_of_a_project_is_not_shown() -> None:
    with pytest.raises(vizwatch.ConfigError, match="not one of 2002 characters") as caught:
        checks.identifier("project_id", "canary" + "x" * 1994)
    assert "canary" not in str(caught.value)


@pytest.mark.fault("X4", "U9")
@pytest.mark.parametrize(
    "value",
    [
        "../x",
        "7/stop",
        "7?x=1",
        "",
        "１９７",
        "%2e%2e",
        "1" * 20,
        "1 ",
        " 1",
        "1\n",
        -1,
        2**63,
        1.0,
        True,
        None,
    ],
)
def test_nothing_but_a_job_id_reaches_a_url(value: object) -> None:
    with pytest.raises(vizwatch.ConfigError, match="job_id must be a whole number"):
        checks.job_id(value)


@pytest.mark.fault("X4")
@pytest.mark.parametrize("value", ["", "a/b", "..", "a b", "a?b", "a%2fb", "ü", "a\n", "x" * 65, None, 7])
def test_nothing_but_an_identifier_reaches_a_url(value: object) -> None:
    with pytest.raises(vizwatch.ConfigError, match="project_id must be"):
        checks.identifier("project_id", value)


@pytest.mark.parametrize("value", ["8", None, True, [], {"8"}, [None], 8.0])
def test_statuses_are_statuses(value: object) -> None:
    with pytest.raises(vizwatch.ConfigError, match="until must be"):
        checks.statuses("until", value)


def test_statuses_may_be_one_or_several() -> None:
    assert checks.statuses("until", 8) == {JobStatus.RUNNING}
    assert checks.statuses("until", [8, JobStatus.FAILED]) == {JobStatus.RUNNING, JobStatus.FAILED}


# --- text -----------------------------------------------------------------------------------------------


@given(st.text(), st.integers(1, 50))
def test_printable_text_is_short_and_obeyed_by_no_terminal(text: str, limit: int) -> None:
    import unicodedata

    safe = printable(text, limit)
    assert len(safe) <= 10 * limit
    assert not any(unicodedata.category(one) in {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"} for one in safe)


@given(st.text(st.characters(categories=["L", "N", "P"]), max_size=30))
def test_harmless_text_is_left_alone(text: str) -> None:
    assert printable(text) == text


def test_secrets_are_replaced_wherever_they_stand() -> None:
    assert redacted("a canary-token b canary-token", ["canary-token", "", "a"]) == "a *** b ***"


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret("canary-token")
    assert "canary" not in repr([secret])
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)


# --- errors ---------------------------------------------------------------------------------------------

JOB = vizwatch.Job(197, JobStatus.RUNNING)
ERRORS = [
    vizwatch.ConfigError("x"),
    vizwatch.ConnectError("x"),
    vizwatch.RequestTimeoutError("x"),
    vizwatch.OutcomeUnknownError("x", sent_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    vizwatch.DecodeError("x", path="$.jobs[3]"),
    vizwatch.RateLimitError("x", http_status=429, error_code="APIGW.0308", retry_after=7.0),
    vizwatch.WrongEndpointError("x", http_status=404),
    vizwatch.WatchTimeoutError("x", job=JOB),
    vizwatch.JobEndedError("x", job=JOB),
    vizwatch.ClientClosedError("x"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling_and_copying(error: vizwatch.VizwatchError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (vizwatch.ConfigError, ValueError),
        (vizwatch.RequestTimeoutError, TimeoutError),
        (vizwatch.WatchTimeoutError, TimeoutError),
    ],
)
def test_some_errors_are_builtin_ones_too(error: type[BaseException], builtin: type[BaseException]) -> None:
    assert issubclass(error, builtin)


def test_attempts_and_time_are_told_when_there_were_several() -> None:
    error = vizwatch.ServerError("busy", http_status=503)
    assert "attempts" not in str(error)
    error.attempts, error.elapsed = 4, 12.34
    assert str(error) == "request: HTTP 503: busy. Try again later. (after 4 attempts in 12.3 s)"


def test_a_job_cannot_change_under_its_reader() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        JOB.status = JobStatus.FAILED  # type: ignore[misc] # that it cannot be set is the point
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        del JOB.status
    with pytest.raises(AttributeError):
        JOB.other = 1  # type: ignore[attr-defined] # as above
    assert not hasattr(JOB, "__dict__")


def test_a_job_is_of_an_attrs_class_like_any_other() -> None:
    """Although msgspec has laid it out, to fill it."""
    job = vizwatch.Job(197, JobStatus.RUNNING, "a", schedule=(vizwatch.Schedule("stop"),), extra={"new": 1})
    changed = attrs.evolve(job, status=JobStatus.FAILED)
    assert (changed.status, changed.job_name, changed.extra) == (JobStatus.FAILED, "a", {"new": 1})
    assert attrs.asdict(job)["schedule"] == ({"type": "stop", "time_unit": None, "duration": None},)
    assert vizwatch.Job(**attrs.asdict(job, recurse=False)) == job
    told = {field.name: field.type for field in attrs.fields(vizwatch.Job)}
    assert typing.get_type_hints(vizwatch.Job) == told
    assert inspect.signature(vizwatch.Job).parameters["extra"].annotation == told["extra"]
    with pytest.raises(TypeError, match="Job cannot be subclassed: "):
        type("Mine", (vizwatch.Job,), {})
    for twin in (pickle.loads(pickle.dumps(job)), copy.copy(job), copy.deepcopy(job)):
        assert (twin, hash(twin), twin.extra, repr(twin)) == (job, hash(job), job.extra, repr(job))
    assert job == attrs.evolve(job, extra=None) != changed
    converter = cattrs.Converter()
    twin = converter.structure(converter.unstructure(job), vizwatch.Job)
    assert (twin, twin.extra) == (job, job.extra)
    with pytest.raises(TypeError):
        job < changed  # noqa: B015 - there is no order
