"""Which jobs a create may have made whose answer was lost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from itertools import pairwise

from vizwatch._values.exchange import CLOCKS_DIFFER
from vizwatch._values.models import Job


def candidates(jobs: Sequence[Job], job_name: str, train_url: str, since: dt.datetime) -> list[Job]:
    """Those that may be the job that was asked for at that time, by what a create says of it."""
    return [
        job
        for job in jobs
        if job.job_name == job_name
        and (job.train_url or "").rstrip("/") == train_url.rstrip("/")
        and not is_earlier(job, since)
    ]


def are_the_rest_earlier(jobs: Sequence[Job], since: dt.datetime) -> bool:
    """Whether a page, newest first, ends before that time: it does not, if the service sorts otherwise."""
    times = [job.created_at for job in jobs]
    is_sorted = all(one and other and one >= other for one, other in pairwise(times))
    return bool(jobs) and is_sorted and is_earlier(jobs[-1], since)


def is_earlier(job: Job, since: dt.datetime) -> bool:
    """Whether it was there before a create that was sent at that time, as far as the job tells."""
    return job.created_at is not None and job.created_at < since - CLOCKS_DIFFER
