"""Which jobs a create may have made whose answer was lost."""

from __future__ import annotations

import datetime as dt
from typing import Final

from vizwatch._values.models import Job

CLOCKS_DIFFER: Final = dt.timedelta(minutes=15)
"""How far the service's clock may be behind this machine's: the gateway itself allows no more."""


def is_candidate(job: Job, job_name: str, train_url: str) -> bool:
    """Whether it is the job that was asked for, by what a create says of it."""
    return job.job_name == job_name and (job.train_url or "").rstrip("/") == train_url.rstrip("/")


def is_earlier(job: Job, since: dt.datetime) -> bool:
    """Whether it was there before a create that was sent at that time, as far as the job tells."""
    return job.created_at is not None and job.created_at < since - CLOCKS_DIFFER
