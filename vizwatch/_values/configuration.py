"""Configuration that was found: which endpoint, project and credentials, and where each was."""

from __future__ import annotations

from typing import final

import attrs


@final
@attrs.frozen
class Found:
    """A value and where it was found. Secrets are :class:`Secret`, which shows as ``***``."""

    value: str
    source: str
    """`argument endpoint`, `VIZWATCH_TOKEN`, or `~/.huaweicloud/credentials [basic] ak`, for example."""


@attrs.frozen
class Token:
    """A token that somebody else got."""

    token: Found


@attrs.frozen
class AccessKey:
    """AK and SK; with a security token where they are temporary."""

    access_key: Found
    secret_key: Found
    security_token: Found | None = None


@attrs.frozen
class Password:
    """A user of the identity service; tokens are for the configuration's project, or the one named here."""

    iam_endpoint: Found
    username: Found
    password: Found
    domain_name: Found
    project_name: Found | None = None


@attrs.frozen
class Cloud:
    """What openstacksdk reads."""

    cloud: Found
    """A cloud's name in clouds.yaml; empty for the only one there, or for `OS_*`."""


Credentials = Token | AccessKey | Password | Cloud


@attrs.frozen(kw_only=True)
class Configuration:
    """What was found, each value with its source."""

    endpoint: Found | None
    """``None`` where a cloud of clouds.yaml says it."""
    project_id: Found | None
    """``None`` where the credentials say it: a cloud of clouds.yaml, or a user with a project's name."""
    workspace_id: Found | None
    credentials: Credentials
    unused: tuple[str, ...]
    """The sources of other credentials, that those found go before."""
    notes: tuple[str, ...]
    """What is accepted, but not as it should be."""
