"""Options that several commands share."""

from __future__ import annotations

import re
from typing import Annotated

import attrs
from cyclopts import Parameter

from vizwatch import Client, ConfigError, JobStatus, printable


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Connection:
    """Which project of which cloud; what is not given, and the credentials, come from the environment."""

    profile: str | None = None
    """A section of ~/.huaweicloud/credentials, or a cloud of clouds.yaml."""
    endpoint: str | None = None
    """The service's address; VIZWATCH_ENDPOINT by default."""
    region: str | None = None
    """The region whose address to use, such as eu-de; VIZWATCH_REGION by default."""
    project_id: str | None = None
    """The project's id; VIZWATCH_PROJECT_ID by default."""
    workspace_id: str | None = None
    """The workspace to list and create in; the service's default one by default."""

    def client(self) -> Client:
        """The client, still to be opened.

        Raises:
            ConfigError: Something is missing or wrong; says what.
        """
        return Client.from_env(**attrs.asdict(self))


HERE = Connection()

JobId = Annotated[str, Parameter(help="The job's id.")]
Interval = Annotated[
    float | None, Parameter(help="Seconds between two looks at a job; fewer where a change is likely.")
]
Timeout = Annotated[
    float | None, Parameter(help="Seconds after which to give up, with exit code 4; by default never.")
]
Wait = Annotated[
    float | None,
    Parameter(help="Seconds to wait until it has come about, and then show the job; by default not at all."),
]
FollowRestarts = Annotated[
    bool,
    Parameter(
        negative="",
        show_default=False,
        help="Go on after a job's end, for its next run, until it is deleted.",
    ),
]
Json = Annotated[
    bool,
    Parameter(name="--json", negative="", show_default=False, help="Print one JSON object a line."),
]


def statuses(option: str, text: str) -> frozenset[JobStatus]:
    """Statuses given as names or numbers, several by comma.

    >>> sorted(statuses("--until", "running,12"))
    [<JobStatus.RUNNING: 8>, <JobStatus.KILLED: 12>]
    """
    return frozenset(_status(option, one.strip()) for one in text.split(","))


def _status(option: str, text: str) -> JobStatus:
    if re.fullmatch(r"[0-9]{1,9}", text):
        return JobStatus(int(text))
    name = text.upper().replace("-", "_")
    if name not in JobStatus.__members__:
        shown = printable(text, 40)
        raise ConfigError(f"{option} must be a status's name or number, such as running or 8, not '{shown}'")
    return JobStatus[name]
