"""An emulated cloud to test against: the visualization-jobs API and its token call, over real HTTP.

::

    async with vizwatch.emulator.Emulator() as cloud:
        job_id, = cloud.add_jobs(1)
        async with vizwatch.Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as client:
            cloud.fault("status", status=503, retry_after=7, count=1)
            await client.wait(job_id, until={vizwatch.JobStatus.RUNNING}, timeout=60)

It answers and refuses as the public documents say that the service does; where they are silent or
contradict each other, an option decides. It shares no code with the client, only the names of the statuses
and which of them are terminal, so that neither can hide the other's mistakes. Its state lives in memory and
ends with it.
"""

from __future__ import annotations

from vizwatch.emulator._emulator import Emulator
from vizwatch.emulator._world import Request

__all__ = ["Emulator", "Request"]
