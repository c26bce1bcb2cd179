"""The calls of the ModelArts SDK, on the emulated cloud."""

from __future__ import annotations

from typing import Any

import pytest

import vizwatch
from vizwatch.compat import VisualizationJob
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.looptime


async def test_a_list_is_one_page_in_the_documented_shape(cloud: Emulator, here: vizwatch.Client) -> None:
    for name in ("c-job", "a-job", "b-job", "other"):
        cloud.add_jobs(1, status=8, job_name=name)
    cloud.add_jobs(1, status=12, job_name="d-job")
    found = await VisualizationJob.get_visualization_job_list(
        modelarts_session=here, status=8, per_page=2, page=1, order="asc", search_content="job"
    )
    assert [job["job_name"] for job in found["jobs"]] == ["a-job", "b-job"], "by name, if nothing is said"
    assert (found["job_total_count"], found["is_success"]) == (3, True)
    assert found["job_count_limit"] > 0
    assert {"job_id", "status", "create_time", "duration", "job_desc", "service_url", "train_url"} <= set(
        found["jobs"][0]
    )
    assert type(found["jobs"][0]["status"]) is int
    (request,) = cloud.requests
    assert request.query["sortBy"] == "job_name"


async def test_the_defaults_are_those_of_the_sdk(cloud: Emulator, here: vizwatch.Client) -> None:
    cloud.add_jobs(12, status=8)
    found = await VisualizationJob.get_visualization_job_list(here)
    assert len(found["jobs"]) == 10
    await VisualizationJob.get_visualization_job_list(here, search_content="")
    assert cloud.requests[1].query == cloud.requests[0].query, "an empty text is none"
    assert cloud.requests[0].query == {"per_page": "10", "page": "1", "sortBy": "job_name", "order": "asc"}


@pytest.mark.parametrize("name", ["sort_by", "sortBy"])
@pytest.mark.parametrize("status", [8, "8"])
async def test_both_spellings_and_both_types_are_taken(
    cloud: Emulator, here: vizwatch.Client, name: str, status: Any
) -> None:
    ids = cloud.add_jobs(3, status=8)
    sorting: dict[str, Any] = {name: "create_time"}
    jobs = await VisualizationJob.get_visualization_job_object_list(
        modelarts_session=here, is_show=True, status=status, order="desc", **sorting
    )
    assert [job.visualization_id for job in jobs] == [str(one) for one in reversed(ids)]
    assert (jobs[0].status, jobs[0].job_name) == (8, f"job-{ids[-1]}")
    assert isinstance(jobs[0].create_time, int)


async def test_a_job_is_created_read_changed_and_deleted_line_by_line(here: vizwatch.Client) -> None:
    maker = VisualizationJob(modelarts_session=here)
    job = await maker.create_visualization_job(
        train_url="/bucket/train/", job_name="visualization_job", job_desc="mine", auto_stop_hours=1
    )
    assert (job.job_name, job.status) == ("visualization_job", 1)
    assert await job.update_visualization_job(job_desc="update") == {"is_success": True}
    info = await VisualizationJob(here, visualization_id=job.visualization_id).get_visualization_job_info()
    assert (info["job_desc"], info["is_success"]) == ("update", True)
    assert info["schedule"] == [{"type": "stop", "time_unit": "HOURS", "duration": 1}]
    assert "remaining_duration" not in info
    assert await job.stop_visualization_job() == {"is_success": True}
    await here.wait(info["job_id"], timeout=60)
    assert await job.restart_visualization_job() == {"is_success": True}
    assert await job.delete_visualization_job() == {"is_success": True}


async def test_a_name_is_made_up_where_none_is_given(here: vizwatch.Client) -> None:
    job = await VisualizationJob(here).create_visualization_job("/bucket/train/")
    assert job.job_name is not None
    assert len(job.job_name) <= 20


async def test_a_field_that_nobody_documented_is_shown(cloud: Emulator, here: vizwatch.Client) -> None:
    cloud.fault("body", text='{"job_id": 7, "status": 8, "brand_new": [1]}')
    info = await VisualizationJob(here, 7).get_visualization_job_info()
    assert info == {"job_id": 7, "status": 8, "brand_new": [1], "is_success": True}


async def test_failures_are_raised(cloud: Emulator, here: vizwatch.Client) -> None:
    with pytest.raises(vizwatch.NotFoundError):
        await VisualizationJob(here, "8992").get_visualization_job_info()
    (job_id,) = cloud.add_jobs(1, status=10)
    with pytest.raises(vizwatch.ConflictError):
        await VisualizationJob(here, job_id).stop_visualization_job()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sort_by": "duration"}, "'duration', which the REST API does not know: sort the jobs"),
        ({"sort_by": "log_dir"}, "'log_dir', which the REST API does not know"),
        ({"sort_by": "status", "sortBy": "job_name"}, "sort_by and sortBy are the same parameter"),
        ({"per_page": 101}, "per_page must be a whole number from 1 to 100"),
        ({"status": "eight"}, "status must be a status's number, not 'eight'"),
        ({"status": "\u0668"}, "status must be a status's number"),
        ({"modelarts_session": "session"}, "modelarts_session must be an open vizwatch.Client"),
        ({"page": 0}, "page must be"),
    ],
)
async def test_a_wrong_argument_is_refused_before_any_request(
    cloud: Emulator, here: vizwatch.Client, arguments: dict[str, Any], said: str
) -> None:
    for call in (
        VisualizationJob.get_visualization_job_list,
        VisualizationJob.get_visualization_job_object_list,
    ):
        with pytest.raises(vizwatch.ConfigError, match=said):
            await call(**{"modelarts_session": here, **arguments})
    assert not cloud.requests


async def test_an_object_without_a_job_says_so(here: vizwatch.Client) -> None:
    job = VisualizationJob(here)
    assert repr(job) == "VisualizationJob(None)"
    with pytest.raises(vizwatch.ConfigError, match="this object has no job: give visualization_id"):
        await job.get_visualization_job_info()
    with pytest.raises(vizwatch.ConfigError, match="job_id must be"):
        VisualizationJob(here, "../7")
