"""An emulator that answers as a recorded service does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vizwatch
from vizwatch import doctor
from vizwatch._rules import recording as _rules_recording
from vizwatch.emulator import Emulator, _recording

pytestmark = pytest.mark.looptime

PROJECT = "p1"
JOBS = f"/v1/{PROJECT}/visualization-jobs"
ROW: dict[str, Any] = {
    "job_id": "197",
    "job_name": "job_name-1",
    "status": 12,
    "create_time": 1_565_149_736_000,
    "duration": 5,
    "schedule": {"type": "stop", "time_unit": "HOURS", "duration": 1},
    "brand_new": {"a": 1},
}


def exchange(name: str, http_status: int = 200, path: str = JOBS, **body: Any) -> dict[str, Any]:
    return {"name": name, "path": path, "status": http_status, "body": body}


def recording(*exchanges: dict[str, Any]) -> dict[str, Any]:
    return {"vizwatch_recording": 1, "exchanges": list(exchanges)}


LISTED = exchange("list", is_success=True, job_total_count=1, jobs_answered=1, jobs=[ROW])
DETAILS = exchange(
    "details of a listed job", path=f"{JOBS}/197", **{**ROW, "job_id": 197, "extra_field": "x-1"}
)


async def test_jobs_are_there_with_their_ids_and_fields_are_as_recorded() -> None:
    async with Emulator(recording=recording(LISTED, DETAILS)) as cloud:
        async with vizwatch.Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            (job,) = await client.list_jobs().collect()
            details = await client.get_job(197)
            made = await client.create_job("next", "/obs/a/", auto_stop_hours=3)
            found = await client.get_job(made.job_id)
    assert (job.job_id, job.job_name, job.status) == (197, "job_name-1", 12)
    assert (job.create_time, job.service_url, job.extra) == (1_565_149_736_000, None, {"brand_new": {"a": 1}})
    assert details.extra == {"brand_new": {"a": 1}, "extra_field": "x-1"}
    assert made.job_id == 198
    assert found.schedule == (vizwatch.Schedule("stop", "HOURS", 3),)


async def test_the_envelope_and_the_types_on_the_wire_are_as_recorded(
    fetch: Callable[..., Any],
) -> None:
    async with Emulator(recording=recording(LISTED, DETAILS)) as cloud:
        status, listed = await fetch(cloud, f"/v1/{cloud.project_id}/visualization-jobs")
        assert (status, sorted(listed)) == (200, ["is_success", "job_total_count", "jobs"])
        assert listed["jobs"][0]["job_id"] == "197"
        assert "is_success" not in (await fetch(cloud, f"/v1/{cloud.project_id}/visualization-jobs/197"))[1]


@pytest.fixture
def fetch() -> Callable[..., Any]:
    import aiohttp

    async def get(cloud: Emulator, path: str) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession(headers={"X-Auth-Token": cloud.token}) as session,
            session.get(cloud.endpoint + path) as answer,
        ):
            return answer.status, await answer.json()

    return get


@pytest.mark.parametrize(("status", "success"), [(400, None), (200, False)])
async def test_refused_limits_are_refused(
    status: int, success: bool | None, fetch: Callable[..., Any]
) -> None:
    refused = {"error_code": "ModelArts.0104", "error_message": "no"}
    if success is not None:
        refused["is_success"] = success  # type: ignore[assignment] # JSON
    exchanges = [
        exchange("per_page 1000", status, **refused),
        exchange("search_content of 100 characters", status, **refused),
    ]
    async with Emulator(recording=recording(*exchanges)) as cloud:
        assert (cloud.per_page_limit, cloud.search_limit, cloud.refusal_status) == (100, 64, status)
        path = f"/v1/{cloud.project_id}/visualization-jobs"
        assert (await fetch(cloud, f"{path}?per_page=101"))[0] == status
        async with vizwatch.Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            cloud.add_jobs(150, job_name="y" * 80)
            found = await client.list_jobs(search_content="y" * 80).collect()
    assert len(found) == 150, "the client meets them"


def test_accepted_limits_are_accepted_and_what_is_given_goes_before() -> None:
    both = recording(
        exchange("per_page 1000", jobs=[]), exchange("search_content of 100 characters", jobs=[])
    )
    assert (Emulator(recording=both).per_page_limit, Emulator(recording=both).search_limit) == (1000, 100)
    assert Emulator(recording=both, search_limit=70).search_limit == 70


def test_what_is_given_goes_before_a_recording_even_if_it_is_the_default() -> None:
    refused = {"error_code": "ModelArts.0104", "error_message": "no"}
    both = recording(
        exchange("per_page 1000", 200, is_success=False, **refused),
        exchange("search_content of 100 characters", jobs=[]),
    )
    given = Emulator(recording=both, per_page_limit=1000, search_limit=64, refusal_status=400)
    assert (given.per_page_limit, given.search_limit, given.refusal_status) == (1000, 64, 400)
    found = Emulator(recording=both)
    assert (found.per_page_limit, found.search_limit, found.refusal_status) == (100, 100, 200)
    wrong: list[dict[str, Any]] = [{"per_page_limit": 0}, {"search_limit": -1}, {"refusal_status": 500}]
    for options in wrong:
        with pytest.raises(vizwatch.ConfigError, match="must be a whole number"):
            Emulator(recording=both, **options)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((401, "ModelArts.0202"), (403, "ModelArts.0108"), (404, "APIGW.0101"), (408, None)),
        *((429, "APIGW.0308"), (429, None), (503, "ModelArts.4302"), (302, None)),
        *((422, "ModelArts.0104"), (400, "ModelArts.0102"), (200, "APIGW.0308")),
    ],
)
def test_a_refusal_of_who_asks_or_how_often_says_nothing_of_a_limit(status: int, code: str | None) -> None:
    refused: dict[str, Any] = {"is_success": False} | ({} if code is None else {"error_code": code})
    both = [
        exchange(name, status, **refused) for name in ("per_page 1000", "search_content of 100 characters")
    ]
    cloud = Emulator(recording=recording(*both))
    assert (cloud.per_page_limit, cloud.search_limit, cloud.refusal_status) == (1000, 64, 400)


@pytest.mark.parametrize("code", ["0101", "0103", "0104", "0107", None])
def test_a_refusal_of_a_parameter_is_one_of_a_limit(code: str | None) -> None:
    refused: dict[str, Any] = {"is_success": False} | (
        {} if code is None else {"error_code": f"ModelArts.{code}"}
    )
    cloud = Emulator(recording=recording(exchange("per_page 1000", 400, **refused)))
    assert cloud.per_page_limit == 100


async def test_both_sides_of_a_recording_name_the_same_things(cloud: Emulator, monkeypatch: Any) -> None:
    """The emulator shares no code with the client, so that neither hides the other's mistakes."""
    cloud.add_jobs(1)
    for name in ("endpoint", "project_id", "token"):
        monkeypatch.setenv(f"VIZWATCH_{name.upper()}", getattr(cloud, name))
    recorded = await doctor.record()
    names = {one["name"] for one in recorded["exchanges"]}
    assert names - {"status 8"} == set(_recording.QUESTIONS)
    assert _rules_recording.VERSION == recorded["vizwatch_recording"] == _recording.VERSION
    assert _recording.BESIDE in recorded["exchanges"][0]["body"]


@pytest.mark.parametrize("unit", ["time_unit", "timeUnit", None])
async def test_times_and_units_are_those_of_the_recorded_service(
    unit: str | None, fetch: Callable[..., Any]
) -> None:
    row = {name: value for name, value in ROW.items() if name != "schedule"}
    if unit is not None:
        row["schedule"] = [{"type": "stop", unit: "HOURS", "duration": 1}]
    async with Emulator(recording=recording(exchange("list", jobs=[row]))) as cloud:
        (plain,) = cloud.add_jobs(1)
        async with vizwatch.Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            made = await client.create_job("next", "/obs/a/", auto_stop_hours=3)
        rows = (await fetch(cloud, f"/v1/{cloud.project_id}/visualization-jobs"))[1]["jobs"]
    by_id = {row["job_id"]: row for row in rows}
    (schedule,) = by_id[str(made.job_id)]["schedule"]
    assert schedule == {"type": "stop", unit or "timeUnit": "HOURS", "duration": 3}
    assert by_id["197"]["create_time"] == ROW["create_time"]
    assert "schedule" not in by_id[str(plain)], "there only where a job has one"


async def test_a_missing_job_is_answered_as_recorded(fetch: Callable[..., Any]) -> None:
    missing = exchange(
        "missing job", 400, f"{JOBS}/1000200", error_code="ModelArts.0199", error_msg="1000200? 10002001!"
    )
    async with Emulator(recording=recording(missing)) as cloud:
        path = f"/v1/{cloud.project_id}/visualization-jobs/7"
        assert await fetch(cloud, path) == (
            400,
            {"error_code": "ModelArts.0199", "error_msg": "7? 10002001!"},
        )


@pytest.mark.parametrize(
    ("past", "answered"),
    [
        (
            exchange("page past the end", is_success=True, jobs=None),
            (200, {"is_success": True, "jobs": None}),
        ),
        (
            exchange("page past the end", 400, error_code="ModelArts.0104"),
            (400, {"error_code": "ModelArts.0104"}),
        ),
        (exchange("page past the end", is_success=True, jobs=[]), (200, {"is_success": True, "jobs": []})),
    ],
)
async def test_a_page_past_the_end_is_answered_as_recorded(
    past: dict[str, Any], answered: tuple[int, Any], fetch: Callable[..., Any]
) -> None:
    async with Emulator(recording=recording(past)) as cloud:
        cloud.add_jobs(3)
        path = f"/v1/{cloud.project_id}/visualization-jobs"
        assert await fetch(cloud, f"{path}?page=2") == answered
        assert len((await fetch(cloud, path))[1]["jobs"]) == 3


async def test_a_recording_of_an_emulator_makes_a_twin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with Emulator(per_page_limit=100, search_limit=100, refusal_status=200) as cloud:
        ids = cloud.add_jobs(4, status=8)
        for name in ("endpoint", "project_id", "token"):
            monkeypatch.setenv(f"VIZWATCH_{name.upper()}", getattr(cloud, name))
        recorded = await doctor.record()
    file = tmp_path / "recording.json"
    file.write_text(json.dumps(recorded))
    async with Emulator(recording=file) as twin:
        assert (twin.per_page_limit, twin.search_limit, twin.refusal_status) == (100, 100, 200)
        for name in ("endpoint", "project_id", "token"):
            monkeypatch.setenv(f"VIZWATCH_{name.upper()}", getattr(twin, name))
        again = await doctor.record()
        twin.reset()
        async with vizwatch.Client.from_env() as client:
            assert [job.job_id async for job in client.list_jobs()] == ids

    def facts(given: dict[str, Any]) -> Any:
        for one in given["exchanges"]:
            for row in [*one["body"].get("jobs", []), one["body"]]:
                for name in ("create_time", "duration", "job_count_limit"):
                    row.pop(name, None)
        return [(one["name"], one["status"], one["body"]) for one in given["exchanges"]]

    assert facts(again) == facts(recorded)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (7, "recording must be one of `vizwatch doctor --record`"),
        ({}, "recording must be one of"),
        ({"vizwatch_recording": 2, "exchanges": []}, "of version 1"),
        ({"vizwatch_recording": 1}, "recording must have its exchanges as an array"),
        ({"vizwatch_recording": 1, "exchanges": "x"}, "exchanges as an array"),
        (recording({}), r"exchanges\[0\].status must be"),
        ({"vizwatch_recording": 1, "exchanges": [3]}, r"exchanges\[0\] must be an object"),
        (recording({**LISTED, "body": []}), r"exchanges\[0\].body must be an object or null"),
        (recording({**LISTED, "name": 3}), r"exchanges\[0\].name must be"),
        ("/nowhere/at.all", "recording cannot be read: No such file"),
        ("recording\0.json", "recording cannot be read: embedded null"),
    ],
)
def test_what_is_no_recording_is_refused(given: Any, said: str) -> None:
    with pytest.raises(vizwatch.ConfigError, match=said):
        Emulator(recording=given)


@pytest.mark.parametrize(
    ("content", "said"), [(b"{", "a file of JSON"), (b" " * (2**20 + 1), "at most 1048576")]
)
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    with pytest.raises(vizwatch.ConfigError, match=said):
        Emulator(recording=file)


async def test_rows_that_say_nothing_are_passed_over() -> None:
    rows: list[Any] = [
        7,
        {"job_id": None, "status": 8},
        {"job_id": 5, "status": True},
        {"job_id": 6, "status": "8"},
    ]
    async with Emulator(
        recording=recording(exchange("list", jobs=rows), exchange("status 8", jobs="x"))
    ) as cloud:
        async with vizwatch.Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            assert (await client.get_job(6)).status == 8
