"""Every sample of the five published documents decodes to what it says."""

from __future__ import annotations

import pytest

from vizwatch import DecodeError, Job, JobPage, JobStatus, Schedule
from vizwatch._rules import codec
from vizwatch._values.exchange import Failure

# Open Telekom Cloud, "Querying a Visualization Job List".
OTC_LIST = """
{
    "quotas": 100,
    "is_success": true,
    "job_total_count": 1,
    "job_count_limit": 999,
    "jobs": [
        {
            "job_id": 1,
            "job_name": "visualization-job",
            "status": 1,
            "create_time": 15099239923,
            "resource_id": "4787c885-e18d-4ef1-aa12-c4ed0c364b27",
            "duration": 1502323,
            "job_desc": "This is a visualization job",
            "service_url": "https://XXX/modelarts/tensoarbod/xxxx/111",
            "train_url": "/obs/name/" ,
            "schedule": [
            {
            "type": "stop",
            "timeUnit": "HOURS",
            "duration": 1
        }
    ],
    "remaining_duration": null
        }
    ]
}
"""

# Huawei Cloud, international, the same page: neither schedule nor remaining_duration.
INTERNATIONAL_LIST = """
{
    "quotas": 100,
    "is_success": true,
    "job_total_count": 1,
    "job_count_limit": 999,
    "jobs": [
        {
            "job_id": 1,
            "job_name": "visualization-job",
            "status": 1,
            "create_time": 15099239923,
            "resource_id": "4787c885-e18d-4ef1-aa12-c4ed0c364b27",
            "duration": 1502323,
            "job_desc": "This is a visualization job",
            "service_url": "https://console.huaweicloud.com/modelarts/tensoarbod/xxxx/111",
            "train_url": "/obs/name/"
        }
    ]
}
"""

# Huawei Cloud, China, the same page: a full-width comma after train_url, so that it is not JSON.
CHINA_LIST_BROKEN = INTERNATIONAL_LIST.replace(
    '"train_url": "/obs/name/"',
    """"train_url": "/obs/name/" ，
            "schedule": [
            {
            "type": "stop",
            "timeUnit": "HOURS",
            "duration": 1
        }
    ],
    "remaining_duration": null""",
)
CHINA_LIST = CHINA_LIST_BROKEN.replace("，", ",")

# Open Telekom Cloud, "Querying the Details About a Visualization Job".
DETAILS = """
{
    "duration": 33000,
    "service_url": "https://XXX/modelarts2/tensorboard/04f679b17380d32a2f32c00335c4b5ba/197/",
    "job_name": "apiTest-11",
    "create_time": 1565149736000,
    "train_url": "/wph-test/zl-test/Flowers-Set/ApiTest/",
    "job_id": 197,
    "job_desc": "ModelArts API Dialtest",
    "resource_id": "e17dd874-b5e0-4e9b-aaf0-22b045ad8571",
    "remaining_duration": null,
    "is_success": true,
    "status": 7
}
"""

# "Creating a Visualization Job": numbers as strings.
CREATED = """
{
    "job_id": "10",
    "job_name": "TestModelArtsJob",
    "status": "1",
    "create_time": "1476449186154",
    "service_url": "https://XXX/modelarts/tensorboard/xxxx/10",
    "is_success": true
}
"""

LIST_JOB = Job(
    job_id=1,
    job_name="visualization-job",
    status=JobStatus.INIT,
    create_time=15099239923,
    resource_id="4787c885-e18d-4ef1-aa12-c4ed0c364b27",
    duration=1502323,
    job_desc="This is a visualization job",
    service_url="https://console.huaweicloud.com/modelarts/tensoarbod/xxxx/111",
    train_url="/obs/name/",
)
SCHEDULE = (Schedule(type="stop", time_unit="HOURS", duration=1),)


def page(sample: str) -> JobPage:
    decoded = codec.decode_page(sample.encode(), page=1)
    assert isinstance(decoded, JobPage)
    return decoded


def job(sample: str) -> Job:
    decoded = codec.decode_job(sample.encode())
    assert isinstance(decoded, Job)
    return decoded


@pytest.mark.parametrize(
    ("sample", "service_url", "schedule"),
    [
        (OTC_LIST, "https://XXX/modelarts/tensoarbod/xxxx/111", SCHEDULE),
        (INTERNATIONAL_LIST, LIST_JOB.service_url, ()),
        (CHINA_LIST, LIST_JOB.service_url, SCHEDULE),
    ],
    ids=["otc", "international", "china, repaired"],
)
def test_list_samples(sample: str, service_url: str, schedule: tuple[Schedule, ...]) -> None:
    """The three list samples, with `timeUnit`, an 11-digit time and a null `remaining_duration`."""
    import attrs

    listed = page(sample)
    assert (listed.job_total_count, listed.job_count_limit, listed.quotas) == (1, 999, 100)
    assert listed.jobs == (attrs.evolve(LIST_JOB, service_url=service_url, schedule=schedule),)
    assert listed.jobs[0].remaining_duration is None
    assert listed.jobs[0].created_at is None  # 11 digits are no milliseconds


def test_china_list_sample_as_published_is_refused() -> None:
    """The sample with the full-width comma is not JSON, and nothing of it is taken."""
    with pytest.raises(DecodeError, match="not this API's JSON"):
        codec.decode_page(CHINA_LIST_BROKEN.encode(), page=1)


def test_details_sample() -> None:
    """The details stand at top level, beside `is_success`."""
    details = job(DETAILS)
    assert details == Job(
        job_id=197,
        status=JobStatus.WAITING,
        job_name="apiTest-11",
        create_time=1565149736000,
        duration=33000,
        job_desc="ModelArts API Dialtest",
        service_url="https://XXX/modelarts2/tensorboard/04f679b17380d32a2f32c00335c4b5ba/197/",
        train_url="/wph-test/zl-test/Flowers-Set/ApiTest/",
        resource_id="e17dd874-b5e0-4e9b-aaf0-22b045ad8571",
    )
    assert details.created_at is not None
    assert details.created_at.isoformat() == "2019-08-07T03:48:56+00:00"
    assert details.extra is None


@pytest.mark.fault("J16")
def test_details_without_is_success() -> None:
    """Some details samples lack `is_success`."""
    assert job(DETAILS.replace('"is_success": true,', "")) == job(DETAILS)


def test_created_sample() -> None:
    """The create sample writes its numbers as strings."""
    created = job(CREATED)
    assert (created.job_id, created.status, created.create_time) == (10, JobStatus.INIT, 1476449186154)


@pytest.mark.fault("J16")
@pytest.mark.parametrize("decode", [lambda body: codec.decode_page(body, 1), codec.decode_job])
@pytest.mark.parametrize(
    ("sample", "code", "message"),
    [
        (
            '{"is_success": false, "error_message": "error message", "error_code": "ModelArts.0103"}',
            "ModelArts.0103",
            "error message",
        ),
        (
            """{"is_success": false, "error_message": "The length of search content should be in [0,100]",
                "error_code": "ModelArts.0104"}""",
            "ModelArts.0104",
            "The length of search content should be in [0,100]",
        ),
        (
            '{"error_code": "ModelArts.0104", "error_msg": "The SDK says error_msg"}',
            "ModelArts.0104",
            "The SDK says error_msg",
        ),
    ],
    ids=["list", "details", "SDK"],
)
def test_failed_samples(decode: object, sample: str, code: str, message: str) -> None:
    """Failures are told from successes by the body, whatever the HTTP status."""
    assert callable(decode)
    failure = decode(sample.encode())
    assert isinstance(failure, Failure)
    assert (failure.error_code, failure.message) == (code, message)
